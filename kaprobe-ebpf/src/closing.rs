//! The steps by which a connection closes, and why it ended.

use kaprobe_ebpf::config::sight;
use kaprobe_ebpf::wire::{cause, kind};

use crate::filter;
use crate::firing::{self, armed, note_sight_of};
use crate::kernel::{
    ECONNABORTED, ECONNREFUSED, Sequences, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED,
    TCP_FIN_WAIT1, TCP_LAST_ACK, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT, Unread, config, detail,
    error, is_owned, is_repaired, is_tcp, name_actor, probed_for_user_timeout, queues_are_empty,
    silent_for_rto_max, syn_retries_used, timeout_error, user_timeout, window_is_shut,
    without_answer, without_data,
};
use crate::maps::state;
use crate::ring::{note_state, send_detailed, wanted};

/// A step to report.
struct Step {
    kind: u16,
    cause: u8,
    err: u32,
}

/// Takes a step of a socket from one state to another. `inet_sock_set_state` was traced:
/// the socket is still as it was before.
///
/// Most steps tell nothing, and the states alone show that.
#[inline(always)]
pub fn step(sk: u64, from: u8, to: u8) {
    let found = match (from, to) {
        // The peer closed before it saw the data in flight.
        (TCP_ESTABLISHED, TCP_CLOSE_WAIT) if Sequences::of(sk).in_flight() => {
            fin(sk, kind::FIN_RECEIVED, |sk| without_answer(sk, state!(hz)))
        }
        (TCP_ESTABLISHED, TCP_CLOSE_WAIT) => fin(sk, kind::FIN_RECEIVED, without_data),
        (TCP_ESTABLISHED, TCP_FIN_WAIT1) | (TCP_CLOSE_WAIT, TCP_LAST_ACK) => {
            fin(sk, kind::FIN_SENT, without_data)
        }
        (TCP_CLOSE | TCP_LISTEN, TCP_CLOSE) => None,
        (_, TCP_CLOSE) => end(sk, from),
        _ => None,
    };
    let Some(Step { kind, cause, err }) = found else {
        return;
    };
    send_detailed(kind, |it| {
        detail(sk, it);
        if matches!(kind, kind::FIN_SENT | kind::ABORTED) {
            name_actor(it);
        }
        it.event.state_after = to;
        it.event.cause = cause;
        it.event.err = err;
    });
}

/// Whether the socket is one to report.
#[inline(always)]
fn is_kept(sk: u64) -> bool {
    if !is_tcp(sk) {
        return false;
    }
    if !armed() {
        note_sight_of(sk, sight::STATE);
        return false;
    }
    filter::keeps(&Unread(sk))
}

/// A FIN, if the connection was idle for some time, jiffies. An ordinary close is not worth
/// an event.
#[inline(always)]
fn fin(sk: u64, kind: u16, idle_time: impl Fn(u64) -> u32) -> Option<Step> {
    let idle = config!(fin_idle_ms) as u64 * state!(hz) as u64 / 1000;
    let is_seen = wanted(kind) && idle_time(sk) as u64 >= idle && is_kept(sk);
    is_seen.then(|| Step {
        kind,
        cause: cause::NONE,
        err: error(sk),
    })
}

/// The end of a connection, unless something else reports it.
#[inline(always)]
fn end(sk: u64, from: u8) -> Option<Step> {
    // A firing reports the end that it makes.
    if !is_kept(sk) || firing::runs(sk) {
        return None;
    }
    if gave_up(sk, from) {
        return Some(Step {
            kind: kind::GAVE_UP,
            cause: cause_of(sk, from),
            err: timeout_error(sk),
        });
    }
    if is_aborted(sk, from) {
        return Some(Step {
            kind: kind::ABORTED,
            cause: cause::NONE,
            err: error(sk),
        });
    }
    // If the kernel sends a reset next, the socket no longer tells what state it was in.
    // Only a process does so, or a listener that ends what it has not accepted.
    if is_owned(sk) || matches!(from, TCP_ESTABLISHED | TCP_CLOSE_WAIT) {
        note_state(sk, from);
    }
    None
}

/// Whether `tcp_write_err` (net/ipv4/tcp_timer.c) ends the connection. It sets the error of a
/// timeout and empties the queues before the connection changes its state. A reset and an
/// abort set other errors; what a process does empties the queues only later.
///
/// Before 6.10 it wakes the process first, which may have taken the error by now. The timer
/// runs while no process has the lock, then. A SYN+ACK of TCP Fast Open is in no queue.
#[inline(always)]
fn gave_up(sk: u64, from: u8) -> bool {
    let err = error(sk);
    let is_timeout = err == timeout_error(sk) || err == 0 && !is_owned(sk);
    if !is_timeout || !queues_are_empty(sk) {
        return false;
    }
    !Sequences::of(sk).all_acknowledged() || from == TCP_SYN_RECV && err != 0
}

/// Why the retransmission timer or the window probe timer gave up.
#[inline(always)]
fn cause_of(sk: u64, from: u8) -> u8 {
    let (sequences, has_user_timeout) = (Sequences::of(sk), user_timeout(sk) != 0);
    let hz = state!(hz);
    let is_user_timeout = match from {
        TCP_SYN_RECV => false,
        TCP_SYN_SENT => !syn_retries_used(sk),
        _ if !sequences.in_flight() => probed_for_user_timeout(sk, hz),
        _ if window_is_shut(sk) => !silent_for_rto_max(sk, hz),
        // It replaces the count: `retransmits_timed_out`.
        _ => true,
    };
    if has_user_timeout && is_user_timeout {
        cause::USER_TIMEOUT
    } else if from == TCP_SYN_SENT || from == TCP_SYN_RECV {
        cause::RETRANSMISSION
    } else if !sequences.in_flight() || window_is_shut(sk) {
        cause::ZERO_WINDOW
    } else {
        cause::RETRANSMISSION
    }
}

/// Whether the connection ends without a reset, sent or received, and not in order.
#[inline(always)]
fn is_aborted(sk: u64, from: u8) -> bool {
    let err = error(sk);
    if is_repaired(sk) {
        return true;
    }
    match from {
        // SOCK_DESTROY (`tcp_abort`, net/ipv4/tcp.c), and an error that ICMP reported
        // (`tcp_v4_err`). A reset has ECONNREFUSED, as some ICMP errors have.
        TCP_SYN_SENT => err != 0 && err != ECONNREFUSED,
        // `tcp_abort` sends a reset only in other states. `tcp_disconnect` sends one only if
        // data is left to send.
        TCP_CLOSING | TCP_LAST_ACK => {
            let sequences = Sequences::of(sk);
            err == ECONNABORTED || err == 0 && !sequences.all_acknowledged() && !sequences.unsent()
        }
        _ => false,
    }
}
