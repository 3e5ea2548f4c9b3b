//! PTX text to tokens (PTX ISA, chapter 4, "Syntax").

use super::{Position, SyntaxError};

/// One lexical element. Words and strings borrow from the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// An identifier, an opcode or a register: `ld`, `$L__BB0_1`, `%r1`.
    Word(&'a str),
    /// A word that follows a full stop, without it: `global`, `L2::128B`.
    Dot(&'a str),
    /// An integer constant, in two's complement.
    Integer(u64),
    /// `0f` and eight hexadecimal digits: the bits of a single-precision number.
    Single(u32),
    /// `0d` and sixteen hexadecimal digits, or a decimal number with a point or an exponent.
    Double(u64),
    String(&'a str),
    /// Any other character, and `<<` and `>>` as `'«'` and `'»'`.
    Punct(char),
    End,
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(word) => write!(f, "`{word}`"),
            Self::Dot(word) => write!(f, "`.{word}`"),
            Self::Integer(value) => write!(f, "`{value}`"),
            Self::Single(bits) => write!(f, "`0f{bits:08X}`"),
            Self::Double(bits) => write!(f, "`0d{bits:016X}`"),
            Self::String(text) => write!(f, "\"{text}\""),
            Self::Punct('«') => write!(f, "`<<`"),
            Self::Punct('»') => write!(f, "`>>`"),
            Self::Punct(c) => write!(f, "`{c}`"),
            Self::End => write!(f, "the end of the text"),
        }
    }
}

/// Splits `text` into tokens with their positions; the last one is [`Token::End`].
///
/// A NUL byte ends the text, as it does for the C strings in which drivers receive it.
pub fn tokenize(text: &str) -> Result<Vec<(Token<'_>, Position)>, SyntaxError> {
    let text = text.split('\0').next().unwrap_or_default();
    let mut lexer = Lexer {
        rest: text,
        position: Position { line: 1, column: 1 },
    };
    let mut tokens = Vec::with_capacity(text.len() / 4);
    loop {
        lexer.skip_blank()?;
        let position = lexer.position;
        let token = lexer.next()?;
        tokens.push((token, position));
        if token == Token::End {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    rest: &'a str,
    position: Position,
}

impl<'a> Lexer<'a> {
    fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            position: self.position,
            message: message.into(),
        }
    }

    /// Takes the first `len` bytes, which end on a character boundary, and moves the position past them.
    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(len);
        for c in taken.chars() {
            if c == '\n' {
                self.position.line += 1;
                self.position.column = 1;
            } else {
                self.position.column += 1;
            }
        }
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let len = self.rest.find(|c| !accept(c)).unwrap_or(self.rest.len());
        self.take(len)
    }

    fn skip_blank(&mut self) -> Result<(), SyntaxError> {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest.starts_with("//") || self.rest.starts_with('#') {
                self.take_while(|c| c != '\n');
            } else if self.rest.starts_with("/*") {
                match self.rest.find("*/") {
                    Some(end) => self.take(end + 2),
                    None => return Err(self.error("a comment is opened here and never closed")),
                };
            } else {
                return Ok(());
            }
        }
    }

    fn next(&mut self) -> Result<Token<'a>, SyntaxError> {
        let mut chars = self.rest.chars();
        let Some(first) = chars.next() else {
            return Ok(Token::End);
        };
        let second = chars.next().unwrap_or(' ');
        match first {
            '0'..='9' => self.number(),
            '"' => self.string(),
            '.' if is_word(second) => {
                self.take(1);
                Ok(Token::Dot(self.take_while(|c| is_word(c) || c == ':')))
            }
            'a'..='z' | 'A'..='Z' | '_' | '$' => Ok(Token::Word(self.take_while(is_word))),
            '%' if is_word(second) && !second.is_ascii_digit() => {
                let len = self.rest[1..]
                    .find(|c| !is_word(c))
                    .map_or(self.rest.len(), |len| len + 1);
                Ok(Token::Word(self.take(len)))
            }
            '<' if second == '<' => {
                self.take(2);
                Ok(Token::Punct('«'))
            }
            '>' if second == '>' => {
                self.take(2);
                Ok(Token::Punct('»'))
            }
            '{' | '}' | '[' | ']' | '(' | ')' | '<' | '>' | ',' | ';' | ':' | '=' | '+' | '-'
            | '!' | '@' | '|' | '&' | '~' | '*' | '/' | '%' | '^' => {
                self.take(1);
                Ok(Token::Punct(first))
            }
            other => Err(self.error(format!("{other:?} has no meaning in PTX"))),
        }
    }

    fn string(&mut self) -> Result<Token<'a>, SyntaxError> {
        let body = &self.rest[1..];
        let mut escaped = false;
        let end = body.find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        match end {
            Some(len) => {
                self.take(len + 2);
                Ok(Token::String(&body[..len]))
            }
            None => Err(self.error("a string is opened here and never closed")),
        }
    }

    /// Integer and floating-point constants (PTX ISA 4.5).
    fn number(&mut self) -> Result<Token<'a>, SyntaxError> {
        let start = self.rest;
        let prefix = start.get(..2).unwrap_or_default();
        let radix = match prefix {
            "0f" | "0F" => return self.bits(8).map(|bits| Token::Single(bits as u32)),
            "0d" | "0D" => return self.bits(16).map(Token::Double),
            "0x" | "0X" => 16,
            "0b" | "0B" => 2,
            _ => 10,
        };
        if radix == 10 {
            let digits = start
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(start.len());
            let after = &start.as_bytes()[digits..];
            let point = after.first() == Some(&b'.')
                && !after.get(1).is_some_and(|c| c.is_ascii_alphabetic());
            let exponent = matches!(after.first(), Some(b'e' | b'E'));
            if point || exponent {
                return self.decimal();
            }
        } else {
            self.take(2);
        }
        let word = self.take_while(|c| c.is_ascii_alphanumeric());
        let digits = word.trim_end_matches('U');
        let (digits, radix) = match digits.strip_prefix('0') {
            Some(octal) if radix == 10 && !octal.is_empty() => (octal, 8),
            _ => (digits, radix),
        };
        u64::from_str_radix(digits, radix)
            .map(Token::Integer)
            .map_err(|_| self.error(format!("`{word}` is no 64-bit integer constant")))
    }

    fn bits(&mut self, digits: usize) -> Result<u64, SyntaxError> {
        self.take(2);
        let word = self.take_while(|c| c.is_ascii_hexdigit());
        if word.len() != digits {
            return Err(self.error(format!(
                "a constant of this kind has {digits} hexadecimal digits, not {}",
                word.len()
            )));
        }
        u64::from_str_radix(word, 16).map_err(|error| self.error(error.to_string()))
    }

    fn decimal(&mut self) -> Result<Token<'a>, SyntaxError> {
        let start = self.rest;
        self.take_while(|c| c.is_ascii_digit());
        if self.rest.starts_with('.') {
            self.take(1);
            self.take_while(|c| c.is_ascii_digit());
        }
        if self.rest.starts_with(['e', 'E']) {
            self.take(1);
            if self.rest.starts_with(['+', '-']) {
                self.take(1);
            }
            self.take_while(|c| c.is_ascii_digit());
        }
        let text = &start[..start.len() - self.rest.len()];
        text.parse::<f64>()
            .map(|value| Token::Double(value.to_bits()))
            .map_err(|_| self.error(format!("`{text}` is no number")))
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        let mut tokens: Vec<_> = tokenize(text)
            .unwrap()
            .into_iter()
            .map(|(t, _)| t)
            .collect();
        assert_eq!(tokens.pop(), Some(Token::End));
        tokens
    }

    #[test]
    fn an_instruction_is_words_dots_and_punctuation() {
        assert_eq!(
            tokens("@%p1 ld.global.L2::128B.f32 %f1, [%rd1+4];"),
            [
                Token::Punct('@'),
                Token::Word("%p1"),
                Token::Word("ld"),
                Token::Dot("global"),
                Token::Dot("L2::128B"),
                Token::Dot("f32"),
                Token::Word("%f1"),
                Token::Punct(','),
                Token::Punct('['),
                Token::Word("%rd1"),
                Token::Punct('+'),
                Token::Integer(4),
                Token::Punct(']'),
                Token::Punct(';'),
            ]
        );
    }

    #[test]
    fn numbers_have_five_notations() {
        assert_eq!(
            tokens("10 0x1F 0b101 017 0U 7U 0f3F800000 0d3FF0000000000000 1.5 2e3"),
            [
                Token::Integer(10),
                Token::Integer(31),
                Token::Integer(5),
                Token::Integer(15),
                Token::Integer(0),
                Token::Integer(7),
                Token::Single(0x3f80_0000),
                Token::Double(1f64.to_bits()),
                Token::Double(1.5f64.to_bits()),
                Token::Double(2000f64.to_bits()),
            ]
        );
    }

    #[test]
    fn comments_and_what_follows_a_nul_are_not_text() {
        assert_eq!(
            tokens("a // b\n/* c\n d */ e\0f"),
            [Token::Word("a"), Token::Word("e")]
        );
    }

    #[test]
    fn errors_say_where() {
        let error = tokenize("add\n  ?").unwrap_err();
        assert_eq!((error.position.line, error.position.column), (2, 3));
        assert!(tokenize("/* open").is_err());
        assert!(tokenize("\"open").is_err());
        assert!(tokenize("0f12").is_err());
        assert!(tokenize("0x10000000000000000").is_err());
    }
}
