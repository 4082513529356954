//! Firings between their entry and their exit, and how the exit finds the entry's values.
//!
//! Timers run in a softirq, one after the other. So a CPU has at most one firing, and each
//! CPU has one place for it. On PREEMPT_RT, a softirq can be preempted, and another can
//! run in the meantime, so a map holds the firings by CPU and task. A hook that another
//! context calls for the same socket never finds the firing.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use kaprobe_ebpf::wire::{Event, counter};

use crate::kernel::{Owner, config};
use crate::maps::count;

/// Firings between entry and exit, one for each CPU. User space sets the size.
#[map]
static FIRINGS: Array<Firing> = Array::with_max_entries(1, 0);

/// Firings between entry and exit on PREEMPT_RT, where a CPU may have more than one. User
/// space sets a size that suits.
#[map]
static FIRINGS_PREEMPTED: HashMap<u64, Firing> = HashMap::with_max_entries(1, 0);

/// A firing between its entry and its exit.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Firing {
    /// Address of the timer; 0 if no firing is here.
    timer: u64,
    /// What is known of the firing so far.
    pub event: Event,
    /// The socket's owner, but for `net` only if `has_owner`.
    pub owner: Owner,
    /// 1 once `tcp_destroy_sock` was seen during the firing.
    pub destroyed: u32,
    /// 1 once the socket's owner was found, while the timer had the socket's lock.
    pub has_owner: u32,
}

/// An empty place. It lies in read-only memory, as the stack has no room to build one.
static EMPTY: Firing = Firing {
    timer: 0,
    event: Event::EMPTY,
    owner: Owner::NONE,
    destroyed: 0,
    has_owner: 0,
};

/// Takes a place for a firing that begins. Its `event` still has the values of the firing
/// that used the place last.
///
/// # Safety
///
/// The program must hold no other reference to a firing.
#[inline(always)]
pub unsafe fn begin(timer: u64) -> Option<&'static mut Firing> {
    let firing = if config!(preempt_rt) == 0 {
        // SAFETY: the caller promises the same.
        unsafe { of_this_cpu() }?
    } else {
        // SAFETY: the caller promises the same.
        unsafe { begin_preempted() }?
    };
    if firing.timer != 0 {
        // The exit of an earlier firing was missed, so the place still has its timer.
        count(counter::EXIT_MISSED);
    }
    firing.timer = timer;
    firing.destroyed = 0;
    firing.has_owner = 0;
    Some(firing)
}

/// Finds the firing that runs in this context. `timer` is 0 if the hook does not know it.
///
/// # Safety
///
/// The program must hold no other reference to a firing.
#[inline(always)]
pub unsafe fn find(timer: u64) -> Option<&'static mut Firing> {
    let firing = if config!(preempt_rt) == 0 {
        // SAFETY: the caller promises the same.
        unsafe { of_this_cpu() }?
    } else {
        // SAFETY: the caller promises the same.
        unsafe { preempted(key_of_this()) }?
    };
    let is_it = firing.timer != 0 && (timer == 0 || timer == firing.timer);
    is_it.then_some(firing)
}

/// Gives a firing's place back, and takes the last reference to it.
#[inline(always)]
pub fn end(firing: &'static mut Firing) {
    firing.timer = 0;
    if config!(preempt_rt) != 0 {
        let _gone_already = FIRINGS_PREEMPTED.remove(key_of_this());
    }
}

/// The place of this CPU's firing.
///
/// # Safety
///
/// The program must hold no other reference to it.
#[inline(always)]
unsafe fn of_this_cpu() -> Option<&'static mut Firing> {
    // SAFETY: the helper takes no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let firing = FIRINGS.get_ptr_mut(cpu)?;
    // SAFETY: a value of an array exists as long as the map. This one is the CPU's own:
    // only timers and the functions that they call write it. The caller promises that the
    // program has no other reference.
    Some(unsafe { &mut *firing })
}

/// The place of this context's firing on PREEMPT_RT. It is made if there is none.
///
/// # Safety
///
/// The program must hold no other reference to it.
#[inline(always)]
unsafe fn begin_preempted() -> Option<&'static mut Firing> {
    let key = key_of_this();
    // SAFETY: the caller promises the same.
    if let Some(left) = unsafe { preempted(key) } {
        return Some(left);
    }
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "a value would be built on the stack, which has no room for it"
    )]
    FIRINGS_PREEMPTED.insert(key, &EMPTY, 0).ok()?;
    // SAFETY: the caller promises the same, and the first call gave no reference.
    unsafe { preempted(key) }
}

/// The place of this context's firing on PREEMPT_RT.
///
/// # Safety
///
/// The program must hold no other reference to it.
#[inline(always)]
unsafe fn preempted(key: u64) -> Option<&'static mut Firing> {
    let firing = FIRINGS_PREEMPTED.get_ptr_mut(key)?;
    // SAFETY: a value of a preallocated map stays mapped, and is this context's own until
    // it is removed. The caller promises that the program has no other reference.
    Some(unsafe { &mut *firing })
}

/// The key of this context's firing: CPU and task. A softirq runs in a task, and stays on
/// its CPU (`__local_bh_disable_ip`, kernel/softirq.c, disables migration).
#[inline(always)]
fn key_of_this() -> u64 {
    // Task 0 is current on every idle CPU, so the key needs the CPU too.
    // SAFETY: the helpers take no arguments.
    unsafe { bpf_get_current_pid_tgid() << 32 | bpf_get_smp_processor_id() as u64 }
}
