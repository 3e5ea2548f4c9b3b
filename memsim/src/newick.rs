//! Topologies as text: Newick trees.
//!
//! The strings of CXLMemSim parse unchanged: in `(1,(2,3))` the outer parentheses are the host, an inner pair is a
//! switch, an integer is an expander counted from 1, `R:2:1` is expander 1 of node 2, and a final `;` may stand.
//! Three extensions, each of which the plain Newick grammar already has room for:
//!
//! * a branch length is the latency that this edge adds to a round trip, in ns: `(1:70,2)`;
//! * a bracket comment that opens with `&` sets attributes of the edge and of the device below it:
//!   `(1[&profile=cxl-d,bw=32],2)`; [`crate::topology`] lists the keys;
//! * several trees, one for each host, are separated by `;` and may be named: `a=((m0,m1)sw);b=((m0)sw)`. A label
//!   that occurs in more than one tree is one shared thing.
//!
//! This module knows syntax only. It keeps where each element stood, so that a later complaint about its meaning can
//! point at the character too.

use std::fmt;

/// Deepest nesting that the parser follows.
const MAX_DEPTH: usize = 64;
/// Most nodes in one text.
const MAX_NODES: usize = 4096;

/// A complaint about a topology string, with the place it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// The whole string.
    pub text: String,
    /// Byte offset of the offending character; `text.len()` when the string ends too early.
    pub at: usize,
    /// What is wrong.
    pub reason: String,
}

impl std::error::Error for SyntaxError {}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self
            .text
            .get(..self.at)
            .map_or(0, |before| before.chars().count());
        writeln!(f, "topology: {}", self.reason)?;
        writeln!(f, "  {}", self.text)?;
        write!(f, "  {:column$}^", "")
    }
}

/// All trees of a topology string, one for each host.
#[derive(Debug, Clone)]
pub struct Forest {
    /// The trees, in order.
    pub trees: Vec<Tree>,
    /// The text that they were parsed from, for later complaints.
    pub text: String,
}

/// What one host sees.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The host's name, where one was given.
    pub host: Option<String>,
    /// The host itself: its children are what hangs on its ports.
    pub root: Clade,
}

/// A node and the edge above it.
#[derive(Debug, Clone)]
pub struct Clade {
    /// Name of the node; a leaf always has one.
    pub label: Option<String>,
    /// What hangs below; empty for a leaf.
    pub children: Vec<Clade>,
    /// Whether the node was written with parentheses.
    pub inner: bool,
    /// Branch length, ns.
    pub length: Option<f64>,
    /// Bracket attributes, in order.
    pub attributes: Vec<Attribute>,
    /// Where the node stands in the text.
    pub at: usize,
}

/// One `key=value` of a bracket comment.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// The part before `=`.
    pub key: String,
    /// The part after `=`.
    pub value: String,
    /// Where the key stands in the text.
    pub at: usize,
}

impl Forest {
    /// Parses a topology string.
    ///
    /// # Errors
    /// A [`SyntaxError`] that points at the first character that fits no rule.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        Parser {
            text,
            bytes: text.as_bytes(),
            at: 0,
            nodes: 0,
        }
        .forest()
    }

    /// A complaint about the element at byte `at` of this forest's text.
    pub fn complaint(&self, at: usize, reason: impl Into<String>) -> SyntaxError {
        SyntaxError {
            text: self.text.clone(),
            at,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Forest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, tree) in self.trees.iter().enumerate() {
            if i > 0 {
                write!(f, ";")?;
            }
            if let Some(host) = &tree.host {
                write!(f, "{host}=")?;
            }
            write!(f, "{}", tree.root)?;
        }
        Ok(())
    }
}

impl fmt::Display for Clade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.inner {
            write!(f, "(")?;
            for (i, child) in self.children.iter().enumerate() {
                if i > 0 {
                    write!(f, ",")?;
                }
                write!(f, "{child}")?;
            }
            write!(f, ")")?;
        }
        if let Some(label) = &self.label {
            write!(f, "{label}")?;
        }
        if let Some(length) = self.length {
            write!(f, ":{length}")?;
        }
        if !self.attributes.is_empty() {
            write!(f, "[&")?;
            for (i, attribute) in self.attributes.iter().enumerate() {
                if i > 0 {
                    write!(f, ",")?;
                }
                write!(f, "{}={}", attribute.key, attribute.value)?;
            }
            write!(f, "]")?;
        }
        Ok(())
    }
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    nodes: usize,
}

impl Parser<'_> {
    fn forest(mut self) -> Result<Forest, SyntaxError> {
        let mut trees = Vec::new();
        loop {
            trees.push(self.tree()?);
            match self.peek() {
                None => break,
                Some(b';') => self.at += 1,
                Some(b')') => return Err(self.error("this ')' closes nothing")),
                Some(_) => return Err(self.error("expected ';' or the end after a host's tree")),
            }
            if self.peek().is_none() {
                break;
            }
        }
        Ok(Forest {
            trees,
            text: self.text.to_owned(),
        })
    }

    fn tree(&mut self) -> Result<Tree, SyntaxError> {
        let host = match self.peek() {
            Some(c) if is_label(c) => {
                let name = self.label();
                if self.peek() != Some(b'=') {
                    return Err(
                        self.error("expected '=' after a host's name; a topology is '(' nodes ')'")
                    );
                }
                self.at += 1;
                Some(name)
            }
            _ => None,
        };
        if self.peek() != Some(b'(') {
            return Err(self.error("expected '(': the outer parentheses stand for the host"));
        }
        Ok(Tree {
            host,
            root: self.clade(0)?,
        })
    }

    fn clade(&mut self, depth: usize) -> Result<Clade, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(self.error("nested more than 64 deep"));
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.error("more than 4096 nodes"));
        }
        let next = self.peek();
        let mut clade = Clade {
            label: None,
            children: Vec::new(),
            inner: next == Some(b'('),
            length: None,
            attributes: Vec::new(),
            at: self.at,
        };
        if clade.inner {
            self.at += 1;
            clade.children = self.children(depth)?;
            if self.peek().is_some_and(is_label) {
                clade.label = Some(self.label());
            }
        } else if next.is_some_and(is_label) {
            clade.label = Some(self.leaf_label()?);
        } else {
            return Err(self.error("expected an expander, or '(' for a switch"));
        }
        // The two suffixes come in either order, as in other dialects of Newick.
        loop {
            match self.peek() {
                Some(b':') if clade.length.is_none() => clade.length = Some(self.length()?),
                Some(b'[') if clade.attributes.is_empty() => {
                    clade.attributes = self.attributes()?
                }
                _ => return Ok(clade),
            }
        }
    }

    fn children(&mut self, depth: usize) -> Result<Vec<Clade>, SyntaxError> {
        let mut children = Vec::new();
        if depth == 0 && self.peek() == Some(b')') {
            self.at += 1;
            return Ok(children);
        }
        loop {
            children.push(self.clade(depth + 1)?);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b')') => {
                    self.at += 1;
                    return Ok(children);
                }
                None => return Err(self.error("a '(' is not closed")),
                Some(_) => return Err(self.error("expected ',' or ')' here")),
            }
        }
    }

    /// A leaf's label; the original writes a remote expander as `R:node:expander`.
    fn leaf_label(&mut self) -> Result<String, SyntaxError> {
        let mut label = self.label();
        if label == "R" {
            for part in ["node", "expander"] {
                if self.peek() != Some(b':') {
                    return Err(self.error(format!(
                        "expected ':' and the {part} of a remote expander R:node:expander"
                    )));
                }
                self.at += 1;
                let number = self.label();
                if number.is_empty() || !number.bytes().all(|c| c.is_ascii_digit()) {
                    return Err(self.error(format!(
                        "the {part} of a remote expander R:node:expander is a number"
                    )));
                }
                label = format!("{label}:{number}");
            }
        }
        Ok(label)
    }

    fn length(&mut self) -> Result<f64, SyntaxError> {
        self.at += 1;
        self.skip_space();
        let start = self.at;
        while self
            .bytes
            .get(self.at)
            .is_some_and(|c| c.is_ascii_digit() || b"+-.eE".contains(c))
        {
            self.at += 1;
        }
        let length = self
            .text
            .get(start..self.at)
            .and_then(|number| number.parse::<f64>().ok());
        match length {
            Some(ns) if ns.is_finite() && ns >= 0.0 => Ok(ns),
            Some(_) => {
                Err(self.error_at(start, "a branch length is a latency in ns, zero or more"))
            }
            None => Err(self.error_at(start, "expected a branch length in ns after ':'")),
        }
    }

    fn attributes(&mut self) -> Result<Vec<Attribute>, SyntaxError> {
        self.at += 1;
        if self.peek() != Some(b'&') {
            return Err(
                self.error("expected '&' after '[': attributes are written [&key=value,...]")
            );
        }
        self.at += 1;
        let mut attributes = Vec::new();
        loop {
            self.skip_space();
            let at = self.at;
            let key = self.label();
            if key.is_empty() {
                return Err(self.error("expected the name of an attribute"));
            }
            if self.peek() != Some(b'=') {
                return Err(self.error(format!("expected '=' after {key}")));
            }
            self.at += 1;
            self.skip_space();
            let value = self.label();
            if value.is_empty() {
                return Err(self.error(format!("expected a value for {key}")));
            }
            attributes.push(Attribute { key, value, at });
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(attributes);
                }
                _ => return Err(self.error("expected ',' or ']' after an attribute")),
            }
        }
    }

    fn label(&mut self) -> String {
        self.skip_space();
        let start = self.at;
        while self.bytes.get(self.at).copied().is_some_and(is_label) {
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or_default().to_owned()
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn error(&self, reason: impl Into<String>) -> SyntaxError {
        self.error_at(self.at, reason)
    }

    fn error_at(&self, at: usize, reason: impl Into<String>) -> SyntaxError {
        SyntaxError {
            text: self.text.to_owned(),
            at,
            reason: reason.into(),
        }
    }
}

/// Characters of labels, keys and values: everything that has no part in the grammar.
fn is_label(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"_-.+/".contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) {
        let forest = Forest::parse(text).unwrap();
        assert_eq!(forest.to_string(), text);
        assert_eq!(
            Forest::parse(&forest.to_string()).unwrap().to_string(),
            text
        );
    }

    fn complaint(text: &str) -> (usize, String) {
        let error = Forest::parse(text).unwrap_err();
        (error.at, error.reason)
    }

    #[test]
    fn the_strings_of_the_original_parse_and_print_unchanged() {
        for text in [
            "(1,(2,3))",
            "(1)",
            "((1,2),(3,4))",
            "(((1,2),3),4)",
            "(CXL,(2,R:2:1))",
        ] {
            round_trip(text);
        }
        assert_eq!(
            Forest::parse("(1,(2,3));").unwrap().to_string(),
            "(1,(2,3))"
        );
        assert_eq!(
            Forest::parse(" ( 1 , ( 2 , 3 ) ) ").unwrap().to_string(),
            "(1,(2,3))"
        );
    }

    #[test]
    fn lengths_attributes_and_several_hosts_round_trip() {
        round_trip("(1:70,(2,3)sw:12.5[&bw=32,credits=64])");
        round_trip("a=((m0:70,m1)sw0[&profile=switch]);b=((m0)sw0)");
        round_trip("()");
    }

    #[test]
    fn attributes_may_stand_before_the_length() {
        assert_eq!(
            Forest::parse("(1[&bw=8]:70)").unwrap().to_string(),
            "(1:70[&bw=8])"
        );
    }

    #[test]
    fn a_complaint_puts_a_caret_under_the_bad_character() {
        let error = Forest::parse("(1,(2 3))").unwrap_err();
        assert_eq!(
            error.to_string(),
            "topology: expected ',' or ')' here\n  (1,(2 3))\n        ^"
        );
    }

    #[test]
    fn malformed_strings_are_refused_where_they_go_wrong() {
        assert_eq!(complaint("").0, 0);
        assert_eq!(complaint("1").0, 1);
        assert_eq!(complaint("(1,(2,3)"), (8, "a '(' is not closed".into()));
        assert_eq!(complaint("(1,2))"), (5, "this ')' closes nothing".into()));
        assert_eq!(
            complaint("(1,,2)"),
            (3, "expected an expander, or '(' for a switch".into())
        );
        assert_eq!(complaint("(1,())").0, 4);
        assert_eq!(complaint("(1:x)").0, 3);
        assert_eq!(
            complaint("(1:-5)"),
            (3, "a branch length is a latency in ns, zero or more".into())
        );
        assert_eq!(complaint("(1[bw=3])").0, 3);
        assert_eq!(complaint("(1[&bw])").0, 6);
        assert_eq!(complaint("(1[&bw=3)").0, 8);
        assert_eq!(complaint("(R:2)").0, 4);
        assert_eq!(complaint(&"(".repeat(100)).0, 65);
    }
}
