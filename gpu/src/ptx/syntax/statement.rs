//! What stands in a function's body (PTX ISA 4.3 and chapter 6).

use super::lexer::Token;
use super::parser::Parser;
use super::{Guard, Instruction, Operand, Position, Statement, SyntaxError};

impl<'a> Parser<'a> {
    /// `{ statements }`.
    pub fn block(&mut self) -> Result<Vec<Statement<'a>>, SyntaxError> {
        self.expect('{')?;
        self.nested(|parser| {
            let mut statements = Vec::new();
            while !parser.accept('}') {
                parser.statement(&mut statements)?;
            }
            Ok(statements)
        })
    }

    fn statement(&mut self, statements: &mut Vec<Statement<'a>>) -> Result<(), SyntaxError> {
        let position = self.position();
        match (self.peek(), self.peek_at(1)) {
            (Token::Punct('{'), _) => statements.push(Statement::Block(self.block()?)),
            (Token::Punct(';'), _) => {
                self.advance();
            }
            (Token::Dot("reg"), _) => statements.push(self.registers()?),
            (Token::Dot("extern" | "visible" | "weak" | "common"), _)
            | (Token::Dot("global" | "shared" | "local" | "const" | "param"), _) => {
                let linkage = self.linkage();
                let mut variables = Vec::new();
                self.variables(linkage, &mut variables)?;
                statements.extend(variables.into_iter().map(Statement::Variable));
            }
            (Token::Dot("loc" | "file" | "pragma" | "section"), _) => self.skip_debug()?,
            (Token::Word(label), Token::Punct(':')) => {
                self.advance();
                self.advance();
                statements.push(self.labelled(label, position)?);
            }
            (Token::Word(_) | Token::Punct('@'), _) => {
                statements.push(Statement::Instruction(self.instruction()?));
            }
            _ => return Err(self.unexpected("a statement or `}`")),
        }
        Ok(())
    }

    fn labelled(
        &mut self,
        label: &'a str,
        position: Position,
    ) -> Result<Statement<'a>, SyntaxError> {
        if self.accept_dot("branchtargets") {
            let targets = self.list(';', |parser| parser.word("a label"))?;
            Ok(Statement::BranchTargets(label, targets))
        } else if self.accept_dot("calltargets") {
            let targets = self.list(';', |parser| parser.word("a function"))?;
            Ok(Statement::CallTargets(label, targets))
        } else if self.accept_dot("callprototype") {
            let returns = if self.accept('(') {
                self.list(')', Self::parameter)?
            } else {
                Vec::new()
            };
            self.word("`_`")?;
            let params = if self.accept('(') {
                self.list(')', Self::parameter)?
            } else {
                Vec::new()
            };
            self.accept_dot("noreturn");
            self.expect(';')?;
            Ok(Statement::CallPrototype {
                label,
                returns,
                params,
            })
        } else {
            Ok(Statement::Label(label, position))
        }
    }

    fn registers(&mut self) -> Result<Statement<'a>, SyntaxError> {
        let position = self.position();
        self.advance();
        let vector = self.vector();
        let scalar = self.scalar()?;
        let names = self.list(';', |parser| {
            let name = parser.word("a register's name")?;
            if !parser.accept('<') {
                return Ok((name, None));
            }
            let count = parser.integer("the number of registers")?;
            parser.expect('>')?;
            Ok((name, Some(count)))
        })?;
        Ok(Statement::Registers {
            position,
            scalar,
            vector,
            names,
        })
    }

    fn instruction(&mut self) -> Result<Instruction<'a>, SyntaxError> {
        let position = self.position();
        let guard = if self.accept('@') {
            let negated = self.accept('!');
            Some(Guard {
                negated,
                predicate: self.word("a predicate register")?,
            })
        } else {
            None
        };
        let opcode = self.word("an instruction")?;
        let mut modifiers = Vec::new();
        while let Token::Dot(modifier) = self.peek() {
            modifiers.push(modifier);
            self.advance();
        }
        Ok(Instruction {
            position,
            guard,
            opcode,
            modifiers,
            operands: self.operands()?,
        })
    }

    fn operands(&mut self) -> Result<Vec<Operand<'a>>, SyntaxError> {
        self.list(';', |parser| {
            let first = parser.operand()?;
            if parser.accept('|') {
                return Ok(Operand::Pair(Box::new(first), Box::new(parser.operand()?)));
            }
            Ok(first)
        })
    }

    fn operand(&mut self) -> Result<Operand<'a>, SyntaxError> {
        match self.peek() {
            Token::Word(name) => {
                self.advance();
                match self.peek() {
                    Token::Dot(component) => {
                        self.advance();
                        Ok(Operand::Component(name, component))
                    }
                    Token::Punct('[') => {
                        self.advance();
                        let index = self.constant_integer()?;
                        self.expect(']')?;
                        Ok(Operand::Element(name, index))
                    }
                    Token::Punct('+' | '-') => Ok(Operand::NameOffset(name, self.offset()?)),
                    _ => Ok(Operand::Name(name)),
                }
            }
            Token::Punct('[') => {
                self.advance();
                self.address()
            }
            Token::Punct('{') => {
                self.advance();
                self.nested(|parser| parser.list('}', Self::operand))
                    .map(Operand::Vector)
            }
            Token::Punct('(') => {
                self.advance();
                self.nested(|parser| parser.list(')', Self::operand))
                    .map(Operand::List)
            }
            Token::Punct('!') => {
                self.advance();
                let inner = self.nested(Self::operand)?;
                Ok(Operand::Not(Box::new(inner)))
            }
            Token::Integer(_) | Token::Single(_) | Token::Double(_) | Token::Punct('-' | '~') => {
                self.constant().map(Operand::Constant)
            }
            _ => Err(self.unexpected("an operand")),
        }
    }

    /// What follows `[`.
    fn address(&mut self) -> Result<Operand<'a>, SyntaxError> {
        let (base, offset) = match self.peek() {
            Token::Word(base) => {
                self.advance();
                (Some(base), self.offset()?)
            }
            _ => (None, self.constant_integer()? as i64),
        };
        let mut more = Vec::new();
        while self.accept(',') {
            more.push(self.nested(Self::operand)?);
        }
        self.expect(']')?;
        Ok(Operand::Address { base, offset, more })
    }
}
