//! Variables, parameters and function headers (PTX ISA 5.4 and 11.2 to 11.4).

use super::lexer::Token;
use super::parser::Parser;
use super::{Function, Initializer, Linkage, Position, Scalar, Space, SyntaxError, Variable};

impl<'a> Parser<'a> {
    pub fn scalar(&mut self) -> Result<Scalar, SyntaxError> {
        let scalar = match self.peek() {
            Token::Dot(name) => Scalar::from_name(name),
            _ => None,
        };
        let scalar = scalar.ok_or_else(|| self.unexpected("a type such as .b32"))?;
        self.advance();
        Ok(scalar)
    }

    /// `.v2` or `.v4`; 1 without.
    pub fn vector(&mut self) -> u64 {
        if self.accept_dot("v2") {
            2
        } else if self.accept_dot("v4") {
            4
        } else {
            1
        }
    }

    /// `.global .align 8 .u32 a, b[4] = {...};`
    pub fn variables(
        &mut self,
        linkage: Linkage,
        variables: &mut Vec<Variable<'a>>,
    ) -> Result<(), SyntaxError> {
        let space = self.space()?;
        let align = self.align()?;
        let vector = self.vector();
        let scalar = self.scalar()?;
        loop {
            let position = self.position();
            let name = self.word("the variable's name")?;
            let dims = self.dims()?;
            let init = if self.accept('=') {
                Some(self.initializer()?)
            } else {
                None
            };
            variables.push(Variable {
                position,
                linkage,
                space: Some(space),
                align,
                scalar,
                vector,
                name,
                dims,
                init,
            });
            if self.accept(';') {
                return Ok(());
            }
            if !self.accept(',') {
                return Err(self.unexpected("`,` or `;`"));
            }
        }
    }

    fn space(&mut self) -> Result<Space, SyntaxError> {
        let space = match self.peek() {
            Token::Dot("global") => Space::Global,
            Token::Dot("shared") => Space::Shared,
            Token::Dot("local") => Space::Local,
            Token::Dot("const") => Space::Const,
            Token::Dot("param") => Space::Param,
            _ => return Err(self.unexpected("a state space")),
        };
        self.advance();
        Ok(space)
    }

    fn align(&mut self) -> Result<Option<u64>, SyntaxError> {
        if !self.accept_dot("align") {
            return Ok(None);
        }
        let align = self.integer("an alignment")?;
        if align.is_power_of_two() && align <= 4096 {
            Ok(Some(align))
        } else {
            Err(self.error("an alignment is a power of two, at most 4096"))
        }
    }

    fn dims(&mut self) -> Result<Vec<Option<u64>>, SyntaxError> {
        let mut dims = Vec::new();
        while self.accept('[') {
            if self.accept(']') {
                dims.push(None);
            } else {
                dims.push(Some(self.constant_integer()?));
                self.expect(']')?;
            }
        }
        Ok(dims)
    }

    fn initializer(&mut self) -> Result<Initializer<'a>, SyntaxError> {
        if self.accept('{') {
            return self
                .nested(|parser| parser.list('}', Self::initializer))
                .map(Initializer::List);
        }
        let position = self.position();
        let (symbol, generic, mask) = match (self.peek(), self.peek_at(1)) {
            (Token::Word("generic"), Token::Punct('(')) => {
                self.advance();
                self.advance();
                let symbol = self.word("a symbol")?;
                self.expect(')')?;
                (symbol, true, None)
            }
            (Token::Word(symbol), _) => {
                self.advance();
                (symbol, false, None)
            }
            (Token::Integer(mask), Token::Punct('(')) => {
                self.advance();
                self.advance();
                let generic =
                    self.peek() == Token::Word("generic") && self.peek_at(1) == Token::Punct('(');
                if generic {
                    self.advance();
                    self.advance();
                }
                let symbol = self.word("a symbol")?;
                let offset = self.offset()?;
                if generic {
                    self.expect(')')?;
                }
                self.expect(')')?;
                return Ok(Initializer::Address {
                    symbol,
                    position,
                    generic,
                    offset,
                    mask: Some(mask),
                });
            }
            _ => return self.constant().map(Initializer::Value),
        };
        Ok(Initializer::Address {
            symbol,
            position,
            generic,
            offset: self.offset()?,
            mask,
        })
    }

    /// `.entry` or `.func` after its linkage, up to the end of its body.
    pub fn function(
        &mut self,
        linkage: Linkage,
        entry: bool,
        position: Position,
    ) -> Result<Function<'a>, SyntaxError> {
        while self.accept_dot("noreturn") {}
        let returns = if self.accept('(') {
            self.list(')', Self::parameter)?
        } else {
            Vec::new()
        };
        let name = self.word("the function's name")?;
        let params = if self.accept('(') {
            self.list(')', Self::parameter)?
        } else {
            Vec::new()
        };
        let mut function = Function {
            position,
            linkage,
            entry,
            name,
            returns,
            params,
            max_block: None,
            required_block: None,
            body: None,
        };
        loop {
            match self.peek() {
                Token::Punct(';') => {
                    self.advance();
                    return Ok(function);
                }
                Token::Punct('{') => {
                    function.body = Some(self.block()?);
                    return Ok(function);
                }
                Token::Dot("maxntid") => {
                    self.advance();
                    function.max_block = Some(self.three()?);
                }
                Token::Dot("reqntid") => {
                    self.advance();
                    function.required_block = Some(self.three()?);
                }
                Token::Dot("minnctapersm" | "maxnctapersm" | "maxnreg" | "maxclusterrank") => {
                    self.advance();
                    self.integer("a number")?;
                }
                Token::Dot("noreturn" | "explicitcluster") => {
                    self.advance();
                }
                Token::Dot("pragma" | "loc" | "file") => self.skip_debug()?,
                _ => return Err(self.unexpected("the function's body or `;`")),
            }
        }
    }

    /// One to three numbers; missing ones are 1.
    fn three(&mut self) -> Result<[u32; 3], SyntaxError> {
        let mut values = [1; 3];
        for (index, value) in values.iter_mut().enumerate() {
            if index > 0 && !self.accept(',') {
                break;
            }
            *value = u32::try_from(self.integer("a number of threads")?)
                .map_err(|_| self.error("more threads than 32 bits count"))?;
        }
        Ok(values)
    }

    /// `.param .align 8 .b8 s[24]`, `.param .u64 .ptr .global .align 4 p` or `.reg .b32 %a`.
    pub fn parameter(&mut self) -> Result<Variable<'a>, SyntaxError> {
        let position = self.position();
        let space = if self.accept_dot("reg") {
            None
        } else {
            Some(self.space()?)
        };
        let mut align = self.align()?;
        let vector = self.vector();
        let scalar = self.scalar()?;
        if self.accept_dot("ptr") {
            // What the pointer points to is a promise for optimisers, not a layout.
            if matches!(
                self.peek(),
                Token::Dot("global" | "shared" | "local" | "const")
            ) {
                self.advance();
            }
            self.align()?;
        } else {
            align = self.align()?.or(align);
        }
        Ok(Variable {
            position,
            linkage: Linkage::Internal,
            space,
            align,
            scalar,
            vector,
            name: self.word("the parameter's name")?,
            dims: self.dims()?,
            init: None,
        })
    }
}
