//! Firings between their entry and their exit, and how the one finds the other.
//!
//! Timers run in a softirq, and there one after the other: a firing is its CPU's only
//! one, and has the CPU's place to itself. Not so on PREEMPT_RT, where a softirq can be
//! preempted, and another run meanwhile.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use kaprobe_ebpf::config::key;
use kaprobe_ebpf::wire::{Event, counter};

use crate::kernel::config;
use crate::maps::{count, state};

/// Firings between entry and exit, one a CPU: user space sets the size.
#[map]
static FIRINGS: Array<Firing> = Array::with_max_entries(1, 0);

/// The same on PREEMPT_RT, where there may be more: user space sets the size to suit.
#[map]
static FIRINGS_PREEMPTED: HashMap<u64, Firing> = HashMap::with_max_entries(1, 0);

/// A firing between its entry and its exit.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Firing {
    /// Its timer's address; 0 where none runs.
    timer: u64,
    /// What is known of it so far.
    pub event: Event,
    /// 1 once `tcp_destroy_sock` was seen inside.
    pub destroyed: u64,
}

/// In read-only memory, as the stack has no room to build one.
static EMPTY: Firing = Firing {
    timer: 0,
    event: Event::EMPTY,
    destroyed: 0,
};

/// A place for the firing that begins. `event` is what it was when the place was last
/// used.
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
        // SAFETY: likewise.
        unsafe { begin_preempted(timer) }?
    };
    if firing.timer != 0 {
        // Left by a firing whose exit was missed.
        count(counter::EXIT_MISSED);
    }
    firing.timer = timer;
    firing.destroyed = 0;
    Some(firing)
}

/// The firing that this context runs, if it runs one. `timer` is 0 where the hook does
/// not know it.
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
        // SAFETY: likewise.
        unsafe { preempted(key_of(timer)) }?
    };
    let is_it = firing.timer != 0 && (timer == 0 || timer == firing.timer);
    is_it.then_some(firing)
}

/// Gives a firing's place back, and takes the last reference to it.
#[inline(always)]
pub fn end(firing: &'static mut Firing) {
    let timer = core::mem::take(&mut firing.timer);
    if config!(preempt_rt) != 0 {
        let _gone_already = FIRINGS_PREEMPTED.remove(key_of(timer));
    }
}

/// The place of this CPU's firing.
///
/// # Safety
///
/// The program must hold no other reference to it.
#[inline(always)]
unsafe fn of_this_cpu() -> Option<&'static mut Firing> {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let firing = FIRINGS.get_ptr_mut(cpu)?;
    // SAFETY: a value of an array is there as long as the map. It is this CPU's own,
    // and is written by timers only, and by what they call; the caller promises that
    // this program has no other reference.
    Some(unsafe { &mut *firing })
}

/// The place of this context's firing on PREEMPT_RT, made if there is none.
///
/// # Safety
///
/// The program must hold no other reference to it.
#[inline(always)]
unsafe fn begin_preempted(timer: u64) -> Option<&'static mut Firing> {
    let key = key_of(timer);
    // SAFETY: the caller promises the same.
    if let Some(left) = unsafe { preempted(key) } {
        return Some(left);
    }
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "a value would be built on the stack, which has no room for it"
    )]
    FIRINGS_PREEMPTED.insert(key, &EMPTY, 0).ok()?;
    // SAFETY: as above; the first call gave no reference.
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
    // SAFETY: a value of a preallocated map, this context's own until it is removed; the
    // caller promises that this program has no other reference.
    Some(unsafe { &mut *firing })
}

/// What both ends of a firing know it by. The timer's address where both see it;
/// a kretprobe sees no argument, but runs on the CPU and task of its entry.
#[inline(always)]
fn key_of(timer: u64) -> u64 {
    if state!(key) == key::TIMER {
        return timer;
    }
    // Task 0 is current on every idle CPU, so the CPU counts too.
    // SAFETY: helpers without arguments.
    unsafe { bpf_get_current_pid_tgid() << 32 | bpf_get_smp_processor_id() as u64 }
}
