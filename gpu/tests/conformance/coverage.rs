//! Whether every instruction that the compiler knows is among those that are tried here.

use std::collections::{BTreeMap, BTreeSet};

use gpu::ptx::compile;

use super::forms::{Form, expand_all, types};
use super::{HEADER, access, table};

/// Where instructions get their meaning: every opcode, modifier and special register that is known stands there in quotes.
const LOWERING: [&str; 6] = [
    include_str!("../../src/ptx/lower/control.rs"),
    include_str!("../../src/ptx/lower/float.rs"),
    include_str!("../../src/ptx/lower/integer.rs"),
    include_str!("../../src/ptx/lower/memory.rs"),
    include_str!("../../src/ptx/lower/operand.rs"),
    include_str!("../../src/ptx/lower/warp.rs"),
];

/// The tests whose instructions are written out.
const WRITTEN: [&str; 6] = [
    include_str!("control.rs"),
    include_str!("float.rs"),
    include_str!("integer.rs"),
    include_str!("memory.rs"),
    include_str!("special.rs"),
    include_str!("warp.rs"),
];

/// Forms that are written out in tests of their own, since they are about other lanes, places or ways.
const ELSEWHERE: &str = "
bra
bra.uni
brx.idx
brx.idx.uni
call
call.uni
ret
ret.uni
exit
trap
brkpt
pmevent
nanosleep.u32
bar.sync
bar.cta.sync
barrier.sync
barrier.sync.aligned
barrier.cta.sync
bar.arrive
barrier.arrive
bar.red.popc.u32
bar.red.and.pred
bar.red.or.pred
barrier.red.and.pred
bar.warp.sync
shfl.sync.{up,down,bfly,idx}.b32
vote.sync.{all,any,uni}.pred
vote.sync.ballot.b32
match.any.sync.{b32,b64}
match.all.sync.{b32,b64}
redux.sync.{add,min,max}.{u32,s32}
redux.sync.{and,or,xor}.b32
activemask.b32
membar.{gl,cta,sys}
fence.{sc,acq_rel}.{cta,gpu,sys,cluster}
prefetch.global.L2
prefetchu.L1
applypriority.global.L2::evict_normal
discard.global.L2
cvta.{shared,local,global,const,param}.u64
cvta.to.{shared,local,global,const,param}.u64
isspacep.{shared,local,global,const,param}
ld.param.u64
ld.param::entry.u64
ld.param::func.b32
ld.const.u32
ld.global.unified.u32
st.param.b32
";

/// What stands in quotes there and is no part of an instruction: components of vectors, functions, and beginnings of words.
const NO_WORDS: [&str; 14] = [
    "x", "y", "z", "w", "r", "g", "b", "a", "_", "vprintf", "L1::", "L2::", "proxy", "pred",
];

fn all() -> Vec<Form> {
    let mut forms = table::forms();
    forms.extend(access::forms());
    forms.extend(expand_all(ELSEWHERE));
    forms
}

/// Words in quotes, without what is said to people.
fn words(source: &str) -> impl Iterator<Item = &str> {
    let code = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split('"').skip(1).step_by(2))
        .filter(|word| {
            let word_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '%');
            !word.is_empty()
                && word.chars().all(word_like)
                && !word.chars().all(|c| c.is_ascii_digit())
        })
}

#[test]
fn every_word_that_the_compiler_knows_is_in_a_form_that_is_tried() {
    let forms = all();
    let mut tried: BTreeSet<&str> = types().collect();
    for form in &forms {
        tried.insert(&form.opcode);
        tried.extend(form.modifiers.iter().map(|word| &word[..]));
    }
    let written = WRITTEN.concat();
    let missing: BTreeSet<&str> = LOWERING
        .into_iter()
        .flat_map(words)
        .filter(|word| !NO_WORDS.contains(word))
        .filter(|word| {
            let special = word.starts_with('%') || *word == "WARP_SZ";
            if special {
                !written.contains(word)
            } else {
                !tried.contains(word)
            }
        })
        .collect();
    assert!(missing.is_empty(), "no form has {missing:?}");
}

#[test]
fn forms_with_tests_of_their_own_are_written_there() {
    let written = WRITTEN.concat();
    let missing: Vec<String> = expand_all(ELSEWHERE)
        .into_iter()
        .map(|form| form.name)
        .filter(|name| {
            !written.contains(&format!("{name} ")) && !written.contains(&format!("{name};"))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Which of some instructions the compiler takes, whatever they mean: each stands in a line of its own, and is named by its line if
/// it is refused.
fn taken(forms: &[Form]) -> Vec<&Form> {
    let mut text = format!("{HEADER}.entry k() {{ {}\n", table::REGISTERS);
    let first = text.lines().count() + 1;
    for form in forms {
        text.push_str(&table::instruction(form).replace('\n', " "));
        text.push('\n');
    }
    text.push('}');
    let log = compile(&text).map_or_else(|log| log.to_string(), |_| String::new());
    let refused: BTreeSet<usize> = log
        .lines()
        .filter_map(|line| line.strip_prefix("line ")?.split_once(',')?.0.parse().ok())
        .collect();
    let lines = first..;
    let taken = forms
        .iter()
        .zip(lines)
        .filter(|(_, line)| !refused.contains(line));
    taken.map(|(form, _)| form).collect()
}

/// Forms with another type in the place of one of their own, or with one modifier more, are refused or are in the tables, too.
#[test]
fn every_form_that_the_compiler_takes_is_in_the_table() {
    let forms = table::forms();
    let known: BTreeSet<_> = forms.iter().map(Form::key).collect();
    // Of each opcode and its types the shortest form stands for the others.
    let mut shortest: BTreeMap<(&str, &[String]), &Form> = BTreeMap::new();
    for form in &forms {
        let place = shortest.entry((&form.opcode, &form.types)).or_insert(form);
        if form.modifiers.len() < place.modifiers.len() {
            *place = form;
        }
    }
    let modifiers: BTreeSet<&String> = forms.iter().flat_map(|form| &form.modifiers).collect();
    let mut candidates = Vec::new();
    for form in shortest.into_values() {
        for place in 0..form.types.len() {
            for ty in types() {
                let mut types = form.types.clone();
                types[place] = ty.to_owned();
                candidates.push(rebuilt(form, &form.modifiers, &types));
            }
        }
        for modifier in &modifiers {
            let more = [&form.modifiers[..], &[(*modifier).clone()]].concat();
            candidates.push(rebuilt(form, &more, &form.types));
        }
    }
    let mut seen = BTreeSet::new();
    candidates.retain(|form| !known.contains(&form.key()) && seen.insert(form.key()));
    assert!(candidates.len() > 10_000, "{}", candidates.len());
    let taken: Vec<&str> = candidates
        .chunks(500)
        .flat_map(taken)
        .map(|form| &form.name[..])
        .collect();
    assert!(
        taken.is_empty(),
        "{} are taken and never tried: {taken:?}",
        taken.len()
    );
    // What is in the tables is taken in the same way.
    assert_eq!(self::taken(&forms).len(), forms.len());
}

fn rebuilt(form: &Form, modifiers: &[String], types: &[String]) -> Form {
    let words = [std::slice::from_ref(&form.opcode), modifiers, types].concat();
    Form::new(&words.join("."))
}
