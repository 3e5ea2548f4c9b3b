//! Programs that both C and PTX can say: what a thread computes, and where threads see each other.

/// Variables of a thread: unsigned words and numbers of single precision.
pub const WORDS: usize = 6;
pub const FLOATS: usize = 4;
/// Words that a thread leaves: all its variables.
pub const OUTPUTS: usize = WORDS + FLOATS;
/// Words that all threads read, a power of two.
pub const INPUTS: usize = 256;
/// Words of a thread's own array.
pub const LOCALS: usize = 8;
pub const BLOCKS: u32 = 2;

/// A small generator with a fixed seed, so that a failure comes again (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

#[derive(Clone, Copy, Debug)]
pub enum WordOp {
    Add,
    Sub,
    Mul,
    MulHigh,
    MulHighSigned,
    And,
    Or,
    Xor,
    /// By the amount modulo 32.
    Shl,
    Shr,
    ShrSigned,
    Min,
    MaxSigned,
    /// By the divisor with its lowest bit set.
    Div,
    Rem,
    /// Of halves of the words, signed, the divisor with its lowest bit set.
    DivSigned,
    /// `(a << 32 | b) * c >> 17`, in 64 bits.
    Wide,
}

#[derive(Clone, Copy, Debug)]
pub enum FloatOp {
    Add,
    Sub,
    Mul,
    Div,
    Fma,
    Min,
    /// `(float)((double)a * b + c)`.
    Double,
}

#[derive(Clone, Debug)]
pub enum Word {
    Var(usize),
    Const(u32),
    /// Index of the thread in its block, and of the block.
    Thread,
    Block,
    Op(WordOp, Box<Word>, Box<Word>, Box<Word>),
    Popcount(Box<Word>),
    LeadingZeros(Box<Word>),
    Select(Box<Truth>, Box<Word>, Box<Word>),
    /// Of the inputs, at this index modulo their number.
    Input(Box<Word>),
    /// Of the thread's own array.
    Local(Box<Word>),
    /// Towards zero, clamped to the signed range; NaN is 0.
    FromFloat(Box<Float>),
    /// One of its bytes, extended by its sign.
    Byte(Box<Word>),
}

#[derive(Clone, Debug)]
pub enum Float {
    Var(usize),
    Const(f32),
    Op(FloatOp, Box<Float>, Box<Float>, Box<Float>),
    FromWord(Box<Word>),
    Negated(Box<Float>),
    /// The square root of the absolute value.
    Root(Box<Float>),
    Select(Box<Truth>, Box<Float>, Box<Float>),
}

#[derive(Clone, Copy, Debug)]
pub enum Relation {
    Less,
    Equal,
    LessSigned,
}

#[derive(Clone, Debug)]
pub enum Truth {
    Words(Relation, Word, Word),
    Floats(Relation, Float, Float),
    And(Box<Truth>, Box<Truth>),
    Not(Box<Truth>),
}

#[derive(Clone, Debug)]
pub enum Statement {
    Set(usize, Word),
    SetFloat(usize, Float),
    Store(Word, Word),
    If(Truth, Vec<Statement>, Vec<Statement>),
    /// So many times, modulo 8, or until the condition holds at a turn's end.
    Repeat(Word, Vec<Statement>, Option<Truth>),
}

#[derive(Clone, Copy, Debug)]
pub enum Shuffle {
    Down,
    Up,
    Butterfly,
    Index,
}

/// Where all threads of a block, or of a warp, see each other's words.
#[derive(Clone, Debug)]
pub enum Meeting {
    /// Through shared memory: `dst` of thread t is `src` of thread `(t * factor + offset) % threads`.
    Exchange {
        dst: usize,
        src: usize,
        factor: u32,
        offset: u32,
    },
    /// The sum of all threads' `src`, by atomics.
    Sum { dst: usize, src: usize },
    /// How many threads have an odd `src`, by the barrier.
    Count { dst: usize, src: usize },
    Shuffle {
        dst: usize,
        src: usize,
        mode: Shuffle,
        amount: u32,
    },
    /// Lanes of the warp whose `src` is odd.
    Ballot { dst: usize, src: usize },
}

#[derive(Clone, Debug)]
pub struct Program {
    pub block: [u32; 3],
    /// What threads do alone, and then together.
    pub phases: Vec<(Vec<Statement>, Option<Meeting>)>,
    pub branches: usize,
}

struct Generator {
    random: Random,
    branches: usize,
}

impl Program {
    pub fn generate(seed: u64) -> Self {
        let mut generator = Generator {
            random: Random(seed),
            branches: 0,
        };
        let blocks = [
            [32, 1, 1],
            [64, 1, 1],
            [96, 1, 1],
            [16, 4, 1],
            [8, 4, 2],
            [40, 1, 1],
            [19, 1, 1],
            [5, 7, 1],
        ];
        let block = generator.random.pick(&blocks);
        let whole_warps = block.iter().product::<u32>().is_multiple_of(32);
        let count = 1 + generator.random.below(3);
        let mut phases: Vec<_> = (0..count)
            .map(|_| {
                let meeting = generator.meeting(whole_warps);
                (generator.statements(2), Some(meeting))
            })
            .collect();
        phases.push((generator.statements(2), None));
        Self {
            block,
            phases,
            branches: generator.branches,
        }
    }
}

impl Generator {
    fn statements(&mut self, depth: usize) -> Vec<Statement> {
        let count = 1 + self.random.below(4);
        (0..count).map(|_| self.statement(depth)).collect()
    }

    fn statement(&mut self, depth: usize) -> Statement {
        match self.random.below(if depth > 0 { 10 } else { 7 }) {
            0..=3 => Statement::Set(self.random.below(WORDS), self.word(3)),
            4..=5 => Statement::SetFloat(self.random.below(FLOATS), self.float(3)),
            6 => Statement::Store(self.word(1), self.word(2)),
            7..=8 => {
                self.branches += 1;
                let truth = self.truth(2);
                let then = self.statements(depth - 1);
                let other = match self.random.below(2) {
                    0 => Vec::new(),
                    _ => self.statements(depth - 1),
                };
                Statement::If(truth, then, other)
            }
            _ => {
                self.branches += 1;
                let until = (self.random.below(3) == 0).then(|| self.truth(1));
                Statement::Repeat(self.word(2), self.statements(depth - 1), until)
            }
        }
    }

    fn meeting(&mut self, whole_warps: bool) -> Meeting {
        let (dst, src) = (self.random.below(WORDS), self.random.below(WORDS));
        match self.random.below(if whole_warps { 7 } else { 3 }) {
            0 => Meeting::Exchange {
                dst,
                src,
                factor: self.random.below(7) as u32,
                offset: self.random.below(50) as u32,
            },
            1 => Meeting::Sum { dst, src },
            2 => Meeting::Count { dst, src },
            3 => Meeting::Ballot { dst, src },
            _ => Meeting::Shuffle {
                dst,
                src,
                mode: self.random.pick(&[
                    Shuffle::Down,
                    Shuffle::Up,
                    Shuffle::Butterfly,
                    Shuffle::Index,
                ]),
                amount: self.random.below(32) as u32,
            },
        }
    }

    fn word(&mut self, depth: usize) -> Word {
        if depth == 0 {
            return match self.random.below(6) {
                0..=2 => Word::Var(self.random.below(WORDS)),
                3 => Word::Thread,
                4 => Word::Block,
                _ => {
                    let wild = self.random.next() as u32;
                    Word::Const(
                        self.random
                            .pick(&[0, 1, 2, 31, 0x8000_0000, u32::MAX, wild]),
                    )
                }
            };
        }
        let inner = |generator: &mut Self| {
            let depth = generator.random.below(depth);
            Box::new(generator.word(depth))
        };
        match self.random.below(16) {
            0..=7 => {
                let op = self.random.pick(&[
                    WordOp::Add,
                    WordOp::Sub,
                    WordOp::Mul,
                    WordOp::MulHigh,
                    WordOp::MulHighSigned,
                    WordOp::And,
                    WordOp::Or,
                    WordOp::Xor,
                    WordOp::Shl,
                    WordOp::Shr,
                    WordOp::ShrSigned,
                    WordOp::Min,
                    WordOp::MaxSigned,
                    WordOp::Div,
                    WordOp::Rem,
                    WordOp::DivSigned,
                    WordOp::Wide,
                ]);
                Word::Op(op, inner(self), inner(self), inner(self))
            }
            8 => Word::Popcount(inner(self)),
            9 => Word::LeadingZeros(inner(self)),
            10 => {
                let truth = Box::new(self.truth(depth - 1));
                Word::Select(truth, inner(self), inner(self))
            }
            11..=12 => Word::Input(inner(self)),
            13 => Word::Local(inner(self)),
            14 => Word::Byte(inner(self)),
            _ => Word::FromFloat(Box::new(self.float(depth - 1))),
        }
    }

    fn float(&mut self, depth: usize) -> Float {
        if depth == 0 {
            return match self.random.below(4) {
                0 => Float::Const(self.random.pick(&[0.0, 1.0, -2.5, 1e-3, 3e8])),
                _ => Float::Var(self.random.below(FLOATS)),
            };
        }
        let inner = |generator: &mut Self| {
            let depth = generator.random.below(depth);
            Box::new(generator.float(depth))
        };
        match self.random.below(10) {
            0..=5 => {
                let op = self.random.pick(&[
                    FloatOp::Add,
                    FloatOp::Sub,
                    FloatOp::Mul,
                    FloatOp::Div,
                    FloatOp::Fma,
                    FloatOp::Min,
                    FloatOp::Double,
                ]);
                Float::Op(op, inner(self), inner(self), inner(self))
            }
            6 => Float::Negated(inner(self)),
            7 => Float::Root(inner(self)),
            8 => {
                let truth = Box::new(self.truth(depth - 1));
                Float::Select(truth, inner(self), inner(self))
            }
            _ => Float::FromWord(Box::new(self.word(depth - 1))),
        }
    }

    fn truth(&mut self, depth: usize) -> Truth {
        let relation = self
            .random
            .pick(&[Relation::Less, Relation::Equal, Relation::LessSigned]);
        match self.random.below(if depth > 0 { 6 } else { 4 }) {
            0..=2 => Truth::Words(relation, self.word(depth), self.word(depth)),
            3 => Truth::Floats(relation, self.float(depth), self.float(depth)),
            4 => Truth::And(
                Box::new(self.truth(depth - 1)),
                Box::new(self.truth(depth - 1)),
            ),
            _ => Truth::Not(Box::new(self.truth(depth - 1))),
        }
    }
}
