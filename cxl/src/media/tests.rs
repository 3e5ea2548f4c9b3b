use std::collections::BTreeMap;

use super::layout::{SetMember, current, relayout, stores};
use super::*;
use crate::interleave::{Granularity, Ways, XorMaps};

const KIB: u64 = 1024;

fn at(store: u32, offset: u64) -> Location {
    Location {
        store: StoreId(store),
        offset,
    }
}

fn linear(dpa: u64, len: u64, start: Location) -> Extent {
    Extent {
        dpa,
        len,
        start,
        layout: Layout::Linear,
    }
}

fn two_ways() -> Interleave {
    Interleave::new(Ways::new(2).unwrap(), Granularity::new(256).unwrap())
}

fn interleaved(dpa: u64, len: u64, start: Location, way: u64) -> Extent {
    let layout = Layout::Interleaved {
        way,
        interleave: two_ways(),
    };
    Extent {
        dpa,
        len,
        start,
        layout,
    }
}

/// A device of 64 KiB in store `store`, from 0x1000 on.
fn device(store: u32) -> MediaMap {
    MediaMap::new(64 * KIB, vec![linear(0, 64 * KIB, at(store, 0x1000))]).unwrap()
}

#[test]
fn a_linear_extent_is_one_span() {
    let map = device(1);
    let span = map.locate(0x234).unwrap();
    assert_eq!(
        span,
        Span {
            location: at(1, 0x1234),
            len: 64 * KIB - 0x234
        }
    );
    assert_eq!(map.locate(64 * KIB), None);
}

#[test]
fn an_interleaved_extent_is_one_span_per_chunk() {
    let map = MediaMap::new(KIB, vec![interleaved(0, KIB, at(2, 0x4000), 1)]).unwrap();
    let spans: Vec<Span> = map.spans(0x80, 0x200).collect();
    let expected = [
        Span {
            location: at(2, 0x4180),
            len: 0x80,
        },
        Span {
            location: at(2, 0x4300),
            len: 0x100,
        },
        Span {
            location: at(2, 0x4500),
            len: 0x80,
        },
    ];
    assert_eq!(spans, expected);
}

#[test]
fn spans_end_with_the_device() {
    let len: u64 = device(1)
        .spans(63 * KIB, u64::MAX)
        .map(|span| span.len)
        .sum();
    assert_eq!(len, KIB);
}

#[test]
fn extents_cover_the_device_once() {
    let new = |extents: &[Extent]| MediaMap::new(8 * KIB, extents.to_vec()).map(|_| ());
    let first = linear(0, 4 * KIB, at(1, 0));
    let second = linear(4 * KIB, 4 * KIB, at(2, 0));
    assert_eq!(new(&[second, first]), Ok(()));
    assert_eq!(new(&[first]), Err(Error::NoExtent(4 * KIB)));
    assert_eq!(new(&[second]), Err(Error::NoExtent(0)));
    assert_eq!(new(&[]), Err(Error::NoExtent(0)));
    let early = linear(3 * KIB, 5 * KIB, at(2, 0));
    assert_eq!(new(&[first, early]), Err(Error::ExtentsOverlap(3 * KIB)));
    let long = linear(4 * KIB, 8 * KIB, at(2, 0));
    assert_eq!(new(&[first, long]), Err(Error::BadExtent(8 * KIB)));
}

#[test]
fn what_lies_before_an_offset_of_the_store_is_told_in_whole_rounds() {
    let granularity = Granularity::new(512).unwrap();
    let set = |ways, xor| Layout::Interleaved {
        way: 0,
        interleave: Interleave::new(Ways::new(ways).unwrap(), granularity).with_xor(xor),
    };
    let xor = XorMaps::spread(Ways::new(4).unwrap(), granularity);
    for (layout, most_missing) in [
        (Layout::Linear, 0),
        (set(3, XorMaps::NONE), 512),
        (set(4, xor), 512),
    ] {
        let extent = Extent {
            dpa: 0x1000,
            len: 8 * KIB,
            start: at(1, 0x4000),
            layout,
        };
        for offset in (0x3f00..0xd000).step_by(0x340) {
            let told = extent.before(offset) - extent.dpa;
            let lies_before = |dpa: &u64| extent.locate(*dpa).unwrap().location.offset < offset;
            let so_many = (extent.dpa..extent.end()).take_while(lies_before).count() as u64;
            assert!(
                told <= so_many && so_many - told <= most_missing,
                "{layout:?} {offset:#x}: {told:#x} of {so_many:#x}"
            );
        }
        assert_eq!(extent.before(u64::MAX), extent.end());
    }
}

#[test]
fn unsound_extents_are_refused() {
    for extent in [
        linear(0, 0, at(1, 0)),
        linear(0, KIB, at(1, u64::MAX)),
        interleaved(0, KIB + 1, at(1, 0), 0),
        interleaved(0, KIB, at(1, 0), 2),
    ] {
        assert_eq!(
            MediaMap::new(KIB, vec![extent]),
            Err(Error::BadExtent(0)),
            "{extent:?}"
        );
    }
}

#[test]
fn replacing_the_middle_splits_and_replacing_it_back_joins() {
    let mut map = device(1);
    map.replace(interleaved(16 * KIB, 16 * KIB, at(2, 0), 0))
        .unwrap();
    let expected = [
        linear(0, 16 * KIB, at(1, 0x1000)),
        interleaved(16 * KIB, 16 * KIB, at(2, 0), 0),
        linear(32 * KIB, 32 * KIB, at(1, 0x1000 + 32 * KIB)),
    ];
    assert_eq!(map.extents(), expected);
    map.replace(linear(16 * KIB, 16 * KIB, at(1, 0x1000 + 16 * KIB)))
        .unwrap();
    assert_eq!(map, device(1));
}

#[test]
fn replacing_past_the_end_or_through_a_chunk_changes_nothing() {
    let mut map = MediaMap::new(KIB, vec![interleaved(0, KIB, at(2, 0), 0)]).unwrap();
    let before = map.clone();
    assert_eq!(
        map.replace(linear(512, KIB, at(1, 0))),
        Err(Error::NoExtent(KIB))
    );
    assert_eq!(
        map.replace(linear(128, 128, at(1, 0))),
        Err(Error::BadExtent(0))
    );
    assert_eq!(
        map.replace(linear(0, 0, at(1, 0))),
        Err(Error::BadExtent(0))
    );
    assert_eq!(map, before);
}

#[test]
fn a_device_alone_has_its_layout_already() {
    let map = device(1);
    let member = SetMember {
        media: &map,
        dpa: 16 * KIB,
    };
    let place = current(&[member], 32 * KIB, Interleave::NONE);
    assert_eq!(place, Some(at(1, 0x1000 + 16 * KIB)));
}

#[test]
fn a_set_has_its_layout_once_it_was_laid_out() {
    let mut maps = [device(1), device(2)];
    let dpas = [0, 32 * KIB];
    let members = |maps: &[MediaMap; 2]| current(&set(maps, dpas), 16 * KIB, two_ways());
    assert_eq!(members(&maps), None);

    let plan = relayout(&set(&maps, dpas), 16 * KIB, two_ways(), at(3, 0x8000)).unwrap();
    for (map, extent) in maps.iter_mut().zip(&plan.extents) {
        map.replace(*extent).unwrap();
    }
    assert_eq!(members(&maps), Some(at(3, 0x8000)));
    // The upper half of the set lies in the upper half of the place.
    let upper = set(&maps, [8 * KIB, 40 * KIB]);
    assert_eq!(
        current(&upper, 8 * KIB, two_ways()),
        Some(at(3, 0x8000 + 16 * KIB))
    );

    maps.reverse();
    assert_eq!(members(&maps), None, "in other positions it is another set");
}

fn set(maps: &[MediaMap; 2], dpas: [u64; 2]) -> [SetMember<'_>; 2] {
    [
        SetMember {
            media: &maps[0],
            dpa: dpas[0],
        },
        SetMember {
            media: &maps[1],
            dpa: dpas[1],
        },
    ]
}

#[test]
fn a_relayout_keeps_every_byte_at_its_device_address() {
    // The second device starts out with a part elsewhere, so that its copy has three sources.
    let mut maps = [device(1), device(2)];
    maps[1].replace(linear(4 * KIB, 4 * KIB, at(4, 0))).unwrap();
    let plan = relayout(&set(&maps, [0, 0]), 16 * KIB, two_ways(), at(3, 0)).unwrap();
    assert_eq!(plan.copies.len(), 4);

    // A store is a map from place to content; the content of a byte is its device and address.
    let place = |location: Location| (location.store.0, location.offset);
    let mut bytes = BTreeMap::new();
    for (id, map) in (0_u64..).zip(&maps) {
        for dpa in 0..16 * KIB {
            bytes.insert(place(map.locate(dpa).unwrap().location), (id, dpa));
        }
    }
    for copy in &plan.copies {
        let mut dpa = copy.source.dpa;
        while let Some(run) = copy.run(dpa) {
            for n in 0..run.len {
                let from = Location {
                    offset: run.source.offset + n,
                    ..run.source
                };
                let to = Location {
                    offset: run.target.offset + n,
                    ..run.target
                };
                let byte = bytes[&place(from)];
                assert_eq!(bytes.insert(place(to), byte), None, "each target once");
            }
            dpa += run.len;
        }
        assert_eq!(dpa, copy.source.end());
    }
    for (map, extent) in maps.iter_mut().zip(&plan.extents) {
        map.replace(*extent).unwrap();
    }
    for (id, map) in (0_u64..).zip(&maps) {
        for dpa in 0..16 * KIB {
            assert_eq!(bytes[&place(map.locate(dpa).unwrap().location)], (id, dpa));
        }
    }
    // In the new place the bytes are in HPA order.
    for hpa in 0..32 * KIB {
        let interleave = two_ways();
        let expected = (interleave.position(hpa), interleave.dpa_offset(hpa));
        assert_eq!(bytes[&(3, hpa)], expected);
    }
}

#[test]
fn the_stores_of_a_part_are_named_once() {
    let mut map = device(1);
    map.replace(linear(4 * KIB, 4 * KIB, at(4, 0))).unwrap();
    let member = SetMember {
        media: &map,
        dpa: 0,
    };
    assert_eq!(stores(member, 4 * KIB), Ok(vec![StoreId(1)]));
    assert_eq!(stores(member, 16 * KIB), Ok(vec![StoreId(1), StoreId(4)]));
}
