use super::*;
use cxl::decode::EndpointId;
use cxl::{Granularity, Interleave, Ways};
use std::fs;
use tempfile::TempDir;

const CAPACITY: u64 = 256 << 20;
/// Where the sets below lie in host-physical addresses.
const BASE: u64 = 1 << 36;

fn spec(name: &str, directory: Option<&TempDir>) -> MediaSpec {
    MediaSpec {
        name: name.into(),
        capacity: CAPACITY,
        backing: directory.map(|directory| directory.path().join(name)),
        shared: false,
    }
}

fn pair(directory: &TempDir) -> Media {
    Media::open(vec![
        spec("mem0", Some(directory)),
        spec("mem1", Some(directory)),
    ])
    .unwrap()
}

/// A set of all bytes of `devices`, in that order.
fn set(devices: &[u32], granularity: u64) -> Mapping {
    Mapping {
        base: BASE,
        size: CAPACITY * devices.len() as u64,
        interleave: Interleave::new(
            Ways::new(devices.len() as u64).unwrap(),
            Granularity::new(granularity).unwrap(),
        ),
        members: devices
            .iter()
            .map(|device| Member {
                endpoint: EndpointId(*device),
                dpa: 0,
            })
            .collect(),
    }
}

/// What the test stores at `dpa` of `device`.
fn token(device: usize, dpa: u64) -> Vec<u8> {
    format!("device {device} at {dpa:#x}").into_bytes()
}

/// Addresses in different chunks, at the beginning, in the middle and at the end.
const ADDRESSES: [u64; 4] = [0, 0x100, 0x12_3400, CAPACITY - 0x100];

fn store_tokens(media: &Media, device: usize) {
    for dpa in ADDRESSES {
        let span = media.devices[&device].map.locate(dpa).unwrap();
        let store = media.store(span.location.store).unwrap();
        store
            .write(span.location.offset, &token(device, dpa))
            .unwrap();
    }
}

fn assert_tokens(media: &Media, devices: &[usize]) {
    for device in devices {
        for dpa in ADDRESSES {
            let mut found = token(*device, dpa);
            found.fill(0);
            media.read(*device, dpa, &mut found).unwrap();
            assert_eq!(
                String::from_utf8(found),
                String::from_utf8(token(*device, dpa))
            );
        }
    }
}

/// A set whose window has XOR arithmetic.
fn xor_set(devices: &[u32], granularity: u64) -> Mapping {
    let mut set = set(devices, granularity);
    let modulo = set.interleave;
    set.interleave = modulo.with_xor(cxl::XorMaps::spread(modulo.ways, modulo.granularity));
    set
}

#[test]
fn a_set_by_xor_keeps_its_bytes_and_its_maps_across_a_restart() {
    let directory = TempDir::new().unwrap();
    let mut media = pair(&directory);
    store_tokens(&media, 0);
    store_tokens(&media, 1);
    let piece = media.present(&xor_set(&[1, 0], 16384)).unwrap();
    assert_tokens(&media, &[0, 1]);
    // Bits 14, 20 and 24 choose: from 1 MiB on the device at position 1, mem0, comes first.
    let mut first = token(0, 0);
    piece.store.read(piece.offset + 0x4000, &mut first).unwrap();
    assert_eq!(first, token(0, 0));
    let mut turned = [1; 16];
    media.read(0, 0x8_0000, &mut turned).unwrap();
    piece
        .store
        .write(piece.offset + 0x10_0000, &[7; 16])
        .unwrap();
    media.read(0, 0x8_0000, &mut turned).unwrap();
    assert_eq!(turned, [7; 16]);
    drop(media);

    let mut media = pair(&directory);
    assert_tokens(&media, &[0, 1]);
    let again = media.present(&xor_set(&[1, 0], 16384)).unwrap();
    assert_eq!(again.store.path(), piece.store.path(), "nothing moves");
    // The same set by modulo arithmetic lies otherwise.
    media.present(&set(&[1, 0], 16384)).unwrap();
    assert_tokens(&media, &[0, 1]);
}

#[test]
fn sets_made_one_after_the_other_leave_no_stores_behind() {
    let mut media = Media::open(vec![spec("mem0", None), spec("mem1", None)]).unwrap();
    store_tokens(&media, 0);
    for round in 0..20 {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        media.present(&set(&order, 16384)).unwrap();
        assert_eq!(media.stores.len(), 3, "the devices' own and the set's");
    }
    assert_tokens(&media, &[0]);
}

#[test]
fn a_device_alone_shows_its_own_store() {
    let mut media = Media::open(vec![spec("mem0", None)]).unwrap();
    let piece = media.present(&set(&[0], 256)).unwrap();
    assert_eq!((piece.hpa, piece.len, piece.offset), (BASE, CAPACITY, 0));
    piece.store.write(0x1234, b"by address").unwrap();
    let mut found = [0; 10];
    media.read(0, 0x1234, &mut found).unwrap();
    assert_eq!(&found, b"by address");
}

#[test]
fn what_a_device_writes_lies_in_its_chunks_of_a_set() {
    let mut media = Media::open(vec![spec("mem0", None), spec("mem1", None)]).unwrap();
    let piece = media.present(&set(&[0, 1], 256)).unwrap();
    media.write(1, 0xf0, &[7; 32]).unwrap();
    let mut found = [0; 1024];
    piece.store.read(0, &mut found).unwrap();
    let written: Vec<usize> = (0..1024).filter(|at| found[*at] == 7).collect();
    assert!(written.into_iter().eq((0x1f0..0x200).chain(0x300..0x310)));
    let past_the_end = media.write(1, CAPACITY - 16, &[7; 32]);
    assert!(matches!(past_the_end, Err(MediaError::NoSuchRange { .. })));
}

#[test]
fn a_two_way_set_of_256_bytes_alternates_between_its_devices() {
    let mut media = Media::open(vec![spec("mem0", None), spec("mem1", None)]).unwrap();
    let piece = media.present(&set(&[1, 0], 256)).unwrap();
    for chunk in 0..8_u8 {
        piece
            .store
            .write(256 * u64::from(chunk), &[chunk; 256])
            .unwrap();
    }
    let mut found = [0; 1024];
    media.read(1, 0, &mut found).unwrap();
    assert_eq!(
        found.chunks(256).map(|chunk| chunk[0]).collect::<Vec<_>>(),
        [0, 2, 4, 6]
    );
    media.read(0, 0, &mut found).unwrap();
    assert_eq!(
        found.chunks(256).map(|chunk| chunk[0]).collect::<Vec<_>>(),
        [1, 3, 5, 7]
    );
}

#[test]
fn bytes_keep_their_device_address_through_every_layout() {
    let directory = TempDir::new().unwrap();
    let mut media = pair(&directory);
    store_tokens(&media, 0);
    store_tokens(&media, 1);
    for mapping in [
        set(&[0, 1], 256),
        set(&[1, 0], 4096),
        set(&[0], 256),
        set(&[0, 1], 16384),
        set(&[1], 256),
    ] {
        media.present(&mapping).unwrap();
        assert_tokens(&media, &[0, 1]);
    }
    drop(media);
    assert_tokens(&pair(&directory), &[0, 1]);
}

#[test]
fn a_set_that_comes_back_is_not_moved_again() {
    let directory = TempDir::new().unwrap();
    let mut media = pair(&directory);
    let first = media.present(&set(&[0, 1], 256)).unwrap();
    first.store.write(0x700, b"kept").unwrap();
    drop(media);
    let again = pair(&directory).present(&set(&[0, 1], 256)).unwrap();
    assert_eq!(again.store.path(), first.store.path());
    let mut found = [0; 4];
    again.store.read(0x700, &mut found).unwrap();
    assert_eq!(&found, b"kept");
}

#[test]
fn a_kill_between_two_manifests_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let mut media = pair(&directory);
    store_tokens(&media, 0);
    store_tokens(&media, 1);
    media.present(&set(&[0, 1], 256)).unwrap();
    drop(media);
    // As it is on the disk when the process dies after the first member's manifest was replaced and before the second's.
    fs::remove_file(manifest::path(&directory.path().join("mem1"))).unwrap();

    let mut media = pair(&directory);
    assert_tokens(&media, &[0, 1]);
    media.present(&set(&[0, 1], 256)).unwrap();
    assert_tokens(&media, &[0, 1]);
}

#[test]
fn a_kill_before_any_manifest_leaves_the_old_layout() {
    let directory = TempDir::new().unwrap();
    let mut media = pair(&directory);
    store_tokens(&media, 0);
    media.present(&set(&[0, 1], 256)).unwrap();
    drop(media);
    for device in ["mem0", "mem1"] {
        fs::remove_file(manifest::path(&directory.path().join(device))).unwrap();
    }
    let mut media = pair(&directory);
    assert_tokens(&media, &[0]);
    // The set's file is there, but no manifest names it: its bytes are of no account.
    let piece = media.present(&set(&[0, 1], 256)).unwrap();
    assert_tokens(&media, &[0]);
    assert_eq!(piece.len, 2 * CAPACITY);
}

#[test]
fn the_file_of_a_set_goes_when_its_last_member_has_left_it() {
    let directory = TempDir::new().unwrap();
    let mut media = pair(&directory);
    let path = media
        .present(&set(&[0, 1], 256))
        .unwrap()
        .store
        .path()
        .unwrap()
        .to_path_buf();
    media.present(&set(&[0], 256)).unwrap();
    assert!(path.exists(), "the other member's bytes are in it");
    media.present(&set(&[1], 256)).unwrap();
    assert!(!path.exists());
}

#[test]
fn the_file_of_a_set_stays_for_a_member_that_is_not_in_this_host() {
    let directory = TempDir::new().unwrap();
    let mut media = pair(&directory);
    store_tokens(&media, 1);
    media.present(&set(&[0, 1], 256)).unwrap();
    drop(media);
    let mut alone = Media::open(vec![spec("mem0", Some(&directory))]).unwrap();
    alone.present(&set(&[0], 256)).unwrap();
    drop(alone);
    assert_tokens(&pair(&directory), &[1]);
}

#[test]
fn shared_bytes_do_not_move() {
    let directory = TempDir::new().unwrap();
    let shared = |name| MediaSpec {
        shared: true,
        ..spec(name, Some(&directory))
    };
    let mut media = Media::open(vec![shared("mem0"), shared("mem1")]).unwrap();
    assert!(matches!(
        media.present(&set(&[0, 1], 256)),
        Err(MediaError::Shared { .. })
    ));
    assert!(media.present(&set(&[0], 256)).is_ok());
    let other = Media::open(vec![shared("mem0")]).unwrap();
    store_tokens(&media, 0);
    assert_tokens(&other, &[0]);
}

#[test]
fn a_backing_file_is_used_by_one_host_unless_it_is_shared() {
    let directory = TempDir::new().unwrap();
    let _first = Media::open(vec![spec("mem0", Some(&directory))]).unwrap();
    let second = Media::open(vec![spec("mem0", Some(&directory))]);
    assert!(matches!(second, Err(MediaError::InUse { .. })));
}

#[test]
fn a_backing_file_of_another_size_is_refused() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("mem0"), [0; 4096]).unwrap();
    let error = Media::open(vec![spec("mem0", Some(&directory))]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has 4096 bytes and mem0 has 268435456"),
        "{error}"
    );
}

#[test]
fn a_manifest_that_cannot_be_right_is_refused_and_kept() {
    let directory = TempDir::new().unwrap();
    drop(pair(&directory));
    let path = manifest::path(&directory.path().join("mem0"));
    let hole = r#"{"version": 1, "extents": [{"dpa": 4096, "len": 4096, "set": null}]}"#;
    let outside = r#"{"version": 1, "extents": [{"dpa": 0, "len": 1099511627776, "set": null}]}"#;
    for text in ["", "{}", r#"{"version": 2, "extents": []}"#, hole, outside] {
        fs::write(&path, text).unwrap();
        let error = Media::open(vec![spec("mem0", Some(&directory))]).unwrap_err();
        assert!(
            matches!(error, MediaError::Manifest { .. }),
            "{text}: {error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn what_a_device_had_is_given_back_when_it_goes() {
    let mut media = Media::open(vec![spec("mem0", None), spec("mem1", None)]).unwrap();
    let stores = media.stores.len();
    for _ in 0..3 {
        let device = media.attach(spec("mem2", None)).unwrap();
        let both = [0, u32::try_from(device).unwrap()];
        media.present(&set(&both, 256)).unwrap();
        assert_eq!(media.stores.len(), stores + 2, "its own and the set's");
        media.detach(device).unwrap();
        assert!(media.read(device, 0, &mut [0; 16]).is_err());
        // mem0's bytes are still in the set.
        assert_eq!(media.stores.len(), stores + 1);
        media.present(&set(&[0], 256)).unwrap();
        assert_eq!(media.stores.len(), stores);
    }
}

#[test]
fn a_set_in_a_file_keeps_its_bytes_for_a_member_that_goes() {
    let directory = TempDir::new().unwrap();
    let mut media = pair(&directory);
    store_tokens(&media, 1);
    let path = media
        .present(&set(&[0, 1], 256))
        .unwrap()
        .store
        .path()
        .unwrap()
        .to_path_buf();
    media.detach(1).unwrap();
    media.present(&set(&[0], 256)).unwrap();
    assert!(path.exists());
    let again = media.attach(spec("mem1", Some(&directory))).unwrap();
    assert_eq!(again, 2, "no number is given out twice");
    drop(media);
    assert_tokens(&pair(&directory), &[1]);
}

#[test]
fn reads_past_the_end_are_refused() {
    let media = Media::open(vec![spec("mem0", None)]).unwrap();
    let mut bytes = [0; 16];
    assert!(media.read(0, CAPACITY - 8, &mut bytes).is_err());
    assert!(media.read(0, u64::MAX, &mut bytes).is_err());
    assert!(media.read(1, 0, &mut bytes).is_err());
}
