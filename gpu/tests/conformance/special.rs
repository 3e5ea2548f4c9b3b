//! Instructions and special registers of which there is one thing to say.

use super::common::{Device, integers};
use super::warp::threads;
use super::{HEADER, run32, run64};

#[test]
fn promises_hints_and_fences_change_no_value() {
    let body = "mov.u32 %o0, 3; brkpt; pmevent 1; nanosleep.u32 5; prefetchu.L1 [%rd15]; prefetch.global.L2 [%rd15];
                applypriority.global.L2::evict_normal [%rd15], 128; discard.global.L2 [%rd15], 128;
                fence.sc.cta; fence.sc.gpu; fence.sc.sys; fence.sc.cluster;
                fence.acq_rel.cta; fence.acq_rel.gpu; fence.acq_rel.sys; fence.acq_rel.cluster; membar.gl; membar.cta; membar.sys;
                st.global.b32 [%rd15], 4; ld.global.unified.u32 %r1, [%rd15]; add.u32 %o0, %o0, %r1; bra.uni $end; mov.u32 %o0, 9;
                $end:";
    assert_eq!(run32(body, &[]), 7);
    let table = "ts: .branchtargets $a, $b; setp.ne.u32 %p1, %r1, 0; brx.idx.uni %r1, ts; $a: mov.u32 %o0, 5; bra $c;
                 $b: mov.u32 %o0, 6; $c:";
    assert_eq!([0, 1].map(|index| run32(table, &[index])), [5, 6]);
    assert_eq!(run32("mov.u32 %o0, WARP_SZ;", &[]), 32);
    assert_eq!(
        run32(
            "mov.u32 %o0, 1; setp.eq.u32 %p1, %r1, 0; @%p1 bra $x; trap; $x:",
            &[0]
        ),
        1
    );
}

#[test]
fn barriers_have_two_names() {
    let odd = "and.b32 %r1, %t, 1; setp.ne.u32 %p1, %r1, 0;";
    for (red, expected) in [
        ("bar.red.and.pred %p2, 1, %p1;", 0),
        ("bar.red.and.pred %p2, 1, 1;", 1),
    ] {
        let body = format!("{odd} {red} selp.u32 %o, 1, 0, %p2;");
        assert_eq!(threads(&body, 70), vec![expected; 70]);
    }
    // The first thread writes before, the others read behind.
    for barrier in [
        "bar.cta.sync 0;",
        "barrier.sync 0;",
        "barrier.sync.aligned 0;",
        "barrier.cta.sync 0;",
        "barrier.sync 2, 64;",
    ] {
        let body = format!(
            ".shared .u32 s; setp.ne.u32 %p1, %t, 63; mov.u32 %r1, 5; @!%p1 st.shared.u32 [s], %r1; {barrier} ld.shared.u32 %o, [s];"
        );
        assert_eq!(threads(&body, 64), vec![5; 64], "{barrier}");
    }
    let pair = ".shared .u32 s; setp.lt.u32 %p1, %t, 32; @!%p1 bra $wait; mov.u32 %r1, 5; st.shared.u32 [s], %r1;
                barrier.arrive 3, 64; bra $end; $wait: barrier.sync 3, 64; ld.shared.u32 %o, [s]; $end:";
    assert_eq!(threads(pair, 64)[32..], [5; 32]);
}

#[test]
fn reductions_and_matches_of_every_kind() {
    let lanes = |body: &str| threads(body, 32);
    // Lane 0 has -4, lane 31 has 27.
    let values = "sub.s32 %r1, %l, 4;";
    for (redux, expected) in [
        ("redux.sync.add.s32 %o, %r1, -1;", 496 - 128),
        ("redux.sync.add.u32 %o, %r1, -1;", 496 - 128),
        ("redux.sync.min.s32 %o, %r1, -1;", -4i32 as u32),
        ("redux.sync.min.u32 %o, %r1, -1;", 0),
        ("redux.sync.max.s32 %o, %r1, -1;", 27),
        ("redux.sync.max.u32 %o, %r1, -1;", u32::MAX),
        (
            "or.b32 %r1, %r1, 0x30; redux.sync.and.b32 %o, %r1, -1;",
            0x30,
        ),
        (
            "and.b32 %r1, %l, 0x12; redux.sync.or.b32 %o, %r1, -1;",
            0x12,
        ),
        (
            "shl.b32 %r1, 1, %l; redux.sync.xor.b32 %o, %r1, -1;",
            u32::MAX,
        ),
    ] {
        assert_eq!(
            lanes(&format!("{values} {redux}")),
            vec![expected; 32],
            "{redux}"
        );
    }
    // Numbers that differ in their upper half alone.
    let wide =
        "shr.u32 %r1, %l, 4; mov.b64 %rd1, {%t, %r1}; and.b64 %rd1, %rd1, 0xffffffff00000007;";
    let any = lanes(&format!("{wide} match.any.sync.b64 %o, %rd1, -1;"));
    let expected: Vec<u32> = (0..32)
        .map(|lane| 0x0101 << (lane % 8) << (lane / 16 * 16))
        .collect();
    assert_eq!(any, expected);
    for (mask, expected) in [("0xffffffff00000000", 0), ("0xfffffff000000000", u32::MAX)] {
        let body = format!(
            "{wide} and.b64 %rd1, %rd1, {mask}; match.all.sync.b64 %o|%p1, %rd1, -1; @!%p1 add.u32 %o, %o, 0;"
        );
        assert_eq!(lanes(&body), vec![expected; 32]);
    }
}

#[test]
fn addresses_go_to_the_generic_space_and_back() {
    for (space, declaration, name) in [
        ("shared", ".shared .align 8 .b8 v[16];", "v"),
        ("local", ".local .align 8 .b8 v[16];", "v"),
        ("global", ".global .align 8 .b8 v[16];", "v"),
        ("const", ".const .align 8 .b8 v[16];", "v"),
        ("param", "", "in"),
    ] {
        let forms = [
            "cvta.shared.u64 ",
            "cvta.local.u64 ",
            "cvta.global.u64 ",
            "cvta.const.u64 ",
            "cvta.param.u64 ",
            "cvta.to.shared.u64 ",
            "cvta.to.local.u64 ",
            "cvta.to.global.u64 ",
            "cvta.to.const.u64 ",
            "cvta.to.param.u64 ",
            "isspacep.shared ",
            "isspacep.local ",
            "isspacep.global ",
            "isspacep.const ",
            "isspacep.param ",
        ];
        let form = |start: &str| {
            forms
                .iter()
                .find(|form| **form == format!("{start} "))
                .unwrap()
        };
        let (into, back) = (
            form(&format!("cvta.{space}.u64")),
            form(&format!("cvta.to.{space}.u64")),
        );
        let asks = form(&format!("isspacep.{space}"));
        let body = format!(
            "{declaration} mov.u64 %rd1, {name}; {into}%rd2, %rd1; {back}%rd3, %rd2; sub.u64 %od, %rd3, %rd1;
             {asks}%p1, %rd2; @%p1 add.u64 %od, %od, 1;"
        );
        assert_eq!(run64(&body, &[]), 1, "{space}");
        // An address of another space.
        let other = match space {
            "shared" => ".local .u64 o; mov.u64 %rd1, o; cvta.local.u64 %rd2, %rd1;",
            _ => ".shared .u64 o; mov.u64 %rd1, o; cvta.shared.u64 %rd2, %rd1;",
        };
        let body =
            format!("{declaration} {other} mov.u64 %od, 1; {asks}%p1, %rd2; @%p1 mov.u64 %od, 0;");
        assert_eq!(run64(&body, &[]), 1, "{space}");
    }
}

#[test]
fn parameters_and_constants_are_read_and_passed() {
    let text = format!(
        "{HEADER}.const .align 4 .u32 five = 5;
         .func (.param .b32 r) twice(.param .b32 a) {{ .reg .b32 %r; ld.param::func.b32 %r, [a]; add.u32 %r, %r, %r;
           st.param.b32 [r], %r; ret.uni; }}
         .entry k(.param .u64 out) {{ .reg .b32 %r<4>; .reg .b64 %rd;
           ld.const.u32 %r1, [five]; {{ .param .b32 a; .param .b32 b; st.param.b32 [a], %r1; call.uni (b), twice, (a);
           ld.param.b32 %r2, [b]; }}
           ld.param::entry.u64 %rd, [out]; st.global.u32 [%rd], %r2; exit; }}"
    );
    for device in Device::both() {
        let kernel = device.kernel(&text, "k");
        let out = device.buffer(4);
        device.launch(&kernel, [1, 1, 1], [1, 1, 1], 0, &[out]);
        assert_eq!(integers(&device, out, 1), [10]);
    }
}

#[test]
fn special_registers_tell_the_launch() {
    let text = format!(
        "{HEADER}.extern .shared .b8 dynamic[];
         .entry k(.param .u64 out) {{ .shared .align 4 .b8 fixed[40]; .reg .b32 %r<12>; .reg .b64 %rd<6>; .reg .pred %p<3>;
           mov.u64 %rd4, fixed; mov.u64 %rd5, dynamic;
           mov.u32 %r1, %dynamic_smem_size; mov.u32 %r2, %total_smem_size; mov.u32 %r3, %nwarpid; mov.u32 %r4, %smid;
           mov.u32 %r5, %nsmid; setp.lt.u32 %p1, %r4, %r5; selp.u32 %r4, 1, 0, %p1; mov.u32 %r5, %ctaid.z; mov.u32 %r6, %nctaid.x;
           mov.u64 %rd2, %gridid; cvt.u32.u64 %r7, %rd2; mov.u32 %r8, %clock; mov.u32 %r9, %clock; sub.u32 %r9, %r9, %r8;
           setp.lt.u32 %p2, %r9, 0x7fffffff; selp.u32 %r8, 1, 0, %p2; mov.u32 %r9, %tid.y;
           mov.u32 %r10, %ctaid.x; mad.lo.u32 %r10, %r5, 3, %r10; mov.u32 %r11, %ntid.y; mad.lo.u32 %r10, %r10, %r11, %r9;
           ld.param.u64 %rd1, [out]; mad.wide.u32 %rd1, %r10, 36, %rd1;
           st.global.u32 [%rd1], %r1; st.global.u32 [%rd1+4], %r2; st.global.u32 [%rd1+8], %r3; st.global.u32 [%rd1+12], %r4;
           st.global.u32 [%rd1+16], %r5; st.global.u32 [%rd1+20], %r6; st.global.u32 [%rd1+24], %r7; st.global.u32 [%rd1+28], %r8;
           st.global.u32 [%rd1+32], %r9; ret; }}"
    );
    for device in Device::both() {
        let kernel = device.kernel(&text, "k");
        let out = device.buffer(36 * 24);
        let mut grids = Vec::new();
        for _ in 0..2 {
            device.launch(&kernel, [3, 1, 2], [1, 4, 1], 100, &[out]);
            let found = integers(&device, out, 9 * 24);
            for (thread, found) in found.chunks_exact(9).enumerate() {
                let thread = thread as u32;
                assert_eq!(found[..6], [100, found[1], 1, 1, thread / 12, 3]);
                assert!(found[1] >= 140);
                assert_eq!(found[7..], [1, thread % 4]);
            }
            grids.push(found[6]);
        }
        assert_ne!(grids[0], grids[1]);
    }
}
