//! The segment that a reset comes in: from `tcp_reset`, which has it, to the tracepoint
//! tcp_receive_reset, which the same function traces next and which has only the socket.
//!
//! The tracepoint alone reports a reset: a compiler may put the function into its callers,
//! where no program is attached. Then only the segment stays unknown.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use kaprobe_ebpf::wire::Event;

use crate::kernel::{Segment, put_segment, segment};

/// Segments between the two hooks, by socket. A socket is locked in between, so it has one
/// at most.
#[map]
static ARRIVALS: HashMap<u64, Segment> = HashMap::with_max_entries(1024, 0);

/// Keeps what the event of the reset is to report of its segment.
#[inline(always)]
pub fn keep(sk: u64, skb: u64) {
    // Without room, the segment stays unknown.
    let _no_room = ARRIVALS.insert(sk, segment(skb), 0);
}

/// Adds the segment to the event of the reset, if it was kept.
#[inline(always)]
pub fn take(sk: u64, event: &mut Event) {
    let Some(segment) = ARRIVALS.get_ptr(sk) else {
        return;
    };
    // SAFETY: a value of a preallocated map stays mapped while programs run, and this
    // socket's is written only by its own resets.
    put_segment(sk, unsafe { &*segment }, event);
    let _gone_already = ARRIVALS.remove(sk);
}
