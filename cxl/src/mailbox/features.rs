//! Features (section 8.2.9.6), opcodes 0x0500 to 0x0502.

use super::logs::Bytes;
use super::{Command, CommandEffects, Input, PAYLOAD_SIZE, Reply, Request, ReturnCode};
use crate::Effect;
use crate::memdev::Memdev;
use crate::memdev::features::{Feature, FeaturePart, Selection};

/// Get Supported Features (section 8.2.9.6.1).
pub(super) struct GetSupportedFeatures;

pub(super) struct SupportedRequest {
    /// Bytes that the reply may have.
    count: u32,
    /// First feature.
    start: u16,
}

impl Request for SupportedRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let request = Self {
            count: input.u32()?,
            start: input.u16()?,
        };
        let _reserved = input.u16()?;
        Some(request)
    }
}

pub(super) struct SupportedFeatures {
    /// With their indices.
    features: Vec<(u16, Feature)>,
}

impl SupportedFeatures {
    const HEADER_LEN: usize = 8;
    const ENTRY_LEN: usize = 48;
}

impl Reply for SupportedFeatures {
    fn encode(&self, output: &mut Vec<u8>) {
        output.extend((self.features.len() as u16).to_le_bytes());
        output.extend((Feature::ALL.len() as u16).to_le_bytes());
        output.extend([0; 4]);
        for (index, feature) in &self.features {
            let written = feature.default_bytes();
            let get_size = feature.readable(&written).len() as u16;
            output.extend(feature.uuid());
            output.extend(index.to_le_bytes());
            output.extend(get_size.to_le_bytes());
            output.extend((written.len() as u16).to_le_bytes());
            output.extend(Feature::ATTRIBUTES.to_le_bytes());
            output.extend([Feature::VERSION; 2]);
            output.extend(Feature::EFFECTS.bits().to_le_bytes());
            output.extend([0; 18]);
        }
    }
}

impl Command for GetSupportedFeatures {
    const OPCODE: u16 = 0x0500;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = SupportedRequest;
    type Reply = SupportedFeatures;

    fn run(
        _: &mut Memdev,
        request: SupportedRequest,
        _: &mut Vec<Effect>,
    ) -> Result<SupportedFeatures, ReturnCode> {
        let count = usize::try_from(request.count).unwrap_or(PAYLOAD_SIZE);
        let room = count
            .min(PAYLOAD_SIZE)
            .checked_sub(SupportedFeatures::HEADER_LEN)
            .ok_or(ReturnCode::InvalidInput)?;
        if usize::from(request.start) >= Feature::ALL.len() {
            return Err(ReturnCode::InvalidInput);
        }
        let features = (0..).zip(Feature::ALL).skip(request.start.into());
        Ok(SupportedFeatures {
            features: features.take(room / SupportedFeatures::ENTRY_LEN).collect(),
        })
    }
}

/// Get Feature (section 8.2.9.6.2).
pub(super) struct GetFeature;

pub(super) struct GetRequest {
    uuid: [u8; 16],
    offset: u16,
    count: u16,
    selection: u8,
}

impl Request for GetRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        Some(Self {
            uuid: input.array()?,
            offset: input.u16()?,
            count: input.u16()?,
            selection: input.u8()?,
        })
    }
}

impl Command for GetFeature {
    const OPCODE: u16 = 0x0501;
    const EFFECTS: CommandEffects = CommandEffects::NONE;
    type Request = GetRequest;
    type Reply = Bytes;

    fn run(
        memdev: &mut Memdev,
        request: GetRequest,
        _: &mut Vec<Effect>,
    ) -> Result<Bytes, ReturnCode> {
        let feature = Feature::with_uuid(request.uuid).ok_or(ReturnCode::Unsupported)?;
        let selection = match request.selection {
            0 => Selection::Current,
            1 => Selection::Default,
            2 => Selection::Saved,
            _ => return Err(ReturnCode::InvalidFeatureSelection),
        };
        let values = memdev.feature(feature, selection);
        Bytes::of(&values, request.offset.into(), request.count.into())
    }
}

/// Set Feature (section 8.2.9.6.3).
pub(super) struct SetFeature;

pub(super) struct SetRequest {
    uuid: [u8; 16],
    flags: u32,
    offset: u16,
    version: u8,
    data: Vec<u8>,
}

impl SetRequest {
    /// Flags: which part it is.
    const ACTION: u32 = 0b111;
    const FULL: u32 = 0;
    const INITIATE: u32 = 1;
    const CONTINUE: u32 = 2;
    const FINISH: u32 = 3;
    const ABORT: u32 = 4;
    /// Flags: the values are to survive a reset.
    const SAVE: u32 = 1 << 3;
}

impl Request for SetRequest {
    fn decode(input: &mut Input<'_>) -> Option<Self> {
        let (uuid, flags) = (input.array()?, input.u32()?);
        let (offset, version) = (input.u16()?, input.u8()?);
        let _reserved: [u8; 9] = input.array()?;
        Some(Self {
            uuid,
            flags,
            offset,
            version,
            data: input.rest().to_vec(),
        })
    }
}

impl Command for SetFeature {
    const OPCODE: u16 = 0x0502;
    const EFFECTS: CommandEffects =
        CommandEffects::CONFIGURATION_AFTER_COLD_RESET.and(Feature::EFFECTS);
    type Request = SetRequest;
    type Reply = ();

    fn run(
        memdev: &mut Memdev,
        request: SetRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReturnCode> {
        let feature = Feature::with_uuid(request.uuid).ok_or(ReturnCode::Unsupported)?;
        if request.version != Feature::VERSION {
            return Err(ReturnCode::InvalidFeatureVersion);
        }
        let part = match request.flags & SetRequest::ACTION {
            SetRequest::FULL => FeaturePart::Full,
            SetRequest::INITIATE => FeaturePart::Initiate,
            SetRequest::CONTINUE => FeaturePart::Continue,
            SetRequest::FINISH => FeaturePart::Finish,
            SetRequest::ABORT => return memdev.abort_feature_transfer(),
            _ => return Err(ReturnCode::InvalidInput),
        };
        let save = request.flags & SetRequest::SAVE != 0;
        memdev.set_feature(feature, part, request.offset, &request.data, save, effects)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, bench};
    use super::*;

    const FULL: u32 = 0;
    const INITIATE: u32 = 1;
    const CONTINUE: u32 = 2;
    const FINISH: u32 = 3;
    const ABORT: u32 = 4;
    const SAVE: u32 = 8;
    const CURRENT: u8 = 0;
    const DEFAULT: u8 = 1;
    const SAVED: u8 = 2;

    const SCRUB: u128 = 0x96dad7d6_fde8_482b_a733_75774e06db8a;
    const ECS: u128 = 0xe5b13f22_2328_4a14_b8ba_b9691e893386;
    const TAG: u128 = 0x0b49e493_eba4_4bdf_8b5a_3ed6b97fe5a1;

    impl Bench {
        fn get_feature(
            &mut self,
            uuid: u128,
            count: u16,
            selection: u8,
        ) -> Result<Vec<u8>, ReturnCode> {
            let mut request = uuid.to_be_bytes().to_vec();
            request.extend([0, 0]);
            request.extend(count.to_le_bytes());
            request.push(selection);
            self.run(0x0501, &request)
        }

        fn set_feature(
            &mut self,
            uuid: u128,
            flags: u32,
            offset: u16,
            data: &[u8],
        ) -> Option<ReturnCode> {
            let mut request = uuid.to_be_bytes().to_vec();
            request.extend(flags.to_le_bytes());
            request.extend(offset.to_le_bytes());
            request.push(1);
            request.extend([0; 9]);
            request.extend(data);
            self.run(0x0502, &request).err()
        }
    }

    fn supported(bench: &mut Bench, count: u32, start: u16) -> Result<Vec<u8>, ReturnCode> {
        let mut request = count.to_le_bytes().to_vec();
        request.extend(start.to_le_bytes());
        request.extend([0, 0]);
        bench.run(0x0500, &request)
    }

    #[test]
    fn all_features_are_listed_with_their_sizes() {
        let mut bench = bench();
        let list = supported(&mut bench, 2048, 0).unwrap();
        assert_eq!(list[..8], [9, 0, 9, 0, 0, 0, 0, 0]);
        let sizes: Vec<[u8; 4]> = list[8..]
            .chunks(48)
            .map(|entry| [entry[16], entry[18], entry[20], entry[22]])
            .collect();
        // Index, size to get, size to set, attributes: changeable, kept over a cold reset and a firmware update, with
        // default and saved values.
        let expected = [4, 9, 20, 20, 19, 19, 19, 19, 16]
            .into_iter()
            .zip([2, 5, 3, 3, 2, 2, 2, 2, 16]);
        let expected = (0..)
            .zip(expected)
            .map(|(n, (get, set))| [n, get, set, 0x79]);
        assert!(sizes.into_iter().eq(expected));
        // As many as there is room for, from the sixth on.
        let part = supported(&mut bench, 8 + 48 + 47, 5).unwrap();
        assert_eq!((part.len(), part[0], part[8 + 16]), (8 + 48, 1, 5));
        for (count, start) in [(7, 0), (2048, 9)] {
            let refused = Err(ReturnCode::InvalidInput);
            assert_eq!(supported(&mut bench, count, start), refused);
        }
    }

    #[test]
    fn a_scrub_cycle_is_set_until_a_reset_or_saved_for_good() {
        let mut bench = bench();
        // Changeable; 24 hours, at least 1; enabled.
        let default = vec![1, 24, 1, 1];
        assert_eq!(bench.get_feature(SCRUB, 4, CURRENT), Ok(default.clone()));
        assert_eq!(bench.set_feature(SCRUB, FULL, 0, &[12, 0]), None);
        assert_eq!(bench.effects, []);
        assert_eq!(bench.get_feature(SCRUB, 4, CURRENT), Ok(vec![1, 12, 1, 0]));
        assert_eq!(bench.get_feature(SCRUB, 4, SAVED), Ok(default.clone()));
        bench.memdev.reset();
        assert_eq!(bench.get_feature(SCRUB, 4, CURRENT), Ok(default.clone()));

        assert_eq!(bench.set_feature(SCRUB, FULL | SAVE, 0, &[48, 1]), None);
        assert_eq!(bench.effects, [Effect::NonVolatileChanged]);
        assert_eq!(bench.set_feature(SCRUB, FULL, 0, &[2, 1]), None);
        bench.memdev.power_cycle();
        for selection in [CURRENT, SAVED] {
            assert_eq!(
                bench.get_feature(SCRUB, 4, selection),
                Ok(vec![1, 48, 1, 1])
            );
        }
        assert_eq!(bench.get_feature(SCRUB, 4, DEFAULT), Ok(default));
    }

    #[test]
    fn error_check_scrub_is_set_per_unit_and_its_reset_is_done_at_once() {
        let mut bench = bench();
        // Per unit of media: threshold 4096, count codewords, reset the counter.
        let values = [1, 0b1_1101, 0, 0b0_0100, 0];
        assert_eq!(bench.set_feature(ECS, FULL, 0, &values), None);
        let read = vec![1, 0, 0b0_1101, 0, 0, 0, 0b0_0100, 0, 0];
        assert_eq!(bench.get_feature(ECS, 9, CURRENT), Ok(read));
    }

    #[test]
    fn an_asset_tag_is_any_sixteen_bytes() {
        let mut bench = bench();
        assert_eq!(bench.get_feature(TAG, 16, CURRENT), Ok(vec![0; 16]));
        let tag: Vec<u8> = (0xf0..=0xff).collect();
        assert_eq!(bench.set_feature(TAG, FULL | SAVE, 0, &tag), None);
        bench.memdev.power_cycle();
        assert_eq!(bench.get_feature(TAG, 16, CURRENT), Ok(tag.clone()));
        let refused = Some(ReturnCode::InvalidInput);
        assert_eq!(bench.set_feature(TAG, FULL, 0, &tag[..15]), refused);
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let mut bench = bench();
        let refused = Some(ReturnCode::InvalidInput);
        let ppr = 0x892ba475_fad8_474e_9d3e_692c917568bb;
        for (uuid, values) in [
            (SCRUB, vec![0, 1]),
            (SCRUB, vec![24, 2]),
            (SCRUB, vec![24]),
            (SCRUB, vec![24, 1, 0]),
            (ECS, vec![2, 3, 0, 3, 0]),
            (ECS, vec![0, 2, 0, 3, 0]),
            (ECS, vec![0, 3, 1, 3, 0]),
            (ECS, vec![0, 0x23, 0, 3, 0]),
            (ppr, vec![1, 0, 0]),
        ] {
            assert_eq!(
                bench.set_feature(uuid, FULL, 0, &values),
                refused,
                "{values:?}"
            );
        }
    }

    #[test]
    fn values_come_in_parts_in_order() {
        let mut bench = bench();
        let order = Some(ReturnCode::FeatureTransferOutOfOrder);
        let busy = Some(ReturnCode::FeatureTransferInProgress);
        for (uuid, flags, offset, data, result) in [
            (ECS, CONTINUE, 0, &[0][..], order),
            (ECS, ABORT, 0, &[], order),
            (ECS, FULL, 1, &[0], order),
            (ECS, INITIATE, 0, &[0], None),
            (ECS, INITIATE, 0, &[0], busy),
            (SCRUB, CONTINUE, 1, &[0], busy),
            (SCRUB, FULL, 0, &[24, 1], busy),
            (ECS, CONTINUE, 2, &[4], order),
            (
                ECS,
                CONTINUE,
                1,
                &[4, 0, 0, 0, 0],
                Some(ReturnCode::InvalidInput),
            ),
            (ECS, CONTINUE, 1, &[4, 0], None),
            (ECS, FINISH, 3, &[5, 0], None),
            (ECS, INITIATE, 0, &[0], None),
            (ECS, ABORT, 0, &[], None),
            (ECS, FINISH, 1, &[0], order),
            (ECS, 5, 0, &[], Some(ReturnCode::InvalidInput)),
        ] {
            assert_eq!(
                bench.set_feature(uuid, flags, offset, data),
                result,
                "{flags} {offset}"
            );
        }
        assert_eq!(
            bench.get_feature(ECS, 9, CURRENT).unwrap()[2..7],
            [4, 0, 0, 0, 5]
        );
    }

    #[test]
    fn repair_features_name_their_class_of_maintenance() {
        let mut bench = bench();
        for (uuid, len, code) in [
            (0x892ba475_fad8_474e_9d3e_692c917568bb, 20, [1, 0]),
            (0x80ea4521_786f_4127_afb1_ec7459fb0e24, 20, [1, 1]),
            (0x96c33386_91dd_44c7_9ecb_fdaf6503bac4, 19, [2, 0]),
            (0x450ebf67_b135_4f97_a498_c2d57f279bed, 19, [2, 1]),
            (0x78b79636_90ac_4b64_a4ef_faac5d18a863, 19, [2, 2]),
            (0x34dbaff5_0552_4281_8f76_da0b5e7a76a7, 19, [2, 3]),
        ] {
            let values = bench.get_feature(uuid, len, CURRENT).unwrap();
            assert_eq!(values[5..7], code);
        }
    }

    #[test]
    fn unknown_features_versions_selections_and_ranges_are_refused() {
        let mut bench = bench();
        assert_eq!(
            bench.get_feature(1, 1, CURRENT),
            Err(ReturnCode::Unsupported)
        );
        assert_eq!(
            bench.set_feature(1, FULL, 0, &[]),
            Some(ReturnCode::Unsupported)
        );
        let selection = bench.get_feature(SCRUB, 4, 3);
        assert_eq!(selection, Err(ReturnCode::InvalidFeatureSelection));
        assert_eq!(
            bench.get_feature(SCRUB, 5, CURRENT),
            Err(ReturnCode::InvalidInput)
        );
        let mut request = SCRUB.to_be_bytes().to_vec();
        request.extend([0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let version = bench.run(0x0502, &request);
        assert_eq!(version, Err(ReturnCode::InvalidFeatureVersion));
    }
}
