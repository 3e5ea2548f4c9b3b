//! One test for each kind of mistake in windows and regions, with the whole message.

use super::messages::{TREE, expect, expect_in_tree, expect_of_region, region};
use super::*;

#[test]
fn windows_that_lead_nowhere_or_to_one_bridge_twice() {
    expect_in_tree(
        "targets = [\"hb0\", \"hb1\"]",
        "targets = []",
        &[
            "host0.toml:42: window[1].targets: a window without host bridges leads nowhere; name one to four host bridges",
        ],
    );
    expect_in_tree(
        "targets = [\"hb0\", \"hb1\"]",
        "targets = [\"hb1\", \"hb1\"]",
        &["host0.toml:42: window[1].targets: hb1 is there twice; name each host bridge once"],
    );
}

#[test]
fn windows_of_odd_sizes() {
    expect_in_tree(
        "size = \"2GiB\"",
        "size = \"768MiB\"",
        &[
            "host0.toml:41: window[1].size: a window of 768MiB over 2 host bridges is not possible; write a multiple of 512MiB, at most 64TiB",
        ],
    );
    expect_in_tree(
        "size = \"1GiB\"",
        "size = \"0B\"",
        &[
            "host0.toml:37: window[0].size: a window of 0B over 1 host bridge is not possible; write a multiple of 256MiB, at most 64TiB",
        ],
    );
}

#[test]
fn granularities_out_of_range() {
    for granularity in ["128B", "768B", "32KiB"] {
        expect_in_tree(
            "\"256B\"",
            &format!("\"{granularity}\""),
            &[&format!(
                "host0.toml:43: window[1].granularity: {granularity} is not an interleave granularity; write 256B, 512B, 1KiB, 2KiB, 4KiB, 8KiB or 16KiB"
            )],
        );
    }
    expect_in_tree(
        "\"256B\"",
        "\"16KiB\"",
        &[
            "host0.toml:43: window[1].granularity: 16KiB over 2 host bridges is too much; write at most 8KiB: times the ways it may not exceed 16KiB",
        ],
    );
    expect_of_region(
        &format!(
            "{}granularity = \"3KiB\"\n",
            region("w0", "256MiB", &["mem0"])
        ),
        &[
            "host0.toml:50: region[0].granularity: 3KiB is not an interleave granularity; write 256B, 512B, 1KiB, 2KiB, 4KiB, 8KiB or 16KiB",
        ],
    );
    expect_of_region(
        &format!(
            "{}granularity = \"1KiB\"\n",
            region("w01", "512MiB", &["mem0", "mem2"])
        ),
        &[
            "host0.toml:50: region[0].granularity: 1KiB is not that of window w01; write 256B: a window over several host bridges sets the granularity of its regions",
        ],
    );
}

#[test]
fn restrictions_that_are_unknown_or_keep_everything_out() {
    expect_in_tree(
        "granularity = \"256B\"",
        "restrictions = [\"ram\"]",
        &[
            "host0.toml:43: window[1].restrictions: \"ram\" is not known; write volatile, persistent or both",
        ],
    );
    expect_in_tree(
        "granularity = \"256B\"",
        "restrictions = []",
        &[
            "host0.toml:43: window[1].restrictions: nothing may lie in the window; write volatile, persistent or both",
        ],
    );
}

#[test]
fn a_region_of_a_kind_that_its_window_or_devices_do_not_have() {
    let source = TREE.replacen(
        "granularity = \"256B\"",
        "restrictions = [\"persistent\"]",
        1,
    );
    expect(
        &format!("{source}{}", region("w01", "512MiB", &["mem0", "mem2"])),
        &[
            "host0.toml:48: region[0].type: window w01 does not take volatile memory; add \"volatile\" to its restrictions, or choose another window",
        ],
    );
    expect_of_region(
        &region("w0", "256MiB", &["mem0"]).replace("volatile", "persistent"),
        &[
            "host0.toml:47: region[0].size: it takes 256MiB of each device, and mem0 has 0B of persistent memory left; make the region smaller, or host_bridge[0].root_port[0].device.persistent larger",
        ],
    );
}

#[test]
fn an_accelerators_memory_where_it_cannot_be() {
    let tree = TREE.replacen(
        "type = \"type3\"\nname = \"mem0\"\nserial = 1\nvolatile = \"512MiB\"",
        "type = \"type2\"\nname = \"gpu0\"\nserial = 1\nmemory = \"512MiB\"",
        1,
    );
    Files::new()
        .parse(&format!("{tree}{}", region("w0", "512MiB", &["gpu0"])))
        .unwrap();
    let refused = |tree: &str, region: &str, message: &str| {
        expect(&format!("{tree}{region}"), &[message]);
    };
    refused(
        &tree,
        &region("w01", "1GiB", &["gpu0", "mem2"]),
        "host0.toml:49: region[0].devices: gpu0 is an accelerator, and its memory is not interleaved; name gpu0 alone",
    );
    refused(
        &tree,
        &format!(
            "{}soft_reserved = true\n",
            region("w0", "512MiB", &["gpu0"])
        ),
        "host0.toml:49: region[0].devices: gpu0 is an accelerator, whose driver gives its memory to programs; remove soft_reserved",
    );
    refused(
        &tree,
        &region("w0", "768MiB", &["gpu0"]),
        "host0.toml:47: region[0].size: it takes 768MiB of each device, and gpu0 has 512MiB of volatile memory left; make the region smaller, or host_bridge[0].root_port[0].device.memory larger",
    );
    let observed = tree.replacen(
        "memory = \"512MiB\"",
        "memory = \"512MiB\"\ncoherence = \"observed\"",
        1,
    );
    refused(
        &observed,
        &region("w0", "512MiB", &["gpu0"]),
        "host0.toml:50: region[0].devices: accesses to the memory of gpu0 are seen through its BAR alone; remove the region, or the coherence of gpu0",
    );
}

#[test]
fn a_window_too_small_for_its_regions() {
    let source = TREE.replacen("size = \"1GiB\"", "size = \"256MiB\"", 1);
    let second = region("w0", "256MiB", &["mem1"]).replace("r0", "r1");
    expect(
        &format!("{source}{}{second}", region("w0", "256MiB", &["mem0"])),
        &[
            "host0.toml:37: window[0].size: 256MiB is too small for r0, r1, which need 512MiB; write at least 512MiB",
        ],
    );
}

#[test]
fn regions_that_overlap_in_a_device() {
    let second = region("w01", "512MiB", &["mem0", "mem2"]).replace("r0", "r1");
    expect_of_region(
        &format!("{}{second}", region("w0", "512MiB", &["mem0"])),
        &[
            "host0.toml:53: region[1].size: it takes 256MiB of each device, and mem0 has 0B of volatile memory left; make the region smaller, or host_bridge[0].root_port[0].device.volatile larger",
        ],
    );
}

#[test]
fn a_volatile_region_above_a_persistent_one_on_the_same_device() {
    let source = TREE.replacen(
        "serial = 1\n",
        "serial = 1\npersistent = \"256MiB\"\nbacking = \"img\"\n",
        1,
    );
    let persistent = region("w0", "256MiB", &["mem0"]).replace("volatile", "persistent");
    let volatile = region("w0", "256MiB", &["mem0"]).replace("r0", "r1");
    expect(
        &format!("{source}{persistent}{volatile}"),
        &[
            "host0.toml:52: region[1]: on mem0 it lies at a higher address than the persistent region r0; put volatile regions, and the windows with them, before persistent ones",
        ],
    );
    Files::new()
        .parse(&format!("{source}{volatile}{persistent}"))
        .unwrap();
}

#[test]
fn more_regions_than_decoders() {
    let source = TREE
        .replacen("size = \"1GiB\"", "size = \"4GiB\"", 1)
        .replacen("\"512MiB\"", "\"4GiB\"", 1);
    let eleven: String = (0..11)
        .map(|i| region("w0", "256MiB", &["mem0"]).replace("r0", &format!("r{i}")))
        .collect();
    expect(
        &format!("{source}{eleven}"),
        &[
            "host0.toml:3: host_bridge[0]: hb0 takes part in 11 regions; have at most 10: one for each of its decoders",
            "host0.toml:7: host_bridge[0].root_port[0].device: mem0 takes part in 11 regions; have at most 10: one for each of its decoders",
        ],
    );
}

#[test]
fn regions_of_odd_sizes() {
    expect_of_region(
        &region("w0", "256MiB", &["mem0", "mem1"]),
        &[
            "host0.toml:47: region[0].size: 256MiB over 2 devices is not possible; write a multiple of 512MiB",
        ],
    );
}

#[test]
fn interleave_ways_that_are_not_allowed() {
    expect_of_region(
        &region("w0", "512MiB", &[]),
        &[
            "host0.toml:49: region[0].devices: 0 devices cannot be interleaved; name 1, 2, 3, 4, 6, 8, 12 or 16",
        ],
    );
    expect_of_region(
        &region("w01", "768MiB", &["mem0", "mem2", "mem1"]),
        &[
            "host0.toml:49: region[0].devices: 3 devices cannot be interleaved over the 2 host bridges of window w01; name 2, 4, 8 or 16",
        ],
    );
    expect_of_region(
        &region("w0", "512MiB", &["mem0", "mem0"]),
        &["host0.toml:49: region[0].devices: mem0 is there twice; name each device once"],
    );
}

#[test]
fn devices_out_of_position_with_the_order_that_works() {
    expect_of_region(
        &region("w01", "1GiB", &["mem0", "mem1", "mem2", "mem3"]),
        &[
            "host0.toml:49: region[0].devices: positions do not follow the targets of window w01 and of the ports below it, which take turns; write [\"mem0\", \"mem2\", \"mem1\", \"mem3\"]",
        ],
    );
    expect_of_region(
        &region("w01", "512MiB", &["mem3", "mem1"]),
        &[
            "host0.toml:49: region[0].devices: positions do not follow the targets of window w01 and of the ports below it, which take turns; write [\"mem1\", \"mem3\"]",
        ],
    );
}

#[test]
fn devices_that_no_order_makes_reachable() {
    expect_of_region(
        &region("w01", "512MiB", &["mem0", "mem1"]),
        &[
            "host0.toml:49: region[0].devices: window w01 leads to 1 device below each of hb0, hb1, and mem0 is below hb0, mem1 is below hb0; name other devices, or another window",
        ],
    );
    expect_of_region(
        &region("w0", "256MiB", &["mem2"]),
        &[
            "host0.toml:49: region[0].devices: window w0 leads to 1 device below each of hb0, and mem2 is below hb1; name other devices, or another window",
        ],
    );
}

#[test]
fn a_region_without_what_it_needs() {
    expect_of_region(
        "[[region]]\nname = \"r0\"\n",
        &[
            "host0.toml:44: region[0].window: is missing; name the window that it lies in",
            "host0.toml:44: region[0].devices: is missing; name its devices in the order of their positions, such as [\"mem0\"]",
            "host0.toml:44: region[0].size: is missing; write a size such as \"512MiB\"",
            "host0.toml:44: region[0].type: is missing; write volatile or persistent",
        ],
    );
    expect(
        &format!("{BOOT}[[window]]\nname = \"w0\"\n"),
        &[
            "host0.toml:3: window[0].targets: is missing; name the host bridges that it interleaves over, such as [\"hb0\"]",
            "host0.toml:3: window[0].size: is missing; write a size such as \"4GiB\"",
        ],
    );
}
