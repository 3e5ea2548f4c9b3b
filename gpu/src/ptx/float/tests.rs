//! The host's arithmetic is the reference to nearest even; the other directions are checked against its
//! exact neighbours.

use super::*;

/// Bit patterns that cover signs, subnormals, extremes and carries, and pseudo-random ones.
fn samples(format: Format) -> Vec<u64> {
    let mut samples = vec![
        0,
        1,
        format.sign(),
        format.sign() | 1,
        format.one(),
        format.one() + 1,
        format.one() - 1,
        format.one() | format.sign(),
        format.infinity(),
        format.infinity() - 1,
        format.infinity() | format.sign(),
        format.nan,
        1 << format.fraction_bits,
        (1 << format.fraction_bits) - 1,
        3 << (format.fraction_bits - 1),
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..60 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        samples.push(state & (format.sign() | (format.sign() - 1)));
    }
    samples
}

fn same32(ours: u64, host: f32) -> bool {
    ours == u64::from(host.to_bits()) || Format::F32.is_nan(ours) && host.is_nan()
}

fn same64(ours: u64, host: f64) -> bool {
    ours == host.to_bits() || Format::F64.is_nan(ours) && host.is_nan()
}

#[test]
fn to_nearest_even_is_the_hosts_arithmetic() {
    let rn = Rounding::NearestEven;
    for &a in &samples(Format::F32) {
        let (x, fa) = (Format::F32.unpack(a), f32::from_bits(a as u32));
        assert!(same32(Format::F32.pack(x.square_root(), rn), fa.sqrt()));
        for &b in &samples(Format::F32) {
            let (y, fb) = (Format::F32.unpack(b), f32::from_bits(b as u32));
            let pack = |number| Format::F32.pack(number, rn);
            assert!(same32(pack(x.add(y, rn)), fa + fb), "{fa} + {fb}");
            assert!(same32(pack(x.multiply(y)), fa * fb), "{fa} * {fb}");
            assert!(same32(pack(x.divide(y)), fa / fb), "{fa} / {fb}");
            let fused = pack(x.multiply(y).add(x, rn));
            assert!(same32(fused, fa.mul_add(fb, fa)), "fma {fa} {fb}");
        }
    }
    for &a in &samples(Format::F64) {
        let (x, fa) = (Format::F64.unpack(a), f64::from_bits(a));
        assert!(same64(Format::F64.pack(x.square_root(), rn), fa.sqrt()));
        for &b in &samples(Format::F64) {
            let (y, fb) = (Format::F64.unpack(b), f64::from_bits(b));
            let pack = |number| Format::F64.pack(number, rn);
            assert!(same64(pack(x.add(y, rn)), fa + fb), "{fa} + {fb}");
            assert!(same64(pack(x.multiply(y)), fa * fb), "{fa} * {fb}");
            assert!(same64(pack(x.divide(y)), fa / fb), "{fa} / {fb}");
            let fused = pack(x.multiply(y).add(y, rn));
            assert!(same64(fused, fa.mul_add(fb, fb)), "fma {fa} {fb}");
        }
    }
}

/// f32 sums and products whose double-precision value is exact: the directed results bracket it.
#[test]
fn directed_rounding_brackets_the_exact_value() {
    for &a in &samples(Format::F32) {
        for &b in &samples(Format::F32) {
            let exact = f64::from(f32::from_bits(a as u32)) * f64::from(f32::from_bits(b as u32));
            if !exact.is_finite() || exact.abs() < f64::from(f32::MIN_POSITIVE) {
                continue;
            }
            let product = Format::F32.unpack(a).multiply(Format::F32.unpack(b));
            let round =
                |rounding| f64::from(f32::from_bits(Format::F32.pack(product, rounding) as u32));
            let (down, up) = (round(Rounding::Down), round(Rounding::Up));
            assert!(down <= exact && exact <= up, "{down} {exact} {up}");
            assert_eq!(round(Rounding::Zero), if exact > 0.0 { down } else { up });
            if exact == down || exact == up {
                assert_eq!(down, up);
            } else if down.is_finite() && up.is_finite() {
                let ulps = (up as f32).to_bits().abs_diff((down as f32).to_bits());
                assert_eq!(ulps, 1, "{down} {up}");
            }
        }
    }
}

#[test]
fn half_precision_has_known_values() {
    let half =
        |value: f64, rounding| Format::F16.pack(Format::F64.unpack(value.to_bits()), rounding);
    let rn = Rounding::NearestEven;
    assert_eq!(half(1.0, rn), 0x3c00);
    assert_eq!(half(-2.0, rn), 0xc000);
    assert_eq!(half(65504.0, rn), 0x7bff);
    assert_eq!(half(65519.0, rn), 0x7bff);
    assert_eq!(half(65520.0, rn), 0x7c00);
    assert_eq!(half(65520.0, Rounding::Zero), 0x7bff);
    assert_eq!(half(2f64.powi(-24), rn), 1);
    assert_eq!(half(2f64.powi(-25), rn), 0);
    assert_eq!(half(2f64.powi(-25), Rounding::Up), 1);
    assert_eq!(half(2f64.powi(-25), Rounding::NearestAway), 1);
    assert_eq!(half(1.0 + 2f64.powi(-11), rn), 0x3c00);
    assert_eq!(half(1.0 + 3.0 * 2f64.powi(-11), rn), 0x3c02);
    assert_eq!(half(f64::NAN, rn), 0x7fff);
    let bf = |value: f32| Format::BF16.pack(Format::F32.unpack(u64::from(value.to_bits())), rn);
    assert_eq!(bf(1.0), 0x3f80);
    assert_eq!(bf(f32::from_bits(0x3f80_8000)), 0x3f80);
    assert_eq!(bf(f32::from_bits(0x3f81_8000)), 0x3f82);
}

#[test]
fn integers_are_chosen_by_direction() {
    let of = |value: f64, rounding| Format::F64.unpack(value.to_bits()).to_integer(rounding);
    for (value, even, zero, down, up) in [
        (2.5, 2, 2, 2, 3),
        (3.5, 4, 3, 3, 4),
        (-2.5, -2, -2, -3, -2),
        (-0.25, 0, 0, -1, 0),
        (1e-300, 0, 0, 0, 1),
        (7.0, 7, 7, 7, 7),
    ] {
        assert_eq!(of(value, Rounding::NearestEven), Some(even), "{value}");
        assert_eq!(of(value, Rounding::Zero), Some(zero), "{value}");
        assert_eq!(of(value, Rounding::Down), Some(down), "{value}");
        assert_eq!(of(value, Rounding::Up), Some(up), "{value}");
    }
    assert_eq!(of(f64::NAN, Rounding::Zero), None);
    assert_eq!(of(1e300, Rounding::Zero), Some(i128::MAX));
}

#[test]
fn saturation_and_flushing_follow_the_isa() {
    let f = |value: f32| u64::from(value.to_bits());
    assert_eq!(Format::F32.saturate(f(1.5)), f(1.0));
    assert_eq!(Format::F32.saturate(f(-1.5)), 0);
    assert_eq!(Format::F32.saturate(f(0.25)), f(0.25));
    assert_eq!(Format::F32.saturate(Format::F32.nan), 0);
    assert_eq!(Format::F32.flush(0x8000_0001), 0x8000_0000);
    assert_eq!(Format::F32.flush(0x0080_0000), 0x0080_0000);
}

#[test]
fn approximations_lie_within_the_error_the_isa_allows() {
    use approx::Function;
    for step in 1..400 {
        let x = step as f32 * 0.037 - 6.0;
        let apply = |function: Function, x: f32| {
            f32::from_bits(function.apply(Format::F32, u64::from(x.to_bits())) as u32)
        };
        let close = |ours: f32, exact: f64, bound: f64| {
            assert!((f64::from(ours) - exact).abs() <= bound, "{ours} {exact}");
        };
        let wide = f64::from(x);
        close(
            apply(Function::Ex2, x),
            (wide * 2f64.ln()).exp(),
            wide.exp2() * 2f64.powi(-22),
        );
        close(apply(Function::Sin, x), wide.sin(), 2f64.powi(-20));
        close(apply(Function::Cos, x), wide.cos(), 2f64.powi(-20));
        close(apply(Function::Tanh, x), wide.tanh(), 2f64.powi(-11));
        let positive = x.abs();
        let wide = f64::from(positive);
        close(
            apply(Function::Rcp, positive),
            1.0 / wide,
            2f64.powi(-23) / wide,
        );
        close(
            apply(Function::Rsqrt, positive),
            wide.powf(-0.5),
            2f64.powi(-22) * wide.powf(-0.5),
        );
        close(
            apply(Function::Lg2, positive),
            wide.ln() / 2f64.ln(),
            2f64.powi(-21) * wide.log2().abs().max(1.0),
        );
    }
}
