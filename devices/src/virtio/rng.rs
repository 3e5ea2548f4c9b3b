//! The entropy device (section 5.4).

use std::io::Read;

use vm_memory::GuestMemory;

use super::{Broken, Chain, Device, DeviceType, Identity, Outcome, Progress, Virtqueue};

const QUEUE_SIZES: &[u16] = &[64];
/// Most bytes given for one request. The device may use less than the whole buffer (section 5.4.6.2).
const MOST: usize = 4096;

/// A source of random bytes.
pub struct Rng<S> {
    source: S,
    chain: Chain,
}

impl<S: Read + Send> Rng<S> {
    /// Random bytes are read from `source`, which must never block for long.
    pub fn new(source: S) -> Self {
        Self {
            source,
            chain: Chain::default(),
        }
    }

    fn fill<M: GuestMemory>(&mut self, chain: &Chain, mem: &M) -> Result<Outcome, Broken> {
        let mut bytes = [0; MOST];
        let len = usize::try_from(chain.writable.len()).map_or(MOST, |len| len.min(MOST));
        let bytes = bytes.get_mut(..len).unwrap_or_default();
        if let Err(error) = self.source.read_exact(bytes) {
            // Handing out less than random bytes would be worse than handing out none.
            log::error!("virtio rng: {error}");
            return Ok(Outcome::Done(0));
        }
        chain.writable.write(mem, 0, bytes)?;
        Ok(Outcome::Done(len as u32))
    }
}

impl<S: Read + Send> Device for Rng<S> {
    fn identity(&self) -> Identity {
        Identity {
            device_type: DeviceType::Rng,
            features: 0,
            queue_sizes: QUEUE_SIZES,
            config: Vec::new(),
        }
    }

    fn activate(&mut self, _features: u64) {}

    fn serve<M: GuestMemory>(
        &mut self,
        queues: &mut [Virtqueue],
        mem: &M,
    ) -> Result<Progress, Broken> {
        let Some(queue) = queues.first_mut() else {
            return Ok(Progress::Idle);
        };
        let mut chain = std::mem::take(&mut self.chain);
        let served = queue.serve(mem, &mut chain, |chain| self.fill(chain, mem));
        self.chain = chain;
        served
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Access, Driver};
    use super::*;

    /// Counts up, so that a test can tell what was read.
    struct Counter(u8);

    impl Read for Counter {
        fn read(&mut self, data: &mut [u8]) -> std::io::Result<usize> {
            for byte in data.iter_mut() {
                *byte = self.0;
                self.0 = self.0.wrapping_add(1);
            }
            Ok(data.len())
        }
    }

    #[test]
    fn every_buffer_is_filled_with_fresh_bytes() {
        let mut driver = Driver::new(8);
        let mut queues = [driver.queue()];
        let mut rng = Rng::new(Counter(1));
        let a = driver.offer(&[(Driver::DATA, 4, Access::Write)]);
        let b = driver.offer(&[
            (Driver::DATA + 0x100, 3, Access::Write),
            (Driver::DATA + 0x200, 1, Access::Write),
        ]);
        assert_eq!(rng.serve(&mut queues, driver.mem()), Ok(Progress::Idle));
        assert_eq!(driver.used(), [(a, 4), (b, 4)]);
        assert_eq!(driver.bytes(Driver::DATA, 4), [1, 2, 3, 4]);
        assert_eq!(driver.bytes(Driver::DATA + 0x100, 3), [5, 6, 7]);
        assert_eq!(driver.bytes(Driver::DATA + 0x200, 1), [8]);
    }

    #[test]
    fn a_huge_request_gets_a_part() {
        let mut driver = Driver::new(8);
        let mut queues = [driver.queue()];
        let head = driver.offer(&[(Driver::DATA, 0x8000, Access::Write)]);
        assert_eq!(
            Rng::new(Counter(0)).serve(&mut queues, driver.mem()),
            Ok(Progress::Idle)
        );
        assert_eq!(driver.used(), [(head, MOST as u32)]);
    }

    #[test]
    fn a_dry_source_gives_no_bytes() {
        let mut driver = Driver::new(8);
        let mut queues = [driver.queue()];
        let head = driver.offer(&[(Driver::DATA, 16, Access::Write)]);
        assert_eq!(
            Rng::new(std::io::empty()).serve(&mut queues, driver.mem()),
            Ok(Progress::Idle)
        );
        assert_eq!(driver.used(), [(head, 0)]);
        assert_eq!(driver.bytes(Driver::DATA, 16), [0; 16]);
    }
}
