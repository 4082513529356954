//! A firing of the keepalive timer from its entry to its exit, and the row that it took of
//! the decision tree of `tcp_keepalive_timer` (net/ipv4/tcp_timer.c). The other events of
//! a socket are here too.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use kaprobe_ebpf::config::ABSENT;
use kaprobe_ebpf::wire::{Event, cause, counter, flag, kind};

use crate::filter;
use crate::kernel::{
    TCP_CLOSE, TCP_FIN_WAIT2, TCP_FLAG_RST, Unread, answers_probes, config, describe, dissect,
    is_gone, look, look_again, name, now_ns, probes_out, socket_of, timer_of,
};
use crate::maps::{count, state};
use crate::ring::{send, send_answered, send_closed, send_closed_by, send_other, send_passive};
use crate::running::{self, Firing};

/// Time after arming during which an exit without entry may belong to a firing that began
/// before arming. It is far longer than any softirq runs.
const ARMING_NS: u64 = 1_000_000_000;

/// Whether user space has armed the programs.
#[inline(always)]
fn armed() -> bool {
    state!(armed_ns) != 0
}

/// Starts a firing: the timer's function is about to run. Values that the function may
/// change are read now. The rest is read at exit, if the event is wanted.
#[inline(always)]
pub fn enter<C: EbpfContext>(ctx: &C, timer: u64) {
    let sk = socket_of(timer);
    if !armed() || !filter::keeps(&Unread(sk)) {
        return;
    }
    // SAFETY: this is the program's only reference to a firing.
    let Some(firing) = (unsafe { running::begin(timer) }) else {
        count(counter::FIRING_UNTRACKED);
        if config!(debug) != 0 {
            debug!(ctx, "no room for a firing of socket {:x}", sk);
        }
        return;
    };
    let event = &mut firing.event;
    event.socket.sk = sk;
    event.flags = if state!(resets_seen) != 0 {
        flag::RESETS_SEEN
    } else {
        0
    };
    event.firing_ns = 0;
    event.reason = 0;
    look(sk, event);
}

/// Ends a firing: the timer's function has run. `timer` is 0 if the hook does not know it.
#[inline(always)]
pub fn exit<C: EbpfContext>(ctx: &C, timer: u64) {
    // SAFETY: this is the program's only reference to a firing.
    let Some(firing) = (unsafe { running::find(timer) }) else {
        let armed_ns = state!(armed_ns);
        if !filter::any() && armed_ns != 0 && now_ns() > armed_ns + ARMING_NS {
            count(counter::ENTRY_MISSED);
        }
        return;
    };
    let destroyed = firing.destroyed != 0;
    let event = &mut firing.event;
    let sk = event.socket.sk;
    look_again(sk, event);
    (event.kind, event.cause) = classify(event, destroyed, state!(hz));
    if config!(debug) != 0 && event.kind == kind::UNCLASSIFIED {
        debug!(
            ctx,
            "socket {:x}: unclassified: state {} to {}, probes {} to {}, expires in {}",
            sk,
            event.state,
            event.state_after,
            event.probes_out,
            event.probes_out_after,
            event.expires_after.wrapping_sub(event.jiffies_after)
        );
    }
    send(event, |event| {
        if !destroyed {
            name(sk, event);
        }
    });
    // Another CPU may have destroyed the socket once the function had released it. That
    // CPU's program looked for it in the table before this one had put it there.
    if destroyed || is_gone(sk) {
        send_closed_by(event);
    }
    running::end(firing);
}

/// Reports a call of `tcp_send_active_reset`. `reason` is [`ABSENT`] if this kernel gives
/// none.
#[inline(always)]
pub fn reset(sk: u64, reason: u32) {
    if !armed() || !filter::keeps(&Unread(sk)) {
        return;
    }
    let has_reason = if reason == ABSENT {
        0
    } else {
        flag::HAS_REASON
    };
    let mut firing_ns = 0;
    let mut in_timer = 0;
    // SAFETY: this is the program's only reference to a firing.
    if let Some(firing) = unsafe { running(sk) } {
        firing_ns = firing.event.mono_ns;
        in_timer = flag::RESET_IN_TIMER;
        firing.event.firing_ns = firing_ns;
        firing.event.flags |= in_timer | has_reason;
        firing.event.reason = reason;
    }
    send_other(kind::RST_SENT, |event| {
        event.flags = in_timer | has_reason;
        event.reason = reason;
        event.firing_ns = firing_ns;
        describe(sk, event);
    });
}

/// Reports a trace of `tcp_receive_reset`: the socket is still as it was before the reset.
#[inline(always)]
pub fn received(sk: u64) {
    if armed() && filter::keeps(&Unread(sk)) {
        send_other(kind::RST_RECEIVED, |event| describe(sk, event));
    }
}

/// Reports a reset that is about to answer the segment in `skb`. `sk` is the socket or
/// minisock that the segment met, or 0 if it met none.
#[inline(always)]
pub fn passive(sk: u64, skb: u64, reason: u32) {
    if !armed() {
        return;
    }
    send_passive(|event| {
        dissect(sk, skb, event);
        event.mono_ns = now_ns();
        event.reason = reason;
        if reason != ABSENT {
            event.flags = flag::HAS_REASON;
        }
        // `tcp_v4_send_reset` returns early on a reset: it never answers one.
        event.segment_flags & TCP_FLAG_RST == 0 && filter::keeps(&event.socket)
    });
}

/// Reports a segment that answers probes. `tcp_probe` was traced: the segment came in on a
/// connection, and the kernel has not handled it yet. Nearly all segments come while no
/// probe is out, so that is checked first.
#[inline(always)]
pub fn segment(sk: u64, skb: u64) {
    if probes_out(sk) == 0 || !armed() {
        return;
    }
    send_answered(sk, |event| {
        let answers = answers_probes(sk, skb);
        if answers {
            describe(sk, event);
        }
        answers
    });
}

/// Reports the end of a socket. `tcp_destroy_sock` was traced: from now on, another socket
/// can have the address.
#[inline(always)]
pub fn destroy(sk: u64) {
    if !armed() {
        return;
    }
    // SAFETY: this is the program's only reference to a firing.
    if let Some(firing) = unsafe { running(sk) } {
        // The firing is sent first, and its exit sends the end. Its name is read now, while
        // the socket still exists.
        firing.destroyed = 1;
        name(sk, &mut firing.event);
        return;
    }
    send_closed(sk, |event| describe(sk, event));
}

/// Finds the firing that runs on this socket in this context.
///
/// # Safety
///
/// The program must hold no other reference to a firing.
#[inline(always)]
unsafe fn running(sk: u64) -> Option<&'static mut Firing> {
    // SAFETY: the caller promises the same.
    unsafe { running::find(timer_of(sk)) }
}

/// The outcome of a firing, as the values before and after it prove.
///
/// A change that the firing made is checked first, since it proves itself. If the firing
/// changed only the timer, its new expiry shows how long the kernel chose to wait, and
/// that shows why. The kernel adds that wait to a jiffy between entry and exit, so the
/// comparison is exact and needs no tolerance.
#[inline(always)]
fn classify(event: &Event, destroyed: bool, hz: u32) -> (u16, u8) {
    let has = |bit| event.flags & bit != 0;
    let pending = has(flag::PENDING_AFTER);
    let busy = pending && rearmed_for(event, hz / 20);

    if event.state == TCP_FIN_WAIT2 && has(flag::DEAD) {
        return if destroyed || has(flag::RESET_IN_TIMER) {
            (kind::FIN_WAIT2, cause::NONE)
        } else if busy {
            (kind::BUSY, cause::NONE)
        } else {
            (kind::UNCLASSIFIED, cause::NONE)
        };
    }
    let closed = event.state_after == TCP_CLOSE && event.state != TCP_CLOSE;
    if !pending && (closed || destroyed || has(flag::RESET_IN_TIMER)) {
        // This is the kernel's own test: if there is a user timeout, the count is ignored.
        return if event.user_timeout != 0 {
            (kind::TIMEOUT, cause::USER_TIMEOUT)
        } else {
            (kind::TIMEOUT, cause::PROBE_COUNT)
        };
    }
    (waiting(event, pending, busy, hz), cause::NONE)
}

/// The outcome of a firing that left the connection as it was.
#[inline(always)]
fn waiting(event: &Event, pending: bool, busy: bool, hz: u32) -> u16 {
    let time = or(event.keepalive_time, event.sysctl_time);
    let intvl = or(event.keepalive_intvl, event.sysctl_intvl);
    // The kernel computes it in `keepalive_time_elapsed`, include/net/tcp.h: wrapping,
    // unsigned.
    let elapsed = (event.jiffies.wrapping_sub(event.lrcvtime))
        .min(event.jiffies.wrapping_sub(event.rcv_tstamp));
    let data = event.packets_out > 0 || event.flags & flag::WRITE_QUEUE != 0;
    let owned = event.flags & flag::OWNED != 0;

    if event.probes_out_after == event.probes_out.wrapping_add(1) {
        kind::PROBE
    } else if !pending {
        kind::NOT_REARMED
    } else if busy && owned {
        kind::BUSY
    } else if data && rearmed_for(event, time) {
        kind::DATA_PENDING
    } else if elapsed < time && rearmed_for(event, time - elapsed) {
        kind::EARLY
    } else if rearmed_for(event, intvl) {
        // A probe was sent, and another CPU saw the answer before this one looked.
        kind::PROBE
    } else if rearmed_for(event, hz / 2) {
        kind::PROBE_CONGESTED
    } else if busy {
        // User context took the socket after the look at entry, and before the kernel's own.
        kind::BUSY
    } else if rearmed_for(event, time) {
        // Data was queued after the look at entry, and before the kernel's own.
        kind::DATA_PENDING
    } else {
        kind::UNCLASSIFIED
    }
}

/// Whether the timer was set to expire `wait` jiffies after a jiffy inside the firing.
#[inline(always)]
fn rearmed_for(event: &Event, wait: u32) -> bool {
    let set_at = event.expires_after.wrapping_sub(wait);
    set_at.wrapping_sub(event.jiffies) <= event.jiffies_after.wrapping_sub(event.jiffies)
}

/// The setting that applies: `value ? : default`, as in the kernel.
#[inline(always)]
fn or(value: u32, default: u32) -> u32 {
    if value != 0 { value } else { default }
}
