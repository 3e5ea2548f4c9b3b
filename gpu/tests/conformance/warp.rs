//! Lanes that see each other.

use super::HEADER;
use super::common::{Device, integers};

/// What each of 32 lanes leaves in `%o`.
fn lanes(body: &str) -> Vec<u32> {
    threads(body, 32)
}

pub fn threads(body: &str, count: u32) -> Vec<u32> {
    let text = format!(
        "{HEADER}.entry k(.param .u64 out) {{ .reg .b64 %rd<4>; .reg .b32 %r<10>, %o, %l, %t; .reg .pred %p<6>;
         mov.u32 %l, %laneid; mov.u32 %t, %tid.x; mov.u32 %o, 0;\n{body}\n
         ld.param.u64 %rd1, [out]; mul.wide.u32 %rd2, %t, 4; add.u64 %rd1, %rd1, %rd2; st.global.u32 [%rd1], %o; ret; }}"
    );
    let [interpreted, compiled] = Device::both().map(|device| {
        let kernel = device.kernel(&text, "k");
        let out = device.buffer(4 * count as usize);
        device.launch(&kernel, [1, 1, 1], [count, 1, 1], 0, &[out]);
        integers(&device, out, count as usize)
    });
    assert_eq!(interpreted, compiled, "{body}");
    compiled
}

fn expect(body: &str, expected: impl Fn(u32) -> u32) {
    let expected: Vec<u32> = (0..32).map(expected).collect();
    assert_eq!(lanes(body), expected, "{body}");
}

#[test]
fn shuffles_move_values_within_segments() {
    expect("shfl.sync.idx.b32 %o, %l, 5, 31, -1;", |_| 5);
    expect("shfl.sync.up.b32 %o, %l, 3, 0, -1;", |lane| {
        if lane < 3 { lane } else { lane - 3 }
    });
    expect("shfl.sync.down.b32 %o, %l, 3, 31, -1;", |lane| {
        if lane > 28 { lane } else { lane + 3 }
    });
    expect("shfl.sync.bfly.b32 %o, %l, 6, 31, -1;", |lane| lane ^ 6);
    // Segments of eight lanes: the mask of 0x18 stands in bits 8 to 12.
    expect("shfl.sync.idx.b32 %o, %l, 2, 0x1807, -1;", |lane| {
        lane / 8 * 8 + 2
    });
    expect(
        "shfl.sync.down.b32 %o|%p1, %l, 1, 0x1807, -1; @!%p1 mov.u32 %o, 99;",
        |lane| {
            if lane % 8 == 7 { 99 } else { lane + 1 }
        },
    );
    expect(
        "shfl.sync.up.b32 %o|%p1, %l, 1, 0x1800, -1; @!%p1 mov.u32 %o, 99;",
        |lane| {
            if lane % 8 == 0 { 99 } else { lane - 1 }
        },
    );
}

#[test]
fn votes_count_every_member() {
    let odd = "and.b32 %r1, %l, 1; setp.ne.u32 %p1, %r1, 0;";
    expect(&format!("{odd} vote.sync.ballot.b32 %o, %p1, -1;"), |_| {
        0xaaaa_aaaa
    });
    expect(
        &format!("{odd} vote.sync.any.pred %p2, %p1, -1; selp.u32 %o, 1, 0, %p2;"),
        |_| 1,
    );
    expect(
        &format!("{odd} vote.sync.all.pred %p2, %p1, -1; selp.u32 %o, 1, 0, %p2;"),
        |_| 0,
    );
    expect(
        &format!("{odd} vote.sync.uni.pred %p2, %p1, -1; selp.u32 %o, 1, 0, %p2;"),
        |_| 0,
    );
    expect(
        "vote.sync.all.pred %p2, 1, -1; selp.u32 %o, 1, 0, %p2;",
        |_| 1,
    );
    expect(
        &format!("{odd} @%p1 vote.sync.ballot.b32 %o, 1, 0xaaaaaaaa;"),
        |lane| {
            if lane % 2 == 1 { 0xaaaa_aaaa } else { 0 }
        },
    );
}

#[test]
fn matches_and_reductions_see_every_member() {
    expect(
        "shr.u32 %r1, %l, 3; match.any.sync.b32 %o, %r1, -1;",
        |lane| 0xff << (lane / 8 * 8),
    );
    expect(
        "match.all.sync.b32 %o|%p1, 7, -1; @!%p1 mov.u32 %o, 1;",
        |_| u32::MAX,
    );
    expect(
        "match.all.sync.b32 %o|%p1, %l, -1; @!%p1 add.u32 %o, %o, 1;",
        |_| 1,
    );
    expect("redux.sync.add.u32 %o, %l, -1;", |_| 496);
    expect(
        "sub.s32 %r1, %l, 4; redux.sync.min.s32 %o, %r1, -1;",
        |_| -4i32 as u32,
    );
    expect(
        "sub.s32 %r1, %l, 4; redux.sync.max.u32 %o, %r1, -1;",
        |_| u32::MAX,
    );
    expect("redux.sync.xor.b32 %o, %l, -1;", |_| 0);
}

/// Eight lanes each name one another, as cooperative groups do, and no group sees the others.
#[test]
fn groups_of_lanes_see_their_own_members() {
    let group = "and.b32 %r5, %l, 0x18; mov.u32 %r6, 0xff; shl.b32 %r6, %r6, %r5;
                 and.b32 %r1, %l, 1; setp.ne.u32 %p1, %r1, 0; setp.eq.u32 %p2, %l, 3;";
    let base = |lane: u32| lane & 0x18;
    let expect = |body: &str, expected: &dyn Fn(u32) -> u32| {
        expect(&format!("{group} {body}"), expected);
    };
    expect("vote.sync.ballot.b32 %o, %p1, %r6;", &|lane| {
        0xaa << base(lane)
    });
    expect(
        "vote.sync.any.pred %p3, %p2, %r6; selp.u32 %o, 1, 0, %p3;",
        &|lane| u32::from(lane < 8),
    );
    expect(
        "vote.sync.all.pred %p3, !%p2, %r6; selp.u32 %o, 1, 0, %p3;",
        &|lane| u32::from(lane >= 8),
    );
    expect(
        "vote.sync.uni.pred %p3, %p2, %r6; selp.u32 %o, 1, 0, %p3;",
        &|lane| u32::from(lane >= 8),
    );
    expect("match.any.sync.b32 %o, %r1, %r6;", &|lane| {
        [0x55, 0xaa][lane as usize & 1] << base(lane)
    });
    expect(
        "max.u32 %r2, %l, 8; shr.u32 %r2, %r2, 4; match.all.sync.b32 %o|%p3, %r2, %r6; @!%p3 add.u32 %o, %o, 9;",
        &|lane| 0xff << base(lane),
    );
    expect(
        "max.u32 %r2, %l, 6; match.all.sync.b32 %o|%p3, %r2, %r6; @!%p3 add.u32 %o, %o, 9;",
        &|_| 9,
    );
    expect("redux.sync.add.u32 %o, %l, %r6;", &|lane| {
        8 * base(lane) + 28
    });
    expect("shfl.sync.idx.b32 %o, %l, 2, 0x1807, %r6;", &|lane| {
        base(lane) + 2
    });
    // Lanes of the second group come on two ways, those of the others on one.
    expect(
        "setp.lt.u32 %p1, %l, 12; @%p1 bra $a; bar.warp.sync %r6; mov.u32 %o, 1; bra $b;
         $a: bar.warp.sync %r6; mov.u32 %o, 2;
         $b: vote.sync.ballot.b32 %r1, 1, %r6; add.u32 %o, %o, %r1;",
        &|lane| (0xffu32 << base(lane)).wrapping_add(if lane < 12 { 2 } else { 1 }),
    );
}

#[test]
fn special_registers_tell_the_place() {
    expect("mov.u32 %o, %lanemask_lt;", |lane| (1 << lane) - 1);
    expect("mov.u32 %o, %lanemask_le;", |lane| u32::MAX >> (31 - lane));
    expect("mov.u32 %o, %lanemask_eq;", |lane| 1 << lane);
    expect("mov.u32 %o, %lanemask_ge;", |lane| u32::MAX << lane);
    expect("mov.u32 %o, %lanemask_gt;", |lane| {
        !(u32::MAX >> (31 - lane))
    });
    expect("activemask.b32 %o;", |_| u32::MAX);
    expect(
        "mov.u32 %r1, %ntid.x; mov.u32 %r2, %nctaid.y; mad.lo.u32 %o, %r1, 10, %r2;",
        |_| 321,
    );
    let warps = threads("mov.u32 %o, %warpid;", 96);
    assert_eq!((warps[0], warps[32], warps[95]), (0, 1, 2));
    let time = lanes(
        "mov.u64 %rd1, %globaltimer; mov.u64 %rd2, %clock64; setp.ge.u64 %p1, %rd2, %rd1; selp.u32 %o, 1, 0, %p1;",
    );
    assert_eq!(time, [1; 32]);
}

#[test]
fn lanes_that_parted_meet_for_instructions_of_the_whole_warp() {
    // Both ways of the branch come to the same shuffle one after the other, through a join.
    let body = "setp.lt.u32 %p1, %l, 10; @%p1 bra $a; add.u32 %r1, %l, 100; bra $b; $a: add.u32 %r1, %l, 200;
                $b: shfl.sync.bfly.b32 %o, %r1, 31, 31, -1;";
    expect(body, |lane| {
        let other = lane ^ 31;
        if other < 10 { other + 200 } else { other + 100 }
    });
    // A warp barrier on each way: the lanes of one wait for those of the other.
    let body = "setp.lt.u32 %p1, %l, 10; @%p1 bra $a; bar.warp.sync -1; mov.u32 %o, 1; bra $b;
                $a: bar.warp.sync -1; mov.u32 %o, 2; $b:";
    expect(body, |lane| if lane < 10 { 2 } else { 1 });
    // Lanes that have left are not waited for.
    let body = "setp.lt.u32 %p1, %l, 10; @%p1 bra $b; vote.sync.ballot.b32 %o, 1, 0xfffffc00; $b:";
    expect(body, |lane| if lane < 10 { 0 } else { 0xffff_fc00 });
}
