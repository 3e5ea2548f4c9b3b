//! How many misses of a program are under way at once.
//!
//! A core waits for a miss only when something needs its result. Within the window of instructions
//! that a core looks at, misses that do not depend on each other overlap; a chain of dependent ones,
//! such as a walk along a linked list, does not. So the instructions of a window are followed
//! through their registers: the longest chain of misses is how often the window waits.

use std::collections::HashMap;

use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory, OpAccess, Register};

/// Instructions that a core looks ahead: the reorder buffer of current server cores, rounded.
const WINDOW: u32 = 256;
/// Misses that one core can have under way: line-fill buffers and what prefetchers add.
pub const MOST: f64 = 12.0;
/// Ascending streams of lines that a prefetcher follows.
const STREAMS: usize = 16;
/// Longest instruction, bytes.
pub const LONGEST: usize = 15;
/// Registers that are followed: 16 general ones and 32 vector ones.
const REGISTERS: usize = 48;

/// What matters of an instruction, as sets of registers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Registers that addresses are made of.
    pub address: u64,
    /// Registers read otherwise.
    pub sources: u64,
    /// Registers written.
    pub results: u64,
    /// Whether it reads memory.
    pub loads: bool,
    /// Whether it enters the kernel.
    pub enters_kernel: bool,
}

/// Memory operands of an instruction, as (address, bytes, whether it is written).
pub type Operands = Vec<(u64, usize, bool)>;

/// Decodes instructions, each once.
pub struct Shapes {
    known: HashMap<u64, Shape>,
    factory: InstructionInfoFactory,
}

impl Default for Shapes {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            factory: InstructionInfoFactory::new(),
        }
    }
}

impl Shapes {
    /// The shape of the instruction at an address, whose bytes `fetch` provides. An instruction
    /// that cannot be read or decoded has no registers.
    pub fn get(&mut self, address: u64, fetch: impl FnOnce(&mut [u8]) -> usize) -> Shape {
        if let Some(&shape) = self.known.get(&address) {
            return shape;
        }
        let mut code = [0; LONGEST];
        let length = fetch(&mut code);
        let instruction = decode(&code[..length], address);
        let shape = self.shape(&instruction);
        self.known.insert(address, shape);
        shape
    }

    /// Sets of registers of a decoded instruction.
    pub fn shape(&mut self, instruction: &Instruction) -> Shape {
        let info = self.factory.info(instruction);
        let mut shape = Shape {
            enters_kernel: instruction.code() == iced_x86::Code::Syscall,
            ..Shape::default()
        };
        for used in info.used_memory() {
            shape.address |= bit(used.base()) | bit(used.index());
            shape.loads |= reads(used.access());
        }
        for used in info.used_registers() {
            if reads(used.access()) {
                shape.sources |= bit(used.register());
            }
            if writes(used.access()) {
                shape.results |= bit(used.register());
            }
        }
        // Registers that address are listed as read too; what waits for them is the load.
        shape.sources &= !shape.address;
        shape
    }

    /// Where a decoded instruction accesses memory, with registers as `value` gives them.
    pub fn operands(
        &mut self,
        instruction: &Instruction,
        mut value: impl FnMut(Register) -> Option<u64>,
    ) -> Operands {
        self.factory
            .info(instruction)
            .used_memory()
            .iter()
            .filter(|used| reads(used.access()) || writes(used.access()))
            .filter_map(|used| {
                let address = used.virtual_address(0, |register, _, _| value(register))?;
                Some((
                    address,
                    used.memory_size().size().max(1),
                    writes(used.access()),
                ))
            })
            .collect()
    }
}

/// Decodes 64-bit code at an address.
pub fn decode(code: &[u8], address: u64) -> Instruction {
    Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode()
}

fn reads(access: OpAccess) -> bool {
    use OpAccess::{CondRead, Read, ReadCondWrite, ReadWrite};
    matches!(access, Read | CondRead | ReadWrite | ReadCondWrite)
}

fn writes(access: OpAccess) -> bool {
    use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
    matches!(access, Write | CondWrite | ReadWrite | ReadCondWrite)
}

/// The bit of a register; 0 for one that is not followed. The stack pointer is not: pushes and pops
/// would chain everything, which cores avoid.
fn bit(register: Register) -> u64 {
    let full = register.full_register();
    let number = full.number();
    if full == Register::RSP {
        0
    } else if full.is_gpr64() {
        1 << number
    } else if full.is_vector_register() && number < 32 {
        1 << (16 + number)
    } else {
        0
    }
}

/// Follows misses through registers.
#[derive(Debug, Clone)]
pub struct Dataflow {
    /// Misses that each register's value has waited for, one after another.
    depth: [u32; REGISTERS],
    deepest: u32,
    misses: u32,
    instructions: u32,
    streams: [u64; STREAMS],
    next_stream: usize,
    total_misses: f64,
    total_waits: f64,
}

impl Default for Dataflow {
    fn default() -> Self {
        Self {
            depth: [0; REGISTERS],
            deepest: 0,
            misses: 0,
            instructions: 0,
            streams: [u64::MAX / 2; STREAMS],
            next_stream: 0,
            total_misses: 0.0,
            total_waits: 0.0,
        }
    }
}

impl Dataflow {
    /// One instruction, with the lines that it missed.
    pub fn step(&mut self, shape: Shape, missed: &[u64]) {
        let mut waits = false;
        for &line in missed {
            self.misses += 1;
            // What a prefetcher has seen coming is under way before anybody depends on it.
            waits |= shape.loads && !self.prefetched(line);
        }
        let through_load = self.depth_of(shape.address) + u32::from(waits);
        let other = self.depth_of(shape.sources);
        let depth = if shape.loads {
            through_load.max(other)
        } else {
            other
        };
        if waits {
            self.deepest = self.deepest.max(through_load);
        }
        let mut results = shape.results;
        while results != 0 {
            let register = results.trailing_zeros() as usize;
            if let Some(slot) = self.depth.get_mut(register) {
                *slot = depth;
            }
            results &= results - 1;
        }
        self.instructions += 1;
        if self.instructions >= WINDOW {
            self.close();
        }
    }

    /// Shows lines to the prefetcher only.
    pub fn train(&mut self, lines: &[u64]) {
        for &line in lines {
            self.prefetched(line);
        }
    }

    /// Lets what was seen so far count less.
    pub fn fade(&mut self, share: f64) {
        self.total_misses *= share;
        self.total_waits *= share;
    }

    /// Mean number of misses under way while any was, if there were any; 1 to [`MOST`].
    pub fn parallelism(&self) -> Option<f64> {
        let waits = self.total_waits + self.open_waits();
        let misses = self.total_misses + f64::from(self.misses);
        (misses > 0.0).then(|| (misses / waits).clamp(1.0, MOST))
    }

    /// Ends a window.
    pub fn close(&mut self) {
        self.total_misses += f64::from(self.misses);
        self.total_waits += self.open_waits();
        self.depth = [0; REGISTERS];
        (self.deepest, self.misses, self.instructions) = (0, 0, 0);
    }

    fn open_waits(&self) -> f64 {
        f64::from(self.deepest).max(f64::from(self.misses) / MOST)
    }

    fn depth_of(&self, mut set: u64) -> u32 {
        let mut depth = 0;
        while set != 0 {
            let register = set.trailing_zeros() as usize;
            depth = depth.max(self.depth.get(register).copied().unwrap_or(0));
            set &= set - 1;
        }
        depth
    }

    fn prefetched(&mut self, line: u64) -> bool {
        if let Some(stream) = self
            .streams
            .iter_mut()
            .find(|last| line.wrapping_sub(**last).wrapping_sub(1) < 2)
        {
            *stream = line;
            return true;
        }
        self.streams[self.next_stream] = line;
        self.next_stream = (self.next_stream + 1) % STREAMS;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// mov rax, [rax]
    const CHASE: [u8; 3] = [0x48, 0x8b, 0x00];
    /// mov rbx, [rdi + rcx*8]
    const INDEXED: [u8; 4] = [0x48, 0x8b, 0x1c, 0xcf];

    fn shape(code: &[u8]) -> Shape {
        Shapes::default().get(0x1000, |bytes| {
            bytes[..code.len()].copy_from_slice(code);
            code.len()
        })
    }

    #[test]
    fn a_walk_along_a_list_has_one_miss_under_way() {
        let mut flow = Dataflow::default();
        for i in 0..2000 {
            flow.step(shape(&CHASE), &[i * 1000]);
        }
        assert_eq!(flow.parallelism(), Some(1.0));
    }

    #[test]
    fn independent_loads_overlap_as_far_as_a_core_can() {
        let mut flow = Dataflow::default();
        for i in 0..2000 {
            flow.step(shape(&INDEXED), &[i * 1000]);
        }
        assert_eq!(flow.parallelism(), Some(MOST));
    }

    #[test]
    fn a_stream_is_prefetched_even_where_loads_depend_on_each_other() {
        let mut flow = Dataflow::default();
        for i in 0..2000 {
            flow.step(shape(&CHASE), &[i]);
        }
        assert!(flow.parallelism().unwrap() > 0.9 * MOST);
    }

    #[test]
    fn nothing_missed_means_nothing_to_say() {
        let mut flow = Dataflow::default();
        flow.step(shape(&CHASE), &[]);
        assert_eq!(flow.parallelism(), None);
    }

    #[test]
    fn operands_are_found_from_register_values() {
        let instruction = decode(&INDEXED, 0);
        let operands = Shapes::default().operands(&instruction, |register| match register {
            Register::RDI => Some(0x7000),
            Register::RCX => Some(3),
            _ => Some(0),
        });
        assert_eq!(operands, [(0x7018, 8, false)]);
    }
}
