//! The instructions that make values of values, with every combination of modifiers and types that the PTX ISA gives them
//! (9.7.1 to 9.7.9) and that this compiler has. What is not in these tables is refused, and the conformance tests try what is.

use std::collections::HashSet;
use std::sync::OnceLock;

use crate::ptx::syntax::Scalar;

/// Integer arithmetic, logic, bits, moves and selections. A pattern stands for all choices of its braces.
pub const INTEGER: &str = "
add.{u16,u32,u64,s16,s32,s64,u16x2,s16x2}
sub.{u16,u32,u64,s16,s32,s64}
{add,sub}.sat.s32
{add,sub}.cc.{u32,s32,u64,s64}
{addc,subc}{,.cc}.{u32,s32,u64,s64}
mad{.lo,.hi}.cc.{u32,s32,u64,s64}
madc{.lo,.hi}{,.cc}.{u32,s32,u64,s64}
{mul,mad}{.lo,.hi}.{u16,u32,u64,s16,s32,s64}
{mul,mad}.wide.{u16,u32,s16,s32}
mad.hi.sat.s32
{mul24,mad24}{.lo,.hi}.{u32,s32}
{sad,div,rem}.{u16,u32,u64,s16,s32,s64}
{min,max}.{u16,u32,u64,s16,s32,s64,u16x2,s16x2}
{neg,abs}.{s16,s32,s64}
{and,or,xor,not}.{pred,b16,b32,b64}
cnot.{b16,b32,b64}
lop3.b32
shl.{b16,b32,b64}
shr.{b16,b32,b64,u16,u32,u64,s16,s32,s64}
shf{.l,.r}{.wrap,.clamp}.b32
{popc,clz,brev}.{b32,b64}
bfind{,.shiftamt}.{u32,u64,s32,s64}
fns.b32
bfe.{u32,u64,s32,s64}
bfi.{b32,b64}
bmsk{.clamp,.wrap}.b32
szext{.clamp,.wrap}.{u32,s32}
prmt.b32{,.f4e,.b4e,.rc8,.ecl,.ecr,.rc16}
dp4a.{u32,s32}.{u32,s32}
dp2a{.lo,.hi}.{u32,s32}.{u32,s32}
mov.{pred,b16,b32,b64,u16,u32,u64,s16,s32,s64,f32,f64}
selp.{b16,b32,b64,u16,u32,u64,s16,s32,s64,f32,f64}
slct.{b16,b32,b64,u16,u32,u64,s16,s32,s64,f32,f64}.s32
slct{,.ftz}.{b16,b32,b64,u16,u32,u64,s16,s32,s64,f32,f64}.f32
";

/// Floating-point arithmetic.
pub const FLOAT: &str = "
{add,sub,mul}{,.rn,.rz,.rm,.rp}{,.ftz}{,.sat}.f32
{add,sub,mul}{,.rn,.rz,.rm,.rp}.f64
{add,sub,mul}{,.rn}{,.ftz}{,.sat}.{f16,f16x2}
{add,sub,mul}{,.rn}.{bf16,bf16x2}
{fma,mad}{.rn,.rz,.rm,.rp}{,.ftz}{,.sat}.f32
{fma,mad}{.rn,.rz,.rm,.rp}.f64
fma.rn{,.ftz}{,.sat,.relu}.{f16,f16x2}
fma.rn{,.relu}.{bf16,bf16x2}
div{.approx,.full}{,.ftz}.f32
{div,rcp,sqrt}{.rn,.rz,.rm,.rp}{,.ftz}.f32
{div,rcp,sqrt}{.rn,.rz,.rm,.rp}.f64
{rcp,sqrt,rsqrt,sin,cos,lg2,ex2}.approx{,.ftz}.f32
tanh.approx.{f32,f16,f16x2,bf16,bf16x2}
{rcp,rsqrt}.approx.ftz.f64
rsqrt.approx.f64
ex2.approx.{f16,f16x2}
ex2.approx.ftz.{bf16,bf16x2}
{neg,abs}{,.ftz}.{f32,f16,f16x2}
{neg,abs}.{f64,bf16,bf16x2}
{min,max}{,.ftz}{,.NaN}{,.xorsign.abs}.{f32,f16,f16x2}
{min,max}{,.NaN}{,.xorsign.abs}.{bf16,bf16x2}
{min,max}.f64
copysign.{f32,f64}
testp.{finite,infinite,number,notanumber,normal,subnormal}.{f32,f64}
";

pub const COMPARISONS: &str = "
setp{.eq,.ne}{,.and,.or,.xor}.{b16,b32,b64}
setp{.eq,.ne,.lt,.le,.gt,.ge}{,.and,.or,.xor}.{u16,u32,u64,s16,s32,s64}
setp{.lo,.ls,.hi,.hs}{,.and,.or,.xor}.{u16,u32,u64}
setp{.eq,.ne,.lt,.le,.gt,.ge,.equ,.neu,.ltu,.leu,.gtu,.geu,.num,.nan}{,.and,.or,.xor}{,.ftz}.{f32,f16,f16x2}
setp{.eq,.ne,.lt,.le,.gt,.ge,.equ,.neu,.ltu,.leu,.gtu,.geu,.num,.nan}{,.and,.or,.xor}.{f64,bf16,bf16x2}
set{.eq,.ne}{,.and,.or,.xor}.{u32,s32,f32}.{b16,b32,b64}
set{.eq,.ne,.lt,.le,.gt,.ge}{,.and,.or,.xor}.{u32,s32,f32}.{u16,u32,u64,s16,s32,s64}
set{.lo,.ls,.hi,.hs}{,.and,.or,.xor}.{u32,s32,f32}.{u16,u32,u64}
set{.eq,.ne,.lt,.le,.gt,.ge,.equ,.neu,.ltu,.leu,.gtu,.geu,.num,.nan}{,.and,.or,.xor}{,.ftz}.{u32,s32,f32}.f32
set{.eq,.ne,.lt,.le,.gt,.ge,.equ,.neu,.ltu,.leu,.gtu,.geu,.num,.nan}{,.and,.or,.xor}.{u32,s32,f32}.f64
set{.eq,.ne,.lt,.le,.gt,.ge,.equ,.neu,.ltu,.leu,.gtu,.geu,.num,.nan}{,.and,.or,.xor}{,.ftz}.{f16,u16,s16,u32,s32}.f16
set{.eq,.ne,.lt,.le,.gt,.ge,.equ,.neu,.ltu,.leu,.gtu,.geu,.num,.nan}{,.and,.or,.xor}.{bf16,u16,s16,u32,s32}.bf16
";

pub const CONVERSIONS: &str = "
cvt{,.sat}.{u8,u16,u32,u64,s8,s16,s32,s64}.{u8,u16,u32,u64,s8,s16,s32,s64}
cvt{.rni,.rzi,.rmi,.rpi}{,.ftz}{,.sat}.{u8,u16,u32,u64,s8,s16,s32,s64}.f32
cvt{.rni,.rzi,.rmi,.rpi}{,.sat}.{u8,u16,u32,u64,s8,s16,s32,s64}.{f16,bf16,f64}
cvt{.rn,.rz,.rm,.rp}{,.ftz}{,.sat}.f32.{u8,u16,u32,u64,s8,s16,s32,s64}
cvt{.rn,.rz,.rm,.rp}{,.sat}.{f16,bf16,f64}.{u8,u16,u32,u64,s8,s16,s32,s64}
cvt{.rni,.rzi,.rmi,.rpi}{,.ftz}{,.sat}.f32.f32
cvt{.rni,.rzi,.rmi,.rpi}{,.sat}.{f16.f16,bf16.bf16,f64.f64}
cvt{,.ftz}{,.sat}.{f32.f32,f32.f16,f32.bf16,f64.f32}
cvt{,.sat}.{f16.f16,f64.f64,f64.f16,f64.bf16}
cvt{.rn,.rz,.rm,.rp}{,.ftz}{,.sat}.{f16,bf16}.f32
cvt{.rn,.rz,.rm,.rp}{,.ftz}{,.sat}.f32.f64
cvt{.rn,.rz,.rm,.rp}{,.sat}.{f16.f64,bf16.f64,f16.bf16,bf16.f16}
cvt{.rn,.rz}.relu.{f16,bf16}.f32
cvt{.rn,.rz}{,.relu}.{f16x2,bf16x2}.f32
cvt.rna.tf32.f32
cvt{.rn,.rz}{,.relu}.tf32.f32
";

/// All names that a pattern stands for: `add{,.sat}.s32` is `add.s32` and `add.sat.s32`.
pub fn expand(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return vec![pattern.to_owned()];
    };
    let (choices, after) = rest.split_once('}').unwrap_or((rest, ""));
    let endings = expand(after);
    let mut all = Vec::new();
    for choice in choices.split(',') {
        for ending in &endings {
            all.push(format!("{before}{choice}{ending}"));
        }
    }
    all
}

/// The names that a table of patterns stands for.
pub fn expand_all(patterns: &str) -> Vec<String> {
    patterns
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .flat_map(expand)
        .collect()
}

/// An instruction's words, with the modifiers in an order of their own: PTX texts vary it.
fn key<'a>(opcode: &'a str, words: impl Iterator<Item = &'a str>) -> String {
    let (types, mut modifiers): (Vec<&str>, Vec<&str>) =
        words.partition(|word| Scalar::from_name(word).is_some());
    modifiers.sort_unstable();
    [vec![opcode], modifiers, types].concat().join(".")
}

/// Whether an instruction is in the tables.
pub fn is_known<'a>(opcode: &'a str, words: impl Iterator<Item = &'a str>) -> bool {
    static KNOWN: OnceLock<HashSet<String>> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let names = [INTEGER, FLOAT, COMPARISONS, CONVERSIONS]
            .into_iter()
            .flat_map(expand_all);
        names
            .map(|name| {
                let mut words = name.split('.');
                key(words.next().unwrap_or_default(), words)
            })
            .collect()
    });
    known.contains(&key(opcode, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_all_their_choices() {
        assert_eq!(expand("a{,.b}{.c,.d}"), ["a.c", "a.d", "a.b.c", "a.b.d"]);
        assert_eq!(expand("plain"), ["plain"]);
    }

    #[test]
    fn the_order_of_modifiers_does_not_matter_and_that_of_types_does() {
        let known = |name: &str| {
            let mut words = name.split('.');
            is_known(words.next().unwrap(), words)
        };
        assert!(known("add.rn.ftz.sat.f32") && known("add.sat.ftz.rn.f32"));
        assert!(known("cvt.f64.f32") && !known("cvt.f32.f64"));
        assert!(known("prmt.b32.f4e"));
        assert!(!known("add.b32") && !known("add.sat.u32"));
    }
}
