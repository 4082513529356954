//! The maps that user space fills in or reads, apart from the ring buffer, and the
//! counting of what could not be delivered.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LpmTrie};
use kaprobe_ebpf::config::{Learned, State};
use kaprobe_ebpf::wire::counter;

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
