//! Whose accesses to a page need no permission, and memory that begins anew.

use std::ops::Range;

use super::{Access, Bias, Engine, Message, PAGE, Side, held};
use crate::Error;

impl Engine {
    /// Puts the pages of a range into a bias; how many were in the other one.
    ///
    /// # Errors
    /// [`Error::NoExtent`] unless all of the range is in the memory.
    pub fn set_bias(&mut self, dpa: u64, bytes: u64, bias: Bias) -> Result<u64, Error> {
        let pages = self.pages(dpa, bytes)?;
        let mut flips = 0;
        for page in pages {
            let is = self.bias(page * PAGE);
            if is != bias {
                self.flip_as_asked(page, bias);
                flips += 1;
            }
        }
        Ok(flips)
    }

    /// Puts each page of a range into the bias that it is not in; how many.
    ///
    /// # Errors
    /// As [`Self::set_bias`].
    pub fn flip_bias(&mut self, dpa: u64, bytes: u64) -> Result<u64, Error> {
        let pages = self.pages(dpa, bytes)?;
        let flips = pages.end - pages.start;
        for page in pages {
            let bias = match self.bias(page * PAGE) {
                Bias::Host => Bias::Device,
                Bias::Device => Bias::Host,
            };
            self.flip_as_asked(page, bias);
        }
        Ok(flips)
    }

    fn flip_as_asked(&mut self, page: u64, bias: Bias) {
        let access = match bias {
            Bias::Host => Access::HostBias,
            Bias::Device => Access::DeviceBias,
        };
        let access = self.begin(page * PAGE, Side::Device, access);
        self.flip(page, bias);
        self.end(access);
    }

    /// Forgets what is held of a range, whose memory begins anew: nobody's data are written back. Lines and pages that are
    /// only in part in it stay as they are; those pages that are all in it go into host bias.
    ///
    /// # Errors
    /// As [`Self::set_bias`].
    pub fn discard(&mut self, dpa: u64, bytes: u64) -> Result<(), Error> {
        let end = self.end_of(dpa, bytes)?;
        let lines = whole(dpa, end, self.config.granule);
        let bytes = lines.end - lines.start;
        let access = self.begin(lines.start, Side::Device, Access::Discard(bytes));
        for line in held(&self.host, lines.clone()) {
            self.forget_host(line);
        }
        for line in held(&self.device, lines) {
            self.forget_device(line);
        }
        let pages = whole(dpa, end, PAGE);
        let pages = pages.start / PAGE..pages.end / PAGE;
        let pages: Vec<u64> = self.device_bias.range(pages).copied().collect();
        for page in pages {
            self.device_bias.remove(&page);
        }
        self.end(access);
        Ok(())
    }

    fn end_of(&self, dpa: u64, bytes: u64) -> Result<u64, Error> {
        let end = dpa.checked_add(bytes);
        let end = end.filter(|end| *end <= self.config.capacity);
        end.ok_or(Error::NoExtent(dpa))
    }

    fn pages(&self, dpa: u64, bytes: u64) -> Result<Range<u64>, Error> {
        let end = self.end_of(dpa, bytes)?;
        Ok(dpa / PAGE..if bytes == 0 {
            dpa / PAGE
        } else {
            end.div_ceil(PAGE)
        })
    }

    fn flip(&mut self, page: u64, bias: Bias) {
        let lines = page * PAGE..(page + 1) * PAGE;
        match bias {
            Bias::Device => {
                self.statistics.flips_to_device += 1;
                for line in held(&self.host, lines) {
                    self.statistics.flipped_lines += 1;
                    self.snoop(line, Message::BiSnpInv);
                }
                self.device_bias.insert(page);
            }
            Bias::Host => {
                self.statistics.flips_to_host += 1;
                for line in held(&self.device, lines) {
                    self.statistics.flipped_lines += 1;
                    self.drop_from_device(line);
                }
                self.device_bias.remove(&page);
            }
        }
    }

    /// An access of the host ends the device bias of its page.
    pub(super) fn take_back(&mut self, line: u64) {
        let page = line / PAGE;
        if self.device_bias.contains(&page) {
            self.statistics.host_took_back += 1;
            self.flip(page, Bias::Host);
        }
    }
}

/// The part of a range that is made of whole units; it may be empty, but not beyond the range's end.
fn whole(start: u64, end: u64, unit: u64) -> Range<u64> {
    let last = end - end % unit;
    let first = start.checked_next_multiple_of(unit);
    first.map_or(last, |first| first.min(last))..last
}
