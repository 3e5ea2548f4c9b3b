//! The latency law: what a read costs on a link and a device that are this busy.
//!
//! A CXL.mem link is full duplex, and what loads a direction is slots of flits. A read puts its 64
//! bytes on the subordinate-to-master direction (S2M) and a request header on the other (M2S); a
//! write puts its 64 bytes on M2S and a completion header on S2M. With `r` GB/s of read lines and
//! `w` GB/s of written lines the three loads are
//!
//! ```text
//! S2M    (r + g·w) / Cs        read data and completions
//! M2S    (w + h·r) / Cm        written data and requests
//! media  (r + w)   / Cd
//! ```
//!
//! and each of the three makes a read wait `a·ρ/(1−ρ)` ns, M2S also in proportion to its load
//! (requests queue behind data). Writes are posted, so the wait that a full M2S direction causes is
//! bounded by the depth of the posted-write buffer; a full S2M direction or device is bounded by
//! Little's law instead: no more lines wait than the host can have outstanding.
//!
//! The law has no freedom per read share: one set of constants must explain every mix.
//! [`crate::fit`] finds the constants from a table and its tests show how well they predict a mix
//! that they have not seen.

/// Bytes of one line, the unit of CXL.mem traffic.
pub const LINE: f64 = 64.0;

/// Highest load at which the law is evaluated for an open system, where nothing holds demand back.
const FULL: f64 = 0.999_999;

/// Constants of one link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkLaw {
    /// Capacity towards the host, GB/s.
    pub s2m: f64,
    /// Capacity towards the device, GB/s.
    pub m2s: f64,
    /// `g`: share of a line that a write's completion takes on S2M, 0 to 1.
    pub completion_share: f64,
    /// `h`: share of a line that a read's request takes on M2S, 0 to 1.
    pub request_share: f64,
    /// Waiting factor of S2M, ns.
    pub s2m_wait: f64,
    /// Waiting factor of M2S, ns.
    pub m2s_wait: f64,
    /// Wait per unit of M2S load, ns.
    pub m2s_slope: f64,
    /// Longest wait that M2S can cause: the posted-write buffer is full, ns.
    pub posted_wait: f64,
}

/// Constants of what is behind the link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MediaLaw {
    /// Capacity, both directions together, GB/s.
    pub bandwidth: f64,
    /// Waiting factor, ns.
    pub wait: f64,
}

/// One device behind one link: what a loaded-latency curve measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeviceLaw {
    /// Round trip of a read with nothing else under way, ns.
    pub idle_ns: f64,
    /// The link.
    pub link: LinkLaw,
    /// The device.
    pub media: MediaLaw,
    /// Lines that a host keeps under way when it asks for more than it gets.
    pub outstanding_lines: f64,
}

impl LinkLaw {
    /// Highest bandwidth of a mix with this read share (0 to 1), both directions together, GB/s.
    pub fn peak(&self, read_share: f64) -> f64 {
        let write_share = 1.0 - read_share;
        let s2m = self.s2m / (read_share + write_share * self.completion_share);
        let m2s = self.m2s / (write_share + read_share * self.request_share);
        s2m.min(m2s)
    }

    /// Read share of the mix of which the link carries most: it fills both directions.
    pub fn widest_mix(&self) -> f64 {
        let reads = (1.0 - self.completion_share) / self.s2m;
        let writes = (1.0 - self.request_share) / self.m2s;
        if reads + writes <= 0.0 {
            // Headers as large as data: every mix is alike.
            return 0.5;
        }
        let share = (1.0 / self.m2s - self.completion_share / self.s2m) / (reads + writes);
        share.clamp(0.0, 1.0)
    }

    /// Load of the two directions, (S2M, M2S), under `read` and `write` GB/s of lines; 1 is full.
    pub fn load(&self, read: f64, write: f64) -> (f64, f64) {
        (
            (read + self.completion_share * write) / self.s2m,
            (write + self.request_share * read) / self.m2s,
        )
    }

    /// Wait that a load of M2S causes, ns; bounded by the posted-write buffer.
    pub fn m2s_delay(&self, load: f64) -> f64 {
        if load >= 1.0 {
            return self.posted_wait;
        }
        (self.m2s_wait * load / (1.0 - load) + self.m2s_slope * load).min(self.posted_wait)
    }
}

impl DeviceLaw {
    /// Highest bandwidth of a mix with this read share (0 to 1), GB/s.
    pub fn peak(&self, read_share: f64) -> f64 {
        self.link.peak(read_share).min(self.media.bandwidth)
    }

    /// Latency of a read when the host offers `bandwidth` GB/s at this read share, ns.
    ///
    /// Past the peak the offered bandwidth is not reached and latency is the plateau: Little's law
    /// where S2M or the media is full, the posted-write buffer where M2S is.
    pub fn latency(&self, bandwidth: f64, read_share: f64) -> f64 {
        let peak = self.peak(read_share);
        let reached = bandwidth.min(peak);
        let (s2m, m2s) = self
            .link
            .load(reached * read_share, reached * (1.0 - read_share));
        let open = self.idle_ns
            + self.link.s2m_wait * queue(s2m)
            + self.link.m2s_delay(m2s)
            + self.media.wait * queue(reached / self.media.bandwidth);
        open.min(self.plateau(peak))
    }

    /// Latency at which all outstanding lines are under way at `bandwidth` GB/s, ns.
    pub fn plateau(&self, bandwidth: f64) -> f64 {
        (self.outstanding_lines * LINE / bandwidth).max(self.idle_ns)
    }
}

/// Mean queue in front of a server with this load.
fn queue(load: f64) -> f64 {
    let load = load.min(FULL);
    load / (1.0 - load)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device() -> DeviceLaw {
        crate::profile::Profile::named("mess-cxl").unwrap().law()
    }

    #[test]
    fn a_mixed_load_gets_more_bandwidth_than_reads_or_writes_alone() {
        let law = device();
        assert!(law.peak(0.58) > 1.3 * law.peak(1.0));
        assert!(law.peak(0.58) > 1.3 * law.peak(0.0));
    }

    #[test]
    fn no_mix_gets_more_bandwidth_than_the_widest() {
        let link = device().link;
        let most = link.peak(link.widest_mix());
        let shares = (0..=100).map(|percent| f64::from(percent) / 100.0);
        assert!(shares.into_iter().all(|share| link.peak(share) <= most));
        let (s2m, m2s) = link.load(most * link.widest_mix(), most * (1.0 - link.widest_mix()));
        assert!((s2m - 1.0).abs() < 1e-9 && (m2s - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_idle_device_answers_in_its_idle_latency() {
        assert_eq!(device().latency(0.0, 1.0), device().idle_ns);
    }

    #[test]
    fn reads_past_the_peak_wait_for_every_outstanding_line() {
        let law = device();
        let littles_law = law.outstanding_lines * LINE / law.peak(1.0);
        assert_eq!(law.latency(2.0 * law.peak(1.0), 1.0), littles_law);
    }

    #[test]
    fn writes_past_the_peak_make_a_read_wait_for_the_posted_buffer_only() {
        let law = device();
        let media = law.media.wait * queue(law.peak(0.02) * 1.05 / law.media.bandwidth);
        let most = law.idle_ns + law.link.posted_wait + media + 1.0;
        assert!(law.latency(1.05 * law.peak(0.02), 0.02) <= most);
    }

    proptest! {
        #[test]
        fn latency_never_falls_as_load_rises(
            share in 0.0..=1.0f64, low in 0.0..1.0f64, more in 0.0..1.0f64
        ) {
            let law = device();
            let peak = law.peak(share);
            let high = low + (1.0 - low) * more;
            prop_assert!(law.latency(high * peak, share) >= law.latency(low * peak, share) - 1e-9);
        }
    }
}
