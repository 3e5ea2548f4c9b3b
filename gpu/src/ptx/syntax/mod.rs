//! PTX text as it is written: tokens and the syntax tree. No meaning is attached here.

mod ast;
mod constant;
mod declaration;
mod lexer;
mod parser;
mod statement;

pub use ast::*;
pub use parser::parse;

/// A place in the text; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {message}", position.line, position.column)]
pub struct SyntaxError {
    pub position: Position,
    pub message: String,
}
