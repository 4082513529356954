//! The maps, and the counting of what they could not hold.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap, LpmTrie, RingBuf},
};
use kaprobe_ebpf::{
    config::{Learned, State},
    wire::counter,
};

use crate::running::Firing;

/// Events on their way up; user space sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

/// Firings between entry and exit, one a CPU: user space sets the size.
#[map]
pub static FIRINGS: Array<Firing> = Array::with_max_entries(1, 0);

/// The same on PREEMPT_RT, where there may be more: user space sets the size to suit.
#[map]
pub static FIRINGS_PREEMPTED: HashMap<u64, Firing> = HashMap::with_max_entries(1, 0);

/// Sockets that an event has spoken of, by address.
#[map]
pub static SOCKETS: HashMap<u64, Known> = HashMap::with_max_entries(65_536, 0);

/// What could not be delivered: for each CPU in turn, one count for each [`counter`].
/// User space sets the size, and maps it into its memory: while a task looks a map up
/// by system call, the kernel runs no kprobe program on that CPU
/// (`bpf_disable_instrumentation`, include/linux/bpf.h), and what such a program then
/// misses is not counted before 6.7.
#[map]
pub static COUNTERS: Array<u64> = Array::with_max_entries(counter::COUNT, BPF_F_MMAPABLE);

/// What user space has set. It is all that `.bss` holds, and is set under that name.
pub static mut STATE: State = State::EMPTY;

/// A member of [`STATE`]. Volatile, as user space writes it at any time.
macro_rules! state {
    ($member:ident) => {
        // SAFETY: a place inside a static, aligned as its type is. Nothing refers to it.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::STATE.$member) }
    };
}
pub(crate) use state;

/// One [`Learned`].
#[map]
pub static LEARNED: Array<Learned> = Array::with_max_entries(1, 0);

/// Local ports to keep, a bit each.
#[map]
pub static LOCAL_PORTS: Array<u64> = Array::with_max_entries(1024, 0);

/// Remote ports to keep.
#[map]
pub static REMOTE_PORTS: Array<u64> = Array::with_max_entries(1024, 0);

/// Ports to keep on either side.
#[map]
pub static EITHER_PORTS: Array<u64> = Array::with_max_entries(1024, 0);

/// Networks to keep on either side; IPv4 as ::ffff:0:0/96.
#[map]
pub static ADDRESSES: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(256, 0);

/// What is remembered of a socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Known {
    /// See [`kaprobe_ebpf::wire::Event::born_ns`].
    pub born_ns: u64,
    /// 1 while a probe that was reported may be unanswered.
    pub probing: u64,
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(counter: u32) {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(n) = COUNTERS.get_ptr_mut(cpu * counter::COUNT + counter) {
        // SAFETY: the slot is this CPU's own, and the map outlives the program. On
        // PREEMPT_RT an increment may be lost to a preempting one; elsewhere none.
        // Volatile, as user space reads it at any time.
        unsafe { n.write_volatile(n.read_volatile() + 1) };
    }
}
