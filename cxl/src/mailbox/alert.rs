//! Alert configuration (section 8.2.9.9.3), opcodes 0x4201 and 0x4202.

use super::{Command, CommandEffects, Input, Reply, Request, ReturnCode};
use crate::Effect;
use crate::memdev::Memdev;
use crate::memdev::health::{Alert, Alerts, Warnings};

/// Get Alert Configuration (section 8.2.9.9.3.2).
pub(super) struct GetAlertConfiguration;

impl Reply for Alerts {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend([
            self.enabled,
            Alert::ALL,
            Self::CRITICAL_LIFE_USED,
            self.warnings.life_used,
        ]);
        for degrees in [
            Self::CRITICAL_OVER_TEMPERATURE,
            Self::CRITICAL_UNDER_TEMPERATURE,
            self.warnings.over_temperature,
            self.warnings.under_temperature,
        ] {
            output.extend(degrees.to_le_bytes());
        }
        output.extend(self.warnings.corrected_volatile.to_le_bytes());
        output.extend(self.warnings.corrected_persistent.to_le_bytes());
    }
}

impl Command for GetAlertConfiguration {
    const OPCODE: u16 = 0x4201;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = ();
    type Reply = Alerts;

    fn run(memdev: &mut Memdev, _: (), _: &mut Vec<Effect>) -> Result<Alerts, ReturnCode> {
        Ok(memdev.alerts())
    }
}

/// Set Alert Configuration (section 8.2.9.9.3.3).
pub(super) struct SetAlertConfiguration;

pub(super) struct SetAlertRequest {
    /// The alerts that the request is about.
    valid: u8,
    /// Those of them that are enabled, with the threshold given here.
    enable: u8,
    warnings: Warnings,
}

impl Request for SetAlertRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let [valid, enable, life_used, _reserved] = input.array()?;
        let warnings = Warnings {
            life_used,
            over_temperature: i16::from_le_bytes(input.array()?),
            under_temperature: i16::from_le_bytes(input.array()?),
            corrected_volatile: input.u16()?,
            corrected_persistent: input.u16()?,
        };
        Some(Self {
            valid,
            enable,
            warnings,
        })
    }
}

impl Command for SetAlertConfiguration {
    const OPCODE: u16 = 0x4202;
    const EFFECTS: CommandEffects = CommandEffects::IMMEDIATE_POLICY;
    type Request = SetAlertRequest;
    type Reply = ();

    fn run(
        memdev: &mut Memdev,
        SetAlertRequest {
            valid,
            enable,
            warnings: new,
        }: SetAlertRequest,
        _: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        if valid & !Alert::ALL != 0 {
            return Err(ReturnCode::InvalidInput);
        }
        let mut alerts = memdev.alerts();
        alerts.enabled = alerts.enabled & !valid | enable & valid;
        let set = valid & enable;
        let warnings = &mut alerts.warnings;
        if Alert::LifeUsed.is_in(set) {
            warnings.life_used = new.life_used;
        }
        if Alert::OverTemperature.is_in(set) {
            warnings.over_temperature = new.over_temperature;
        }
        if Alert::UnderTemperature.is_in(set) {
            warnings.under_temperature = new.under_temperature;
        }
        if Alert::CorrectedVolatile.is_in(set) {
            warnings.corrected_volatile = new.corrected_volatile;
        }
        if Alert::CorrectedPersistent.is_in(set) {
            warnings.corrected_persistent = new.corrected_persistent;
        }
        if !alerts.is_consistent() {
            return Err(ReturnCode::InvalidInput);
        }
        memdev.set_alerts(alerts);
        Ok(())
    }
}
