//! Floating-point arithmetic, comparison and conversion.

use super::{holds, run32, run64, table_f32, table_f64, table16, table32, table64};

const NAN: u32 = 0x7fff_ffff;
/// The smallest subnormal number of single precision.
const TINY: f32 = f32::from_bits(1);

fn bits(value: f32) -> u32 {
    value.to_bits()
}

#[test]
fn single_precision_rounds_as_its_modifier_says() {
    // 1 + 2^-24 lies halfway between 1 and its successor.
    let half = 2f32.powi(-24);
    let next = bits(1.0) + 1;
    table_f32(
        "add.f32",
        &[(&[1.0, half], bits(1.0)), (&[1.5, 2.25], bits(3.75))],
    );
    table_f32("add.rn.f32", &[(&[f32::from_bits(next), half], next + 1)]);
    table_f32("add.rz.f32", &[(&[f32::from_bits(next), half], next)]);
    table_f32(
        "add.rm.f32",
        &[(&[-1.0, -half], bits(-1.0) + 1), (&[1.0, -1.0], bits(-0.0))],
    );
    table_f32("add.rp.f32", &[(&[1.0, half], next), (&[1.0, -1.0], 0)]);
    table_f32("sub.rp.f32", &[(&[1.0, -half], next)]);
    table_f32("mul.rz.f32", &[(&[f32::MAX, 2.0], bits(f32::MAX))]);
    table_f32("mul.rn.f32", &[(&[f32::MAX, 2.0], bits(f32::INFINITY))]);
    table_f32("mul.rp.f32", &[(&[TINY, 0.5], 1)]);
    // (1 + 2^-23)(1 - 2^-23) - 1 = -2^-46, which two roundings would lose.
    let fused: &[f32] = &[f32::from_bits(next), 1.0 - 2f32.powi(-23), -1.0];
    table_f32("fma.rn.f32", &[(fused, bits(-(2f32.powi(-46))))]);
    table_f32("mad.rn.f32", &[(fused, bits(-(2f32.powi(-46))))]);
    table_f32("fma.rp.f32", &[(&[1.0, 1.0, half], next)]);
    table_f32(
        "div.rn.f32",
        &[
            (&[1.0, 3.0], 0x3eaa_aaab),
            (&[1.0, 0.0], bits(f32::INFINITY)),
        ],
    );
    table_f32("div.rz.f32", &[(&[1.0, 3.0], 0x3eaa_aaaa)]);
    table_f32("div.full.f32", &[(&[6.0, 3.0], bits(2.0))]);
    table_f32("div.approx.f32", &[(&[6.0, 3.0], bits(2.0))]);
    table_f32("sqrt.rn.f32", &[(&[2.0], 0x3fb5_04f3), (&[-1.0], NAN)]);
    table_f32("sqrt.rp.f32", &[(&[2.0], 0x3fb5_04f4)]);
    table_f32(
        "rcp.rn.f32",
        &[(&[3.0], 0x3eaa_aaab), (&[-0.0], bits(f32::NEG_INFINITY))],
    );
    table_f32("rcp.rz.f32", &[(&[3.0], 0x3eaa_aaaa)]);
}

#[test]
fn subnormal_numbers_are_kept_or_flushed() {
    table_f32("add.f32", &[(&[TINY, TINY], 2)]);
    table_f32(
        "add.ftz.f32",
        &[(&[TINY, TINY], 0), (&[-TINY, -0.0], bits(-0.0))],
    );
    table_f32("mul.ftz.f32", &[(&[f32::MIN_POSITIVE, 0.5], 0)]);
    table_f32("mul.f32", &[(&[f32::MIN_POSITIVE, 0.5], 0x0040_0000)]);
    table_f32("fma.rn.ftz.f32", &[(&[1.0, 1.0, TINY], bits(1.0))]);
    assert!(holds("setp.eq.ftz.f32", "%r", 1, 0));
    assert!(!holds("setp.eq.f32", "%r", 1, 0));
}

#[test]
fn saturation_clamps_to_zero_and_one() {
    table_f32(
        "add.sat.f32",
        &[
            (&[0.75, 0.5], bits(1.0)),
            (&[-1.0, 0.5], 0),
            (&[f32::NAN, 1.0], 0),
        ],
    );
    table_f32("mul.sat.f32", &[(&[0.5, 0.5], bits(0.25))]);
    table_f32("fma.rn.sat.f32", &[(&[2.0, 2.0, 2.0], bits(1.0))]);
}

#[test]
fn not_a_number_is_canonical_and_loses_against_numbers() {
    table_f32(
        "add.f32",
        &[
            (&[f32::NAN, 1.0], NAN),
            (&[f32::INFINITY, f32::NEG_INFINITY], NAN),
        ],
    );
    table_f32("mul.f32", &[(&[0.0, f32::INFINITY], NAN)]);
    table_f32(
        "min.f32",
        &[
            (&[f32::NAN, 1.0], bits(1.0)),
            (&[0.0, -0.0], bits(-0.0)),
            (&[2.0, -3.0], bits(-3.0)),
        ],
    );
    table_f32(
        "max.f32",
        &[
            (&[1.0, f32::NAN], bits(1.0)),
            (&[-0.0, 0.0], 0),
            (&[f32::NAN, f32::NAN], NAN),
        ],
    );
    table_f32("min.NaN.f32", &[(&[f32::NAN, 1.0], NAN)]);
    table_f32(
        "max.xorsign.abs.f32",
        &[(&[-3.0, 2.0], bits(-3.0)), (&[-3.0, -4.0], bits(4.0))],
    );
    table_f32("neg.f32", &[(&[1.0], bits(-1.0))]);
    table_f32("abs.f32", &[(&[-2.0], bits(2.0))]);
    table_f32("copysign.f32", &[(&[-1.0, 2.0], bits(-2.0))]);
}

#[test]
fn double_precision_is_exact() {
    table_f64("add.f64", &[(&[0.1, 0.2], 0.1 + 0.2)]);
    table_f64("sub.rn.f64", &[(&[1.0, 0.9], 1.0 - 0.9)]);
    table_f64("mul.f64", &[(&[1e200, 1e200], f64::INFINITY)]);
    table_f64("mul.rz.f64", &[(&[1e200, 1e200], f64::MAX)]);
    table_f64(
        "fma.rn.f64",
        &[(&[0.1, 10.0, -1.0], 0.1f64.mul_add(10.0, -1.0))],
    );
    table_f64("div.rn.f64", &[(&[1.0, 3.0], 1.0 / 3.0)]);
    table_f64("sqrt.rn.f64", &[(&[2.0], 2f64.sqrt())]);
    table_f64("rcp.rn.f64", &[(&[7.0], 1.0 / 7.0)]);
    table_f64("min.f64", &[(&[f64::NAN, 4.0], 4.0)]);
    table_f64("add.rp.f64", &[(&[1.0, 1e-300], 1.0 + f64::EPSILON)]);
    table_f64("neg.f64", &[(&[2.0], -2.0)]);
    table_f64("rcp.approx.ftz.f64", &[(&[4.0], 0.25)]);
    table_f64("rsqrt.approx.f64", &[(&[4.0], 0.5)]);
}

#[test]
fn half_precision_rounds_once() {
    // 1, 2, 3, 65504, 2^-11 in binary16.
    table16(
        "add.f16",
        &[(&[0x3c00, 0x4000], 0x4200), (&[0x3c00, 0x1000], 0x3c00)],
    );
    table16(
        "mul.rn.f16",
        &[(&[0x7bff, 0x4000], 0x7c00), (&[0x4200, 0x4200], 0x4880)],
    );
    table16("sub.f16", &[(&[0x3c00, 0x3c00], 0)]);
    // (1 + 2^-10)^2 = 1 + 2^-9 + 2^-20: one rounding keeps 1 + 2^-9.
    table16(
        "fma.rn.f16",
        &[
            (&[0x3c01, 0x3c01, 0], 0x3c02),
            (&[0x3c01, 0x3c01, 0xbc02], 0x0010),
        ],
    );
    table16("fma.rn.relu.f16", &[(&[0x3c00, 0xbc00, 0], 0)]);
    table16("add.sat.f16", &[(&[0x3c00, 0x3c00], 0x3c00)]);
    table16("neg.f16", &[(&[0x3c00], 0xbc00)]);
    table16("min.f16", &[(&[0x3c00, 0x7e00], 0x3c00)]);
    table16("fma.rn.bf16", &[(&[0x3f80, 0x4000, 0x3f80], 0x4040)]);
    table32("add.f16x2", &[(&[0x3c00_4000, 0x4000_4000], 0x4200_4400)]);
    table32(
        "fma.rn.f16x2",
        &[(&[0x3c00_4000, 0x4000_4000, 0x3c00_3c00], 0x4200_4500)],
    );
    table32("max.bf16x2", &[(&[0x3f80_4000, 0x4000_3f80], 0x4000_4000)]);
    table16("ex2.approx.f16", &[(&[0x4200], 0x4800)]);
    table16("tanh.approx.f16", &[(&[0], 0)]);
    let halves =
        "setp.lt.f16x2 %p1|%p2, %r1, %r2; selp.u32 %o0, 1, 0, %p1; @%p2 or.b32 %o0, %o0, 2;";
    assert_eq!(run32(halves, &[0x4000_3c00, 0x3c00_4000]), 1);
}

#[test]
fn approximations_are_exact_where_the_result_is() {
    table_f32(
        "ex2.approx.ftz.f32",
        &[
            (&[3.0], bits(8.0)),
            (&[-1.0], bits(0.5)),
            (&[f32::NEG_INFINITY], 0),
        ],
    );
    table_f32(
        "lg2.approx.f32",
        &[
            (&[8.0], bits(3.0)),
            (&[0.0], bits(f32::NEG_INFINITY)),
            (&[-1.0], NAN),
        ],
    );
    table_f32("rcp.approx.f32", &[(&[4.0], bits(0.25))]);
    table_f32("sqrt.approx.f32", &[(&[16.0], bits(4.0))]);
    table_f32(
        "rsqrt.approx.f32",
        &[(&[16.0], bits(0.25)), (&[0.0], bits(f32::INFINITY))],
    );
    table_f32("sin.approx.f32", &[(&[0.0], 0), (&[f32::INFINITY], NAN)]);
    table_f32("cos.approx.f32", &[(&[0.0], bits(1.0))]);
    table_f32("tanh.approx.f32", &[(&[0.0], 0), (&[100.0], bits(1.0))]);
}

#[test]
fn comparisons_are_ordered_or_unordered() {
    let one = u64::from(bits(1.0));
    let nan = u64::from(NAN);
    for (setp, with_nan, equal, less) in [
        ("eq", false, true, false),
        ("ne", false, false, true),
        ("lt", false, false, true),
        ("le", false, true, true),
        ("gt", false, false, false),
        ("ge", false, true, false),
        ("equ", true, true, false),
        ("neu", true, false, true),
        ("ltu", true, false, true),
        ("leu", true, true, true),
        ("gtu", true, false, false),
        ("geu", true, true, false),
        ("num", false, true, true),
        ("nan", true, false, false),
    ] {
        let setp = format!("setp.{setp}.f32");
        let two = u64::from(bits(2.0));
        assert_eq!(holds(&setp, "%r", nan, one), with_nan, "{setp} NaN");
        assert_eq!(holds(&setp, "%r", one, one), equal, "{setp} equal");
        assert_eq!(holds(&setp, "%r", one, two), less, "{setp} less");
    }
    assert!(holds("setp.eq.f32", "%r", 0, u64::from(bits(-0.0))));
    assert!(holds("setp.lt.f64", "%rd", (-1f64).to_bits(), 0));
    for (class, value, expected) in [
        ("finite", bits(1.0), 1),
        ("infinite", bits(f32::INFINITY), 1),
        ("number", NAN, 0),
        ("notanumber", NAN, 1),
        ("normal", 1, 0),
        ("subnormal", 1, 1),
    ] {
        let body = format!("testp.{class}.f32 %p1, %r1; selp.u32 %o0, 1, 0, %p1;");
        assert_eq!(run32(&body, &[value.into()]), expected, "{class}");
    }
}

#[test]
fn integers_convert_with_truncation_extension_and_saturation() {
    assert_eq!(run64("cvt.s64.s32 %od, %r1;", &[0xffff_ffff]), u64::MAX);
    assert_eq!(run64("cvt.u64.u32 %od, %r1;", &[0xffff_ffff]), 0xffff_ffff);
    table32("cvt.s32.s8", &[(&[0x180], -128i32 as u32)]);
    table32("cvt.u32.u8", &[(&[0x1ff], 0xff)]);
    table32("cvt.s8.s32", &[(&[0x80], -128i32 as u32)]);
    table32("cvt.sat.u8.s32", &[(&[300], 255), (&[-4i32 as u32], 0)]);
    table32(
        "cvt.sat.s8.s32",
        &[(&[300], 127), (&[-300i32 as u32], -128i32 as u32)],
    );
    assert_eq!(
        run32("cvt.u16.u32 %h0, %r1; cvt.u32.u16 %o0, %h0;", &[0x1_2345]),
        0x2345
    );
    assert_eq!(
        run32("cvt.sat.s32.s64 %o0, %rd1;", &[1 << 40]),
        i32::MAX as u32
    );
    assert_eq!(run32("cvt.u32.u64 %o0, %rd1;", &[0x1_0000_0005]), 5);
}

#[test]
fn floats_convert_to_integers_in_four_directions() {
    for (cvt, value, expected) in [
        ("rni", 2.5f32, 2),
        ("rni", -3.5, -4),
        ("rzi", -2.7, -2),
        ("rmi", -2.1, -3),
        ("rpi", 2.1, 3),
        ("rzi", 1e10, i32::MAX),
        ("rzi", f32::NEG_INFINITY, i32::MIN),
        ("rzi", f32::NAN, 0),
    ] {
        table32(
            &format!("cvt.{cvt}.s32.f32"),
            &[(&[bits(value)], expected as u32)],
        );
    }
    table32(
        "cvt.rzi.u32.f32",
        &[(&[bits(-1.0)], 0), (&[bits(4e9)], 4_000_000_000)],
    );
    table64(
        "cvt.rzi.s64.f64",
        &[(&[(-1e15f64).to_bits()], -1_000_000_000_000_000i64 as u64)],
    );
    assert_eq!(run32("cvt.rni.u32.f64 %o0, %rd1;", &[3.5f64.to_bits()]), 4);
    // A signed result in a wider register is extended by its sign, after it was clamped to its type.
    table32(
        "cvt.rzi.s8.f32",
        &[(&[bits(-5.5)], -5i32 as u32), (&[bits(300.0)], 127)],
    );
    table32(
        "cvt.rzi.u8.f32",
        &[(&[bits(300.0)], 255), (&[bits(-5.5)], 0)],
    );
    assert_eq!(
        run64("cvt.rni.s16.f64 %od, %rd1;", &[(-2.5f64).to_bits()]),
        -2i64 as u64
    );
    table_f32(
        "cvt.rni.f32.f32",
        &[
            (&[2.5], bits(2.0)),
            (&[-0.25], bits(-0.0)),
            (&[1e20], bits(1e20)),
        ],
    );
    table_f32("cvt.rmi.f32.f32", &[(&[-0.5], bits(-1.0))]);
    table_f64("cvt.rzi.f64.f64", &[(&[-7.9], -7.0)]);
}

#[test]
fn integers_convert_to_floats_with_rounding() {
    table32(
        "cvt.rn.f32.s32",
        &[
            (&[-5i32 as u32], bits(-5.0)),
            (&[0x0100_0001], bits(16_777_216.0)),
        ],
    );
    table32("cvt.rp.f32.u32", &[(&[0x0100_0001], bits(16_777_218.0))]);
    table32("cvt.rz.f32.u32", &[(&[u32::MAX], bits(4_294_967_040.0))]);
    table64(
        "cvt.rn.f64.u64",
        &[(&[u64::MAX], 18_446_744_073_709_551_616f64.to_bits())],
    );
    assert_eq!(
        run32("cvt.rn.f32.u64 %o0, %rd1;", &[1 << 63]),
        bits(2f32.powi(63))
    );
    assert_eq!(
        run64("cvt.rn.f64.s32 %od, %r1;", &[0xffff_ffff]),
        (-1f64).to_bits()
    );
}

#[test]
fn floats_convert_between_formats() {
    assert_eq!(
        run64("cvt.f64.f32 %od, %r1;", &[bits(0.1).into()]),
        f64::from(0.1f32).to_bits()
    );
    assert_eq!(
        run32("cvt.rn.f32.f64 %o0, %rd1;", &[0.1f64.to_bits()]),
        bits(0.1)
    );
    assert_eq!(
        run32("cvt.rz.f32.f64 %o0, %rd1;", &[1e300f64.to_bits()]),
        bits(f32::MAX)
    );
    let half = "cvt.rn.f16.f32 %h0, %r1; cvt.u32.u16 %o0, %h0;";
    assert_eq!(run32(half, &[bits(65520.0).into()]), 0x7c00);
    assert_eq!(run32(half, &[bits(1.0 + 2f32.powi(-11)).into()]), 0x3c00);
    assert_eq!(
        run32("cvt.f32.f16 %o0, %h1;", &[0x0001]),
        bits(2f32.powi(-24))
    );
    assert_eq!(
        run32(
            "cvt.rn.bf16.f32 %h0, %r1; cvt.u32.u16 %o0, %h0;",
            &[0x3f80_8001]
        ),
        0x3f81
    );
    assert_eq!(run32("cvt.f32.bf16 %o0, %h1;", &[0x4040]), bits(3.0));
    table_f32("cvt.rn.f16x2.f32", &[(&[1.0, 2.0], 0x3c00_4000)]);
    table_f32(
        "cvt.rz.bf16x2.f32",
        &[(&[1.0, f32::from_bits(0x3f80_ffff)], 0x3f80_3f80)],
    );
    table_f32(
        "cvt.rna.tf32.f32",
        &[(&[f32::from_bits(0x3f80_1000)], 0x3f80_2000)],
    );
    table_f32("cvt.sat.f32.f32", &[(&[2.0], bits(1.0)), (&[f32::NAN], 0)]);
    table_f32("cvt.ftz.f32.f32", &[(&[TINY], 0)]);
}
