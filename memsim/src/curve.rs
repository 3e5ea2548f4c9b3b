//! Tables of loaded latency: what a bandwidth and latency benchmark prints.

use crate::error::Error;

/// One measured point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Share of reads, 0 to 1.
    pub read_share: f64,
    /// Both directions together, GB/s.
    pub bandwidth: f64,
    /// Of a read, ns.
    pub latency: f64,
}

/// The points of one read share, by rising bandwidth.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Share of reads, 0 to 1.
    pub read_share: f64,
    /// The points below the peak: where demand is met.
    pub rising: Vec<Point>,
    /// The point of highest bandwidth: demand is not met there, latency is the plateau.
    pub peak: Point,
}

/// A point within this share of the highest bandwidth is on the plateau, not on the curve.
const PLATEAU: f64 = 0.99;

/// Reads a table: lines of `read_percent,bandwidth_gbs,latency_ns`, separated by commas, blanks or
/// tabs; `#` opens a comment and a first line of words is a header. Its column names may come in
/// another order.
///
/// # Errors
/// [`Error::Table`] with the number of the first line that does not read.
pub fn parse(text: &str) -> Result<Vec<Point>, Error> {
    let mut columns = [0, 1, 2];
    let mut points = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let fail = |reason: String| Error::Table {
            what: "latency table",
            line: index + 1,
            reason,
        };
        let line = line.split('#').next().unwrap_or_default();
        let fields: Vec<&str> = line
            .split([',', ' ', '\t', ';'])
            .filter(|field| !field.is_empty())
            .collect();
        if fields.is_empty() {
            continue;
        }
        if points.is_empty() && fields.iter().all(|field| field.parse::<f64>().is_err()) {
            columns = header(&fields).map_err(fail)?;
            continue;
        }
        let field = |column: usize, what: &str| -> Result<f64, Error> {
            let text = fields.get(column).ok_or_else(|| {
                fail(format!(
                    "needs read_percent,bandwidth_gbs,latency_ns; {what} is missing"
                ))
            })?;
            text.parse()
                .map_err(|_| fail(format!("{what} is '{text}', not a number")))
        };
        let point = Point {
            read_share: field(columns[0], "read_percent")? / 100.0,
            bandwidth: field(columns[1], "bandwidth_gbs")?,
            latency: field(columns[2], "latency_ns")?,
        };
        if !(0.0..=1.0).contains(&point.read_share) {
            return Err(fail("read_percent must be from 0 to 100".into()));
        }
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if !positive(point.bandwidth) || !positive(point.latency) {
            return Err(fail("bandwidth and latency must be above zero".into()));
        }
        points.push(point);
    }
    Ok(points)
}

fn header(fields: &[&str]) -> Result<[usize; 3], String> {
    let find = |prefix: &str| {
        fields
            .iter()
            .position(|field| field.to_ascii_lowercase().starts_with(prefix))
            .ok_or_else(|| format!("the header has no column '{prefix}...'"))
    };
    Ok([find("read")?, find("bandwidth")?, find("latency")?])
}

/// Sorts points into curves, by rising read share.
pub fn curves(points: &[Point]) -> Vec<Curve> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| {
        a.read_share
            .total_cmp(&b.read_share)
            .then(a.bandwidth.total_cmp(&b.bandwidth))
    });
    sorted
        .chunk_by(|a, b| a.read_share == b.read_share)
        .filter_map(|chunk| {
            let peak = *chunk.last()?;
            let rising = chunk
                .iter()
                .copied()
                .filter(|point| point.bandwidth < PLATEAU * peak.bandwidth)
                .collect();
            Some(Curve {
                read_share: peak.read_share,
                rising,
                peak,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_their_names() {
        let points = parse("# by hand\nlatency_ns bandwidth_gbs read_percent\n100 3 75\n").unwrap();
        assert_eq!(
            points,
            [Point {
                read_share: 0.75,
                bandwidth: 3.0,
                latency: 100.0
            }]
        );
    }

    #[test]
    fn the_last_point_of_a_read_share_is_its_peak() {
        let points = parse("100,10,110\n50,5,100\n100,20,300\n100,19.9,250\n").unwrap();
        let curves = curves(&points);
        assert_eq!(curves.len(), 2);
        assert_eq!(curves[1].peak.latency, 300.0);
        assert_eq!(curves[1].rising.len(), 1);
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(
            error("100,10,110\n100,x,110"),
            "latency table, line 2: bandwidth_gbs is 'x', not a number"
        );
        assert!(error("100,10").contains("latency_ns is missing"));
        assert!(error("101,10,100").contains("from 0 to 100"));
        assert!(error("100,0,100").contains("above zero"));
        assert!(error("bandwidth latency\n1 2").contains("no column 'read...'"));
    }
}
