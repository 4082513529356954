//! Data that is sent again and again, and not acknowledged.

use kaprobe_ebpf::wire::{kind, look};

use crate::filter;
use crate::firing::armed;
use crate::kernel::{
    TCP_SYN_RECV, TCP_SYN_SENT, Unread, config, detail, is_oldest, retransmits, state_of,
};
use crate::ring::{is_known, send_detailed, send_resumed};

/// Reports that a connection has stalled. `tcp_retransmit_skb` was traced: the segment in
/// `skb` was sent again.
///
/// The kernel counts timeouts in a row, and one more before it sends (`tcp_retransmit_timer`,
/// net/ipv4/tcp_timer.c, since 5.1). An acknowledgement of new data sets the count to 0. So
/// each stall reaches the number once. In between, segments after the oldest may be sent
/// again, but the oldest is not.
#[inline(always)]
pub fn retransmitted(sk: u64, skb: u64) {
    if retransmits(sk) as u32 != config!(stalled_after) || !armed() {
        return;
    }
    let is_connected = !matches!(state_of(sk), TCP_SYN_SENT | TCP_SYN_RECV);
    if is_connected && is_oldest(sk, skb) && filter::keeps(&Unread(sk)) {
        send_detailed(kind::STALLED, |it| detail(sk, it));
    }
}

/// Looks again at a socket whose data had stalled, and reports it if anything was acknowledged
/// since: an acknowledgement sets the count of timeouts to 0. There is no cheap hook for it: it
/// comes with any segment.
///
/// The socket is not locked. If it is destroyed meanwhile, what is read may be another's:
/// user space compares the ends.
#[inline(always)]
pub fn look_again(sk: u64, born_ns: u64) -> u32 {
    if !armed() || !is_known(sk, born_ns) {
        return look::GONE;
    }
    let is_stalled = retransmits(sk) as u32 >= config!(stalled_after);
    if !is_stalled && send_resumed(born_ns, |it| detail(sk, it)) {
        look::RESUMED
    } else {
        look::WAITING
    }
}
