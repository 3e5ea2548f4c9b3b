//! What compiled code sees of a launch: the fields that it reads and writes by their offsets.

use super::shape::GROUP;

/// Where an access of one instruction was last found to be allowed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Site {
    /// First address of the range, a multiple of every access's size.
    pub start: u64,
    /// Numbers of multiples of the access's alignment in the range at which it may begin.
    pub places: u64,
    /// Bytes from the start at which an access may begin.
    pub room: u64,
    /// What an address needs to become the host's.
    pub delta: u64,
}

/// Values that go to the interpreter and back: a group's lanes of each operand.
pub const EXCHANGE: usize = 48;

#[repr(C)]
#[derive(Debug)]
pub struct Machine {
    /// Thread indices in the block by dimension.
    pub tid: [*const u32; 3],
    /// Frames of the block's groups.
    pub frames: *mut u32,
    /// How each group has left, and which of its lanes have branched.
    pub status: *mut u32,
    pub taken: *mut u32,
    pub params: *const u8,
    pub shared: *mut u8,
    /// Local memory of each warp's threads.
    pub locals: *const *mut u8,
    pub sites: *mut Site,
    pub exchange: *mut [u64; GROUP],
    /// What a global address needs to become the host's.
    pub delta: u64,
    pub grid_id: u64,
    pub total_shared: u64,
    /// The routine that has the interpreter execute an instruction.
    pub callout: usize,
    /// The worker, for that routine.
    pub worker_state: usize,
    pub ctaid: [u32; 3],
    pub nctaid: [u32; 3],
    pub ntid: [u32; 3],
    pub worker: u32,
    pub workers: u32,
    pub warps: u32,
    pub dynamic_shared: u32,
    /// Not 0 once an instruction has faulted.
    pub fault: u32,
    /// Not 0 once a group has left the code for blocks before the kernel's end.
    pub left: u32,
    /// Not 0 if a lane is not to stop for its group.
    pub alone: u32,
    /// `%lanemask_eq`, `le`, `lt`, `ge`, `gt` of each lane.
    pub lane_masks: [[u32; 32]; 5],
}

/// How a group or a lane has left compiled code: a kind in the upper bits, an instruction in the lower.
pub mod status {
    pub const KIND: u32 = 0xf000_0000;
    /// The kernel's end.
    pub const EXIT: u32 = 0;
    /// At an instruction that waits for other threads.
    pub const SUSPENDED: u32 = 1 << 28;
    /// At a branch whose lanes part: `taken` says which way.
    pub const PARTED: u32 = 2 << 28;
    /// To go on there after others have had their turn.
    pub const YIELDED: u32 = 3 << 28;
    /// To go on there as single lanes.
    pub const SINGLE: u32 = 4 << 28;
    /// To go on there together, if all lanes come.
    pub const STOPPED: u32 = 5 << 28;
    /// Ended by a fault.
    pub const FAULT: u32 = 6 << 28;
}
