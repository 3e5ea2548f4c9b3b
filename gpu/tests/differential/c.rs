//! Programs in C: what each thread does alone is a loop over the threads.

use std::fmt::Write;

use super::program::*;

/// What C has no operator for.
const PRELUDE: &str = "#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
typedef uint32_t u32; typedef int32_t s32; typedef uint64_t u64;
static u32 bits(float x) { u32 r; memcpy(&r, &x, 4); return x != x ? 0x7fffffffu : r; }
static s32 whole(float x) { return x != x ? 0 : x >= 0x1p31f ? INT32_MAX : x < -0x1p31f ? INT32_MIN : (s32)x; }
static float least(float x, float y) {
  if (x != x) return y;
  if (y != y) return x;
  if (x == y) return signbit(x) ? x : y;
  return x < y ? x : y;
}
static u32 count(u32 x) { return __builtin_popcount(x); }
static u32 zeros(u32 x) { return x ? __builtin_clz(x) : 32; }
";

/// A source whose program prints a line of words for each program.
pub fn text(programs: &[Program], inputs: &[u32]) -> String {
    let mut text = PRELUDE.to_owned();
    let words: Vec<String> = inputs.iter().map(|word| format!("{word}u")).collect();
    writeln!(text, "static const u32 in[] = {{{}}};", words.join(",")).unwrap();
    for (number, program) in programs.iter().enumerate() {
        function(&mut text, number, program);
    }
    text.push_str("int main(void) {\n");
    for number in 0..programs.len() {
        writeln!(text, "  program{number}();").unwrap();
    }
    text.push_str("}\n");
    text
}

fn function(text: &mut String, number: usize, program: &Program) {
    let threads: u32 = program.block.iter().product();
    write!(
        text,
        "static void program{number}(void) {{
  for (u32 block = 0; block < {BLOCKS}; block++) {{
    static u32 w[{threads}][{WORDS}], l[{threads}][{LOCALS}], s[{threads}];
    static float f[{threads}][{FLOATS}];
    for (u32 t = 0; t < {threads}; t++) {{
      for (u32 i = 0; i < {WORDS}; i++) w[t][i] = in[(t * {WORDS} + i + block) % {INPUTS}];
      for (u32 i = 0; i < {FLOATS}; i++) f[t][i] = (float)(s32)in[(t + i * 3) % {INPUTS}] * 0.0009765625f;
      for (u32 i = 0; i < {LOCALS}; i++) l[t][i] = t + i;
    }}\n"
    )
    .unwrap();
    for (statements, meeting) in &program.phases {
        writeln!(text, "    for (u32 t = 0; t < {threads}; t++) {{").unwrap();
        for statement in statements {
            text.push_str(&self::statement(statement));
        }
        text.push_str("    }\n");
        if let Some(meeting) = meeting {
            text.push_str(&self::meeting(meeting, threads));
        }
    }
    write!(
        text,
        "    for (u32 t = 0; t < {threads}; t++) {{
      for (u32 i = 0; i < {WORDS}; i++) printf(\"%x \", w[t][i]);
      for (u32 i = 0; i < {FLOATS}; i++) printf(\"%x \", bits(f[t][i]));
    }}
  }}
  printf(\"\\n\");
}}\n"
    )
    .unwrap();
}

fn block(statements: &[Statement]) -> String {
    statements.iter().map(statement).collect()
}

fn statement(statement: &Statement) -> String {
    match statement {
        Statement::Set(var, value) => format!("w[t][{var}] = {};\n", word(value)),
        Statement::SetFloat(var, value) => format!("f[t][{var}] = {};\n", float(value)),
        Statement::Store(index, value) => {
            let (index, value) = (word(index), word(value));
            format!("{{ u32 at = {index} % {LOCALS}; l[t][at] = {value}; }}\n")
        }
        Statement::If(condition, then, other) => format!(
            "if ({}) {{\n{}}} else {{\n{}}}\n",
            truth(condition),
            block(then),
            block(other)
        ),
        Statement::Repeat(count, body, until) => {
            let until = until.as_ref().map_or(String::new(), |condition| {
                format!("if ({}) break;\n", truth(condition))
            });
            format!(
                "for (u32 i = 0, n = {} % 8; i < n; i++) {{\n{}{until}}}\n",
                word(count),
                block(body)
            )
        }
    }
}

fn meeting(meeting: &Meeting, threads: u32) -> String {
    let all = format!("for (u32 t = 0; t < {threads}; t++)");
    match meeting {
        Meeting::Exchange {
            dst,
            src,
            factor,
            offset,
        } => format!(
            "{all} s[t] = w[t][{src}];\n{all} w[t][{dst}] = s[(t * {factor} + {offset}) % {threads}];\n"
        ),
        Meeting::Sum { dst, src } => {
            format!("{{ u32 sum = 0; {all} sum += w[t][{src}];\n{all} w[t][{dst}] = sum; }}\n")
        }
        Meeting::Count { dst, src } => {
            format!("{{ u32 sum = 0; {all} sum += w[t][{src}] & 1;\n{all} w[t][{dst}] = sum; }}\n")
        }
        Meeting::Ballot { dst, src } => format!(
            "{all} s[t] = w[t][{src}] & 1;\n{all} {{ u32 all = 0; \
             for (u32 i = 0; i < 32; i++) all |= s[t / 32 * 32 + i] << i; w[t][{dst}] = all; }}\n"
        ),
        Meeting::Shuffle {
            dst,
            src,
            mode,
            amount,
        } => {
            let from = match mode {
                Shuffle::Down => format!("lane + {amount} < 32 ? lane + {amount} : lane"),
                Shuffle::Up => format!("lane >= {amount} ? lane - {amount} : lane"),
                Shuffle::Butterfly => format!("lane ^ {amount}"),
                Shuffle::Index => format!("{amount}"),
            };
            format!(
                "{all} s[t] = w[t][{src}];\n{all} {{ u32 lane = t % 32; w[t][{dst}] = s[t - lane + ({from})]; }}\n"
            )
        }
    }
}

fn word(value: &Word) -> String {
    match value {
        Word::Var(var) => format!("w[t][{var}]"),
        Word::Const(value) => format!("{value}u"),
        Word::Thread => "t".to_owned(),
        Word::Block => "block".to_owned(),
        Word::Op(op, a, b, c) => {
            let (a, b) = (word(a), word(b));
            match op {
                WordOp::Add => format!("({a} + {b})"),
                WordOp::Sub => format!("({a} - {b})"),
                WordOp::Mul => format!("({a} * {b})"),
                WordOp::MulHigh => format!("(u32)((u64){a} * {b} >> 32)"),
                WordOp::MulHighSigned => {
                    format!("(u32)((int64_t)(s32){a} * (s32){b} >> 32)")
                }
                WordOp::And => format!("({a} & {b})"),
                WordOp::Or => format!("({a} | {b})"),
                WordOp::Xor => format!("({a} ^ {b})"),
                WordOp::Shl => format!("({a} << ({b} & 31))"),
                WordOp::Shr => format!("({a} >> ({b} & 31))"),
                WordOp::ShrSigned => format!("(u32)((s32){a} >> ({b} & 31))"),
                WordOp::Min => format!("({a} < {b} ? {a} : {b})"),
                WordOp::MaxSigned => format!("((s32){a} > (s32){b} ? {a} : {b})"),
                WordOp::Div => format!("({a} / ({b} | 1))"),
                WordOp::Rem => format!("({a} % ({b} | 1))"),
                WordOp::DivSigned => format!("(u32)((s32)(int16_t){a} / (s32)(int16_t)({b} | 1))"),
                WordOp::Wide => {
                    let c = word(c);
                    format!("(u32)(((u64){a} << 32 | {b}) * {c} >> 17)")
                }
            }
        }
        Word::Popcount(a) => format!("count({})", word(a)),
        Word::LeadingZeros(a) => format!("zeros({})", word(a)),
        Word::Select(condition, a, b) => {
            format!("({} ? {} : {})", truth(condition), word(a), word(b))
        }
        Word::Input(index) => format!("in[{} % {INPUTS}]", word(index)),
        Word::Local(index) => format!("l[t][{} % {LOCALS}]", word(index)),
        Word::FromFloat(value) => format!("(u32)whole({})", float(value)),
        Word::Byte(a) => format!("(u32)(s32)(int8_t)({} >> 8)", word(a)),
    }
}

fn float(value: &Float) -> String {
    match value {
        Float::Var(var) => format!("f[t][{var}]"),
        Float::Const(value) => format!("({value:?}f)"),
        Float::Op(op, a, b, c) => {
            let (a, b, c) = (float(a), float(b), float(c));
            match op {
                FloatOp::Add => format!("({a} + {b})"),
                FloatOp::Sub => format!("({a} - {b})"),
                FloatOp::Mul => format!("({a} * {b})"),
                FloatOp::Div => format!("({a} / {b})"),
                FloatOp::Fma => format!("fmaf({a}, {b}, {c})"),
                FloatOp::Min => format!("least({a}, {b})"),
                FloatOp::Double => format!("(float)((double){a} * (double){b} + (double){c})"),
            }
        }
        Float::FromWord(a) => format!("(float)(s32){}", word(a)),
        Float::Negated(a) => format!("(-{})", float(a)),
        Float::Root(a) => format!("sqrtf(fabsf({}))", float(a)),
        Float::Select(condition, a, b) => {
            format!("({} ? {} : {})", truth(condition), float(a), float(b))
        }
    }
}

fn truth(condition: &Truth) -> String {
    match condition {
        Truth::Words(Relation::Less, a, b) => format!("({} < {})", word(a), word(b)),
        Truth::Words(Relation::Equal, a, b) => format!("({} == {})", word(a), word(b)),
        Truth::Words(Relation::LessSigned, a, b) => {
            format!("((s32){} < (s32){})", word(a), word(b))
        }
        Truth::Floats(Relation::Equal, a, b) => format!("({} == {})", float(a), float(b)),
        Truth::Floats(_, a, b) => format!("({} < {})", float(a), float(b)),
        Truth::And(a, b) => format!("({} && {})", truth(a), truth(b)),
        Truth::Not(a) => format!("(!{})", truth(a)),
    }
}
