//! Instructions by name: an opcode with modifiers and types.

use gpu::ptx::lower::forms;

/// The forms of all patterns, one pattern a line.
pub fn expand_all(patterns: &str) -> Vec<Form> {
    forms::expand_all(patterns)
        .iter()
        .map(|name| Form::new(name))
        .collect()
}

/// Types by their names, with their widths.
const TYPES: [(&str, u32); 22] = [
    ("u8", 8),
    ("u16", 16),
    ("u32", 32),
    ("u64", 64),
    ("s8", 8),
    ("s16", 16),
    ("s32", 32),
    ("s64", 64),
    ("b8", 8),
    ("b16", 16),
    ("b32", 32),
    ("b64", 64),
    ("f16", 16),
    ("f16x2", 32),
    ("bf16", 16),
    ("bf16x2", 32),
    ("tf32", 32),
    ("f32", 32),
    ("f64", 64),
    ("u16x2", 32),
    ("s16x2", 32),
    ("pred", 1),
];

pub fn types() -> impl Iterator<Item = &'static str> {
    TYPES.iter().map(|(name, _)| *name)
}

pub fn bits_of(ty: &str) -> u32 {
    TYPES
        .iter()
        .find(|(name, _)| *name == ty)
        .map(|(_, bits)| *bits)
        .unwrap_or_else(|| panic!("`{ty}` is no type"))
}

pub fn is_signed(ty: &str) -> bool {
    ty.starts_with('s')
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    pub name: String,
    pub opcode: String,
    pub modifiers: Vec<String>,
    pub types: Vec<String>,
}

impl Form {
    pub fn new(name: &str) -> Self {
        let mut words = name.split('.');
        let opcode = words.next().unwrap_or_default().to_owned();
        let (types, modifiers) = words
            .map(str::to_owned)
            .partition(|word: &String| TYPES.iter().any(|(name, _)| name == word));
        Self {
            name: name.to_owned(),
            opcode,
            modifiers,
            types,
        }
    }

    pub fn has(&self, modifier: &str) -> bool {
        self.modifiers.iter().any(|known| known == modifier)
    }

    /// The first type.
    pub fn ty(&self) -> &str {
        &self.types[0]
    }

    /// The type that the sources have.
    pub fn source(&self) -> &str {
        match &self.opcode[..] {
            "cvt" | "set" => &self.types[1],
            _ => self.ty(),
        }
    }

    /// The same whatever the order of the modifiers.
    pub fn key(&self) -> (String, Vec<String>, Vec<String>) {
        let mut modifiers = self.modifiers.clone();
        modifiers.sort();
        (self.opcode.clone(), modifiers, self.types.clone())
    }
}

#[test]
fn types_are_told_from_other_modifiers() {
    let form = Form::new("cvt.rn.ftz.f16.f32");
    assert_eq!(form.types, ["f16", "f32"]);
    assert!(form.has("ftz") && !form.has("f16"));
}
