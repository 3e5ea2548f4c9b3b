//! The state of a memory device that its mailbox commands read and change.

pub(crate) mod background;
pub(crate) mod debug;
pub mod dynamic;
pub mod fabric;
pub mod features;
pub mod firmware;
pub mod health;
pub mod nonvolatile;
pub mod poison;
pub mod repair;
mod sanitize;
pub(crate) mod scan;
pub mod security;

use std::fmt;

use crate::cci::Identity;
use crate::event::{Event, EventFlags, EventKind, EventLogs, MemoryModule, Severity};
use crate::mailbox::events::Logging;
use crate::mailbox::timestamp::Timed;
use crate::mailbox::vendor::FIRST_OPCODE;
use crate::mailbox::{Entry, ReturnCode};
use crate::{CAPACITY_UNIT, Effect, Error};
use background::Background;
pub use background::BackgroundStatus;
use debug::Debug;
use dynamic::{DynamicRegion, Extents};
use fabric::{Fabric, Sharing};
use features::Features;
use firmware::Transfer;
use health::{Alerts, HealthInfo, Level};
pub use nonvolatile::NonVolatile;
use poison::PoisonList;
use repair::SparesUsed;
use scan::ScanResult;
use security::Security;

/// Tells the time in ns, and never runs backwards; only differences matter. [`Effect::Alarm`] goes by the same clock.
pub type Clock = Box<dyn Fn() -> u64 + Send>;

/// What a device is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemdevConfig {
    /// Bytes that are always volatile, a multiple of 256 MiB.
    pub volatile: u64,
    /// Bytes that are always persistent, a multiple of 256 MiB.
    pub persistent: u64,
    /// Bytes that the host can make volatile or persistent, a multiple of 256 MiB.
    pub partitionable: u64,
    /// Contents of the label storage area, which give its size; empty if the device has none.
    pub lsa: Vec<u8>,
    /// Firmware revision, at most 16 ASCII characters.
    pub firmware_revision: String,
    /// Regions of dynamic capacity, behind the capacity above.
    pub dynamic: Vec<DynamicRegion>,
    /// What the device remembers of when it was last on.
    pub nonvolatile: NonVolatile,
    /// What it says of itself to a fabric manager.
    pub identity: Identity,
    /// Who has what of it.
    pub sharing: Sharing,
    /// MSI message number of the mailbox, 0 to 15.
    pub mailbox_vector: u8,
    /// MSI message numbers of the event logs, by log number, 0 to 15 each.
    pub event_vectors: [u8; 4],
    /// MSI message number of the event log of dynamic capacity, 0 to 15.
    pub dynamic_vector: u8,
}

impl MemdevConfig {
    fn empty_logs(&self) -> EventLogs {
        let dynamic = (!self.dynamic.is_empty()).then_some(self.dynamic_vector);
        EventLogs::new(self.event_vectors, dynamic)
    }

    /// Checks that the regions lie in order behind the other capacity, and that each can be decoded and cut into blocks.
    fn check_dynamic(&self) -> Result<(), Error> {
        at_most(
            "regions",
            self.dynamic.len() as u64,
            dynamic::MOST_REGIONS as u64,
        )?;
        let mut free = self.volatile + self.persistent + self.partitionable;
        for (index, region) in self.dynamic.iter().enumerate() {
            let aligned = (region.base | region.decode_len).is_multiple_of(CAPACITY_UNIT);
            let blocks = region.block_size.is_power_of_two()
                && region.block_size >= poison::LINE
                && region.len.is_multiple_of(region.block_size);
            let end = region.base.checked_add(region.decode_len);
            let fits = (1..=region.decode_len).contains(&region.len)
                && end.is_some_and(|end| end <= Memdev::MAX_CAPACITY);
            if region.base < free || !aligned || !blocks || !fits {
                return Err(Error::DynamicRegion(index));
            }
            free = region.base + region.decode_len;
        }
        Ok(())
    }
}

/// Active capacity and its split (section 8.2.9.9.2.1), in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Volatile: from DPA 0 on.
    pub volatile: u64,
    /// Persistent: after the volatile part.
    pub persistent: u64,
}

/// A memory device.
pub struct Memdev {
    config: MemdevConfig,
    /// Volatile bytes of the partitionable capacity.
    partition_volatile: u64,
    /// What survives; the poison in it is kept in the poison list meanwhile.
    nonvolatile: NonVolatile,
    security: Security,
    transfer: Option<Transfer>,
    features: Features,
    extents: Extents,
    fabric: Fabric,
    debug: Debug,
    vendor: &'static [Entry],
    /// What the next command returns.
    failure: Option<ReturnCode>,
    /// Until the next cold reset.
    soft_spares_used: SparesUsed,
    lsa: Vec<u8>,
    events: EventLogs,
    health: HealthInfo,
    alerts: Alerts,
    poison: PoisonList,
    /// The range that Get Poison List was asked for last, if it has more to tell, and where that begins.
    poison_cursor: Option<((u64, u64), u64)>,
    scan_result: Option<ScanResult>,
    background: Background,
    clock: Clock,
    /// What the host set the timestamp to, and the clock at that time.
    timestamp: Option<(u64, u64)>,
}

impl fmt::Debug for Memdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memdev")
            .field("partition", &self.partition())
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

impl Memdev {
    /// Largest message number that the registers and the event policy can name.
    const MAX_VECTOR: u8 = 15;
    /// Largest capacity of one kind, in bytes: physical addresses have 52 bits.
    const MAX_CAPACITY: u64 = 1 << 52;
    /// Largest label storage area, in bytes.
    const MAX_LSA: u64 = 1 << 20;
    /// Characters of a firmware revision.
    pub(crate) const FIRMWARE_REVISION_LEN: usize = 16;

    /// The time by the device's clock, in ns.
    pub fn now(&self) -> u64 {
        (self.clock)()
    }

    /// A device. Fails if a size is not a multiple of 256 MiB or a value does not fit its field.
    pub fn new(config: MemdevConfig, clock: Clock) -> Result<Self, Error> {
        for (what, bytes) in [
            ("volatile capacity", config.volatile),
            ("persistent capacity", config.persistent),
            ("partitionable capacity", config.partitionable),
            (
                "volatile part of the partitionable capacity",
                config.nonvolatile.partition_volatile,
            ),
        ] {
            if !bytes.is_multiple_of(CAPACITY_UNIT) {
                return Err(Error::Unaligned {
                    what,
                    bytes,
                    unit: CAPACITY_UNIT,
                });
            }
            at_most(what, bytes, Self::MAX_CAPACITY)?;
        }
        if config.volatile | config.persistent | config.partitionable == 0 {
            return Err(Error::NoCapacity);
        }
        at_most(
            "volatile part of the partitionable capacity",
            config.nonvolatile.partition_volatile,
            config.partitionable,
        )?;
        at_most("label storage area", config.lsa.len() as u64, Self::MAX_LSA)?;
        at_most(
            "length of the firmware revision",
            config.firmware_revision.len() as u64,
            Self::FIRMWARE_REVISION_LEN as u64,
        )?;
        for vector in config
            .event_vectors
            .into_iter()
            .chain([config.mailbox_vector, config.dynamic_vector])
        {
            at_most("message number", vector.into(), Self::MAX_VECTOR.into())?;
        }
        config.check_dynamic()?;
        let capacity = config.volatile + config.persistent + config.partitionable;
        let fabric = Fabric::new(config.sharing, capacity)?;
        let mut memdev = Self {
            partition_volatile: 0,
            nonvolatile: config.nonvolatile.clone(),
            security: Security::default(),
            transfer: None,
            features: Features::default(),
            extents: Extents::default(),
            fabric,
            debug: Debug::default(),
            vendor: &[],
            failure: None,
            soft_spares_used: SparesUsed::default(),
            lsa: config.lsa.clone(),
            events: config.empty_logs(),
            health: HealthInfo::default(),
            alerts: Alerts::default(),
            poison: PoisonList::default(),
            poison_cursor: None,
            scan_result: None,
            background: Background::default(),
            clock,
            timestamp: None,
            config,
        };
        memdev.power_up();
        memdev.restore_poison()?;
        Ok(memdev)
    }

    /// What the device is made of.
    pub fn config(&self) -> &MemdevConfig {
        &self.config
    }

    /// Gives the device the commands of its vendor.
    ///
    /// # Errors
    /// [`Error::VendorOpcode`] for one with a standard opcode; nothing has changed then.
    pub fn add_vendor_commands(&mut self, commands: &'static [Entry]) -> Result<(), Error> {
        let standard = |entry: &&Entry| entry.opcode() < FIRST_OPCODE;
        if let Some(entry) = commands.iter().find(standard) {
            return Err(Error::VendorOpcode(entry.opcode()));
        }
        self.vendor = commands;
        Ok(())
    }

    pub(crate) fn vendor_commands(&self) -> &'static [Entry] {
        self.vendor
    }

    /// Lets the next command return `code` and do nothing.
    pub fn fail_next(&mut self, code: ReturnCode) {
        self.failure = Some(code);
    }

    pub(crate) fn take_failure(&mut self) -> Option<ReturnCode> {
        self.failure.take()
    }

    /// Bytes that are always there.
    pub fn capacity(&self) -> u64 {
        self.config.volatile + self.config.persistent + self.config.partitionable
    }

    /// The active split of the capacity.
    pub fn partition(&self) -> Partition {
        self.split(self.partition_volatile)
    }

    /// The split after the next power cycle, if it will change.
    pub fn next_partition(&self) -> Option<Partition> {
        let next = self.nonvolatile.partition_volatile;
        (next != self.partition_volatile).then(|| self.split(next))
    }

    fn split(&self, partition_volatile: u64) -> Partition {
        Partition {
            volatile: self.config.volatile + partition_volatile,
            persistent: self.config.persistent + (self.config.partitionable - partition_volatile),
        }
    }

    /// Makes `volatile` of the partitionable bytes volatile from the next power cycle on.
    ///
    /// False if that is not a multiple of 256 MiB or more than there is.
    pub(crate) fn set_next_partition(&mut self, volatile: u64, effects: &mut Vec<Effect>) -> bool {
        if !volatile.is_multiple_of(CAPACITY_UNIT) || volatile > self.config.partitionable {
            return false;
        }
        self.nonvolatile.partition_volatile = volatile;
        effects.push(Effect::NonVolatileChanged);
        true
    }

    /// The label storage area.
    pub fn lsa(&self) -> &[u8] {
        &self.lsa
    }

    pub(crate) fn lsa_mut(&mut self) -> &mut [u8] {
        &mut self.lsa
    }

    /// The event logs.
    pub fn events(&self) -> &EventLogs {
        &self.events
    }

    /// Logs an event with the current timestamp, and notifies the host if it asked for that.
    pub fn log_event(&mut self, event: &Event, effects: &mut Vec<Effect>) {
        let timestamp = self.timestamp();
        self.events.push(event, timestamp, effects);
    }

    /// The health, with the levels that the alert configuration gives it.
    pub fn health(&self) -> HealthInfo {
        HealthInfo {
            additional: self.alerts.judge(&self.health),
            ..self.health
        }
    }

    /// Changes the health; what got worse by the thresholds is logged.
    ///
    /// `additional` of the new health is ignored: it follows from the rest.
    pub fn set_health(&mut self, health: HealthInfo, effects: &mut Vec<Effect>) {
        let before = self.alerts.judge(&self.health);
        self.health = health;
        let health = self.health();
        for (event_type, level) in health.additional.worse_than(before) {
            let event = Event {
                severity: match level {
                    Level::Critical => Severity::Failure,
                    Level::Warning | Level::Normal => Severity::Warning,
                },
                flags: EventFlags::default(),
                related: 0,
                maintenance_class: 0,
                kind: EventKind::MemoryModule(MemoryModule { event_type, health }),
            };
            self.log_event(&event, effects);
        }
    }

    /// The alert configuration.
    pub fn alerts(&self) -> Alerts {
        self.alerts
    }

    pub(crate) fn set_alerts(&mut self, alerts: Alerts) {
        self.alerts = alerts;
    }

    /// ns since 1970 as the host set it, or 0 if it has not (section 8.2.9.4.1).
    pub fn timestamp(&self) -> u64 {
        timestamp(self.timestamp, (self.clock)())
    }

    /// A conventional reset: what the host configured is gone; labels, events and capacity stay.
    pub fn reset(&mut self) {
        self.timestamp = None;
        self.alerts = Alerts::default();
        self.events.reset();
        self.poison_cursor = None;
        self.scan_result = None;
        self.transfer = None;
        self.failure = None;
        self.features = Features::new(&self.nonvolatile.features);
        self.background.reset();
    }

    /// A power cycle without a chance to flush: only what is remembered stays, and what was staged becomes active.
    pub fn power_cycle(&mut self) {
        self.reset();
        self.power_up();
        self.events = self.config.empty_logs();
        self.extents = Extents::default();
        self.debug = Debug::default();
        // Volatile memory comes up with new contents, and dynamic capacity is not there.
        self.poison.remove(0, self.partition().volatile);
        let capacity = self.capacity();
        self.poison.remove(capacity, u64::MAX);
    }
}

impl Logging for Memdev {
    fn logs(&self) -> &EventLogs {
        &self.events
    }

    fn logs_mut(&mut self) -> &mut EventLogs {
        &mut self.events
    }
}

impl Timed for Memdev {
    fn timestamp(&self) -> u64 {
        self.timestamp()
    }

    fn set_timestamp(&mut self, timestamp: u64) {
        self.timestamp = Some((timestamp, (self.clock)()));
    }
}

/// The timestamp `now` of a component that was told a time, if it was, at a time of its own clock.
pub(crate) fn timestamp(set: Option<(u64, u64)>, now: u64) -> u64 {
    set.map_or(0, |(set_to, set_at)| {
        set_to.saturating_add(now.saturating_sub(set_at))
    })
}

fn at_most(what: &'static str, value: u64, max: u64) -> Result<(), Error> {
    if value > max {
        return Err(Error::TooLarge { what, value, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn memdev() -> Memdev {
        let config = MemdevConfig {
            volatile: 512 * MIB,
            ..MemdevConfig::default()
        };
        Memdev::new(config, Box::new(|| 0)).unwrap()
    }

    #[test]
    fn impossible_devices_are_refused() {
        let good = MemdevConfig {
            volatile: 256 * MIB,
            ..MemdevConfig::default()
        };
        let refused = |change: fn(&mut MemdevConfig)| {
            let mut config = good.clone();
            change(&mut config);
            Memdev::new(config, Box::new(|| 0)).unwrap_err()
        };
        assert_eq!(refused(|c| c.volatile = 0), Error::NoCapacity);
        assert!(matches!(
            refused(|c| c.volatile += 1),
            Error::Unaligned { .. }
        ));
        assert!(matches!(
            refused(|c| c.persistent = u64::MAX << 28),
            Error::TooLarge { .. }
        ));
        assert!(matches!(
            refused(|c| c.nonvolatile.partition_volatile = 1 << 28),
            Error::TooLarge { .. }
        ));
        assert!(matches!(
            refused(|c| c.lsa = vec![0; (1 << 20) + 1]),
            Error::TooLarge { .. }
        ));
        assert!(matches!(
            refused(|c| c.firmware_revision = "x".repeat(17)),
            Error::TooLarge { .. }
        ));
        assert!(matches!(
            refused(|c| c.event_vectors[3] = 16),
            Error::TooLarge { .. }
        ));
    }

    #[test]
    fn health_beyond_a_critical_threshold_is_logged_once() {
        let mut memdev = memdev();
        let mut effects = Vec::new();
        let hot = HealthInfo {
            temperature: 99,
            ..memdev.health()
        };
        memdev.set_health(hot, &mut effects);
        memdev.set_health(hot, &mut effects);
        assert_eq!(memdev.health().additional.temperature, Level::Critical);
        assert_eq!(memdev.events().log(Severity::Failure).len(), 1);
        assert_eq!(effects, [], "no interrupt unless the host asked for it");
    }

    #[test]
    fn a_warning_takes_an_enabled_alert() {
        let mut memdev = memdev();
        let worn = HealthInfo {
            life_used: 80,
            ..memdev.health()
        };
        memdev.set_health(worn, &mut Vec::new());
        assert_eq!(memdev.health().additional.life_used, Level::Normal);
        memdev.set_health(HealthInfo::default(), &mut Vec::new());
        memdev.set_alerts(Alerts {
            enabled: 1,
            ..Alerts::default()
        });
        memdev.set_health(worn, &mut Vec::new());
        assert_eq!(memdev.health().additional.life_used, Level::Warning);
        assert_eq!(memdev.events().log(Severity::Warning).len(), 1);
    }
}
