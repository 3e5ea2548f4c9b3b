//! Programs in PTX: registers for variables and intermediate values, branches for what may differ between threads.

use std::fmt::Write;

use super::program::*;

/// The text of a module whose kernel `k(out, in)` runs the program.
pub fn text(program: &Program) -> String {
    let mut printer = Printer {
        body: String::new(),
        words: 0,
        wides: 0,
        floats: 0,
        doubles: 0,
        truths: 0,
        labels: 0,
        threads: program.block.iter().product(),
    };
    printer.begin(program);
    for (statements, meeting) in &program.phases {
        printer.block(statements);
        if let Some(meeting) = meeting {
            printer.meeting(meeting);
        }
    }
    printer.end();
    format!(
        ".version 7.8
.target sm_75
.address_size 64
.visible .entry k(.param .u64 out, .param .u64 in) {{
.reg .b32 %t, %b, %lane, %w<{WORDS}>, %r<{}>;
.reg .b64 %in, %rd<{}>;
.reg .b16 %h0, %h1;
.reg .f32 %v<{FLOATS}>, %f<{}>;
.reg .f64 %d<{}>;
.reg .pred %p<{}>;
.shared .align 4 .b8 s[{}];
.local .align 4 .b8 l[{}];
{}}}\n",
        printer.words + 1,
        printer.wides + 1,
        printer.floats + 1,
        printer.doubles + 1,
        printer.truths + 1,
        4 * printer.threads + 4,
        4 * LOCALS,
        printer.body
    )
}

struct Printer {
    body: String,
    words: usize,
    wides: usize,
    floats: usize,
    doubles: usize,
    truths: usize,
    labels: usize,
    threads: u32,
}

/// The next register of a kind.
fn next(prefix: &str, count: &mut usize) -> String {
    *count += 1;
    format!("%{prefix}{}", *count - 1)
}

impl Printer {
    fn line(&mut self, line: impl AsRef<str>) {
        writeln!(self.body, "{};", line.as_ref()).unwrap();
    }

    fn label(&mut self, label: &str) {
        writeln!(self.body, "{label}:").unwrap();
    }

    fn new_label(&mut self) -> String {
        self.labels += 1;
        format!("$l{}", self.labels)
    }

    fn r(&mut self) -> String {
        next("r", &mut self.words)
    }

    fn rd(&mut self) -> String {
        next("rd", &mut self.wides)
    }

    fn f(&mut self) -> String {
        next("f", &mut self.floats)
    }

    fn p(&mut self) -> String {
        next("p", &mut self.truths)
    }

    /// The address of an input at this index modulo their number.
    fn input(&mut self, index: &str) -> String {
        let (at, address) = (self.r(), self.rd());
        self.line(format!("and.b32 {at}, {index}, {}", INPUTS - 1));
        self.line(format!("mad.wide.u32 {address}, {at}, 4, %in"));
        address
    }

    fn begin(&mut self, program: &Program) {
        let [width, height, _] = program.block;
        self.line("ld.param.u64 %in, [in]");
        let r = self.r();
        self.line("mov.u32 %t, %tid.z");
        self.line(format!("mov.u32 {r}, %tid.y"));
        self.line(format!("mad.lo.u32 %t, %t, {height}, {r}"));
        self.line(format!("mov.u32 {r}, %tid.x"));
        self.line(format!("mad.lo.u32 %t, %t, {width}, {r}"));
        self.line("mov.u32 %b, %ctaid.x");
        self.line("mov.u32 %lane, %laneid");
        for word in 0..WORDS {
            let r = self.r();
            self.line(format!("mad.lo.u32 {r}, %t, {WORDS}, {word}"));
            self.line(format!("add.u32 {r}, {r}, %b"));
            let address = self.input(&r);
            self.line(format!("ld.global.u32 %w{word}, [{address}]"));
        }
        for float in 0..FLOATS {
            let r = self.r();
            self.line(format!("add.u32 {r}, %t, {}", 3 * float));
            let address = self.input(&r);
            self.line(format!("ld.global.u32 {r}, [{address}]"));
            self.line(format!("cvt.rn.f32.s32 %v{float}, {r}"));
            self.line(format!("mul.rn.f32 %v{float}, %v{float}, 0f3A800000"));
        }
        for local in 0..LOCALS {
            let r = self.r();
            self.line(format!("add.u32 {r}, %t, {local}"));
            self.line(format!("st.local.u32 [l+{}], {r}", 4 * local));
        }
    }

    fn end(&mut self) {
        let (r, rd) = (self.r(), self.rd());
        self.line(format!("mad.lo.u32 {r}, %b, {}, %t", self.threads));
        self.line(format!("ld.param.u64 {rd}, [out]"));
        self.line(format!("mad.wide.u32 {rd}, {r}, {}, {rd}", 4 * OUTPUTS));
        for word in 0..WORDS {
            self.line(format!("st.global.u32 [{rd}+{}], %w{word}", 4 * word));
        }
        for float in 0..FLOATS {
            // A NaN is any NaN.
            let (p, r) = (self.p(), self.r());
            self.line(format!("setp.nan.f32 {p}, %v{float}, %v{float}"));
            self.line(format!("mov.b32 {r}, %v{float}"));
            self.line(format!("selp.b32 {r}, 0x7fffffff, {r}, {p}"));
            let offset = 4 * (WORDS + float);
            self.line(format!("st.global.u32 [{rd}+{offset}], {r}"));
        }
        self.line("ret");
    }

    fn block(&mut self, statements: &[Statement]) {
        for statement in statements {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Set(var, value) => {
                let value = self.word(value);
                self.line(format!("mov.u32 %w{var}, {value}"));
            }
            Statement::SetFloat(var, value) => {
                let value = self.float(value);
                self.line(format!("mov.f32 %v{var}, {value}"));
            }
            Statement::Store(index, value) => {
                let index = self.word(index);
                let address = self.local(&index);
                let value = self.word(value);
                self.line(format!("st.local.u32 [{address}], {value}"));
            }
            Statement::If(condition, then, other) => {
                let (no, end) = (self.new_label(), self.new_label());
                let p = self.truth(condition);
                self.line(format!("@!{p} bra {no}"));
                self.block(then);
                self.line(format!("bra {end}"));
                self.label(&no);
                self.block(other);
                self.label(&end);
            }
            Statement::Repeat(count, body, until) => {
                let (again, end) = (self.new_label(), self.new_label());
                let (i, n, p) = (self.r(), self.r(), self.p());
                let count = self.word(count);
                self.line(format!("and.b32 {n}, {count}, 7"));
                self.line(format!("mov.u32 {i}, 0"));
                self.label(&again);
                self.line(format!("setp.ge.u32 {p}, {i}, {n}"));
                self.line(format!("@{p} bra {end}"));
                self.block(body);
                if let Some(condition) = until {
                    let p = self.truth(condition);
                    self.line(format!("@{p} bra {end}"));
                }
                self.line(format!("add.u32 {i}, {i}, 1"));
                self.line(format!("bra {again}"));
                self.label(&end);
            }
        }
    }

    fn meeting(&mut self, meeting: &Meeting) {
        match meeting {
            Meeting::Exchange {
                dst,
                src,
                factor,
                offset,
            } => {
                let (at, base) = (self.r(), self.r());
                self.line(format!("mov.u32 {base}, s"));
                self.line(format!("mad.lo.u32 {at}, %t, 4, {base}"));
                self.line(format!("st.shared.u32 [{at}], %w{src}"));
                self.line("bar.sync 0");
                self.line(format!("mad.lo.u32 {at}, %t, {factor}, {offset}"));
                self.line(format!("rem.u32 {at}, {at}, {}", self.threads));
                self.line(format!("mad.lo.u32 {at}, {at}, 4, {base}"));
                self.line(format!("ld.shared.u32 %w{dst}, [{at}]"));
                self.line("bar.sync 0");
            }
            Meeting::Sum { dst, src } => {
                let (p, r, sum) = (self.p(), self.r(), 4 * self.threads);
                self.line(format!("setp.eq.u32 {p}, %t, 0"));
                self.line(format!("@{p} st.shared.u32 [s+{sum}], 0"));
                self.line("bar.sync 0");
                self.line(format!("atom.shared.add.u32 {r}, [s+{sum}], %w{src}"));
                self.line("bar.sync 0");
                self.line(format!("ld.shared.u32 %w{dst}, [s+{sum}]"));
                self.line("bar.sync 0");
            }
            Meeting::Count { dst, src } => {
                let p = self.odd(*src);
                self.line(format!("bar.red.popc.u32 %w{dst}, 0, {p}"));
            }
            Meeting::Ballot { dst, src } => {
                let p = self.odd(*src);
                self.line(format!("vote.sync.ballot.b32 %w{dst}, {p}, -1"));
            }
            Meeting::Shuffle {
                dst,
                src,
                mode,
                amount,
            } => {
                let (mode, clamp) = match mode {
                    Shuffle::Down => ("down", 31),
                    Shuffle::Up => ("up", 0),
                    Shuffle::Butterfly => ("bfly", 31),
                    Shuffle::Index => ("idx", 31),
                };
                self.line(format!(
                    "shfl.sync.{mode}.b32 %w{dst}, %w{src}, {amount}, {clamp}, -1"
                ));
            }
        }
    }

    fn odd(&mut self, var: usize) -> String {
        let (r, p) = (self.r(), self.p());
        self.line(format!("and.b32 {r}, %w{var}, 1"));
        self.line(format!("setp.ne.u32 {p}, {r}, 0"));
        p
    }

    /// The address of an element of the thread's array.
    fn local(&mut self, index: &str) -> String {
        let (at, base, address) = (self.r(), self.rd(), self.rd());
        self.line(format!("and.b32 {at}, {index}, {}", LOCALS - 1));
        self.line(format!("mov.u64 {base}, l"));
        self.line(format!("mad.wide.u32 {address}, {at}, 4, {base}"));
        address
    }

    fn word(&mut self, value: &Word) -> String {
        match value {
            Word::Var(var) => {
                // A copy, for the variable may change before it is used.
                let r = self.r();
                self.line(format!("mov.u32 {r}, %w{var}"));
                r
            }
            Word::Const(value) => format!("{value}"),
            Word::Thread => "%t".to_owned(),
            Word::Block => "%b".to_owned(),
            Word::Op(op, a, b, c) => {
                let (a, b) = (self.word(a), self.word(b));
                self.operation(*op, &a, &b, c)
            }
            Word::Popcount(a) => {
                let a = self.word(a);
                let r = self.r();
                self.line(format!("popc.b32 {r}, {a}"));
                r
            }
            Word::LeadingZeros(a) => {
                let a = self.word(a);
                let r = self.r();
                self.line(format!("clz.b32 {r}, {a}"));
                r
            }
            Word::Select(condition, a, b) => {
                let (a, b) = (self.word(a), self.word(b));
                let (p, r) = (self.truth(condition), self.r());
                self.line(format!("selp.b32 {r}, {a}, {b}, {p}"));
                r
            }
            Word::Input(index) => {
                let index = self.word(index);
                let (address, r) = (self.input(&index), self.r());
                self.line(format!("ld.global.u32 {r}, [{address}]"));
                r
            }
            Word::Local(index) => {
                let index = self.word(index);
                let (address, r) = (self.local(&index), self.r());
                self.line(format!("ld.local.u32 {r}, [{address}]"));
                r
            }
            Word::FromFloat(value) => {
                let value = self.float(value);
                let r = self.r();
                self.line(format!("cvt.rzi.s32.f32 {r}, {value}"));
                r
            }
            Word::Byte(a) => {
                let a = self.word(a);
                let r = self.r();
                self.line(format!("shr.u32 {r}, {a}, 8"));
                self.line(format!("cvt.s32.s8 {r}, {r}"));
                r
            }
        }
    }

    fn operation(&mut self, op: WordOp, a: &str, b: &str, c: &Word) -> String {
        let simple = match op {
            WordOp::Add => "add.u32",
            WordOp::Sub => "sub.u32",
            WordOp::Mul => "mul.lo.u32",
            WordOp::MulHigh => "mul.hi.u32",
            WordOp::MulHighSigned => "mul.hi.s32",
            WordOp::And => "and.b32",
            WordOp::Or => "or.b32",
            WordOp::Xor => "xor.b32",
            WordOp::Min => "min.u32",
            WordOp::MaxSigned => "max.s32",
            _ => "",
        };
        let r = self.r();
        match op {
            WordOp::Shl | WordOp::Shr | WordOp::ShrSigned => {
                let shift = match op {
                    WordOp::Shl => "shl.b32",
                    WordOp::Shr => "shr.u32",
                    _ => "shr.s32",
                };
                self.line(format!("and.b32 {r}, {b}, 31"));
                self.line(format!("{shift} {r}, {a}, {r}"));
            }
            WordOp::Div | WordOp::Rem => {
                let divide = if matches!(op, WordOp::Div) {
                    "div"
                } else {
                    "rem"
                };
                self.line(format!("or.b32 {r}, {b}, 1"));
                self.line(format!("{divide}.u32 {r}, {a}, {r}"));
            }
            WordOp::DivSigned => {
                let other = self.r();
                self.line(format!("or.b32 {r}, {b}, 1"));
                self.line(format!("cvt.u16.u32 %h1, {r}"));
                self.line(format!("cvt.s32.s16 {r}, %h1"));
                self.line(format!("mov.u32 {other}, {a}"));
                self.line(format!("cvt.u16.u32 %h0, {other}"));
                self.line(format!("cvt.s32.s16 {other}, %h0"));
                self.line(format!("div.s32 {r}, {other}, {r}"));
            }
            WordOp::Wide => {
                let c = self.word(c);
                let (wide, factor, low, high) = (self.rd(), self.rd(), self.r(), self.r());
                self.line(format!("mov.u32 {low}, {b}"));
                self.line(format!("mov.u32 {high}, {a}"));
                self.line(format!("mov.b64 {wide}, {{{low}, {high}}}"));
                self.line(format!("mov.u32 {low}, {c}"));
                self.line(format!("cvt.u64.u32 {factor}, {low}"));
                self.line(format!("mul.lo.u64 {wide}, {wide}, {factor}"));
                self.line(format!("shr.u64 {wide}, {wide}, 17"));
                self.line(format!("cvt.u32.u64 {r}, {wide}"));
            }
            _ => self.line(format!("{simple} {r}, {a}, {b}")),
        }
        r
    }

    fn float(&mut self, value: &Float) -> String {
        match value {
            Float::Var(var) => {
                let f = self.f();
                self.line(format!("mov.f32 {f}, %v{var}"));
                f
            }
            Float::Const(value) => format!("0f{:08X}", value.to_bits()),
            Float::Op(op, a, b, c) => {
                let (a, b, c) = (self.float(a), self.float(b), self.float(c));
                let f = self.f();
                match op {
                    FloatOp::Add => self.line(format!("add.rn.f32 {f}, {a}, {b}")),
                    FloatOp::Sub => self.line(format!("sub.rn.f32 {f}, {a}, {b}")),
                    FloatOp::Mul => self.line(format!("mul.rn.f32 {f}, {a}, {b}")),
                    FloatOp::Div => self.line(format!("div.rn.f32 {f}, {a}, {b}")),
                    FloatOp::Fma => self.line(format!("fma.rn.f32 {f}, {a}, {b}, {c}")),
                    FloatOp::Min => self.line(format!("min.f32 {f}, {a}, {b}")),
                    FloatOp::Double => {
                        let wide = [a, b, c].map(|operand| {
                            let (f, d) = (self.f(), next("d", &mut self.doubles));
                            self.line(format!("mov.f32 {f}, {operand}"));
                            self.line(format!("cvt.f64.f32 {d}, {f}"));
                            d
                        });
                        let [a, b, c] = wide;
                        self.line(format!("mul.rn.f64 {a}, {a}, {b}"));
                        self.line(format!("add.rn.f64 {a}, {a}, {c}"));
                        self.line(format!("cvt.rn.f32.f64 {f}, {a}"));
                    }
                }
                f
            }
            Float::FromWord(a) => {
                let a = self.word(a);
                let (r, f) = (self.r(), self.f());
                self.line(format!("mov.u32 {r}, {a}"));
                self.line(format!("cvt.rn.f32.s32 {f}, {r}"));
                f
            }
            Float::Negated(a) => {
                let a = self.float(a);
                let f = self.f();
                self.line(format!("neg.f32 {f}, {a}"));
                f
            }
            Float::Root(a) => {
                let a = self.float(a);
                let f = self.f();
                self.line(format!("abs.f32 {f}, {a}"));
                self.line(format!("sqrt.rn.f32 {f}, {f}"));
                f
            }
            Float::Select(condition, a, b) => {
                let (a, b) = (self.float(a), self.float(b));
                let (p, f) = (self.truth(condition), self.f());
                self.line(format!("selp.f32 {f}, {a}, {b}, {p}"));
                f
            }
        }
    }

    fn truth(&mut self, condition: &Truth) -> String {
        match condition {
            Truth::Words(relation, a, b) => {
                let (a, b) = (self.word(a), self.word(b));
                let p = self.p();
                let setp = match relation {
                    Relation::Less => "setp.lt.u32",
                    Relation::Equal => "setp.eq.u32",
                    Relation::LessSigned => "setp.lt.s32",
                };
                self.line(format!("{setp} {p}, {a}, {b}"));
                p
            }
            Truth::Floats(relation, a, b) => {
                let (a, b) = (self.float(a), self.float(b));
                let p = self.p();
                let setp = match relation {
                    Relation::Equal => "setp.eq.f32",
                    _ => "setp.lt.f32",
                };
                self.line(format!("{setp} {p}, {a}, {b}"));
                p
            }
            Truth::And(a, b) => {
                let (a, b) = (self.truth(a), self.truth(b));
                let p = self.p();
                self.line(format!("and.pred {p}, {a}, {b}"));
                p
            }
            Truth::Not(a) => {
                let a = self.truth(a);
                let p = self.p();
                self.line(format!("not.pred {p}, {a}"));
                p
            }
        }
    }
}
