//! The report as one page that needs nothing else: text, the topology drawn, and time series.

use std::fmt::Write;

use memsim::topology::{Host, Topology};

use crate::report::{HostReport, Point, Report, seconds};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 180.0;
const MARGIN: f64 = 60.0;
const COLOURS: [&str; 8] = [
    "#777777", "#1f6fb2", "#d1495b", "#3a7d44", "#edae49", "#6a4c93", "#00798c", "#8d5524",
];

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}svg text{font:12px sans-serif;fill:#444}\
dt{font-weight:bold}code{background:#f3f3f3;padding:0 .3em}";

/// The page.
pub fn page(report: &Report, topology: &Topology) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>memsim: {0}</title>\
         <style>{STYLE}</style></head><body><h1>{0}</h1>",
        escape(&report.command)
    );
    page += "<dl>";
    let facts = [
        (
            "Topology",
            format!("<code>{}</code>", escape(&report.topology)),
        ),
        (
            "Access counts",
            format!("{}: {}", report.source.name, escape(&report.source.method)),
        ),
        ("Error", escape(&report.source.error)),
        (
            "Local memory",
            format!("{:.1} ns, {}", report.local_ns, report.local_from),
        ),
        (
            "Delay",
            format!(
                "{} injected, {} still owed; own overhead {} ({:.2}x beyond the delay); wall {}",
                seconds(report.paid_ns),
                seconds(report.owed_ns),
                seconds(report.overhead_ns),
                report.overhead_factor(),
                seconds(report.wall_ns)
            ),
        ),
    ];
    for (term, text) in facts {
        let _ = write!(page, "<dt>{term}</dt><dd>{text}</dd>");
    }
    page += "</dl>";
    for (host, seen) in report.hosts.iter().zip(&topology.hosts) {
        let _ = write!(
            page,
            "<h2>Host {}</h2><p>Ran {}, the topology adds {}: {:.2}x.</p>",
            escape(&host.name),
            seconds(host.ran_ns),
            seconds(host.added_ns),
            host.slowdown()
        );
        drawing(&mut page, topology, seen);
        page += "<table><tr><th>node</th><th>idle ns</th><th>mean ns</th><th>lines read</th>\
                 <th>lines written</th></tr>";
        for node in &host.nodes {
            let _ = write!(
                page,
                "<tr><td>{}</td><td>{:.1}</td><td>{:.1}</td><td>{:.0}</td><td>{:.0}</td></tr>",
                escape(&node.name),
                node.idle_ns,
                node.mean_ns,
                node.reads,
                node.writes
            );
        }
        page += "</table>";
        charts(&mut page, host);
    }
    page += "</body></html>\n";
    page
}

/// The time series of a host.
fn charts(page: &mut String, host: &HostReport) {
    type Value = fn(&Point, usize) -> f64;
    let charts: [(&str, Value); 3] = [
        ("Bandwidth, GB/s", |point, node| {
            at(&point.bytes, node) / point.length_ns.max(1.0)
        }),
        ("Latency of a read, ns", |point, node| {
            at(&point.latency_ns, node)
        }),
        ("Injected delay, % of modelled time", |point, node| {
            100.0 * at(&point.delay_ns, node) / point.length_ns.max(1.0)
        }),
    ];
    let names: Vec<&str> = host.nodes.iter().map(|node| node.name.as_str()).collect();
    for (title, value) in charts {
        let line = |node| host.series.iter().map(|point| value(point, node)).collect();
        let lines: Vec<Vec<f64>> = (0..names.len()).map(line).collect();
        chart(page, title, &names, &host.series, &lines);
    }
}

/// The figure of a node; none where nothing was asked of it.
fn at(figures: &[f64], node: usize) -> f64 {
    figures.get(node).copied().unwrap_or(0.0)
}

/// The tree below one host, from left to right.
fn drawing(page: &mut String, topology: &Topology, host: &Host) {
    let depth = host
        .paths
        .iter()
        .map(|path| path.links.len())
        .max()
        .unwrap_or(0);
    let height = 40.0 * host.paths.len().max(1) as f64 + 20.0;
    let step = (WIDTH - 2.0 * MARGIN - 120.0) / depth.max(1) as f64;
    let place = |level: usize| MARGIN + step * level as f64;
    let _ = write!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    // A node stands at the mean height of the expanders below it.
    let row = |index: usize| 30.0 + 40.0 * index as f64;
    let middle = |level: usize, link: usize| {
        let below = host
            .paths
            .iter()
            .enumerate()
            .filter(|(_, path)| path.links.get(level) == Some(&link));
        let rows: Vec<f64> = below.map(|(index, _)| row(index)).collect();
        rows.iter().sum::<f64>() / rows.len().max(1) as f64
    };
    let rows = host.paths.len().max(1);
    let root = (0..rows).map(row).sum::<f64>() / rows as f64;
    let mut drawn = Vec::new();
    for path in &host.paths {
        let mut from = (place(0), root);
        for (level, &link) in path.links.iter().enumerate() {
            let to = (place(level + 1), middle(level, link));
            if !drawn.contains(&link) {
                drawn.push(link);
                let law = &topology.links[link].law;
                let _ = write!(
                    page,
                    "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#999\" stroke-width=\"2\">\
                     <title>{:.1} GB/s to the host, {:.1} from it, +{:.0} ns</title></line>",
                    from.0, from.1, to.0, to.1, law.s2m, law.m2s, topology.links[link].added_ns
                );
                let leaf = level + 1 == path.links.len();
                let text = if leaf {
                    format!(
                        "{}, {:.0} ns",
                        topology.links[link].name,
                        topology.idle_read_ns(path)
                    )
                } else {
                    topology.links[link].name.clone()
                };
                dot(page, to, &text, if leaf { "#1f6fb2" } else { "#fff" });
            }
            from = to;
        }
    }
    dot(page, (place(0), root), &host.name, "#222");
    *page += "</svg>";
}

fn dot(page: &mut String, at: (f64, f64), text: &str, fill: &str) {
    let _ = write!(
        page,
        "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"7\" fill=\"{fill}\" stroke=\"#222\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        at.0,
        at.1,
        at.0 + 11.0,
        at.1 - 8.0,
        escape(text)
    );
}

/// One chart: a line for each name over modelled time.
fn chart(page: &mut String, title: &str, names: &[&str], series: &[Point], lines: &[Vec<f64>]) {
    let end = series.last().map_or(1.0, |point| point.until_ns.max(1.0));
    let top = lines.iter().flatten().copied().fold(1e-9, f64::max);
    let _ = write!(
        page,
        "<h3>{title}</h3><svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\">",
        HEIGHT + 45.0
    );
    let x = |ns: f64| MARGIN + (WIDTH - 2.0 * MARGIN) * ns / end;
    let y = |value: f64| 10.0 + (HEIGHT - 10.0) * (1.0 - value / top);
    let _ = write!(
        page,
        "<path d=\"M{MARGIN} 10V{HEIGHT}H{}\" fill=\"none\" stroke=\"#444\"/>\
         <text x=\"4\" y=\"16\">{top:.3}</text><text x=\"4\" y=\"{HEIGHT}\">0</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        WIDTH - MARGIN,
        WIDTH - MARGIN,
        HEIGHT + 16.0,
        seconds(end)
    );
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<String> = series
            .iter()
            .zip(line)
            .map(|(point, &value)| format!("{:.1},{:.1}", x(point.until_ns), y(value)))
            .collect();
        let _ = write!(
            page,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>\
             <text x=\"{:.0}\" y=\"{}\" style=\"fill:{colour}\">{}</text>",
            points.join(" "),
            MARGIN + 100.0 * index as f64,
            HEIGHT + 36.0,
            escape(names.get(index).copied().unwrap_or_default())
        );
    }
    *page += "</svg>";
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
