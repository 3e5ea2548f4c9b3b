//! The syntax tree of a PTX module.

use super::Position;

/// A whole text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module<'a> {
    /// `.version`, major and minor.
    pub version: (u32, u32),
    /// `.target`, its first word: `sm_75`.
    pub target: &'a str,
    pub variables: Vec<Variable<'a>>,
    pub functions: Vec<Function<'a>>,
}

/// Who may name a symbol (PTX ISA 5.6 and 11.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Linkage {
    #[default]
    Internal,
    /// Declared here, defined elsewhere.
    Extern,
    Visible,
    Weak,
    Common,
}

/// State spaces in which a variable can be declared (PTX ISA 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    Global,
    Shared,
    Local,
    Const,
    Param,
}

/// Fundamental types (PTX ISA 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    B8,
    B16,
    B32,
    B64,
    B128,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    U16x2,
    S16x2,
    Pred,
}

impl Scalar {
    /// Every type that is written as one word after a full stop.
    const NAMES: [(&'static str, Self); 23] = [
        ("u8", Self::U8),
        ("u16", Self::U16),
        ("u32", Self::U32),
        ("u64", Self::U64),
        ("s8", Self::S8),
        ("s16", Self::S16),
        ("s32", Self::S32),
        ("s64", Self::S64),
        ("b8", Self::B8),
        ("b16", Self::B16),
        ("b32", Self::B32),
        ("b64", Self::B64),
        ("b128", Self::B128),
        ("f16", Self::F16),
        ("f16x2", Self::F16x2),
        ("bf16", Self::Bf16),
        ("bf16x2", Self::Bf16x2),
        ("tf32", Self::Tf32),
        ("f32", Self::F32),
        ("f64", Self::F64),
        ("u16x2", Self::U16x2),
        ("s16x2", Self::S16x2),
        ("pred", Self::Pred),
    ];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|&(_, scalar)| scalar)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, known)| *known == self)
            .map_or("", |&(name, _)| name)
    }

    /// Bytes in memory; a predicate has none.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Pred => 0,
            Self::U8 | Self::S8 | Self::B8 => 1,
            Self::U16 | Self::S16 | Self::B16 | Self::F16 | Self::Bf16 => 2,
            Self::U64 | Self::S64 | Self::B64 | Self::F64 => 8,
            Self::B128 => 16,
            Self::U32
            | Self::S32
            | Self::B32
            | Self::F16x2
            | Self::Bf16x2
            | Self::Tf32
            | Self::F32
            | Self::U16x2
            | Self::S16x2 => 4,
        }
    }

    /// True for two's complement integers, which are extended by their sign.
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    pub const fn is_float(self) -> bool {
        matches!(
            self,
            Self::F16
                | Self::F16x2
                | Self::Bf16
                | Self::Bf16x2
                | Self::Tf32
                | Self::F32
                | Self::F64
        )
    }
}

/// A variable or a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable<'a> {
    pub position: Position,
    pub linkage: Linkage,
    /// `None` for a parameter that is a register (`.reg .b32 %a`).
    pub space: Option<Space>,
    pub align: Option<u64>,
    pub scalar: Scalar,
    /// Elements of a vector type, 1 for a scalar.
    pub vector: u64,
    pub name: &'a str,
    /// Elements of each dimension, outermost first; empty for a scalar. The first may be left open.
    pub dims: Vec<Option<u64>>,
    pub init: Option<Initializer<'a>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Initializer<'a> {
    Value(Constant),
    /// The address of a symbol plus an offset, in the symbol's space or, if `generic`, in the generic one.
    /// With a mask (`0xFF00(symbol)`) only the masked byte of the address is stored.
    Address {
        symbol: &'a str,
        position: Position,
        generic: bool,
        offset: i64,
        mask: Option<u64>,
    },
    List(Vec<Initializer<'a>>),
}

/// A constant with the type its notation gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Constant {
    /// Two's complement, signed or not.
    Integer(u64),
    Single(u32),
    Double(u64),
}

/// A kernel or a device function.
#[derive(Clone, Debug, PartialEq)]
pub struct Function<'a> {
    pub position: Position,
    pub linkage: Linkage,
    /// `.entry`: a kernel.
    pub entry: bool,
    pub name: &'a str,
    pub returns: Vec<Variable<'a>>,
    pub params: Vec<Variable<'a>>,
    /// `.maxntid`: the largest block, in threads of each dimension.
    pub max_block: Option<[u32; 3]>,
    /// `.reqntid`: the only block size allowed.
    pub required_block: Option<[u32; 3]>,
    /// `None` for a declaration.
    pub body: Option<Vec<Statement<'a>>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Statement<'a> {
    Label(&'a str, Position),
    /// `.reg .b32 %r<10>, %x;`: names with the count of a parametrised one.
    Registers {
        position: Position,
        scalar: Scalar,
        vector: u64,
        names: Vec<(&'a str, Option<u64>)>,
    },
    Variable(Variable<'a>),
    Instruction(Instruction<'a>),
    Block(Vec<Statement<'a>>),
    /// `label: .branchtargets a, b;`
    BranchTargets(&'a str, Vec<&'a str>),
    /// `label: .calltargets f, g;`
    CallTargets(&'a str, Vec<&'a str>),
    /// `label: .callprototype (ret) _ (params);`
    CallPrototype {
        label: &'a str,
        returns: Vec<Variable<'a>>,
        params: Vec<Variable<'a>>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Instruction<'a> {
    pub position: Position,
    pub guard: Option<Guard<'a>>,
    pub opcode: &'a str,
    pub modifiers: Vec<&'a str>,
    pub operands: Vec<Operand<'a>>,
}

impl Instruction<'_> {
    /// The opcode with its modifiers, as written.
    pub fn mnemonic(&self) -> String {
        let mut text = self.opcode.to_owned();
        for modifier in &self.modifiers {
            text.push('.');
            text.push_str(modifier);
        }
        text
    }
}

/// `@p` or `@!p`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard<'a> {
    pub predicate: &'a str,
    pub negated: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'a> {
    /// A register, a special register, a symbol or a label; `_` discards a result.
    Name(&'a str),
    /// `%tid.x`, or an element of a vector register.
    Component(&'a str, &'a str),
    /// A symbol with an offset.
    NameOffset(&'a str, i64),
    /// `array[index]`: the address of an element.
    Element(&'a str, u64),
    Constant(Constant),
    /// `[base+offset]`, with what else stands in the brackets.
    Address {
        base: Option<&'a str>,
        offset: i64,
        more: Vec<Operand<'a>>,
    },
    /// `{a, b}`.
    Vector(Vec<Operand<'a>>),
    /// `(a, b)`, the arguments of a call.
    List(Vec<Operand<'a>>),
    /// `a|b`: two destinations.
    Pair(Box<Operand<'a>>, Box<Operand<'a>>),
    /// `!p`.
    Not(Box<Operand<'a>>),
}
