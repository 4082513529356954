//! The only module that writes the ring buffer, and that gives sockets their
//! identity: both happen when an event goes up.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, RingBuf};
use kaprobe_ebpf::wire::{Event, VERSION, counter, flag, kind};

use crate::kernel::{clear, config, now_ns};
use crate::maps::count;

/// Events on their way up; user space sets the size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

/// Sockets that an event has spoken of, by address.
#[map]
static SOCKETS: HashMap<u64, Known> = HashMap::with_max_entries(65_536, 0);

/// What is remembered of a socket.
#[repr(C)]
#[derive(Clone, Copy)]
struct Known {
    /// See [`kaprobe_ebpf::wire::Event::born_ns`].
    born_ns: u64,
    /// 1 while a probe that was reported may be unanswered.
    probing: u64,
}

/// Whether the mask asks for events of this kind.
#[inline(always)]
fn wanted(kind: u16) -> bool {
    config!(event_mask) & (1 << kind) != 0
}

/// Sends a firing up, if the mask asks for it or if it is the first to show an
/// earlier probe answered. Only then does `fill` tell the rest of it.
#[inline(always)]
pub fn send(event: &mut Event, fill: impl FnOnce(&mut Event)) {
    if !wanted(event.kind) {
        if event.probes_out != 0 || !is_probing(event.socket.sk) {
            return;
        }
        event.flags |= flag::NEWS;
    }
    // Before the table is looked at: neither's memory is in a cache, and so both are
    // waited for at once.
    fill(event);
    let probing = (event.kind == kind::PROBE) as u64;
    match SOCKETS.get_ptr_mut(event.socket.sk) {
        // SAFETY: a value of a preallocated map stays mapped while programs run; between
        // two firings, only an answer writes `probing`.
        Some(known) => unsafe {
            event.born_ns = (*known).born_ns;
            (*known).probing = probing;
        },
        None => remember(event, probing),
    }
    output(event);
}

/// Whether a probe of this socket that was reported may be unanswered.
#[inline(always)]
fn is_probing(sk: u64) -> bool {
    // SAFETY: as above.
    SOCKETS
        .get_ptr_mut(sk)
        .is_some_and(|known| unsafe { (*known).probing } != 0)
}

/// Sends up something else that a socket did; `fill` says what.
#[inline(always)]
pub fn send_other(kind: u16, fill: impl FnOnce(&mut Event)) {
    if !wanted(kind) {
        return;
    }
    reserve(kind, |event| {
        fill(event);
        match SOCKETS.get_ptr_mut(event.socket.sk) {
            // SAFETY: a value of a preallocated map stays mapped while programs run.
            Some(known) => event.born_ns = unsafe { (*known).born_ns },
            None => remember(event, 0),
        }
        true
    });
}

/// Sends up a reset that answered a segment. `fill` says whether it is one to keep:
/// that is known only once the segment has been read.
#[inline(always)]
pub fn send_passive(fill: impl FnOnce(&mut Event) -> bool) {
    if wanted(kind::RST_PASSIVE) {
        reserve(kind::RST_PASSIVE, fill);
    }
}

/// Sends up that a probe was answered, if one that went up waits for that. `fill` says
/// whether it was: only then is it asked.
#[inline(always)]
pub fn send_answered(sk: u64, fill: impl FnOnce(&mut Event) -> bool) {
    let Some(known) = SOCKETS.get_ptr_mut(sk) else {
        return;
    };
    // SAFETY: a value of a preallocated map stays mapped while programs run, and the
    // socket's lock keeps its timer and its segments apart.
    if unsafe { (*known).probing } == 0 {
        return;
    }
    reserve(kind::ANSWERED, |event| {
        let answered = fill(event);
        if answered {
            // SAFETY: as above.
            unsafe {
                event.born_ns = (*known).born_ns;
                // Told once. Where there was no room for it, the next firing tells.
                (*known).probing = 0;
            }
        }
        answered
    });
}

/// Sends the end of a socket up if an event has spoken of it, and forgets it, so
/// that its address can be another's.
#[inline(always)]
pub fn send_closed(sk: u64, fill: impl FnOnce(&mut Event)) {
    if let Some(born_ns) = forget(sk) {
        reserve(kind::CLOSED, |event| {
            fill(event);
            event.born_ns = born_ns;
            true
        });
    }
}

/// The same of a socket whose end a firing has seen, which tells of it.
#[inline(always)]
pub fn send_closed_by(firing: &mut Event) {
    if let Some(born_ns) = forget(firing.socket.sk) {
        firing.kind = kind::CLOSED;
        firing.born_ns = born_ns;
        output(firing);
    }
}

/// Forgets a socket that an event has spoken of, and returns when it was born, where
/// its end is asked for.
#[inline(always)]
fn forget(sk: u64) -> Option<u64> {
    let known = SOCKETS.get_ptr_mut(sk)?;
    // SAFETY: a value of a preallocated map stays mapped while programs run.
    let born_ns = unsafe { (*known).born_ns };
    // Who forgets it is who tells: another CPU may come to the same end.
    (SOCKETS.remove(sk).is_ok() && wanted(kind::CLOSED)).then_some(born_ns)
}

/// Gives a socket its identity: its address, and now.
#[inline(always)]
fn remember(event: &mut Event, probing: u64) {
    let known = Known {
        born_ns: now_ns(),
        probing,
    };
    if SOCKETS.insert(event.socket.sk, known, 0).is_ok() {
        event.born_ns = known.born_ns;
    } else {
        // A firing's place still has what the one before it was born with.
        event.born_ns = 0;
        event.flags |= flag::UNTRACKED;
        count(counter::SOCKET_UNTRACKED);
    }
}

/// Copies an event into the ring buffer, or counts it as lost.
#[inline(always)]
fn output(event: &mut Event) {
    event.version = VERSION;
    if EVENTS.output::<Event>(&*event, 0).is_err() {
        count(event.kind as u32);
    }
}

/// Builds an event in the ring buffer, or counts it as lost. `fill` fills it in, and
/// says whether to keep it.
#[inline(always)]
fn reserve(kind: u16, fill: impl FnOnce(&mut Event) -> bool) {
    let Some(mut slot) = EVENTS.reserve::<Event>(0) else {
        count(kind as u32);
        return;
    };
    clear::<Event>(&mut slot);
    // SAFETY: integers only, for which zero is a value.
    let event = unsafe { slot.assume_init_mut() };
    if !fill(event) {
        slot.discard(0);
        return;
    }
    event.version = VERSION;
    event.kind = kind;
    slot.submit(0);
}
