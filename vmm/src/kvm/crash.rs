//! A dead guest: what killed it and where it stood.

use std::fmt;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// The longest instruction has 15 bytes.
const CODE_BYTES: usize = 16;

/// Why a guest cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An exception while delivering an exception while delivering an exception.
    TripleFault,
    /// KVM gave up.
    InternalError {
        /// KVM's code: 1 is an instruction that it cannot emulate.
        suberror: u32,
        /// What KVM adds to it.
        data: Vec<u64>,
    },
    /// The processor refused to enter the guest.
    FailedEntry {
        /// The processor's reason.
        reason: u64,
    },
    /// `KVM_RUN` failed, for one because the guest touched memory whose file was cut short.
    RunFailed(kvm_ioctls::Error),
    /// KVM left the guest for a reason that has no meaning here.
    Unexpected(String),
    /// The thread that runs the vCPU ended on a fault of this program.
    Panicked,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripleFault => write!(f, "triple fault"),
            Self::InternalError { suberror, data } => {
                let what = match suberror {
                    1 => "an instruction that KVM cannot emulate",
                    2 => "exceptions that KVM cannot deliver together",
                    3 => "an exit while an event was being delivered",
                    _ => "a fault inside KVM",
                };
                write!(f, "{what} (suberror {suberror}, data {data:x?})")
            }
            Self::FailedEntry { reason } => {
                write!(
                    f,
                    "the processor refused the guest state (reason {reason:#x})"
                )
            }
            Self::RunFailed(errno) => write!(f, "KVM_RUN failed: {errno}"),
            Self::Unexpected(exit) => write!(f, "unexpected exit: {exit}"),
            Self::Panicked => write!(f, "the vCPU thread panicked"),
        }
    }
}

/// The register dump of a dead guest. `Display` prints it over several lines.
#[derive(Clone, Debug)]
pub struct Crash {
    /// The processor that died.
    pub vcpu: u8,
    /// Why.
    pub cause: Cause,
    registers: Option<(kvm_regs, kvm_sregs)>,
    /// The bytes at RIP; empty if it points nowhere.
    code: Vec<u8>,
}

impl Crash {
    /// A crash without registers.
    pub(super) fn new(vcpu: u8, cause: Cause) -> Self {
        Self {
            vcpu,
            cause,
            registers: None,
            code: Vec::new(),
        }
    }

    /// Reads the registers of `fd` and the bytes at RIP; whatever cannot be read is left out.
    pub(super) fn capture(vcpu: u8, cause: Cause, fd: &VcpuFd, memory: &GuestMemoryMmap) -> Self {
        let registers = fd
            .get_regs()
            .and_then(|regs| Ok((regs, fd.get_sregs()?)))
            .ok();
        let code = registers
            .as_ref()
            .and_then(|(regs, sregs)| fd.translate_gva(sregs.cs.base.wrapping_add(regs.rip)).ok())
            .filter(|translation| translation.valid != 0)
            .map(|translation| code_at(memory, translation.physical_address))
            .unwrap_or_default();
        Self {
            vcpu,
            cause,
            registers,
            code,
        }
    }
}

/// Up to [`CODE_BYTES`] bytes, as far as there is memory.
fn code_at(memory: &GuestMemoryMmap, address: u64) -> Vec<u8> {
    let mut code = [0; CODE_BYTES];
    let read = memory.read(&mut code, GuestAddress(address)).unwrap_or(0);
    code.into_iter().take(read).collect()
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the guest died on vCPU {}: {}", self.vcpu, self.cause)?;
        let Some((regs, sregs)) = &self.registers else {
            return Ok(());
        };
        let rows = [
            [
                ("rip", regs.rip),
                ("flg", regs.rflags),
                ("rsp", regs.rsp),
                ("rbp", regs.rbp),
            ],
            [
                ("rax", regs.rax),
                ("rbx", regs.rbx),
                ("rcx", regs.rcx),
                ("rdx", regs.rdx),
            ],
            [
                ("rsi", regs.rsi),
                ("rdi", regs.rdi),
                ("r8 ", regs.r8),
                ("r9 ", regs.r9),
            ],
            [
                ("r10", regs.r10),
                ("r11", regs.r11),
                ("r12", regs.r12),
                ("r13", regs.r13),
            ],
            [
                ("r14", regs.r14),
                ("r15", regs.r15),
                ("cr0", sregs.cr0),
                ("cr2", sregs.cr2),
            ],
            [
                ("cr3", sregs.cr3),
                ("cr4", sregs.cr4),
                ("cr8", sregs.cr8),
                ("efr", sregs.efer),
            ],
        ];
        for row in rows {
            write!(f, "\n ")?;
            for (name, value) in row {
                write!(f, " {name} {value:016x}")?;
            }
        }
        for (name, s) in [
            ("cs", sregs.cs),
            ("ss", sregs.ss),
            ("ds", sregs.ds),
            ("tr", sregs.tr),
        ] {
            let kvm_segment {
                selector,
                base,
                limit,
                type_,
                dpl,
                db,
                l,
                ..
            } = s;
            write!(
                f,
                "\n  {name}  {selector:04x} base {base:016x} limit {limit:08x}"
            )?;
            write!(f, " type {type_:x} dpl {dpl} db {db} l {l}")?;
        }
        for (name, table) in [("gdt", sregs.gdt), ("idt", sregs.idt)] {
            write!(
                f,
                "\n  {name} base {:016x} limit {:04x}",
                table.base, table.limit
            )?;
        }
        write!(f, "\n  code at rip:")?;
        if self.code.is_empty() {
            write!(f, " not mapped")?;
        }
        self.code
            .iter()
            .try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}
