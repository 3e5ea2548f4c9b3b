//! The parser's cursor and the top level of a module (PTX ISA, chapters 4, 5 and 11).

use super::lexer::{Token, tokenize};
use super::{Linkage, Module, Position, SyntaxError};

/// Parses a whole text.
pub fn parse(text: &str) -> Result<Module<'_>, SyntaxError> {
    Parser {
        tokens: tokenize(text)?,
        next: 0,
        depth: 0,
    }
    .module()
}

/// Nested blocks, lists and expressions beyond this depth are refused: the parser recurses.
const MAX_DEPTH: u32 = 100;

pub(super) struct Parser<'a> {
    tokens: Vec<(Token<'a>, Position)>,
    next: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    pub fn peek(&self) -> Token<'a> {
        self.peek_at(0)
    }

    pub fn peek_at(&self, ahead: usize) -> Token<'a> {
        self.tokens
            .get(self.next + ahead)
            .map_or(Token::End, |&(token, _)| token)
    }

    pub fn position(&self) -> Position {
        self.tokens
            .get(self.next)
            .or(self.tokens.last())
            .map_or(Position::default(), |&(_, position)| position)
    }

    pub fn advance(&mut self) -> Token<'a> {
        let token = self.peek();
        self.next = (self.next + 1).min(self.tokens.len());
        token
    }

    pub fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            position: self.position(),
            message: message.into(),
        }
    }

    pub fn unexpected(&self, wanted: &str) -> SyntaxError {
        self.error(format!("expected {wanted}, found {}", self.peek()))
    }

    pub fn accept(&mut self, punct: char) -> bool {
        let found = self.peek() == Token::Punct(punct);
        if found {
            self.advance();
        }
        found
    }

    pub fn accept_dot(&mut self, word: &str) -> bool {
        let found = self.peek() == Token::Dot(word);
        if found {
            self.advance();
        }
        found
    }

    pub fn expect(&mut self, punct: char) -> Result<(), SyntaxError> {
        if self.accept(punct) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{punct}`")))
        }
    }

    pub fn word(&mut self, what: &str) -> Result<&'a str, SyntaxError> {
        match self.peek() {
            Token::Word(word) => {
                self.advance();
                Ok(word)
            }
            _ => Err(self.unexpected(what)),
        }
    }

    pub fn integer(&mut self, what: &str) -> Result<u64, SyntaxError> {
        match self.peek() {
            Token::Integer(value) => {
                self.advance();
                Ok(value)
            }
            _ => Err(self.unexpected(what)),
        }
    }

    /// `item , item , ... close`: everything up to and with `close`.
    pub fn list<T>(
        &mut self,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<Vec<T>, SyntaxError> {
        let mut items = Vec::new();
        if self.accept(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.accept(close) {
                return Ok(items);
            }
            if !self.accept(',') {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
    }

    /// Runs `inner` one level deeper.
    pub fn nested<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<T, SyntaxError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("nested more than {MAX_DEPTH} levels deep")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn module(mut self) -> Result<Module<'a>, SyntaxError> {
        let mut module = Module::default();
        self.header(&mut module)?;
        while self.peek() != Token::End {
            self.item(&mut module)?;
        }
        Ok(module)
    }

    /// `.version`, `.target` and `.address_size`, in this order. Any version and target is taken: what
    /// matters is whether each instruction is known.
    fn header(&mut self, module: &mut Module<'a>) -> Result<(), SyntaxError> {
        if !self.accept_dot("version") {
            return Err(self.unexpected("`.version`, with which every PTX module begins"));
        }
        module.version = match self.advance() {
            Token::Double(bits) => {
                let tenths = (f64::from_bits(bits) * 10.0).round() as u32;
                (tenths / 10, tenths % 10)
            }
            _ => return Err(self.error("a version is written as major.minor")),
        };
        if !self.accept_dot("target") {
            return Err(self.unexpected("`.target`"));
        }
        module.target = self.word("a target such as sm_75")?;
        while self.accept(',') {
            self.word("a target option")?;
        }
        if self.accept_dot("address_size") && self.integer("32 or 64")? != 64 {
            return Err(self.error("only 64-bit addresses are supported"));
        }
        Ok(())
    }

    fn item(&mut self, module: &mut Module<'a>) -> Result<(), SyntaxError> {
        let linkage = self.linkage();
        let position = self.position();
        match self.peek() {
            Token::Dot("entry") => {
                self.advance();
                module
                    .functions
                    .push(self.function(linkage, true, position)?);
            }
            Token::Dot("func") => {
                self.advance();
                module
                    .functions
                    .push(self.function(linkage, false, position)?);
            }
            Token::Dot("global" | "shared" | "const") => {
                self.variables(linkage, &mut module.variables)?;
            }
            Token::Dot("file" | "section" | "loc" | "pragma" | "alias") => self.skip_debug()?,
            Token::Punct(';') => {
                self.advance();
            }
            _ => return Err(self.unexpected("a function, a variable or a directive")),
        }
        Ok(())
    }

    pub fn linkage(&mut self) -> Linkage {
        let linkage = match self.peek() {
            Token::Dot("extern") => Linkage::Extern,
            Token::Dot("visible") => Linkage::Visible,
            Token::Dot("weak") => Linkage::Weak,
            Token::Dot("common") => Linkage::Common,
            _ => return Linkage::Internal,
        };
        self.advance();
        linkage
    }

    /// `.file`, `.loc`, `.section`, `.pragma` and `.alias` change nothing about what a module computes.
    ///
    /// `.file` and `.loc` have no terminator: they end with their line. `.section` has a body in braces.
    pub fn skip_debug(&mut self) -> Result<(), SyntaxError> {
        let line = self.position().line;
        match self.advance() {
            Token::Dot("pragma" | "alias") => {
                while !self.accept(';') {
                    if self.advance() == Token::End {
                        return Err(self.unexpected("`;`"));
                    }
                }
            }
            Token::Dot("section") => {
                while !self.accept('{') {
                    if self.advance() == Token::End {
                        return Err(self.unexpected("`{`"));
                    }
                }
                while !self.accept('}') {
                    if self.advance() == Token::End {
                        return Err(self.unexpected("`}`"));
                    }
                }
            }
            _ => {
                while self.position().line == line && self.peek() != Token::End {
                    self.advance();
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::parse;

    const HEADER: &str = ".version 8.8\n.target sm_75\n.address_size 64\n";

    fn error(body: &str) -> String {
        parse(&format!("{HEADER}{body}")).unwrap_err().to_string()
    }

    #[test]
    fn a_module_begins_with_version_and_target() {
        let module = parse(HEADER).unwrap();
        assert_eq!((module.version, module.target), ((8, 8), "sm_75"));
        let error = parse(".target sm_75").unwrap_err().to_string();
        assert!(
            error.starts_with("line 1, column 1: expected `.version`"),
            "{error}"
        );
    }

    #[test]
    fn an_entry_has_parameters_registers_labels_and_guarded_instructions() {
        let text = format!(
            "{HEADER}.visible .entry k(.param .u64 .ptr .global .align 4 a, .param .align 8 .b8 s[24])
             .maxntid 128, 2, 1
             {{ .reg .pred %p<2>; .reg .b32 %r<3>, %x;
                .loc 1 2 3
                ld.param.v2.u32 {{%r1, %r2}}, [s+8];
                setp.lt.s32 %p1|_, %r1, -5;
                @!%p1 bra $end;
                mov.u32 %x, %tid.x;
             $end: ret; }}"
        );
        let module = parse(&text).unwrap();
        let function = &module.functions[0];
        assert!(function.entry && function.linkage == Linkage::Visible);
        assert_eq!(function.max_block, Some([128, 2, 1]));
        assert_eq!(function.params[1].dims, [Some(24)]);
        assert_eq!(function.params[1].align, Some(8));
        let body = function.body.as_ref().unwrap();
        let instructions: Vec<_> = body
            .iter()
            .filter_map(|statement| match statement {
                Statement::Instruction(instruction) => Some(instruction),
                _ => None,
            })
            .collect();
        assert_eq!(instructions[0].mnemonic(), "ld.param.v2.u32");
        assert_eq!(
            instructions[0].operands[1],
            Operand::Address {
                base: Some("s"),
                offset: 8,
                more: vec![]
            }
        );
        assert_eq!(
            instructions[1].operands[2],
            Operand::Constant(Constant::Integer(-5i64 as u64))
        );
        assert_eq!(
            instructions[2].guard,
            Some(Guard {
                predicate: "%p1",
                negated: true
            })
        );
        assert_eq!(instructions[3].operands[1], Operand::Component("%tid", "x"));
        assert!(
            body.iter()
                .any(|s| matches!(s, Statement::Label("$end", _)))
        );
    }

    #[test]
    fn variables_have_alignment_dimensions_and_nested_initializers() {
        let text = format!(
            "{HEADER}.visible .global .align 16 .f32 t[2][2] = {{{{0f3F800000, 1.5}}, {{-2.0}}}};
             .extern .shared .align 16 .b8 dyn[];
             .const .u64 p = generic(t) + 4;
             .global .align 8 .b8 m[8] = {{0xFF(t), 0xFF00(t)}};"
        );
        let module = parse(&text).unwrap();
        assert_eq!(module.variables[0].dims, [Some(2), Some(2)]);
        assert_eq!(
            module.variables[0].init,
            Some(Initializer::List(vec![
                Initializer::List(vec![
                    Initializer::Value(Constant::Single(0x3f80_0000)),
                    Initializer::Value(Constant::Double(1.5f64.to_bits())),
                ]),
                Initializer::List(vec![Initializer::Value(Constant::Double(
                    (-2f64).to_bits()
                ))]),
            ]))
        );
        assert_eq!(module.variables[1].dims, [None]);
        assert_eq!(module.variables[1].linkage, Linkage::Extern);
        assert!(matches!(
            module.variables[2].init,
            Some(Initializer::Address {
                symbol: "t",
                generic: true,
                offset: 4,
                mask: None,
                ..
            })
        ));
        assert!(matches!(
            &module.variables[3].init,
            Some(Initializer::List(list)) if matches!(list[1], Initializer::Address { mask: Some(0xff00), .. })
        ));
    }

    #[test]
    fn calls_have_return_and_argument_lists_and_prototypes() {
        let text = format!(
            "{HEADER}.func (.param .b32 r) f(.param .b32 a);
             .entry k() {{
               {{ .param .b32 p0; call.uni (r0), f, (p0, 3); }}
               proto: .callprototype (.param .b32 _) _ (.param .b64 _);
               call (r0), %rd1, (p0), proto;
               ts: .branchtargets a, b;
               call g;
             }}"
        );
        let module = parse(&text).unwrap();
        assert!(module.functions[0].body.is_none());
        let body = module.functions[1].body.as_ref().unwrap();
        assert!(matches!(&body[0], Statement::Block(inner) if inner.len() == 2));
        assert!(
            matches!(&body[1], Statement::CallPrototype { label: "proto", params, .. } if params.len() == 1)
        );
        assert!(
            matches!(&body[3], Statement::BranchTargets("ts", targets) if targets == &["a", "b"])
        );
    }

    #[test]
    fn errors_name_the_line_and_what_was_expected() {
        assert_eq!(
            error(".entry k() { add.s32 %r1 %r2; }"),
            "line 4, column 26: expected `,` or `;`, found `%r2`"
        );
        assert_eq!(
            error(".global .q32 x;"),
            "line 4, column 9: expected a type such as .b32, found `.q32`"
        );
        assert!(error(".entry k() { ret;").contains("found the end of the text"));
        assert!(error(&format!(".entry k() {}", "{".repeat(200))).contains("levels deep"));
        assert!(error(&format!(".global .u32 x = {}1;", "(".repeat(200))).contains("levels deep"));
    }
}
