//! Firmware: images in slots, one active, one perhaps staged for the next cold reset (section 8.2.9.3).
//!
//! An image for this device is any file whose first line is `MEMU firmware REVISION`, with a revision of at most 16
//! printable ASCII characters without spaces. A further word on that line makes an image that does not simply work:
//! `cold` cannot be activated online, `broken` fails when it is activated. Whatever else comes fails authentication.

use serde::{Deserialize, Serialize};

use super::Memdev;
use super::background::{Operation, Work};
use crate::Effect;
use crate::mailbox::ReturnCode;

/// Firmware slots.
pub const SLOTS: usize = 4;
/// Parts of an image but the last are multiples of this, and so are their offsets.
pub(crate) const ALIGNMENT: u64 = 128;
/// Bytes of the largest image.
const LARGEST_IMAGE: u64 = 64 << 20;
/// Longest first line that is looked at.
const LONGEST_LINE: usize = 64;
/// To authenticate an image, or to activate one online, in ns.
const TIME: u64 = 100_000_000;

/// How an image behaves when it is activated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// It works.
    Online,
    /// It works from a cold reset on only.
    Cold,
    /// It fails, and the device goes back to the image before it.
    Broken,
}

/// An image in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its revision.
    pub revision: String,
    /// How it behaves.
    pub activation: Activation,
}

impl Image {
    /// The image that begins with these bytes, if it is one for this device.
    fn authenticate(head: &[u8]) -> Option<Self> {
        let line = head.split(|byte| *byte == b'\n').next()?;
        let line = std::str::from_utf8(line)
            .ok()
            .filter(|_| line.len() < head.len())?;
        let mut words = line.strip_prefix("MEMU firmware ")?.split(' ');
        let revision = words.next()?;
        let activation = match (words.next(), words.next()) {
            (None, _) => Activation::Online,
            (Some("cold"), None) => Activation::Cold,
            (Some("broken"), None) => Activation::Broken,
            _ => return None,
        };
        let fits = (1..=Memdev::FIRMWARE_REVISION_LEN).contains(&revision.len());
        let printable = revision.bytes().all(|byte| byte.is_ascii_graphic());
        (fits && printable).then(|| Self {
            revision: revision.into(),
            activation,
        })
    }
}

/// What is in the slots. Slots are numbered from 1 on; an empty slot 1 has the revision that the device came with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Firmware {
    /// By slot.
    pub images: [Option<Image>; SLOTS],
    /// The slot that runs.
    pub active: u8,
    /// The slot that runs after the next cold reset, if it is another one.
    pub staged: Option<u8>,
}

impl Default for Firmware {
    fn default() -> Self {
        Self {
            images: Default::default(),
            active: 1,
            staged: None,
        }
    }
}

impl Firmware {
    /// The image in a slot.
    pub fn image(&self, slot: u8) -> Option<&Image> {
        let index = usize::from(slot).checked_sub(1)?;
        self.images.get(index)?.as_ref()
    }

    /// Activates what is staged.
    pub(super) fn cold_reset(&mut self) {
        let staged = self.staged.take();
        if let Some(slot) = staged.filter(|slot| self.works(*slot)) {
            self.active = slot;
        }
    }

    /// True if a slot can run: it has an image that is not broken, or is the first.
    fn works(&self, slot: u8) -> bool {
        self.image(slot)
            .map_or(slot == 1, |image| image.activation != Activation::Broken)
    }

    /// True if a slot has something to run.
    fn is_filled(&self, slot: u8) -> bool {
        slot == 1 || self.image(slot).is_some()
    }
}

/// An image that is on its way.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    /// Enough of it to authenticate it.
    head: Vec<u8>,
    len: u64,
}

impl Transfer {
    fn append(&mut self, part: &[u8]) -> Result<(), ReturnCode> {
        let len = self.len.saturating_add(part.len() as u64);
        if len > LARGEST_IMAGE {
            return Err(ReturnCode::InvalidInput);
        }
        self.len = len;
        let room = LONGEST_LINE.saturating_sub(self.head.len());
        self.head.extend(part.iter().take(room));
        Ok(())
    }
}

/// A part of an image, and which one (section 8.2.9.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The whole image, for this slot.
    Full(u8),
    /// The first part.
    Initiate,
    /// A further part.
    Continue,
    /// The last part; the image is for this slot.
    End(u8),
}

impl Memdev {
    /// The firmware slots.
    pub fn firmware(&self) -> &Firmware {
        &self.nonvolatile.firmware
    }

    /// The revision in a slot, if it is filled.
    pub(crate) fn firmware_revision(&self, slot: u8) -> Option<&str> {
        let image = self.firmware().image(slot).map(|image| &image.revision);
        let first = (slot == 1).then_some(&self.config.firmware_revision);
        image.or(first).map(String::as_str)
    }

    /// Transfer FW: takes a part of an image. The last part goes on with authentication in the background.
    pub(crate) fn transfer_firmware(
        &mut self,
        part: Part,
        offset: u64,
        data: &[u8],
    ) -> Result<Option<Operation>, ReturnCode> {
        let begins = matches!(part, Part::Full(_) | Part::Initiate);
        match (&self.transfer, begins) {
            (Some(_), true) => return Err(ReturnCode::FirmwareTransferInProgress),
            (None, false) => return Err(ReturnCode::FirmwareTransferOutOfOrder),
            (Some(transfer), false) if transfer.len != offset => {
                return Err(ReturnCode::FirmwareTransferOutOfOrder);
            }
            (None, true) if offset != 0 => return Err(ReturnCode::FirmwareTransferOutOfOrder),
            _ => {}
        }
        let slot = match part {
            Part::Full(slot) | Part::End(slot) => Some(slot),
            Part::Initiate | Part::Continue => None,
        };
        match slot {
            Some(slot) if !self.can_be_replaced(slot) => {
                return Err(ReturnCode::InvalidFirmwareSlot);
            }
            Some(_) if self.is_background_running() => return Err(ReturnCode::Busy),
            None if !(data.len() as u64).is_multiple_of(ALIGNMENT) => {
                return Err(ReturnCode::InvalidInput);
            }
            _ => {}
        }
        let transfer = self.transfer.get_or_insert_default();
        transfer.append(data)?;
        let Some(slot) = slot else {
            return Ok(None);
        };
        let head = std::mem::take(&mut transfer.head);
        self.transfer = None;
        Ok(Some(Operation {
            duration: TIME,
            work: Work::StoreFirmware { slot, head },
        }))
    }

    /// Transfer FW, abort: forgets the parts so far.
    pub(crate) fn abort_firmware_transfer(&mut self) -> Result<(), ReturnCode> {
        let transfer = self.transfer.take();
        transfer.ok_or(ReturnCode::FirmwareTransferOutOfOrder)?;
        Ok(())
    }

    /// Neither runs nor is about to.
    fn can_be_replaced(&self, slot: u8) -> bool {
        let firmware = self.firmware();
        (1..=SLOTS).contains(&usize::from(slot)) && slot != firmware.active
    }

    /// Ends a transfer: what authenticates is in its slot then.
    pub(super) fn finish_firmware(
        &mut self,
        slot: u8,
        head: &[u8],
        effects: &mut Vec<Effect>,
    ) -> ReturnCode {
        let Some(image) = Image::authenticate(head) else {
            return ReturnCode::FirmwareAuthenticationFailed;
        };
        let firmware = &mut self.nonvolatile.firmware;
        let index = usize::from(slot).checked_sub(1);
        let Some(place) = index.and_then(|index| firmware.images.get_mut(index)) else {
            return ReturnCode::InvalidFirmwareSlot;
        };
        *place = Some(image);
        firmware.staged = firmware.staged.filter(|staged| *staged != slot);
        effects.push(Effect::NonVolatileChanged);
        ReturnCode::Success
    }

    /// Activate FW, on the next cold reset (section 8.2.9.3.3).
    pub(crate) fn stage_firmware(
        &mut self,
        slot: u8,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let firmware = &mut self.nonvolatile.firmware;
        if !firmware.is_filled(slot) {
            return Err(ReturnCode::InvalidFirmwareSlot);
        }
        firmware.staged = (slot != firmware.active).then_some(slot);
        effects.push(Effect::NonVolatileChanged);
        Ok(())
    }

    /// Activate FW, online: goes on in the background.
    pub(crate) fn activate_firmware(&self, slot: u8) -> Result<Operation, ReturnCode> {
        let firmware = self.firmware();
        if !firmware.is_filled(slot) || slot == firmware.active {
            return Err(ReturnCode::InvalidFirmwareSlot);
        }
        let image = firmware.image(slot).map(|image| image.activation);
        if image == Some(Activation::Cold) {
            return Err(ReturnCode::FirmwareNeedsColdReset);
        }
        Ok(Operation {
            duration: TIME,
            work: Work::ActivateFirmware { slot },
        })
    }

    pub(super) fn finish_activation(&mut self, slot: u8, effects: &mut Vec<Effect>) -> ReturnCode {
        let firmware = &mut self.nonvolatile.firmware;
        if !firmware.works(slot) {
            return ReturnCode::FirmwareRolledBack;
        }
        firmware.active = slot;
        firmware.staged = None;
        effects.push(Effect::NonVolatileChanged);
        ReturnCode::Success
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_first_line() {
        let image = |text: &str| {
            let image = Image::authenticate(text.as_bytes())?;
            Some((image.revision, image.activation))
        };
        let good = |revision: &str, activation| Some((revision.into(), activation));
        assert_eq!(
            image("MEMU firmware 2.1\n"),
            good("2.1", Activation::Online)
        );
        assert_eq!(
            image("MEMU firmware 2 cold\n\0\0"),
            good("2", Activation::Cold)
        );
        assert_eq!(
            image("MEMU firmware 2 broken\n"),
            good("2", Activation::Broken)
        );
        for bad in [
            "",
            "MEMU firmware 2.1",
            "MEMU firmware \n",
            "MEMU firmware 2 warm\n",
            "MEMU firmware 2 cold now\n",
            "MEMU firmware 12345678901234567\n",
            "MEMU firmware \u{e9}\n",
            "memu firmware 2.1\n",
        ] {
            assert_eq!(image(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_cold_reset_activates_what_is_staged_if_it_works() {
        let image = |activation| {
            let revision = "2".into();
            Some(Image {
                revision,
                activation,
            })
        };
        for (activation, active) in [
            (Activation::Online, 2),
            (Activation::Cold, 2),
            (Activation::Broken, 1),
        ] {
            let mut firmware = Firmware {
                images: [None, image(activation), None, None],
                active: 1,
                staged: Some(2),
            };
            firmware.cold_reset();
            assert_eq!((firmware.active, firmware.staged), (active, None));
        }
    }
}
