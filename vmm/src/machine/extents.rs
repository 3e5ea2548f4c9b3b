//! Dynamic capacity, as the control socket gives it and takes it away.

use cxl::mailbox::ReturnCode;
use cxl::memdev::Memdev;
use cxl::memdev::dynamic::{Extent, MOST_EXTENTS};
use devices::Device;

use crate::board::{Board, Effects};
use crate::control::{self as api, ChangeExtents, ExtentChange, Failure, FailureKind};

/// Changes the extents of a device.
///
/// # Errors
/// See [`Backend::change_extents`](api::Backend::change_extents).
pub(super) fn change(board: &Board, request: &ChangeExtents) -> Result<(), Failure> {
    let mut models = board.lock();
    let found = models.expander_named(&request.device);
    let node = found.map(|(node, _)| node).ok_or_else(|| {
        let message = format!("there is no expander {}", request.device);
        Failure::new(FailureKind::NotFound, message, "take a name from the tree")
    })?;
    let mut effects = Effects::new();
    let result = models.hierarchy.with(node, &mut effects, |device, out| {
        let Device::Type3(device) = device else {
            return Ok(());
        };
        if device.memdev().dynamic_regions().is_empty() {
            return Err(Failure::new(
                FailureKind::BadRequest,
                format!("{} has no dynamic capacity", request.device),
                "give it some in the configuration: [[...device.dynamic_capacity]]",
            ));
        }
        match &request.change {
            ExtentChange::Add(extents) => {
                let extents: Vec<Extent> = extents.iter().map(extent).collect::<Result<_, _>>()?;
                device.offer_extents(&extents, out)
            }
            ExtentChange::Release(range) => device.reclaim_extent(&extent(range)?, false, out),
            ExtentChange::Take(range) => device.reclaim_extent(&extent(range)?, true, out),
        }
        .map_err(|code| refused(&request.change, code))
    });
    board.perform(models, effects);
    result.unwrap_or(Ok(()))
}

/// The regions of a device.
pub(super) fn regions(memdev: &Memdev) -> Vec<api::DynamicRegion> {
    let regions = memdev.dynamic_regions().iter();
    let show = |region: &cxl::memdev::dynamic::DynamicRegion| api::DynamicRegion {
        dpa: region.base,
        size: region.len,
        block_size: region.block_size,
    };
    regions.map(show).collect()
}

/// Extents as clients see them.
pub(super) fn shown<'e>(extents: impl IntoIterator<Item = &'e Extent>) -> Vec<api::Extent> {
    let show = |extent: &Extent| api::Extent {
        dpa: extent.dpa,
        length: extent.len,
        tag: match extent.tag {
            tag if tag == [0; 16] => String::new(),
            tag => tag.iter().map(|byte| format!("{byte:02x}")).collect(),
        },
    };
    extents.into_iter().map(show).collect()
}

fn extent(asked: &api::Extent) -> Result<Extent, Failure> {
    Ok(Extent {
        dpa: asked.dpa,
        len: asked.length,
        tag: tag(&asked.tag)?,
        shared_sequence: 0,
    })
}

/// The bytes of a tag, with zeroes behind them.
fn tag(digits: &str) -> Result<[u8; 16], Failure> {
    let mut tag = [0; 16];
    let pairs = digits.as_bytes().chunks(2);
    let fits = pairs.len() <= tag.len();
    let byte = |pair: &[u8]| {
        let digits: Option<Vec<u32>> = pair.iter().map(|d| char::from(*d).to_digit(16)).collect();
        match digits?.as_slice() {
            [high, low] => u8::try_from(high << 4 | low).ok(),
            _ => None,
        }
    };
    let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
    let bytes = bytes.filter(|_| fits).ok_or_else(|| {
        Failure::new(
            FailureKind::BadRequest,
            format!("\"{digits}\" is no tag"),
            "give up to 16 bytes, two hexadecimal digits each",
        )
    })?;
    for (to, from) in tag.iter_mut().zip(bytes) {
        *to = from;
    }
    Ok(tag)
}

fn refused(change: &ExtentChange, code: ReturnCode) -> Failure {
    let gives = matches!(change, ExtentChange::Add(_));
    let (kind, message, mend) = match code {
        ReturnCode::ResourcesExhausted => (
            FailureKind::Conflict,
            format!("a device keeps at most {MOST_EXTENTS} extents"),
            "take some away first",
        ),
        ReturnCode::InvalidExtentList => (
            FailureKind::Conflict,
            "there are none, or they overlap, or the guest has or is offered some of that".into(),
            "see the extents in the tree",
        ),
        _ if gives => (
            FailureKind::BadRequest,
            "that is not in whole blocks of one of the device's regions".into(),
            "see the regions in the tree",
        ),
        _ => (
            FailureKind::Conflict,
            "no extent of the guest's has all of that, in whole blocks".into(),
            "see the extents in the tree",
        ),
    };
    Failure::new(kind, message, mend)
}
