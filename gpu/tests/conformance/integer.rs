//! Integer, logic, shift and bit-field instructions.

use super::{holds, run32, run64, table16, table32, table64};

const M1: u32 = u32::MAX;
const MIN: u32 = 1 << 31;
const MAX: u32 = MIN - 1;
const MIN64: u64 = 1 << 63;

#[test]
fn addition_and_subtraction_wrap_or_saturate() {
    table32("add.s32", &[(&[M1, 1], 0), (&[MAX, 1], MIN)]);
    table32("add.u32", &[(&[M1, M1], M1 - 1)]);
    table32(
        "add.sat.s32",
        &[(&[MAX, 1], MAX), (&[MIN, M1], MIN), (&[5, 6], 11)],
    );
    table32("sub.s32", &[(&[0, 1], M1)]);
    table32("sub.sat.s32", &[(&[MIN, 1], MIN), (&[MAX, M1], MAX)]);
    table64("add.s64", &[(&[u64::MAX, 2], 1)]);
    table64("sub.u64", &[(&[0, 1], u64::MAX)]);
    table16("add.u16", &[(&[0xffff, 2], 1)]);
    table16("sub.s16", &[(&[0, 1], 0xffff)]);
    table32("add.u16x2", &[(&[0xffff_0001, 0x0002_ffff], 0x0001_0000)]);
}

#[test]
fn products_have_a_low_a_high_and_a_wide_form() {
    table32("mul.lo.s32", &[(&[0x1_0001, 0x1_0001], 0x2_0001)]);
    table32("mul.hi.u32", &[(&[M1, M1], 0xffff_fffe)]);
    table32("mul.hi.s32", &[(&[M1, M1], 0), (&[MIN, 2], M1)]);
    table64("mul.hi.u64", &[(&[u64::MAX, u64::MAX], u64::MAX - 1)]);
    table64("mul.hi.s64", &[(&[MIN64, 4], -2i64 as u64)]);
    assert_eq!(
        run64("mul.wide.s32 %od, %r1, %r2;", &[u64::from(M1), 5]),
        -5i64 as u64
    );
    assert_eq!(
        run64("mul.wide.u32 %od, %r1, %r2;", &[u64::from(M1), 5]),
        5 * u64::from(M1)
    );
    assert_eq!(
        run32("mul.wide.s16 %o0, %h1, %h2;", &[0xffff, 3]),
        -3i32 as u32
    );
    assert_eq!(run32("mul.wide.u16 %o0, %h1, %h2;", &[0xffff, 3]), 0x2_fffd);
    table16("mul.hi.u16", &[(&[0xffff, 0xffff], 0xfffe)]);
    table32("mul24.lo.u32", &[(&[0xff00_0003, 7], 21)]);
    table32("mul24.hi.u32", &[(&[0x80_0000, 0x80_0000], 0x4000_0000)]);
    table32("mul24.lo.s32", &[(&[0x00ff_ffff, 7], -7i32 as u32)]);
}

#[test]
fn multiply_add_has_the_same_forms() {
    table32("mad.lo.u32", &[(&[3, 4, 5], 17), (&[M1, 2, 2], 0)]);
    table32("mad.hi.s32", &[(&[MIN, 2, 1], 0)]);
    table32("mad.hi.sat.s32", &[(&[MAX, MAX, MAX], MAX)]);
    table64("mad.lo.s64", &[(&[1 << 40, 1 << 30, 7], 7)]);
    assert_eq!(
        run64(
            "mad.wide.s32 %od, %r1, %r2, %rd3;",
            &[u64::from(M1), 8, 100]
        ),
        92
    );
    table32("mad24.lo.u32", &[(&[2, 3, 4], 10)]);
    table32("sad.s32", &[(&[M1, 4, 10], 15)]);
    table32("sad.u32", &[(&[3, 10, 1], 8)]);
    table32("dp4a.u32.u32", &[(&[0x0102_0304, 0x0101_0101, 5], 15)]);
    table32("dp4a.s32.u32", &[(&[0xff00_0001, 0x0200_0003, 0], 1)]);
    table32("dp2a.lo.s32.u32", &[(&[0xffff_0002, 0x0000_0304, 0], 5)]);
    table32("dp2a.hi.u32.u32", &[(&[0x0001_0002, 0x0304_0000, 0], 11)]);
}

#[test]
fn division_truncates_towards_zero() {
    table32(
        "div.s32",
        &[(&[-7i32 as u32, 2], -3i32 as u32), (&[MIN, M1], MIN)],
    );
    table32("div.u32", &[(&[M1, 2], MAX), (&[5, 0], M1)]);
    table32(
        "rem.s32",
        &[(&[-7i32 as u32, 2], M1), (&[7, -2i32 as u32], 1)],
    );
    table32("rem.u32", &[(&[M1, 10], 5)]);
    table64("div.s64", &[(&[-9i64 as u64, 2], -4i64 as u64)]);
    table64("rem.u64", &[(&[u64::MAX, 10], 5)]);
    table16("div.u16", &[(&[100, 7], 14)]);
}

#[test]
fn extremes_and_signs_depend_on_the_type() {
    table32("min.s32", &[(&[M1, 1], M1)]);
    table32("min.u32", &[(&[M1, 1], 1)]);
    table32("max.s32", &[(&[M1, 1], 1)]);
    table64("max.u64", &[(&[u64::MAX, 1], u64::MAX)]);
    table32("max.s16x2", &[(&[0xffff_0003, 0x0001_0004], 0x0001_0004)]);
    table32("min.u16x2", &[(&[0xffff_0003, 0x0001_0004], 0x0001_0003)]);
    table32("neg.s32", &[(&[5], -5i32 as u32), (&[MIN], MIN)]);
    table32("abs.s32", &[(&[-5i32 as u32], 5), (&[MIN], MIN)]);
    table64("abs.s64", &[(&[-5i64 as u64], 5)]);
    table16("neg.s16", &[(&[1], 0xffff)]);
}

#[test]
fn logic_is_bitwise() {
    table32("and.b32", &[(&[0xff00, 0x0ff0], 0x0f00)]);
    table32("or.b32", &[(&[0xff00, 0x0ff0], 0xfff0)]);
    table32("xor.b32", &[(&[0xff00, 0x0ff0], 0xf0f0)]);
    table32("not.b32", &[(&[0], M1)]);
    table64("not.b64", &[(&[1], u64::MAX - 1)]);
    table16("not.b16", &[(&[1], 0xfffe)]);
    table32("cnot.b32", &[(&[0], 1), (&[7], 0)]);
    for table in [0u32, 0x80, 0xfe, 0x96, 0xe8, 0xca, 0x17] {
        let (a, b, c) = (0xf0f0_a5c3u64, 0xcccc_3c99, 0xaaaa_0f71);
        let expected = (0..32).fold(0u32, |result, bit| {
            let index = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | (c >> bit & 1);
            result | (table >> index & 1) << bit
        });
        let body = format!("lop3.b32 %o0, %r1, %r2, %r3, {table:#x};");
        assert_eq!(run32(&body, &[a, b, c]), expected, "{table:#x}");
    }
}

#[test]
fn shifts_beyond_the_width_give_zero_or_the_sign() {
    table32("shl.b32", &[(&[1, 31], MIN), (&[1, 32], 0), (&[1, M1], 0)]);
    table32("shr.u32", &[(&[MIN, 31], 1), (&[M1, 32], 0)]);
    table32(
        "shr.s32",
        &[(&[MIN, 31], M1), (&[MIN, 100], M1), (&[MAX, 40], 0)],
    );
    assert_eq!(run64("shl.b64 %od, %rd1, %r2;", &[1, 63]), MIN64);
    assert_eq!(run64("shr.s64 %od, %rd1, %r2;", &[MIN64, 64]), u64::MAX);
    assert_eq!(
        run32(
            "shr.s16 %h0, %h1, %r2; cvt.u32.u16 %o0, %h0;",
            &[0x8000, 15]
        ),
        0xffff
    );
    table32(
        "shf.l.wrap.b32",
        &[
            (&[0x1234_5678, 0x9abc_def0, 8], 0xbcde_f012),
            (&[1, 2, 32], 2),
        ],
    );
    table32(
        "shf.l.clamp.b32",
        &[(&[0x1234_5678, 0x9abc_def0, 40], 0x1234_5678)],
    );
    table32(
        "shf.r.wrap.b32",
        &[(&[0x1234_5678, 0x9abc_def0, 8], 0xf012_3456)],
    );
    table32(
        "shf.r.clamp.b32",
        &[(&[0x1234_5678, 0x9abc_def0, 32], 0x9abc_def0)],
    );
}

#[test]
fn bit_fields_are_taken_and_put() {
    table32(
        "bfe.u32",
        &[
            (&[0xabcd_1234, 8, 8], 0x12),
            (&[M1, 28, 8], 0xf),
            (&[M1, 3, 0], 0),
        ],
    );
    table32(
        "bfe.s32",
        &[
            (&[0x0000_0f00, 8, 4], M1),
            (&[MIN, 40, 4], M1),
            (&[0x700, 8, 4], 7),
        ],
    );
    assert_eq!(
        run64("bfe.u64 %od, %rd1, %r2, %r3;", &[u64::MAX, 60, 10]),
        0xf
    );
    assert_eq!(
        run64("bfe.s64 %od, %rd1, %r2, %r3;", &[0xf0, 4, 4]),
        u64::MAX
    );
    table32(
        "bfi.b32",
        &[
            (&[0xff, 0, 4, 8], 0xff0),
            (&[0, M1, 28, 8], 0x0fff_ffff),
            (&[1, 2, 3, 0], 2),
        ],
    );
    assert_eq!(
        run64("bfi.b64 %od, %rd1, %rd2, %r3, %r4;", &[5, 0, 60, 4]),
        5 << 60
    );
    table32("bfind.u32", &[(&[0], M1), (&[1], 0), (&[0x4000_0000], 30)]);
    table32("bfind.s32", &[(&[M1], M1), (&[-2i32 as u32], 0)]);
    table32("bfind.shiftamt.u32", &[(&[1], 31)]);
    assert_eq!(run32("bfind.u64 %o0, %rd1;", &[1 << 40]), 40);
    table32("bmsk.clamp.b32", &[(&[4, 8], 0xff0), (&[0, 40], M1)]);
    table32("szext.wrap.s32", &[(&[0xff, 8], M1)]);
    table32("szext.clamp.u32", &[(&[0xfff, 8], 0xff)]);
}

#[test]
fn bits_are_counted_and_reversed() {
    table32("popc.b32", &[(&[0xf0f0], 8)]);
    table32("clz.b32", &[(&[0], 32), (&[1], 31), (&[MIN], 0)]);
    assert_eq!(run32("clz.b64 %o0, %rd1;", &[1]), 63);
    assert_eq!(run32("popc.b64 %o0, %rd1;", &[u64::MAX]), 64);
    table32("brev.b32", &[(&[1], MIN), (&[0x0000_00f1], 0x8f00_0000)]);
    table64("brev.b64", &[(&[1], MIN64)]);
    table32(
        "fns.b32",
        &[
            (&[0b1011_0100, 2, 2], 4),
            (&[0b1011_0100, 7, -2i32 as u32], 5),
            (&[4, 0, 2], M1),
        ],
    );
}

#[test]
fn bytes_are_permuted_in_seven_modes() {
    let (a, b) = (0x3322_1100, 0x7766_5544);
    table32(
        "prmt.b32",
        &[
            (&[a, b, 0x7520], 0x7755_2200),
            (&[0x80, b, 0x8888], M1),
            (&[a, b, 0x3210], a),
        ],
    );
    table32("prmt.b32.f4e", &[(&[a, b, 1], 0x4433_2211)]);
    table32(
        "prmt.b32.b4e",
        &[(&[a, b, 0], 0x5566_7700), (&[a, b, 3], 0x0011_2233)],
    );
    table32("prmt.b32.rc8", &[(&[a, b, 2], 0x2222_2222)]);
    table32("prmt.b32.ecl", &[(&[a, b, 2], 0x3322_2222)]);
    table32("prmt.b32.ecr", &[(&[a, b, 1], 0x1111_1100)]);
    table32("prmt.b32.rc16", &[(&[a, b, 1], 0x3322_3322)]);
}

#[test]
fn the_carry_goes_from_instruction_to_instruction() {
    let add = "add.cc.u32 %o1, %r1, %r3; addc.u32 %o0, %r2, %r4;";
    assert_eq!(run32(add, &[u64::from(M1), 5, 1, 7]), 13);
    assert_eq!(run32(add, &[1, 5, 1, 7]), 12);
    let sub = "sub.cc.u32 %o1, %r1, %r3; subc.u32 %o0, %r2, %r4;";
    assert_eq!(run32(sub, &[0, 9, 1, 4]), 4);
    let product = "mad.lo.cc.u32 %o1, %r1, %r2, %r3; madc.hi.u32 %o0, %r1, %r2, 0;";
    let m1 = u64::from(M1);
    assert_eq!(run32(product, &[m1, m1, m1]), ((m1 * m1 + m1) >> 32) as u32);
    assert_eq!(
        run64(
            "add.cc.u64 %rd3, %rd1, %rd2; addc.u64 %od, 0, 0;",
            &[u64::MAX, 1]
        ),
        1
    );
    assert_eq!(
        run32(
            "add.cc.u32 %o1, %r1, %r1; addc.cc.u32 %o2, %r1, 0; addc.u32 %o0, 0, 0;",
            &[m1]
        ),
        1
    );
}

#[test]
fn comparisons_are_signed_or_not() {
    let m1 = u64::from(M1);
    for (setp, a, b, expected) in [
        ("setp.lt.s32", m1, 0, true),
        ("setp.lt.u32", m1, 0, false),
        ("setp.lo.u32", 0, m1, true),
        ("setp.ls.u32", 1, 1, true),
        ("setp.hi.u32", m1, 0, true),
        ("setp.hs.u32", 0, 1, false),
        ("setp.eq.b32", 7, 7, true),
        ("setp.ne.s32", 7, 7, false),
        ("setp.ge.s32", m1, m1, true),
        ("setp.gt.s32", 0, m1, true),
        ("setp.le.s32", m1, 0, true),
    ] {
        assert_eq!(holds(setp, "%r", a, b), expected, "{setp} {a:x} {b:x}");
    }
    assert!(holds("setp.lt.s64", "%rd", MIN64, 0));
    assert!(!holds("setp.lt.u64", "%rd", MIN64, 0));
    assert!(holds("setp.lt.s16", "%h", 0x8000, 0));
}

#[test]
fn predicates_combine_and_select() {
    let both = "setp.lt.u32 %p1|%p2, %r1, %r2; selp.u32 %r3, 1, 0, %p1; selp.u32 %r4, 2, 0, %p2;
                add.u32 %o0, %r3, %r4;";
    assert_eq!(run32(both, &[1, 2]), 1);
    assert_eq!(run32(both, &[2, 1]), 2);
    let combined = "setp.eq.u32 %p3, %r1, 1; setp.lt.and.u32 %p1|%p2, %r1, %r2, !%p3;
                    selp.u32 %r3, 1, 0, %p1; selp.u32 %r4, 2, 0, %p2; add.u32 %o0, %r3, %r4;";
    assert_eq!(run32(combined, &[0, 2]), 1);
    assert_eq!(run32(combined, &[1, 2]), 0);
    let logic = "setp.ne.u32 %p1, %r1, 0; setp.ne.u32 %p2, %r2, 0; and.pred %p3, %p1, %p2; or.pred %p4, %p1, %p2;
                 xor.pred %p5, %p1, %p2; not.pred %p6, %p1; mov.pred %p7, %p6; selp.u32 %o0, 1, 0, %p3;
                 @%p4 or.b32 %o0, %o0, 2; @%p5 or.b32 %o0, %o0, 4; @%p7 or.b32 %o0, %o0, 8;";
    assert_eq!(run32(logic, &[1, 1]), 3);
    assert_eq!(run32(logic, &[0, 1]), 14);
    table32("set.lt.u32.s32", &[(&[M1, 0], M1), (&[1, 0], 0)]);
    table32("set.eq.f32.u32", &[(&[3, 3], 1f32.to_bits())]);
    table32("slct.u32.s32", &[(&[10, 20, 0], 10), (&[10, 20, M1], 20)]);
    table32(
        "slct.b32.f32",
        &[
            (&[10, 20, MIN], 10),
            (&[10, 20, 0xbf80_0000], 20),
            (&[10, 20, 0x7fc0_0000], 20),
        ],
    );
}
