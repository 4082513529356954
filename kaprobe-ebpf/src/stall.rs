//! Data that is sent again and again, and not acknowledged.

use kaprobe_ebpf::wire::kind;

use crate::filter;
use crate::firing::armed;
use crate::kernel::{
    TCP_SYN_RECV, TCP_SYN_SENT, Unread, config, detail, is_oldest, retransmits, state_of,
};
use crate::ring::send_detailed;

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
