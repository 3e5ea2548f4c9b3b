//! Constant expressions (PTX ISA 4.5).

use super::lexer::Token;
use super::parser::Parser;
use super::{Constant, SyntaxError};

impl Parser<'_> {
    /// `+4`, `-4`, `+-4`, or nothing.
    pub fn offset(&mut self) -> Result<i64, SyntaxError> {
        let mut offset = 0i64;
        while matches!(self.peek(), Token::Punct('+' | '-')) {
            let mut negative = false;
            while let Token::Punct(sign @ ('+' | '-')) = self.peek() {
                negative ^= sign == '-';
                self.advance();
            }
            let value = self.integer("an offset")? as i64;
            offset = offset.wrapping_add(if negative {
                value.wrapping_neg()
            } else {
                value
            });
        }
        Ok(offset)
    }

    pub fn constant_integer(&mut self) -> Result<u64, SyntaxError> {
        match self.constant()? {
            Constant::Integer(value) => Ok(value),
            _ => Err(self.error("an integer is needed here")),
        }
    }

    pub fn constant(&mut self) -> Result<Constant, SyntaxError> {
        self.nested(|parser| parser.binary(0))
    }

    /// Binary operators that bind tighter than `floor`.
    fn binary(&mut self, floor: u8) -> Result<Constant, SyntaxError> {
        let mut left = self.unary()?;
        loop {
            let operator = match self.peek() {
                Token::Punct(operator) => operator,
                _ => return Ok(left),
            };
            let strength = match operator {
                '*' | '/' | '%' => 6,
                '+' | '-' => 5,
                '«' | '»' => 4,
                '&' => 3,
                '^' => 2,
                '|' => 1,
                _ => return Ok(left),
            };
            if strength <= floor {
                return Ok(left);
            }
            self.advance();
            let right = self.binary(strength)?;
            let (Constant::Integer(a), Constant::Integer(b)) = (left, right) else {
                return Err(self.error("only integers can be combined in a constant expression"));
            };
            left = Constant::Integer(match operator {
                '*' => a.wrapping_mul(b),
                '/' | '%' if b == 0 => return Err(self.error("division by zero")),
                '/' => a / b,
                '%' => a % b,
                '+' => a.wrapping_add(b),
                '-' => a.wrapping_sub(b),
                '«' => a.checked_shl(b as u32).unwrap_or(0),
                '»' => a.checked_shr(b as u32).unwrap_or(0),
                '&' => a & b,
                '^' => a ^ b,
                _ => a | b,
            });
        }
    }

    fn unary(&mut self) -> Result<Constant, SyntaxError> {
        const SIGN32: u32 = 1 << 31;
        const SIGN64: u64 = 1 << 63;
        match self.peek() {
            Token::Integer(value) => {
                self.advance();
                Ok(Constant::Integer(value))
            }
            Token::Single(bits) => {
                self.advance();
                Ok(Constant::Single(bits))
            }
            Token::Double(bits) => {
                self.advance();
                Ok(Constant::Double(bits))
            }
            Token::Punct('(') => {
                self.advance();
                let value = self.constant()?;
                self.expect(')')?;
                Ok(value)
            }
            Token::Punct('-') => {
                self.advance();
                Ok(match self.nested(Self::unary)? {
                    Constant::Integer(value) => Constant::Integer(value.wrapping_neg()),
                    Constant::Single(bits) => Constant::Single(bits ^ SIGN32),
                    Constant::Double(bits) => Constant::Double(bits ^ SIGN64),
                })
            }
            Token::Punct('~') => {
                self.advance();
                match self.nested(Self::unary)? {
                    Constant::Integer(value) => Ok(Constant::Integer(!value)),
                    _ => Err(self.error("only an integer can be complemented")),
                }
            }
            Token::Punct('+') => {
                self.advance();
                self.nested(Self::unary)
            }
            _ => Err(self.unexpected("a constant")),
        }
    }
}
