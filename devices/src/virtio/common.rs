//! The common configuration structure: feature negotiation, device status, queue registers (section 4.1.4.3).

use std::sync::Arc;

use virtio_queue::QueueState;

use super::Activation;
use super::link::{Interrupt, Link};
use super::spec::{NO_VECTOR, common, feature, status};

/// What a write asks of the function that holds the registers.
#[derive(Debug)]
pub(super) enum Change {
    /// The driver set DRIVER_OK.
    Activated(Activation),
    /// The driver wrote 0 to the status.
    Reset,
}

/// The registers of one queue.
#[derive(Clone, Copy, Debug)]
struct QueueRegisters {
    max_size: u16,
    size: u16,
    enabled: bool,
    desc: u64,
    driver: u64,
    device: u64,
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            enabled: false,
            desc: 0,
            driver: 0,
            device: 0,
        }
    }

    fn state(&self, features: u64) -> QueueState {
        QueueState {
            max_size: self.max_size,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled: features & feature::EVENT_IDX != 0,
            size: self.size,
            ready: self.enabled,
            desc_table: self.desc,
            avail_ring: self.driver,
            used_ring: self.device,
        }
    }
}

/// The registers, and the rules between them.
#[derive(Debug)]
pub(super) struct CommonConfig {
    offered: u64,
    /// MSI-X vectors of the function.
    vectors: u16,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    status: u8,
    queue_select: u16,
    queues: Box<[QueueRegisters]>,
    link: Arc<Link>,
    interrupt: Arc<dyn Interrupt>,
}

impl CommonConfig {
    /// Registers of a device with one queue of each size in `queues`.
    pub fn new(offered: u64, queues: &[u16], vectors: u16, interrupt: Arc<dyn Interrupt>) -> Self {
        Self {
            offered,
            vectors,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            status: 0,
            queue_select: 0,
            queues: queues
                .iter()
                .map(|&size| QueueRegisters::new(size))
                .collect(),
            link: Arc::new(Link::new(queues.len(), Arc::clone(&interrupt))),
            interrupt,
        }
    }

    /// The state behind the registers that the worker shares.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Whether the driver runs the device.
    pub fn is_active(&self) -> bool {
        self.status & status::DRIVER_OK != 0
    }

    /// Number of queues.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// Puts every register back to its reset value. Whoever holds the old [`Link`] is cut off.
    pub fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max_size).collect();
        *self = Self::new(
            self.offered,
            &sizes,
            self.vectors,
            Arc::clone(&self.interrupt),
        );
    }

    /// Reads a field of `len` bytes at `offset`. Only whole fields, and the halves of 64-bit ones, can be read
    /// (section 4.1.3.1); anything else is 0.
    pub fn read(&self, offset: u64, len: usize) -> u32 {
        let queue = self.selected();
        match (offset, len) {
            (common::DEVICE_FEATURE_SELECT, 4) => self.device_feature_select,
            (common::DEVICE_FEATURE, 4) => half(self.offered, self.device_feature_select),
            (common::DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select,
            (common::DRIVER_FEATURE, 4) => half(self.driver_features, self.driver_feature_select),
            (common::CONFIG_MSIX_VECTOR, 2) => self.link.config_vector().into(),
            (common::NUM_QUEUES, 2) => u32::try_from(self.queues.len()).unwrap_or(0),
            (common::DEVICE_STATUS, 1) => {
                let needs_reset = if self.link.needs_reset() {
                    status::NEEDS_RESET
                } else {
                    0
                };
                (self.status | needs_reset).into()
            }
            // No device here changes its configuration.
            (common::CONFIG_GENERATION, 1) => 0,
            (common::QUEUE_SELECT, 2) => self.queue_select.into(),
            (common::QUEUE_SIZE, 2) => queue.map_or(0, |queue| queue.size.into()),
            (common::QUEUE_MSIX_VECTOR, 2) => {
                self.link.queue_vector(self.queue_select.into()).into()
            }
            (common::QUEUE_ENABLE, 2) => queue.map_or(0, |queue| queue.enabled.into()),
            (common::QUEUE_NOTIFY_OFF, 2) => queue.map_or(0, |_| self.queue_select.into()),
            (common::QUEUE_DESC_LOW, 4) => queue.map_or(0, |queue| half(queue.desc, 0)),
            (common::QUEUE_DESC_HIGH, 4) => queue.map_or(0, |queue| half(queue.desc, 1)),
            (common::QUEUE_DRIVER_LOW, 4) => queue.map_or(0, |queue| half(queue.driver, 0)),
            (common::QUEUE_DRIVER_HIGH, 4) => queue.map_or(0, |queue| half(queue.driver, 1)),
            (common::QUEUE_DEVICE_LOW, 4) => queue.map_or(0, |queue| half(queue.device, 0)),
            (common::QUEUE_DEVICE_HIGH, 4) => queue.map_or(0, |queue| half(queue.device, 1)),
            _ => 0,
        }
    }

    /// Writes a field; what is no whole writable field is dropped.
    pub fn write(&mut self, offset: u64, len: usize, value: u32) -> Option<Change> {
        // Of a narrow field only its own bits arrive.
        let narrow = u16::try_from(value & 0xffff).unwrap_or(0);
        match (offset, len) {
            (common::DEVICE_FEATURE_SELECT, 4) => self.device_feature_select = value,
            (common::DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select = value,
            // Negotiation is over with FEATURES_OK (section 3.1.1, step 5).
            (common::DRIVER_FEATURE, 4) if self.status & status::FEATURES_OK == 0 => {
                set_half(&mut self.driver_features, self.driver_feature_select, value);
            }
            (common::CONFIG_MSIX_VECTOR, 2) => self.link.set_config_vector(self.vector(narrow)),
            (common::DEVICE_STATUS, 1) => return self.write_status(narrow.to_le_bytes()[0]),
            (common::QUEUE_SELECT, 2) => self.queue_select = narrow,
            (common::QUEUE_MSIX_VECTOR, 2) => {
                self.link
                    .set_queue_vector(self.queue_select.into(), self.vector(narrow));
            }
            _ => self.write_queue(offset, len, value, narrow),
        }
        None
    }

    /// Queue fields that are fixed once the queue is enabled (section 4.1.4.3.2) or the device runs (section 3.1.1).
    fn write_queue(&mut self, offset: u64, len: usize, value: u32, narrow: u16) {
        if self.is_active() {
            return;
        }
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        if queue.enabled {
            return;
        }
        match (offset, len) {
            (common::QUEUE_SIZE, 2) if narrow.is_power_of_two() && narrow <= queue.max_size => {
                queue.size = narrow
            }
            (common::QUEUE_ENABLE, 2) => queue.enabled = narrow == 1,
            (common::QUEUE_DESC_LOW, 4) => set_half(&mut queue.desc, 0, value),
            (common::QUEUE_DESC_HIGH, 4) => set_half(&mut queue.desc, 1, value),
            (common::QUEUE_DRIVER_LOW, 4) => set_half(&mut queue.driver, 0, value),
            (common::QUEUE_DRIVER_HIGH, 4) => set_half(&mut queue.driver, 1, value),
            (common::QUEUE_DEVICE_LOW, 4) => set_half(&mut queue.device, 0, value),
            (common::QUEUE_DEVICE_HIGH, 4) => set_half(&mut queue.device, 1, value),
            _ => {}
        }
    }

    /// A driver sets bits one after the other and never clears one, but for writing 0, which resets (section 2.1.1).
    fn write_status(&mut self, value: u8) -> Option<Change> {
        if value == 0 {
            self.reset();
            return Some(Change::Reset);
        }
        self.status |= value & (status::ACKNOWLEDGE | status::DRIVER | status::FAILED);
        if value & status::FEATURES_OK != 0
            && self.status & status::DRIVER != 0
            && self.features_are_acceptable()
        {
            self.status |= status::FEATURES_OK;
        }
        let starts = value & status::DRIVER_OK != 0 && !self.is_active();
        if !starts || self.status & status::FEATURES_OK == 0 {
            return None;
        }
        self.status |= status::DRIVER_OK;
        Some(Change::Activated(Activation {
            features: self.driver_features,
            queues: self
                .queues
                .iter()
                .map(|queue| queue.state(self.driver_features))
                .collect(),
            link: Arc::clone(&self.link),
        }))
    }

    /// Only what was offered, and never without VERSION_1: there is no legacy interface (section 6.1.2).
    fn features_are_acceptable(&self) -> bool {
        self.driver_features & !self.offered == 0 && self.driver_features & feature::VERSION_1 != 0
    }

    /// What a vector register holds after a write: a vector that the function has, or none (section 4.1.5.1.2).
    fn vector(&self, value: u16) -> u16 {
        if value < self.vectors {
            value
        } else {
            NO_VECTOR
        }
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::from(self.queue_select))
    }
}

/// The 32 bits of `value` that `select` names: 0 the low ones, 1 the high ones, beyond that there are none.
fn half(value: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_half(value: &mut u64, select: u32, new: u32) {
    match select {
        0 => *value = *value & !0xffff_ffff | u64::from(new),
        1 => *value = *value & 0xffff_ffff | u64::from(new) << 32,
        _ => {}
    }
}
