//! The maps that user space fills in or reads, apart from the ring buffer.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LpmTrie};
use kaprobe_ebpf::config::{Learned, State};
use kaprobe_ebpf::wire::counter;

/// Counts of what could not be delivered: for each CPU in turn, one for each [`counter`].
///
/// User space sets the size, and maps the counts into its memory. While a task reads a
/// map by system call, the kernel runs no kprobe program on that CPU
/// (`bpf_disable_instrumentation`, include/linux/bpf.h). Kernels before 6.7 do not count
/// what such a program then misses.
#[map]
pub static COUNTERS: Array<u64> = Array::with_max_entries(counter::COUNT, BPF_F_MMAPABLE);

/// State that user space sets. `.bss` holds nothing else, and user space sets it under
/// that name.
pub static mut STATE: State = State::EMPTY;

/// Reads a member of [`STATE`]. The read is volatile, as user space writes at any time.
macro_rules! state {
    ($member:ident) => {
        // SAFETY: the place is inside a static, and aligned as its type is. There are no
        // references to it.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::STATE.$member) }
    };
}
pub(crate) use state;

/// Facts that the programs read from a socket: one [`Learned`].
#[map]
pub static LEARNED: Array<Learned> = Array::with_max_entries(1, 0);

/// Notes what a program saw, one of [`sight`](kaprobe_ebpf::config::sight), if user space
/// tests that.
#[inline(always)]
pub fn note_sight(sight: usize) {
    if state!(self_test) == 0 {
        return;
    }
    if let Some(learned) = LEARNED.get_ptr_mut(0) {
        // SAFETY: the slot outlives the program, and the compiler knows that `sight` is within
        // the array. Every program writes the same value, and user space reads at any time.
        unsafe { (&raw mut (*learned).seen[sight]).write_volatile(1) }
    }
}

/// Local ports to keep, one bit for each port.
#[map]
pub static LOCAL_PORTS: Array<u64> = Array::with_max_entries(1024, 0);

/// Remote ports to keep, one bit for each port.
#[map]
pub static REMOTE_PORTS: Array<u64> = Array::with_max_entries(1024, 0);

/// Ports to keep on either side, one bit for each port.
#[map]
pub static EITHER_PORTS: Array<u64> = Array::with_max_entries(1024, 0);

/// Networks to keep on either side. IPv4 networks lie in ::ffff:0:0/96.
#[map]
pub static ADDRESSES: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(256, 0);

/// Adds one to a counter: one of [`counter`], or the kind of an event.
#[inline(always)]
pub fn count(counter: u32) {
    // SAFETY: the helper takes no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(n) = COUNTERS.get_ptr_mut(cpu * counter::COUNT + counter) {
        // SAFETY: the map has checked the index, and outlives the program. The slot is this
        // CPU's own. On PREEMPT_RT a preempting increment may undo this one; elsewhere no
        // increment is lost. The accesses are volatile, as user space reads at any time.
        unsafe { n.write_volatile(n.read_volatile() + 1) };
    }
}
