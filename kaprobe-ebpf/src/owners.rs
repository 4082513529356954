//! Reports what may give a socket another owner, or its owner another name.
//!
//! A process loses or shares its descriptors when it ends, executes a program, forks, or
//! when another process receives one of them. It can also close one that it shares, which no
//! tracepoint tells: user space finds that.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, RingBuf};
use kaprobe_ebpf::config::{PIDS, sight};
use kaprobe_ebpf::wire::{OwnerChange, change, counter};

use crate::kernel;
use crate::maps::{count, note_sight, state};

/// The processes to report, one bit for each number. Only user space writes them.
#[map]
static WATCHED: Array<u64> = Array::with_max_entries(PIDS / u64::BITS, BPF_F_MMAPABLE);

/// Changes on their way to user space, which looks for them before it names an owner: no
/// change wakes it up.
#[map]
static OWNER_CHANGES: RingBuf = RingBuf::with_byte_size(1 << 16, 0);

/// Reports the end of the current thread if it is the main thread: /proc then no longer
/// shows the descriptors of its process.
#[inline(always)]
pub fn thread_ends() {
    let ids = bpf_get_current_pid_tgid();
    if ids as u32 == (ids >> 32) as u32 {
        changed(change::ENDED);
    }
}

/// Reports that the current process made a child, if it is not a thread.
#[inline(always)]
pub fn forked(child: u64) {
    if kernel::process_of(child) != current_process() {
        changed(change::FORKED);
    }
}

/// Reports another name of a thread of the current process, if it is the main thread. Only
/// a process itself names its threads (`comm_write`, fs/proc/base.c).
#[inline(always)]
pub fn renamed(task: u64) {
    if kernel::is_main_thread(task) {
        changed(change::RENAMED);
    }
}

/// Reports a change of the current process, if it is watched.
#[inline(always)]
pub fn changed(what: u32) {
    let process = current_process();
    if is_watched(process) {
        report(process as u64, what);
    }
}

/// Reports that the current process received a descriptor, if it is one of a socket.
#[inline(always)]
pub fn received(file: u64) {
    note_sight(sight::RECEIVED_DESCRIPTOR);
    if state!(armed_ns) == 0 {
        return;
    }
    if let Some(inode) = kernel::socket_inode(file) {
        report(inode, change::RECEIVED);
    }
}

#[inline(always)]
fn current_process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[inline(always)]
fn is_watched(process: u32) -> bool {
    let Some(word) = WATCHED.get_ptr(process / u64::BITS) else {
        return false;
    };
    // SAFETY: the map has checked the index, and outlives the program. The read is volatile,
    // as user space writes at any time.
    let word = unsafe { word.read_volatile() };
    word >> (process % u64::BITS) & 1 != 0
}

#[inline(always)]
fn report(subject: u64, what: u32) {
    let change = OwnerChange {
        subject,
        what,
        reserved: 0,
    };
    let no_wakeup = BPF_RB_NO_WAKEUP as u64;
    if OWNER_CHANGES
        .output::<OwnerChange>(&change, no_wakeup)
        .is_err()
    {
        count(counter::OWNER_CHANGE_LOST);
    }
}
