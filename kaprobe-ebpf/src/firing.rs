//! A firing of the keepalive timer from its entry to its exit, and the row that it took of
//! the decision tree of `tcp_keepalive_timer` (net/ipv4/tcp_timer.c). The other events of
//! a socket are here too.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use kaprobe_ebpf::config::{ABSENT, SELF_TEST_USER_TIMEOUT, sight};
use kaprobe_ebpf::wire::{Event, cause, counter, flag, kind};

use crate::arrival;
use crate::filter;
use crate::kernel::{
    TCP_CLOSE, TCP_FIN_WAIT2, TCP_FLAG_RST, TCP_LISTEN, TCP_SYN_SENT, Unread, answers_probes,
    config, describe, detail, dissect, elapsed, handshake, has_changed, heard_since, inode,
    is_fin_wait2_orphan, is_gone, look_again, look_at_entry, name_actor, note_data, now_ns,
    probes_out, segment_ttl, socket_of, state_of, timeout_error, timer_of, tracking, user_timeout,
};
use crate::maps::{count, note_sight, state};
use crate::ring::{
    send, send_answered, send_closed, send_closed_by, send_detailed, send_other, send_passive,
    take_state, wanted,
};
use crate::running::{self, Firing};

/// Time after arming during which an exit without entry may belong to a firing that began
/// before arming. It is far longer than any softirq runs.
const ARMING_NS: u64 = 1_000_000_000;

/// Whether user space has armed the programs.
#[inline(always)]
pub fn armed() -> bool {
    state!(armed_ns) != 0
}

/// Starts a firing: the timer's function is about to run. Values that the function may
/// change are read now. The rest is read later, if the event is wanted.
#[inline(always)]
pub fn enter<C: EbpfContext>(ctx: &C, timer: u64) {
    let sk = socket_of(timer);
    if !armed() {
        note_sight_of(sk, sight::FIRING_BEGAN);
        return;
    }
    if !filter::keeps(&Unread(sk)) {
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
    (event.kind, event.cause) = NOT_PROVEN;
    event.firing_ns = 0;
    event.reason = 0;
    firing.owner.net = look_at_entry(sk, event);
}

/// The outcome of a firing until something proves it.
const NOT_PROVEN: (u16, u8) = (kind::UNCLASSIFIED, cause::NONE);

/// Notes what `tcp_write_wakeup` returned, if a firing called it. The timer has the
/// socket's lock, so this proves the outcome, whatever follows on another processor.
#[inline(always)]
pub fn probed(returned: i32) {
    // SAFETY: this is the program's only reference to a firing.
    let Some(firing) = (unsafe { running::find(0) }) else {
        return;
    };
    // The kernel's own test, in `tcp_keepalive_timer`.
    firing.event.kind = if returned <= 0 {
        kind::PROBE
    } else {
        kind::PROBE_CONGESTED
    };
    if wanted(firing.event.kind) {
        find_owner(firing);
    }
}

/// Finds the owner of a firing's socket. While the timer has the socket's lock, no process can
/// close the socket.
#[inline(always)]
fn find_owner(firing: &mut Firing) {
    firing.has_owner = 1;
    let Firing { owner, event, .. } = firing;
    owner.find_in_firing(event.socket.sk, event);
}

/// Ends a firing: the timer's function has run. `timer` is 0 if the hook does not know it.
/// `is_keepalive` tells whether it is a keepalive timer. It is asked only if no firing is
/// found: the entry has asked before.
#[inline(always)]
pub fn exit<C: EbpfContext>(ctx: &C, timer: u64, is_keepalive: impl FnOnce() -> bool) {
    // SAFETY: this is the program's only reference to a firing.
    let Some(firing) = (unsafe { running::find(timer) }) else {
        return exit_alone(timer, is_keepalive);
    };
    let destroyed = firing.destroyed != 0;
    let event = &mut firing.event;
    let sk = event.socket.sk;
    let proven_err = event.err;
    look_again(sk, event);
    match event.kind {
        // An answer may have come since, and a disconnect.
        kind::PROBE => event.probes_out_after = event.probes_out.wrapping_add(1),
        // The process may have taken the error since.
        kind::TIMEOUT => event.err = proven_err,
        kind::UNCLASSIFIED if destroyed => event.kind = kind::FIN_WAIT2,
        kind::UNCLASSIFIED => (event.kind, event.cause) = classify(sk, event, state!(hz)),
        _ => {}
    }
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
    if is_self_test(event) {
        running::end(firing);
        return;
    }
    let is_new = send(firing, |firing| {
        if firing.has_owner == 0 {
            find_owner(firing);
        }
    });
    // Another CPU may have destroyed the socket once the function had released it. If this
    // firing has put the socket into the table, that CPU may have looked there too early.
    if destroyed || is_new && is_gone(sk) {
        send_closed_by(firing);
    }
    running::end(firing);
}

/// An exit whose entry was not followed: the filter dropped it, or it was missed.
#[inline(always)]
fn exit_alone(timer: u64, is_keepalive: impl FnOnce() -> bool) {
    let armed_ns = state!(armed_ns);
    if armed_ns != 0 && filter::any() || !is_keepalive() {
        return;
    }
    if armed_ns == 0 {
        if timer == 0 || is_tested(socket_of(timer)) {
            note_sight(sight::FIRING_ENDED);
        }
    } else if now_ns() > armed_ns + ARMING_NS {
        count(counter::ENTRY_MISSED);
    }
}

/// Whether the socket is that of a kaprobe which tests its programs.
#[inline(always)]
fn is_self_test(event: &Event) -> bool {
    event.kind == kind::NOT_REARMED && event.user_timeout == SELF_TEST_USER_TIMEOUT
}

/// Whether the socket is one that a kaprobe made to test its programs. The socket must be a
/// full one.
#[inline(always)]
fn is_tested(sk: u64) -> bool {
    user_timeout(sk) == SELF_TEST_USER_TIMEOUT
}

/// Notes the sight of a socket of a test: a program that runs but has another address for
/// the socket sees nothing. The socket must be a full one.
#[inline(always)]
pub fn note_sight_of(sk: u64, sight: usize) {
    if state!(self_test) != 0 && is_tested(sk) {
        note_sight(sight);
    }
}

/// Whether an event of a socket is wanted. Notes the sight of it while the programs are not
/// armed. The sockets of a kaprobe that tests its programs are not wanted.
#[inline(always)]
fn is_wanted(sk: u64, sight: usize) -> bool {
    if !armed() {
        note_sight_of(sk, sight);
        return false;
    }
    filter::keeps(&Unread(sk)) && !is_tested(sk)
}

/// Reports a call of `tcp_send_active_reset`. `reason` is [`ABSENT`] if this kernel gives
/// none.
#[inline(always)]
pub fn reset(sk: u64, reason: u32) {
    if !is_wanted(sk, sight::ACTIVE_RESET) {
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
        let event = &mut firing.event;
        event.firing_ns = firing_ns;
        event.flags |= in_timer | has_reason;
        event.reason = reason;
        // The timer has the socket's lock, and resets for two reasons only.
        if is_fin_wait2_orphan(sk) {
            event.kind = kind::FIN_WAIT2;
        } else {
            event.kind = kind::TIMEOUT;
            event.cause = cause_of(user_timeout(sk));
            event.err = timeout_error(sk);
        }
        find_owner(firing);
    }
    let before = if state_of(sk) == TCP_CLOSE {
        take_state(sk)
    } else {
        None
    };
    send_detailed(kind::RST_SENT, |it| {
        it.event.flags = in_timer | has_reason;
        it.event.reason = reason;
        it.event.firing_ns = firing_ns;
        detail(sk, it);
        name_actor(it);
        if let Some(before) = before {
            it.event.state = before;
        }
    });
}

/// Reports a trace of `tcp_receive_reset`: the socket is still as it was before the reset.
#[inline(always)]
pub fn received(sk: u64) {
    if is_wanted(sk, sight::RECEIVED_RESET) {
        send_other(kind::RST_RECEIVED, |event| {
            describe(sk, event);
            handshake(sk, event);
            note_data(sk, event);
            arrival::take(sk, event);
        });
    }
}

/// Keeps the segment in `skb` for the report of the reset that came in it.
#[inline(always)]
pub fn arrived(sk: u64, skb: u64) {
    if is_wanted(sk, sight::RESET_SEGMENT) {
        arrival::keep(sk, skb);
    }
}

/// Reports a reset that is about to answer the segment in `skb`. `sk` is the socket or
/// minisock that the segment met, or 0 if it met none. `sight` is noted while the programs
/// are not armed.
#[inline(always)]
pub fn passive(sk: u64, skb: u64, reason: u32, sight: usize) {
    if !armed() {
        if is_tested_end(sk, state_of(sk)) {
            note_sight(sight);
        }
        return;
    }
    send_passive(|event| {
        dissect(sk, skb, event);
        if sk == 0 {
            tracking(skb, event);
        } else if event.state == TCP_LISTEN {
            event.inode = inode(sk);
        }
        event.mono_ns = now_ns();
        event.reason = reason;
        if reason != ABSENT {
            event.flags = flag::HAS_REASON;
        }
        // `tcp_v4_send_reset` returns early on a reset: it never answers one.
        event.segment_flags & TCP_FLAG_RST == 0
            && filter::keeps(&event.socket)
            && !is_tested_end(sk, event.state)
    });
}

/// Whether a socket that data reset after its close is that of a kaprobe which tests its
/// programs. Another kind of socket does not have the member.
#[inline(always)]
fn is_tested_end(sk: u64, state: u8) -> bool {
    sk != 0 && state == TCP_CLOSE && is_tested(sk)
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
            event.segment_ttl = segment_ttl(skb);
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
        // The firing is sent first, and its exit sends the end. Its owner is found now, while
        // the socket still exists.
        firing.destroyed = 1;
        if firing.has_owner == 0 {
            find_owner(firing);
        }
        return;
    }
    send_closed(sk, |event| describe(sk, event));
}

/// Whether a firing of this socket's timer runs in this context.
#[inline(always)]
pub fn runs(sk: u64) -> bool {
    // SAFETY: this is the program's only reference to a firing.
    unsafe { running(sk) }.is_some()
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

/// Why keepalive gave up: if there is a user timeout, the kernel ignores the count.
#[inline(always)]
fn cause_of(user_timeout: u32) -> u8 {
    if user_timeout != 0 {
        cause::USER_TIMEOUT
    } else {
        cause::PROBE_COUNT
    }
}

/// The outcome of a firing that no hook inside it has proven, from the values before and
/// after it.
///
/// Before the timer takes the socket's lock, and after it releases it, another processor
/// may change anything. What such a change could also explain is not concluded: it is
/// [`kind::CHANGED_MEANWHILE`].
///
/// If the firing changed only the timer, its new expiry shows how long the kernel chose to
/// wait, and that shows why. The kernel adds that wait to a jiffy between entry and exit,
/// so the comparison is exact and needs no tolerance.
#[inline(always)]
fn classify(sk: u64, event: &Event, hz: u32) -> (u16, u8) {
    let pending = event.flags & flag::PENDING_AFTER != 0;
    if !pending && gave_up(sk, event, hz) {
        return (kind::TIMEOUT, cause_of(event.user_timeout));
    }
    let kind = if pending {
        rearmed(sk, event, hz)
    } else if !applied(event) {
        kind::NOT_REARMED
    } else if is_one_more_out(event) {
        kind::PROBE
    } else {
        kind::UNCLASSIFIED
    };
    if kind == kind::UNCLASSIFIED && has_changed(sk, event) {
        return (kind::CHANGED_MEANWHILE, cause::NONE);
    }
    (kind, cause::NONE)
}

/// Whether the connection ended as keepalive ends it, though no reset was seen: it had no
/// data out, had been silent for long enough, and has the error of a timeout. Nothing else
/// closes such a socket with that error: retransmission and window probes need data out.
#[inline(always)]
fn gave_up(sk: u64, event: &Event, hz: u32) -> bool {
    let reached = if event.user_timeout != 0 {
        let ticks = (event.user_timeout as u64 * hz as u64 / 1000) as u32;
        silent_for(event) >= ticks && event.probes_out > 0
    } else {
        event.probes_out as u32 >= or(event.keepalive_probes, event.sysctl_probes)
    };
    applied(event)
        && !has_data(event)
        && reached
        && silent_for(event) >= or(event.keepalive_time, event.sysctl_time)
        && event.state_after == TCP_CLOSE
        && event.err == timeout_error(sk)
}

/// Whether the timer had something to watch at entry.
#[inline(always)]
fn applied(event: &Event) -> bool {
    let excluded = matches!(event.state, TCP_CLOSE | TCP_LISTEN | TCP_SYN_SENT);
    event.flags & flag::KEEPOPEN != 0 && !excluded || is_orphan(event)
}

/// Whether the timer was an orphan's in FIN_WAIT2 at entry, which is not keepalive's.
#[inline(always)]
fn is_orphan(event: &Event) -> bool {
    event.state == TCP_FIN_WAIT2 && event.flags & flag::DEAD != 0
}

/// Whether data was queued or unacknowledged at entry.
#[inline(always)]
fn has_data(event: &Event) -> bool {
    event.packets_out > 0 || event.flags & flag::WRITE_QUEUE != 0
}

/// How long the peer had been silent by the end of the firing, if it stayed silent,
/// jiffies.
#[inline(always)]
fn silent_for(event: &Event) -> u32 {
    elapsed(event.lrcvtime, event.rcv_tstamp, event.jiffies_after)
}

/// Whether one more probe is out than before. The keepalive timer alone adds one, unless
/// data waits: then the window probe timer does.
#[inline(always)]
fn is_one_more_out(event: &Event) -> bool {
    event.probes_out_after == event.probes_out.wrapping_add(1) && !has_data(event)
}

/// The outcome of a firing that armed the timer again.
#[inline(always)]
fn rearmed(sk: u64, event: &Event, hz: u32) -> u16 {
    let time = or(event.keepalive_time, event.sysctl_time);
    let intvl = or(event.keepalive_intvl, event.sysctl_intvl);
    let silent = elapsed(event.lrcvtime, event.rcv_tstamp, event.jiffies);
    let owned = event.flags & flag::OWNED != 0;
    let busy = rearmed_for(event, hz / 20);

    if busy && owned {
        kind::BUSY
    } else if !applied(event) || is_orphan(event) {
        if busy { kind::BUSY } else { kind::UNCLASSIFIED }
    } else if is_one_more_out(event) {
        kind::PROBE
    } else if has_data(event) && rearmed_for(event, time) {
        kind::DATA_PENDING
    } else if silent < time && rearmed_for(event, time - silent) {
        kind::EARLY
    } else if busy {
        // User context took the socket after the look at entry, and before the kernel's own.
        kind::BUSY
    } else if let Some(heard) = heard_since(sk, event) {
        rearmed_after_hearing(event, heard, time, intvl)
    } else if state!(wakeups_seen) == 0 && rearmed_for(event, hz / 2) {
        kind::PROBE_CONGESTED
    } else if rearmed_for(event, time) {
        // Data was queued after the look at entry, and before the kernel's own.
        kind::DATA_PENDING
    } else {
        kind::UNCLASSIFIED
    }
}

/// The outcome of a firing during which the peer was heard, at the jiffy `heard`. That was
/// before the timer had the lock, and there was nothing to do; or after it, and a probe was
/// sent and answered.
#[inline(always)]
fn rearmed_after_hearing(event: &Event, heard: u32, time: u32, intvl: u32) -> u16 {
    let early = event.expires_after == heard.wrapping_add(time);
    let probe = state!(wakeups_seen) == 0 && rearmed_for(event, intvl);
    match (early, probe) {
        (true, false) => kind::EARLY,
        (false, true) => kind::PROBE,
        // Both explain it, or neither does.
        _ => kind::UNCLASSIFIED,
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
