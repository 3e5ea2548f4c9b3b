//! Trees for people.

use std::fmt;

/// A line and what hangs below it. Shown as a tree of box-drawing characters, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    text: String,
    children: Vec<Node>,
}

impl Node {
    /// A line with nothing below it.
    pub fn leaf(text: impl Into<String>) -> Self {
        Self::new(text, Vec::new())
    }

    /// A line and what hangs below it.
    pub fn new(text: impl Into<String>, children: Vec<Self>) -> Self {
        Self {
            text: text.into(),
            children,
        }
    }

    /// Draws the node behind `first`, and what hangs below it behind `rest`.
    fn draw(&self, first: &str, rest: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{first}{}", self.text)?;
        let last = self.children.len().saturating_sub(1);
        for (i, child) in self.children.iter().enumerate() {
            let (branch, below) = if i == last {
                ("└── ", "    ")
            } else {
                ("├── ", "│   ")
            };
            child.draw(&format!("{rest}{branch}"), &format!("{rest}{below}"), f)?;
        }
        Ok(())
    }
}

/// Pixels of the drawing: a row, the box in it, what a child is moved right by, a letter, and what is free around all of it.
const ROW: usize = 34;
const BOX: usize = 24;
const INDENT: usize = 28;
const LETTER: usize = 8;
const MARGIN: usize = 12;

impl Node {
    /// The tree as an SVG document: a box for each line, joined to the one that it hangs below.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let mut rows = Vec::new();
        self.rows(0, None, &mut rows);
        let right = |row: &Row| row.left() + row.width();
        let width = rows.iter().map(right).max().unwrap_or(0) + MARGIN;
        let height = rows.len() * ROW + MARGIN;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        for (index, row) in rows.iter().enumerate() {
            let (left, top) = (row.left(), MARGIN + index * ROW);
            if let Some(parent) = row.parent {
                let (from, to) = (MARGIN + parent * ROW + BOX, top + BOX / 2);
                let stem = left - INDENT / 2;
                svg += &format!(
                    "<path d=\"M{stem} {from}V{to}H{left}\" fill=\"none\" stroke=\"#888\"/>\n"
                );
            }
            svg += &format!(
                "<rect x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{BOX}\" rx=\"4\" fill=\"#eef3fa\" \
                 stroke=\"#5b7aa5\"/>\n<text x=\"{}\" y=\"{}\">{}</text>\n",
                row.width(),
                left + LETTER,
                top + BOX - LETTER,
                escaped(row.text)
            );
        }
        svg + "</svg>\n"
    }

    fn rows<'n>(&'n self, depth: usize, parent: Option<usize>, rows: &mut Vec<Row<'n>>) {
        let own = rows.len();
        rows.push(Row {
            text: &self.text,
            depth,
            parent,
        });
        for child in &self.children {
            child.rows(depth + 1, Some(own), rows);
        }
    }
}

/// A line of the drawing.
struct Row<'n> {
    text: &'n str,
    depth: usize,
    /// The row that it hangs below.
    parent: Option<usize>,
}

impl Row<'_> {
    fn left(&self) -> usize {
        MARGIN + self.depth * INDENT
    }

    fn width(&self) -> usize {
        (self.text.chars().count() + 2) * LETTER
    }
}

/// Text as XML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.draw("", "", f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_has_a_box_for_each_line_and_a_joint_for_each_child() {
        let tree = Node::new("a<b", vec![Node::new("c & d", vec![Node::leaf("e")])]);
        let svg = tree.to_svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<text ").count(), 3);
        assert_eq!(svg.matches("<path ").count(), 2);
        assert!(svg.contains(">a&lt;b<") && svg.contains(">c &amp; d<"));
        // The box of "e": two indents right, the third row down, three letters wide.
        assert!(
            svg.contains("<rect x=\"68\" y=\"80\" width=\"24\""),
            "{svg}"
        );
    }

    #[test]
    fn branches_end_at_the_last_child() {
        let tree = Node::new(
            "a",
            vec![
                Node::new("b", vec![Node::leaf("c")]),
                Node::new("d", vec![Node::leaf("e")]),
            ],
        );
        assert_eq!(tree.to_string(), "a\n├── b\n│   └── c\n└── d\n    └── e\n");
    }
}
