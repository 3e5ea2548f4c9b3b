//! Spaces, widths, vectors and atomics.

use super::common::Device;
use super::{HEADER, run_alone, run32, run64};

#[test]
fn loads_extend_to_the_register_by_their_type() {
    let body =
        |ld: &str| format!("mov.b64 %rd1, 0xfffffffffffffe85; st.global.b64 [%rd15], %rd1; {ld}");
    assert_eq!(run32(&body("ld.global.u8 %o0, [%rd15];"), &[]), 0x85);
    assert_eq!(run32(&body("ld.global.s8 %o0, [%rd15];"), &[]), 0xffff_ff85);
    assert_eq!(
        run64(&body("ld.global.s16 %od, [%rd15];"), &[]),
        -379i64 as u64
    );
    assert_eq!(
        run64(&body("ld.global.u32 %od, [%rd15+4];"), &[]),
        0xffff_ffff
    );
    assert_eq!(
        run64(&body("ld.volatile.global.s32 %od, [%rd15+4];"), &[]),
        u64::MAX
    );
    assert_eq!(
        run32(
            &body("ld.relaxed.gpu.global.L1::no_allocate.b32 %o0, [%rd15];"),
            &[]
        ),
        0xffff_fe85
    );
    assert_eq!(run32(&body("ld.b8 %o0, [%rd15+1];"), &[]), 0xfe);
}

#[test]
fn vectors_are_loaded_stored_packed_and_unpacked() {
    let body = "st.global.v2.b32 [%rd15], {1, 2}; ld.global.v2.u16 {%h1, %h2}, [%rd15];
                ld.global.v2.b32 {_, %r2}, [%rd15]; cvt.u32.u16 %r1, %h1; add.u32 %o0, %r1, %r2;";
    assert_eq!(run32(body, &[]), 3);
    assert_eq!(run64("mov.b64 %od, {%r1, %r2};", &[7, 9]), 9 << 32 | 7);
    assert_eq!(run32("mov.b64 {%o1, %o0}, %rd1;", &[9 << 32 | 7]), 9);
    assert_eq!(
        run32(
            "mov.b32 {%h3, %h4}, %r1; mov.b32 %o0, {%h4, %h3};",
            &[0x1234_5678]
        ),
        0x5678_1234
    );
    let local = ".local .align 16 .b8 a[32]; st.local.v4.b32 [a+16], {1, 2, 3, 4}; ld.local.v4.b32 {%r1, %r2, %r3, %r4}, [a+16];
                 mad.lo.u32 %o0, %r4, 10, %r3;";
    assert_eq!(run32(local, &[]), 43);
}

#[test]
fn the_first_element_of_an_array_is_its_address() {
    let body = ".shared .align 16 .b8 s[64]; mov.u64 %rd1, s[0]; st.shared.u32 [%rd1+4], 6; ld.shared.u32 %o0, [s+4];";
    assert_eq!(run32(body, &[]), 6);
}

#[test]
fn generic_addresses_reach_every_space() {
    let shared = ".shared .u32 s[4]; mov.u64 %rd1, s; cvta.shared.u64 %rd2, %rd1; st.u32 [%rd2+8], 5;
                  ld.shared.u32 %o0, [s+8]; isspacep.shared %p1, %rd2; @%p1 add.u32 %o0, %o0, 10;
                  isspacep.global %p2, %rd2; @%p2 add.u32 %o0, %o0, 100; cvta.to.shared.u64 %rd3, %rd2; sub.u64 %rd4, %rd3, %rd1;
                  cvt.u32.u64 %r5, %rd4; add.u32 %o0, %o0, %r5;";
    assert_eq!(run32(shared, &[]), 15);
    let local = ".local .u64 l; mov.u64 %rd1, l; cvta.local.u64 %rd1, %rd1; st.u64 [%rd1], 77; ld.local.u64 %od, [l];
                 isspacep.local %p1, %rd1; @!%p1 mov.u64 %od, 0;";
    assert_eq!(run64(local, &[]), 77);
    let param =
        "mov.b64 %rd1, in; cvta.param.u64 %rd1, %rd1; ld.u64 %rd2, [%rd1]; ld.param.u64 %rd3, [in];
                 sub.u64 %od, %rd2, %rd3; add.u64 %od, %od, 1;";
    assert_eq!(run64(param, &[]), 1);
}

#[test]
fn global_variables_have_initial_values_and_addresses() {
    let text = format!(
        "{HEADER}.global .align 8 .u64 pointers[2] = {{generic(table)+4, function}};
         .const .align 4 .u32 table[2][2] = {{{{1, 2}}, {{3}}}};
         .global .align 1 .b8 bytes[4] = {{1, 0x80, 3}};
         .global .f32 one = 1.0;
         .func (.reg .b32 %r) function(.reg .b32 %a) {{ mul.lo.u32 %r, %a, 100; ret; }}
         .entry k(.param .u64 out) {{ .reg .b64 %rd<4>; .reg .b32 %r<6>;
           ld.param.u64 %rd1, [out]; ld.global.u64 %rd2, [pointers]; ld.u32 %r1, [%rd2];
           st.global.u32 [%rd1], %r1; ld.const.u32 %r2, [table+8]; st.global.u32 [%rd1+4], %r2;
           ld.global.s8 %r3, [bytes+1]; st.global.u32 [%rd1+8], %r3; ld.global.b32 %r4, [one]; st.global.b32 [%rd1+12], %r4;
           ld.global.u64 %rd3, [pointers+8]; call (%r5), %rd3, (%r1), proto; st.global.u32 [%rd1+16], %r5; ret;
           proto: .callprototype (.reg .b32 _) _ (.reg .b32 _); }}"
    );
    for device in Device::both() {
        let kernel = device.kernel(&text, "k");
        let out = device.buffer(20);
        device.launch(&kernel, [1, 1, 1], [1, 1, 1], 0, &[out]);
        let expected = [2, 3, -128i32 as u32, 1f32.to_bits(), 200];
        assert_eq!(super::common::integers(&device, out, 5), expected);
    }
}

#[test]
fn atomics_return_the_old_value_and_leave_the_new_one() {
    // Old value, operands; returned is always the old value, left is what the table says.
    for (atom, old, operands, left) in [
        ("add.u32", 5u32, "3", 8u32),
        ("add.s32", 5, "-7", -2i32 as u32),
        ("min.s32", 5, "-7", -7i32 as u32),
        ("min.u32", 5, "-7", 5),
        ("max.s32", 5, "-7", 5),
        ("max.u32", 5, "-7", -7i32 as u32),
        ("and.b32", 6, "3", 2),
        ("or.b32", 6, "3", 7),
        ("xor.b32", 6, "3", 5),
        ("exch.b32", 6, "9", 9),
        ("cas.b32", 6, "6, 1", 1),
        ("cas.b32", 6, "7, 1", 6),
        ("inc.u32", 6, "6", 0),
        ("inc.u32", 5, "6", 6),
        ("dec.u32", 0, "6", 6),
        ("dec.u32", 9, "6", 6),
        ("dec.u32", 3, "6", 2),
        ("add.f32", 0x3f80_0000, "0f3F800000", 0x4000_0000),
        ("add.noftz.f16x2", 0x3c00_3c00, "0x3c004000", 0x4000_4200),
    ] {
        for space in ["global", "shared"] {
            let place = if space == "global" { "%rd15" } else { "s" };
            let body = format!(
                ".shared .align 8 .u64 s; st.{space}.b32 [{place}], {old}; atom.{space}.{atom} %o1, [{place}], {operands};
                 ld.{space}.b32 %o2, [{place}]; mov.b64 %od, {{%o1, %o2}};"
            );
            let result = run_alone(&body, &[]);
            assert_eq!(
                result,
                u64::from(left) << 32 | u64::from(old),
                "atom.{space}.{atom}"
            );
            let body = format!(
                ".shared .align 8 .u64 s; st.{space}.b32 [{place}], {old}; red.relaxed.gpu.{space}.{atom} [{place}], {operands};
                 ld.{space}.b32 %o0, [{place}];"
            );
            if !atom.starts_with("cas") && !atom.starts_with("exch") {
                let body = format!("{body} cvt.u64.u32 %od, %o0;");
                assert_eq!(run_alone(&body, &[]), u64::from(left), "red.{space}.{atom}");
            }
        }
    }
    let wide = "st.global.b64 [%rd15], %rd1; atom.acq_rel.sys.global.add.u64 %rd2, [%rd15], %rd1; ld.global.b64 %od, [%rd15];";
    assert_eq!(run64(wide, &[1 << 40]), 1 << 41);
    let double = "st.global.b64 [%rd15], %rd1; atom.global.add.f64 %rd2, [%rd15], %rd1; ld.global.b64 %od, [%rd15];";
    assert_eq!(run64(double, &[1.5f64.to_bits()]), 3f64.to_bits());
}

#[test]
fn fences_and_hints_change_no_value() {
    let body = "membar.gl; membar.cta; membar.sys; fence.acq_rel.gpu; fence.sc.sys; prefetch.global.L2 [%rd15];
                nanosleep.u32 1; ld.global.nc.L2::128B.u32 %o0, [%rd15]; mov.u32 %o0, 4;";
    assert_eq!(run32(body, &[]), 4);
}
