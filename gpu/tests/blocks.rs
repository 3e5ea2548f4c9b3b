//! Blocks that run in a row: each with its own index, whatever one of their threads does.

mod common;

use std::time::Duration;

use common::{Device, floats, integers};
use gpu::ptx::{Options, Tier};
use gpu::{Error, Fault};

/// A kernel with these parameters; `%r4` is the thread's index in a grid of one dimension, `%rd1` the first parameter.
fn text(params: &str, body: &str) -> String {
    format!(
        ".version 7.5\n.target sm_75\n.address_size 64\n.entry k({params}) {{ .reg .b32 %r<32>; .reg .b64 %rd<32>;
         .reg .f32 %f<8>; .reg .f64 %fd<8>; .reg .pred %p<8>; ld.param.u64 %rd1, [out]; mov.u32 %r1, %ctaid.x;
         mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x; mad.lo.s32 %r4, %r1, %r2, %r3;\n{body}\nret; }}"
    )
}

fn longs(device: &Device, address: u64, count: usize) -> Vec<u64> {
    let bytes = device.download(address, count * 8);
    let words = bytes.chunks_exact(8);
    words
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

fn one_worker() -> Device {
    Device::with(Options {
        workers: 1,
        watchdog: Some(Duration::from_secs(60)),
        tier: Tier::Compiler,
    })
}

#[test]
fn every_block_of_every_row_has_its_own_index() {
    const GRID: [u32; 3] = [37, 3, 2];
    let body = "mov.u32 %r5, %ctaid.y; mov.u32 %r6, %ctaid.z; mov.u32 %r7, %nctaid.x; mov.u32 %r8, %nctaid.y;
         mad.lo.u32 %r9, %r6, %r8, %r5; mad.lo.u32 %r9, %r9, %r7, %r1; mad.lo.u32 %r9, %r9, %r2, %r3;
         mul.wide.u32 %rd2, %r9, 4; add.u64 %rd2, %rd1, %rd2; mad.lo.u32 %r10, %r6, 10, %r5;
         mad.lo.u32 %r10, %r10, 100, %r1; mad.lo.u32 %r10, %r10, 100, %r3; st.global.u32 [%rd2], %r10;";
    for device in Device::both() {
        let kernel = device.kernel(&text(".param .u64 out", body), "k");
        // No whole group of threads, whole ones and a part of one, and whole ones alone.
        for width in [7, 40, 48] {
            let count = (GRID.iter().product::<u32>() * width) as usize;
            let out = device.buffer(4 * count);
            device.launch(&kernel, GRID, [width, 1, 1], 0, &[out]);
            let expected: Vec<u32> = (0..count as u32)
                .map(|i| {
                    let (thread, block) = (i % width, i / width);
                    let (x, row) = (block % GRID[0], block / GRID[0]);
                    let (y, z) = (row % GRID[1], row / GRID[1]);
                    ((z * 10 + y) * 100 + x) * 100 + thread
                })
                .collect();
            assert_eq!(integers(&device, out, count), expected, "{width}");
        }
    }
}

#[test]
fn a_group_that_parts_in_the_middle_changes_no_other() {
    const THREADS: usize = 40 * 256;
    const LIMIT: usize = THREADS - 295;
    let body = "ld.param.u32 %r5, [n]; setp.ge.u32 %p1, %r4, %r5; @%p1 bra $end; mul.wide.u32 %rd2, %r4, 4;
         add.u64 %rd2, %rd1, %rd2; rem.u32 %r6, %r4, 613; setp.eq.u32 %p2, %r6, 77; @%p2 bra $odd;
         add.u32 %r7, %r4, 5; bra $store; $odd: mul.lo.u32 %r7, %r4, 3; $store: st.global.u32 [%rd2], %r7; $end:";
    for device in Device::both() {
        let kernel = device.kernel(&text(".param .u64 out, .param .u32 n", body), "k");
        let out = device.buffer(4 * THREADS);
        device.launch(&kernel, [40, 1, 1], [256, 1, 1], 0, &[out, LIMIT as u64]);
        let expected: Vec<u32> = (0..THREADS as u32)
            .map(|i| match i {
                i if i as usize >= LIMIT => 0,
                i if i % 613 == 77 => i * 3,
                i => i + 5,
            })
            .collect();
        assert_eq!(integers(&device, out, THREADS), expected);
    }
}

#[test]
fn a_branch_on_an_order_is_right_where_numbers_end() {
    const STRIDES: [i64; 3] = [1, -3, 1 << 20];
    const WAYS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];
    const OUT: usize = STRIDES.len() * WAYS.len() * 32;
    let device = Device::new();
    let out = device.buffer(4 * OUT);
    for ty in ["s32", "u32", "s64", "u64"] {
        let (bits, signed) = (ty[1..].parse::<u32>().unwrap(), ty.starts_with('s'));
        // A number of these bits as the type means it.
        let number = |value: i64| match (bits, signed) {
            (32, true) => i128::from(value as i32),
            (32, false) => i128::from(value as u32),
            (_, true) => i128::from(value),
            (_, false) => i128::from(value as u64),
        };
        let greatest = (u64::MAX >> (64 - bits + u32::from(signed))) as i64;
        let least = greatest.wrapping_add(1);
        for test in ["lt", "le", "gt", "ge"] {
            let mut body = String::from(
                "ld.param.u64 %rd2, [start]; ld.param.u64 %rd3, [bound]; cvt.u32.u64 %r5, %rd2; cvt.u32.u64 %r6, %rd3;
                 mul.wide.u32 %rd4, %r3, 4; add.u64 %rd5, %rd1, %rd4; cvt.u64.u32 %rd6, %r3;\n",
            );
            let mut section = 0;
            for stride in STRIDES {
                for (negated, swapped) in WAYS {
                    // A register of its own for each stride.
                    let own = 10 + section;
                    let (value, bound) = if bits == 32 {
                        body += &format!("mad.lo.s32 %r{own}, %r3, {stride}, %r5;");
                        (format!("%r{own}"), "%r6".to_owned())
                    } else {
                        body += &format!("mad.lo.s64 %rd{own}, %rd6, {stride}, %rd2;");
                        (format!("%rd{own}"), "%rd3".to_owned())
                    };
                    let (a, b) = if swapped {
                        (bound, value)
                    } else {
                        (value, bound)
                    };
                    let not = if negated { "!" } else { "" };
                    body += &format!(
                        "setp.{test}.{ty} %p1, {a}, {b}; @{not}%p1 bra $then{section}; mov.u32 %r8, 1; bra $end{section};
                         $then{section}: mov.u32 %r8, 2; $end{section}: st.global.u32 [%rd5+{}], %r8;\n",
                        128 * section
                    );
                    section += 1;
                }
            }
            let params = ".param .u64 out, .param .u64 start, .param .u64 bound";
            let kernel = device.kernel(&text(params, &body), "k");
            for start in [0, 7, -8, greatest - 9, least.wrapping_add(9)] {
                let near = [-45, -1, 0, 1, 14, 15, 16, 31, 40, 15 << 20, (15 << 20) + 1];
                let bounds = near.map(|distance| start.wrapping_add(distance));
                for bound in bounds.into_iter().chain([greatest, least]) {
                    device.launch(
                        &kernel,
                        [1, 1, 1],
                        [32, 1, 1],
                        0,
                        &[out, start as u64, bound as u64],
                    );
                    let mut expected = Vec::new();
                    for stride in STRIDES {
                        for (negated, swapped) in WAYS {
                            expected.extend((0..32).map(|thread| {
                                let value = number(start.wrapping_add(stride * thread));
                                let bound = number(bound);
                                let (a, b) = if swapped {
                                    (bound, value)
                                } else {
                                    (value, bound)
                                };
                                let holds = match test {
                                    "lt" => a < b,
                                    "le" => a <= b,
                                    "gt" => a > b,
                                    _ => a >= b,
                                };
                                1 + u32::from(holds != negated)
                            }));
                        }
                    }
                    assert_eq!(
                        integers(&device, out, OUT),
                        expected,
                        "{test}.{ty} from {start} by {bound}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_branch_on_an_order_sees_what_its_operands_were() {
    // Between the comparison and the branch the operands change.
    let body = "ld.param.u32 %r5, [n]; mul.wide.u32 %rd2, %r3, 4; add.u64 %rd2, %rd1, %rd2; mov.u32 %r6, %r3;
         setp.lt.u32 %p1, %r6, %r5; add.u32 %r6, %r6, 100; mov.u32 %r5, 0; @%p1 bra $low; add.u32 %r6, %r6, 1000;
         $low: st.global.u32 [%rd2], %r6;";
    for device in Device::both() {
        let kernel = device.kernel(&text(".param .u64 out, .param .u32 n", body), "k");
        let out = device.buffer(4 * 64);
        for limit in [0, 5, 16, 40, 64] {
            device.launch(&kernel, [1, 1, 1], [64, 1, 1], 0, &[out, limit.into()]);
            let expected: Vec<u32> = (0..64)
                .map(|i| if i < limit { i + 100 } else { i + 1100 })
                .collect();
            assert_eq!(integers(&device, out, 64), expected);
        }
    }
}

#[test]
fn a_branch_on_an_order_sees_a_nan_without_payload() {
    // As an integer the NaN of an addition is the greatest; what the host makes of this one is negative.
    let body = "ld.param.f32 %f1, [x]; add.f32 %f2, %f1, %f1; mov.b32 %r5, %f2; mul.wide.u32 %rd2, %r3, 4;
         add.u64 %rd2, %rd1, %rd2; mov.u32 %r6, 1; setp.gt.s32 %p1, %r3, %r5; @%p1 bra $end; mov.u32 %r6, 2;
         $end: st.global.u32 [%rd2], %r6;";
    for device in Device::both() {
        let kernel = device.kernel(&text(".param .u64 out, .param .f32 x", body), "k");
        let out = device.buffer(4 * 64);
        device.launch(&kernel, [1, 1, 1], [64, 1, 1], 0, &[out, 0xff81_2345]);
        assert_eq!(integers(&device, out, 64), [2; 64]);
    }
}

#[test]
fn numbers_widen_rightly_where_they_end() {
    const STRIDES: [i32; 2] = [1, -3];
    const OUT: usize = STRIDES.len() * 4 * 32;
    let mut body = String::from(
        "ld.param.u32 %r5, [start]; mul.wide.u32 %rd2, %r3, 8; add.u64 %rd3, %rd1, %rd2;\n",
    );
    let mut at = 0;
    for (stride, own) in STRIDES.into_iter().zip(10..) {
        body += &format!("mad.lo.s32 %r{own}, %r3, {stride}, %r5;\n");
        for widen in ["mul.wide.u32", "mul.wide.s32", "cvt.u64.u32", "cvt.s64.s32"] {
            let factor = if widen.starts_with("mul") { ", 4" } else { "" };
            let wide = 10 + at / 256;
            body += &format!(
                "{widen} %rd{wide}, %r{own}{factor}; st.global.u64 [%rd3+{at}], %rd{wide};\n"
            );
            at += 256;
        }
    }
    let device = Device::new();
    let kernel = device.kernel(&text(".param .u64 out, .param .u32 start", &body), "k");
    let out = device.buffer(8 * OUT);
    for limit in [0, i32::MIN] {
        for start in (-100..100)
            .step_by(3)
            .map(|distance| limit.wrapping_add(distance))
        {
            device.launch(
                &kernel,
                [1, 1, 1],
                [32, 1, 1],
                0,
                &[out, u64::from(start as u32)],
            );
            let mut expected = Vec::new();
            for stride in STRIDES {
                let value = |thread: i32| start.wrapping_add(stride * thread);
                expected.extend((0..32).map(|thread| u64::from(value(thread) as u32) * 4));
                expected.extend((0..32).map(|thread| (i64::from(value(thread)) * 4) as u64));
                expected.extend((0..32).map(|thread| u64::from(value(thread) as u32)));
                expected.extend((0..32).map(|thread| i64::from(value(thread)) as u64));
            }
            assert_eq!(longs(&device, out, OUT), expected, "{start}");
        }
    }
}

#[test]
fn a_nan_of_one_lane_has_no_payload_and_its_neighbours_are_unchanged() {
    // Block n has a NaN in lane n; one has none, one nothing else.
    const BLOCKS: usize = 18;
    let is_nan = |i: usize| i / 16 == i % 16 || i / 16 == 17;
    let body = "mul.wide.u32 %rd2, %r4, 4; add.u64 %rd3, %rd1, %rd2; ld.global.f32 %f1, [%rd3]; add.f32 %f1, %f1, 0f3F800000;
         st.global.f32 [%rd3], %f1; mul.wide.u32 %rd2, %r4, 8; ld.param.u64 %rd4, [wide]; add.u64 %rd5, %rd4, %rd2;
         ld.global.f64 %fd1, [%rd5]; add.f64 %fd1, %fd1, 0d3FF0000000000000; st.global.f64 [%rd5], %fd1;";
    for device in Device::both() {
        let kernel = device.kernel(&text(".param .u64 out, .param .u64 wide", body), "k");
        let count = BLOCKS * 16;
        let pick = |i, nan: u64, number: u64| if is_nan(i) { nan } else { number };
        let narrow: Vec<u32> = (0..count)
            .map(|i| pick(i, 0xffa1_2345, u64::from((i as f32).to_bits())) as u32)
            .collect();
        let wide: Vec<u64> = (0..count)
            .map(|i| pick(i, 0xfff4_5678_9abc_def0, (i as f64).to_bits()))
            .collect();
        let (narrow, wide) = (device.upload(&narrow), device.upload(&wide));
        device.launch(
            &kernel,
            [BLOCKS as u32, 1, 1],
            [16, 1, 1],
            0,
            &[narrow, wide],
        );
        let expected: Vec<u32> = (0..count)
            .map(|i| pick(i, 0x7fff_ffff, u64::from((i as f32 + 1.0).to_bits())) as u32)
            .collect();
        assert_eq!(integers(&device, narrow, count), expected);
        let expected: Vec<u64> = (0..count)
            .map(|i| pick(i, WIDE_NAN, (i as f64 + 1.0).to_bits()))
            .collect();
        assert_eq!(longs(&device, wide, count), expected);
    }
}

/// What an instruction on double precision gives for a NaN.
const WIDE_NAN: u64 = 0x7ff8_0000_0000_0000;

#[test]
fn a_fault_in_the_middle_is_that_of_its_thread() {
    let index = "mul.wide.u32 %rd2, %r4, 4; add.u64 %rd3, %rd1, %rd2;";
    // One thread of one block, all threads of all blocks from one on, and one in the part of a group at a block's end.
    let one = (
        "setp.eq.u32 %p1, %r4, 5000; @%p1 add.u64 %rd3, %rd3, 0x40000000;",
        128,
        5000,
    );
    let all = (
        "setp.ge.u32 %p1, %r1, 40; @%p1 add.u64 %rd3, %rd3, 0x40000000;",
        128,
        40 * 128,
    );
    let part = (
        "setp.eq.u32 %p1, %r4, 4236; @%p1 add.u64 %rd3, %rd3, 0x40000000;",
        100,
        4236,
    );
    for (displace, width, thread) in [one, all, part] {
        let body = format!("{index}\n{displace}\nst.global.u32 [%rd3], %r4;");
        let device = one_worker();
        let kernel = device.kernel(&text(".param .u64 out", &body), "k");
        let out = device.buffer(4 * 64 * 128);
        let params = out.to_le_bytes();
        let error = device
            .launch_bytes(&kernel, [64, 1, 1], [width, 1, 1], 0, &params)
            .unwrap_err();
        let Error::Fault { fault, line, .. } = &error else {
            panic!("{error}");
        };
        let expected = Fault::IllegalAddress {
            address: out + 4 * thread + 0x4000_0000,
            bytes: 4,
            write: true,
        };
        assert_eq!((error.code(), fault, *line), (700, &expected, 9));
    }
}

#[test]
fn the_watchdog_ends_blocks_in_a_row() {
    // One thread of a block in the middle that never ends, and more blocks than ever end: short ones, and ones with loops.
    let endless = (
        "setp.eq.u32 %p1, %r4, 5000; $loop: @%p1 bra $loop;",
        [64, 1, 1],
    );
    let many = [u32::MAX >> 1, u32::from(u16::MAX), 1];
    let short = ("st.global.u32 [%rd1], %r3;", many);
    let long = (
        "mov.u32 %r5, 0; $loop: st.global.u32 [%rd1], %r5; add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 500; @%p1 bra $loop;",
        many,
    );
    for (body, grid) in [endless, short, long] {
        for width in [128, 100] {
            let device = Device::with_watchdog(Duration::from_millis(20), Tier::Compiler);
            let kernel = device.kernel(&text(".param .u64 out", body), "k");
            let out = device.buffer(4);
            let error = device
                .launch_bytes(&kernel, grid, [width, 1, 1], 0, &out.to_le_bytes())
                .unwrap_err();
            assert_eq!(error.code(), 702, "{body}");
        }
    }
}

#[test]
fn blocks_may_wait_for_earlier_ones() {
    const BLOCKS: usize = 300;
    // Each block takes the number that the one before has left.
    let body = "mul.wide.u32 %rd2, %r1, 4; add.u64 %rd2, %rd1, %rd2; mov.u32 %r5, 1; setp.eq.u32 %p1, %r1, 0; @%p1 bra $store;
         $wait: ld.volatile.global.u32 %r5, [%rd2+-4]; setp.eq.u32 %p1, %r5, 0; @%p1 bra $wait; add.u32 %r5, %r5, 2;
         $store: st.volatile.global.u32 [%rd2], %r5;";
    for device in Device::both() {
        let kernel = device.kernel(&text(".param .u64 out", body), "k");
        let out = device.buffer(4 * BLOCKS);
        device.launch(&kernel, [BLOCKS as u32, 1, 1], [32, 1, 1], 0, &[out]);
        let expected: Vec<u32> = (0..BLOCKS as u32).map(|block| 1 + 2 * block).collect();
        assert_eq!(integers(&device, out, BLOCKS), expected);
    }
}

#[test]
fn a_kernel_with_a_barrier_runs_block_by_block() {
    let body = ".shared .f32 row[48]; shl.b32 %r5, %r3, 2; mov.u32 %r6, row; add.u32 %r6, %r6, %r5; cvt.rn.f32.u32 %f1, %r4;
         st.shared.f32 [%r6], %f1; bar.sync 0; mov.u32 %r7, row; sub.u32 %r8, 188, %r5; add.u32 %r7, %r7, %r8;
         ld.shared.f32 %f2, [%r7]; mul.wide.u32 %rd2, %r4, 4; add.u64 %rd2, %rd1, %rd2; st.global.f32 [%rd2], %f2;";
    for device in Device::both() {
        let kernel = device.kernel(&text(".param .u64 out", body), "k");
        let out = device.buffer(4 * 48 * 50);
        device.launch(&kernel, [50, 1, 1], [48, 1, 1], 0, &[out]);
        let expected: Vec<f32> = (0..48 * 50)
            .map(|i| (i / 48 * 48 + 47 - i % 48) as f32)
            .collect();
        assert_eq!(floats(&device, out, 48 * 50), expected);
    }
}
