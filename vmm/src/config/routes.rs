//! Which ports lead from a window to the devices of a region, and how each host bridge and switch on the way interleaves.
//!
//! A window turns fastest: position `p` lies below its target `p % W`. Each level below works at the granularity of the
//! level above times that level's ways (CXL 3.1, 9.13.1), where three ways spend no address bits; so a component with the
//! granularity `G` and `N` ports that lead to the region sends position `p` to port `p * g / G % N` in the order of its
//! target list, `g` being the granularity of the region.

use std::collections::BTreeMap;

use super::model::{Place, Region, Window};

/// Most ways of a port's decoder: its target list holds eight (CXL 3.1, 8.2.4.20.7).
const MOST_PORT_WAYS: usize = 8;
/// The largest granularity, in bytes.
pub(super) const MOST_GRANULARITY: u64 = 16384;

/// How a host bridge or a switch decodes a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// Bytes to one port before the next's turn.
    pub(super) granularity: u64,
    /// Indices of its ports in interleave order: 1, 2, 4 or 8.
    pub(super) targets: Vec<usize>,
}

/// Why a region's devices cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// A component has so many ports that lead to devices of the region.
    Ways(Place, usize),
    /// A component would have to work at this granularity.
    Granularity(Place, u64),
    /// Some position is not where the decoders lead.
    Order,
}

/// By how much a host bridge's granularity exceeds that of a window of `ways`: a 3-way window spends no address bits.
pub(super) fn port_multiplier(ways: u64) -> u64 {
    if ways.is_multiple_of(3) {
        ways / 3
    } else {
        ways
    }
}

/// The components between a window and a region's devices, each with its decoder: host bridges before what is below them.
///
/// # Errors
/// The first thing that keeps a device from its position.
pub(super) fn levels(region: &Region, window: &Window) -> Result<BTreeMap<Place, Level>, Misfit> {
    let mut levels = untargeted(region, window)?;
    for (position, place) in region.devices.iter().enumerate() {
        if Some(&place.host_bridge) != target_of(window, position) {
            return Err(Misfit::Order);
        }
        for (component, port) in place.way() {
            let level = levels.get_mut(&component).ok_or(Misfit::Order)?;
            let way = level.way(region, position);
            match level.chosen.iter().position(|chosen| *chosen == Some(port)) {
                None if level.chosen[way].is_none() => level.chosen[way] = Some(port),
                Some(chosen) if chosen == way => {}
                _ => return Err(Misfit::Order),
            }
        }
    }
    levels
        .into_iter()
        .map(|(place, level)| {
            let granularity = level.granularity;
            let targets: Option<Vec<usize>> = level.chosen.into_iter().collect();
            let targets = targets.ok_or(Misfit::Order)?;
            Ok((
                place,
                Level {
                    granularity,
                    targets,
                },
            ))
        })
        .collect()
}

/// The region's devices in an order that its window reaches, if there is one.
pub(super) fn working_order(region: &Region, window: &Window) -> Option<Vec<Place>> {
    let levels = untargeted(region, window).ok()?;
    let mut order: Vec<Place> = Vec::new();
    for position in 0..region.ways() {
        let mut place = Place::host_bridge(*target_of(window, position)?);
        while let Some(level) = levels.get(&place) {
            place = place.below(*level.ports.get(level.way(region, position))?);
        }
        if order.contains(&place) || !region.devices.contains(&place) {
            return None;
        }
        order.push(place);
    }
    Some(order)
}

/// A component whose target list is not made yet.
struct Untargeted {
    granularity: u64,
    /// Ports that lead to devices of the region, in the order in which its positions come to them.
    ports: Vec<usize>,
    /// The target list as far as it is known.
    chosen: Vec<Option<usize>>,
}

impl Untargeted {
    /// The way that `position` takes.
    fn way(&self, region: &Region, position: usize) -> usize {
        let chunk = position as u64 * region.granularity / self.granularity;
        (chunk % self.ports.len().max(1) as u64) as usize
    }
}

fn untargeted(region: &Region, window: &Window) -> Result<BTreeMap<Place, Untargeted>, Misfit> {
    let mut ports: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
    for (component, port) in region.devices.iter().flat_map(Place::way) {
        let ports = ports.entry(component).or_default();
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    let mut levels: BTreeMap<Place, Untargeted> = BTreeMap::new();
    // A map of places has every component behind the one above it.
    for (place, ports) in ports {
        let above = place.way().last().and_then(|(above, _)| levels.get(&above));
        let granularity = match above {
            Some(above) => above.granularity * above.ports.len() as u64,
            None => region.granularity * port_multiplier(window.ways() as u64),
        };
        if !ports.len().is_power_of_two() || ports.len() > MOST_PORT_WAYS {
            return Err(Misfit::Ways(place, ports.len()));
        }
        if granularity > MOST_GRANULARITY {
            return Err(Misfit::Granularity(place, granularity));
        }
        let level = Untargeted {
            granularity,
            chosen: vec![None; ports.len()],
            ports,
        };
        levels.insert(place, level);
    }
    Ok(levels)
}

fn target_of(window: &Window, position: usize) -> Option<&usize> {
    window.targets.get(position % window.ways().max(1))
}
