//! Entry points of the BPF programs, and nothing else.
//!
//! Each entry point reads its arguments from where its hook has them. It then calls the
//! same function as the other entry points for the same purpose. `match-proto:` names the
//! prototype that an entry point relies on.
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "the macros of the entry points make functions without these docs"
)]

mod arrival;
mod closing;
mod filter;
mod firing;
mod kernel;
mod maps;
mod owners;
mod registers;
mod ring;
mod running;
mod stall;

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::bpf_seq_write;
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe, raw_tracepoint};
use aya_ebpf::programs::{
    FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
};
use kaprobe_ebpf::config::{ABSENT, sight};
use kaprobe_ebpf::wire::{DESCRIPTOR_SIZE, SNAPSHOT_SIZE, Snapshot, VERSION, change};

use crate::kernel::config;
use crate::maps::state;
use crate::registers::{argument, returned};

/// match-proto: fn tcp_keepalive_timer(t)
#[fentry]
pub fn timer_fentry(ctx: FEntryContext) -> i32 {
    firing::enter(&ctx, ctx.arg(0));
    0
}

/// match-proto: fn tcp_keepalive_timer(t)
#[fexit]
pub fn timer_fexit(ctx: FExitContext) -> i32 {
    firing::exit(&ctx, ctx.arg(0), || true);
    0
}

/// match-proto: fn tcp_write_wakeup(sk, mib)
#[fexit]
pub fn wakeup_fexit(ctx: FExitContext) -> i32 {
    // What the function returned lies after its two arguments.
    firing::probed(ctx.arg(2));
    0
}

/// match-proto: fn tcp_keepalive_timer(t)
#[kprobe]
pub fn timer_kprobe(ctx: ProbeContext) -> u32 {
    firing::enter(&ctx, argument::<0>(&ctx));
    0
}

/// match-proto: fn tcp_keepalive_timer(t)
#[kretprobe]
pub fn timer_kretprobe(ctx: RetProbeContext) -> u32 {
    firing::exit(&ctx, 0, || true);
    0
}

/// match-proto: fn tcp_write_wakeup(sk, mib)
#[kretprobe]
pub fn wakeup_kretprobe(ctx: RetProbeContext) -> u32 {
    firing::probed(returned(&ctx) as i32);
    0
}

/// match-proto: tracepoint timer_expire_entry(timer)
#[raw_tracepoint(tracepoint = "timer_expire_entry")]
pub fn timer_expire_entry(ctx: RawTracePointContext) -> i32 {
    let timer = ctx.arg(0);
    if is_keepalive(timer) {
        firing::enter(&ctx, timer);
    }
    0
}

/// match-proto: tracepoint timer_expire_exit(timer)
#[raw_tracepoint(tracepoint = "timer_expire_exit")]
pub fn timer_expire_exit(ctx: RawTracePointContext) -> i32 {
    let timer = ctx.arg(0);
    firing::exit(&ctx, timer, || is_keepalive(timer));
    0
}

/// match-proto: fn tcp_send_active_reset(sk, [priority], [reason])
#[fentry]
pub fn reset_fentry(ctx: FEntryContext) -> i32 {
    firing::reset(ctx.arg(0), reason(|| ctx.arg(1), || ctx.arg(2)));
    0
}

/// match-proto: fn tcp_send_active_reset(sk, [priority], [reason])
#[kprobe]
pub fn reset_kprobe(ctx: ProbeContext) -> u32 {
    let second = || argument::<1>(&ctx) as u32;
    let third = || argument::<2>(&ctx) as u32;
    firing::reset(argument::<0>(&ctx), reason(second, third));
    0
}

/// Reports active resets: no segment caused them.
///
/// match-proto: tracepoint tcp_send_reset(sk, skb, [reason])
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn reset_tracepoint(ctx: RawTracePointContext) -> i32 {
    let (sk, skb): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let reason = match config!(reset_traced_with_reason) {
        0 => ABSENT,
        _ => ctx.arg(2),
    };
    if sk != 0 && skb == 0 {
        firing::reset(sk, reason);
    }
    0
}

/// match-proto: fn tcp_v4_send_reset(sk, skb, [reason])
#[fentry]
pub fn passive_v4_fentry(ctx: FEntryContext) -> i32 {
    let reason = passive_reason(|| ctx.arg(2));
    firing::passive(ctx.arg(0), ctx.arg(1), reason, sight::PASSIVE_RESET_V4);
    0
}

/// match-proto: fn tcp_v6_send_reset(sk, skb, [reason])
#[fentry]
pub fn passive_v6_fentry(ctx: FEntryContext) -> i32 {
    let reason = passive_reason(|| ctx.arg(2));
    firing::passive(ctx.arg(0), ctx.arg(1), reason, sight::PASSIVE_RESET_V6);
    0
}

/// match-proto: fn tcp_v4_send_reset(sk, skb, [reason])
#[kprobe]
pub fn passive_v4_kprobe(ctx: ProbeContext) -> u32 {
    passive_kprobe(&ctx, sight::PASSIVE_RESET_V4);
    0
}

/// match-proto: fn tcp_v6_send_reset(sk, skb, [reason])
#[kprobe]
pub fn passive_v6_kprobe(ctx: ProbeContext) -> u32 {
    passive_kprobe(&ctx, sight::PASSIVE_RESET_V6);
    0
}

#[inline(always)]
fn passive_kprobe(ctx: &ProbeContext, sight: usize) {
    let reason = passive_reason(|| argument::<2>(ctx) as u32);
    firing::passive(argument::<0>(ctx), argument::<1>(ctx), reason, sight);
}

/// Reports passive resets, which have the segment that caused them.
///
/// match-proto: tracepoint tcp_send_reset(sk, skb, [reason])
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn passive_tracepoint(ctx: RawTracePointContext) -> i32 {
    let (sk, skb): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let reason = match config!(reset_traced_with_reason) {
        0 => ABSENT,
        _ => ctx.arg(2),
    };
    if skb != 0 {
        firing::passive(sk, skb, reason, sight::PASSIVE_RESET_V4);
    }
    0
}

/// match-proto: tracepoint tcp_receive_reset(sk)
#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn receive_tracepoint(ctx: RawTracePointContext) -> i32 {
    firing::received(ctx.arg(0));
    0
}

/// match-proto: fn tcp_reset(sk, [skb])
#[fentry]
pub fn arrival_fentry(ctx: FEntryContext) -> i32 {
    firing::arrived(ctx.arg(0), ctx.arg(1));
    0
}

/// match-proto: fn tcp_reset(sk, [skb])
#[kprobe]
pub fn arrival_kprobe(ctx: ProbeContext) -> u32 {
    firing::arrived(argument::<0>(&ctx), argument::<1>(&ctx));
    0
}

/// match-proto: tracepoint inet_sock_set_state(sk, oldstate, newstate)
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn state_tracepoint(ctx: RawTracePointContext) -> i32 {
    closing::step(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// match-proto: tracepoint tcp_retransmit_skb(sk, skb, [err])
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn retransmit_tracepoint(ctx: RawTracePointContext) -> i32 {
    stall::retransmitted(ctx.arg(0), ctx.arg(1));
    0
}

/// Looks again at a socket whose data had stalled: its address, and when an event first
/// reported it. User space runs this program itself; it is attached to nothing.
///
/// aya has no macro for such a program.
///
/// # Safety
///
/// The caller must be the kernel, with two arguments.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
pub unsafe extern "C" fn look_again(ctx: *mut c_void) -> u32 {
    let ctx = RawTracePointContext::new(ctx);
    stall::look_again(ctx.arg(0), ctx.arg(1))
}

/// match-proto: tracepoint tcp_probe(sk, skb)
#[raw_tracepoint(tracepoint = "tcp_probe")]
pub fn segment_tracepoint(ctx: RawTracePointContext) -> i32 {
    firing::segment(ctx.arg(0), ctx.arg(1));
    0
}

/// match-proto: tracepoint tcp_destroy_sock(sk)
#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub fn destroy_tracepoint(ctx: RawTracePointContext) -> i32 {
    let sk = ctx.arg(0);
    learn(sk);
    firing::destroy(sk);
    0
}

/// match-proto: tracepoint sched_process_exit(p, [group_dead])
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exit_tracepoint(_: RawTracePointContext) -> i32 {
    owners::thread_ends();
    0
}

/// match-proto: tracepoint sched_process_exec(p, old_pid, bprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec_tracepoint(_: RawTracePointContext) -> i32 {
    owners::changed(change::EXECUTED);
    0
}

/// match-proto: tracepoint sched_process_fork(parent, child)
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn fork_tracepoint(ctx: RawTracePointContext) -> i32 {
    owners::forked(ctx.arg(1));
    0
}

/// match-proto: tracepoint task_rename(task, comm)
#[raw_tracepoint(tracepoint = "task_rename")]
pub fn rename_tracepoint(ctx: RawTracePointContext) -> i32 {
    owners::renamed(ctx.arg(0));
    0
}

/// match-proto: fn __receive_sock(file)
#[fentry]
pub fn received_fentry(ctx: FEntryContext) -> i32 {
    owners::received(ctx.arg(0));
    0
}

/// Writes one [`Snapshot`] for each socket that passes the filters.
///
/// aya has no macro for iterators.
///
/// match-proto: fn bpf_iter_tcp(meta, sk_common, uid)
///
/// # Safety
///
/// The caller must be the kernel, with the context of an iterator over sockets.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub unsafe extern "C" fn sockets(ctx: *mut c_void) -> i32 {
    let sk = kernel::iterated(ctx);
    if sk == 0 {
        return 0;
    }
    let mut snapshot = MaybeUninit::uninit();
    kernel::clear(&mut snapshot);
    // SAFETY: a snapshot has only integers, for which zero is a value.
    let snapshot: &mut Snapshot = unsafe { snapshot.assume_init_mut() };
    kernel::snapshot(sk, snapshot);
    if !filter::keeps(&snapshot.event.socket) {
        return 0;
    }
    snapshot.event.version = VERSION;
    // SAFETY: the context is the kernel's. A snapshot is integers without padding, all of
    // them set.
    unsafe { write(ctx, (&raw const *snapshot).cast(), SNAPSHOT_SIZE) };
    0
}

/// Writes one `Descriptor` for each descriptor of a process that refers to a socket.
///
/// match-proto: fn bpf_iter_task_file(meta, task, fd, file)
///
/// # Safety
///
/// The caller must be the kernel, with the context of an iterator over descriptors.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub unsafe extern "C" fn descriptors(ctx: *mut c_void) -> i32 {
    // SAFETY: the context is the kernel's.
    if let Some(descriptor) = unsafe { kernel::descriptor(ctx) } {
        // SAFETY: the context is the kernel's. A descriptor is integers without padding,
        // all of them set.
        unsafe { write(ctx, (&raw const descriptor).cast(), DESCRIPTOR_SIZE) };
    }
    0
}

/// Writes `size` bytes to the reader of an iterator. If there is no room for them, the
/// kernel asks for them again: `bpf_seq_read`, kernel/bpf/bpf_iter.c.
///
/// # Safety
///
/// `ctx` must be the context of an iterator's program, and `size` bytes must lie at
/// `from`, all of them set.
#[inline(always)]
unsafe fn write(ctx: *mut c_void, from: *const c_void, size: usize) {
    // SAFETY: the context of every iterator starts with a pointer to `bpf_iter_meta`, which
    // starts with a pointer to the `seq_file` (include/linux/bpf.h). The verifier knows
    // both types, and requires exactly these reads.
    let seq = unsafe { ctx.cast::<*const *mut seq_file>().read().read() };
    // SAFETY: the caller promises that `size` bytes are there.
    unsafe { bpf_seq_write(seq, from, size as u32) };
}

/// The reason among the arguments of `tcp_send_active_reset`, at the position where this
/// kernel has it; [`ABSENT`] if it has none.
///
/// There is one `if` for each position, and not one `match`: the compiler would turn a
/// `match` into a read at a computed place, which the verifier refuses.
#[inline(always)]
fn reason(second: impl FnOnce() -> u32, third: impl FnOnce() -> u32) -> u32 {
    let mut reason = ABSENT;
    if config!(reset_reason_at[1]) != 0 {
        reason = second();
    }
    if config!(reset_reason_at[2]) != 0 {
        reason = third();
    }
    reason
}

/// The third argument of `tcp_v4_send_reset` and `tcp_v6_send_reset` if it is the reason,
/// else [`ABSENT`].
#[inline(always)]
fn passive_reason(argument: impl FnOnce() -> u32) -> u32 {
    if config!(passive_with_reason) == 0 {
        ABSENT
    } else {
        argument()
    }
}

/// Whether a timer is a keepalive timer. The timer tracepoints see all timers.
#[inline(always)]
fn is_keepalive(timer: u64) -> bool {
    state!(timer_function) == kernel::timer_function(timer)
}

/// Gives user space the facts that only a socket holds, when the socket that it made for
/// them is destroyed.
#[inline(always)]
fn learn(sk: u64) {
    let cookie = state!(learn_cookie);
    if cookie == 0 || kernel::cookie(sk) != cookie {
        return;
    }
    let (keepalive_time, keepalive_intvl) = kernel::sysctls(sk);
    if let Some(learned) = maps::LEARNED.get_ptr_mut(0) {
        let timer_function = kernel::timer_function(kernel::timer_of(sk));
        // SAFETY: the slot outlives the program, and only one socket has that cookie.
        unsafe {
            (*learned).timer_function = timer_function;
            (*learned).keepalive_time = keepalive_time;
            (*learned).keepalive_intvl = keepalive_intvl;
        }
    }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // The verifier refuses a program that can reach this loop.
    loop {}
}
