//! The only module that writes the ring buffer, and that gives sockets their identity.
//! Both happen when an event is sent.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap, RingBuf};
use kaprobe_ebpf::config::SOCKETS_FLAGS;
use kaprobe_ebpf::wire::{Detailed, Event, VERSION, counter, flag, kind};

use crate::kernel::{Owner, clear, config, copy, now_ns};
use crate::maps::count;
use crate::running::Firing;

/// Events on their way to user space, which sets the size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

/// Sockets that an event has reported, by address. User space sets the size, and the flags: a
/// value stays mapped while programs run, whether all are allocated beforehand or each when it
/// is needed (kernel/bpf/memalloc.c frees after a grace period of RCU).
#[map]
static SOCKETS: HashMap<u64, Known> = HashMap::with_max_entries(1, SOCKETS_FLAGS);

/// The states that sockets had before CLOSE, by address. The reset that ends a connection
/// is sent a moment after it is in CLOSE: `tcp_disconnect` and `__tcp_close`
/// (net/ipv4/tcp.c).
#[map]
static STATES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(8192, 0);

/// State that is kept for a socket that an event has reported.
#[repr(C)]
#[derive(Clone, Copy)]
struct Known {
    /// CLOCK_MONOTONIC when an event first reported the socket, ns: [`Event::born_ns`].
    born_ns: u64,
    /// Id of its cgroup: [`Event::cgroup`].
    cgroup: u64,
    /// Inode number of its file; 0 if it had none: [`Event::inode`].
    inode: u64,
    /// Inode number of its network namespace: [`Socket::netns`].
    netns: u32,
    /// 1 while a reported probe may be unanswered.
    probing: u32,
}

impl Known {
    /// Completes the event of a firing, with what never changes in the life of a socket. Each
    /// of these would take one or two reads behind a pointer.
    #[inline(always)]
    fn complete(&self, owner: &Owner, event: &mut Event) {
        event.born_ns = self.born_ns;
        event.cgroup = self.cgroup;
        event.socket.netns = self.netns;
        // A connection has no file before it is accepted, and none once it is closed.
        event.inode = if owner.socket != 0 && self.inode != 0 {
            self.inode
        } else {
            owner.inode()
        };
    }
}

/// What the ring buffer takes.
trait Message {
    /// The event in it.
    fn event(&mut self) -> &mut Event;
}

impl Message for Event {
    #[inline(always)]
    fn event(&mut self) -> &mut Event {
        self
    }
}

impl Message for Detailed {
    #[inline(always)]
    fn event(&mut self) -> &mut Event {
        &mut self.event
    }
}

/// Notes the state of a socket that is about to be in CLOSE.
#[inline(always)]
pub fn note_state(sk: u64, state: u8) {
    if wanted(kind::RST_SENT) {
        // Without room, the reset has the state CLOSE.
        let _no_room = STATES.insert(sk, state as u64, 0);
    }
}

/// The state that a socket had before it was in CLOSE, if it was noted.
#[inline(always)]
pub fn take_state(sk: u64) -> Option<u8> {
    // SAFETY: the value is copied at once. The socket's lock keeps others from changing it.
    let state = unsafe { STATES.get(sk) }.copied()?;
    let _gone_already = STATES.remove(sk);
    Some(state as u8)
}

/// Whether the event mask asks for events of this kind.
#[inline(always)]
pub fn wanted(kind: u16) -> bool {
    config!(event_mask) & (1 << kind) != 0
}

/// Sends a firing if the event mask asks for it, or if it is the first to show that an
/// earlier probe was answered. `find_owner` finds the owner of a firing that is sent. Returns
/// whether the firing is the first event that reports the socket.
#[inline(always)]
pub fn send(firing: &mut Firing, find_owner: impl FnOnce(&mut Firing)) -> bool {
    let event = &mut firing.event;
    if !wanted(event.kind) {
        if event.probes_out != 0 || !is_probing(event.socket.sk) {
            return false;
        }
        event.flags |= flag::NEWS;
    }
    // This comes before the look-up in the table. The memory of neither is in a cache, so
    // the CPU waits for both at once.
    find_owner(firing);
    let Firing { owner, event, .. } = firing;
    let probing = (event.kind == kind::PROBE) as u32;
    let known = SOCKETS.get_ptr_mut(event.socket.sk);
    match known {
        // SAFETY: a value of the map stays mapped while programs run. Between two
        // firings, only an answer writes `probing`.
        Some(known) => unsafe {
            (*known).complete(owner, event);
            (*known).probing = probing;
        },
        None => {
            owner.name(event);
            remember(event, probing);
        }
    }
    output(event);
    known.is_none()
}

/// Whether a reported probe of this socket may be unanswered.
#[inline(always)]
fn is_probing(sk: u64) -> bool {
    // SAFETY: a value of the map stays mapped while programs run.
    SOCKETS
        .get_ptr_mut(sk)
        .is_some_and(|known| unsafe { (*known).probing } != 0)
}

/// Sends an event of a socket that is not a firing. `fill` fills it in.
#[inline(always)]
pub fn send_other(kind: u16, fill: impl FnOnce(&mut Event)) {
    send_of_socket::<Event>(kind, fill);
}

/// Sends an event with details. `fill` fills it in.
#[inline(always)]
pub fn send_detailed(kind: u16, fill: impl FnOnce(&mut Detailed)) {
    send_of_socket::<Detailed>(kind, fill);
}

#[inline(always)]
fn send_of_socket<T: Message + 'static>(kind: u16, fill: impl FnOnce(&mut T)) {
    if !wanted(kind) {
        return;
    }
    reserve::<T>(kind, |message| {
        fill(message);
        let event = message.event();
        match SOCKETS.get_ptr_mut(event.socket.sk) {
            // SAFETY: a value of the map stays mapped while programs run.
            Some(known) => event.born_ns = unsafe { (*known).born_ns },
            None => remember(event, 0),
        }
        true
    });
}

/// Whether an event has reported this socket, and no other has its address since.
#[inline(always)]
pub fn is_known(sk: u64, born_ns: u64) -> bool {
    // SAFETY: a value of the map stays mapped while programs run.
    SOCKETS
        .get_ptr_mut(sk)
        .is_some_and(|known| unsafe { (*known).born_ns } == born_ns)
}

/// Reports that data of a known socket is acknowledged. `fill` fills in the event. Returns
/// whether there was room: if not, nothing is lost, as user space asks again.
#[inline(always)]
pub fn send_resumed(born_ns: u64, fill: impl FnOnce(&mut Detailed)) -> bool {
    build::<Detailed>(kind::RESUMED, |detailed| {
        fill(detailed);
        detailed.event.born_ns = born_ns;
        true
    })
}

/// Sends a reset that answered a segment. `fill` fills it in, and returns whether to keep
/// it: that is known only once the segment has been read.
#[inline(always)]
pub fn send_passive(fill: impl FnOnce(&mut Event) -> bool) {
    if wanted(kind::RST_PASSIVE) {
        reserve::<Event>(kind::RST_PASSIVE, fill);
    }
}

/// Reports that a probe was answered, if a reported probe may be unanswered. Only then it
/// calls `fill`, which fills in the event and returns whether the probe was answered.
#[inline(always)]
pub fn send_answered(sk: u64, fill: impl FnOnce(&mut Event) -> bool) {
    let Some(known) = SOCKETS.get_ptr_mut(sk) else {
        return;
    };
    // SAFETY: a value of the map stays mapped while programs run. The socket's
    // lock keeps its timer and its segments apart.
    if unsafe { (*known).probing } == 0 {
        return;
    }
    reserve::<Event>(kind::ANSWERED, |event| {
        let answered = fill(event);
        if answered {
            // SAFETY: as above.
            unsafe {
                event.born_ns = (*known).born_ns;
                // An answer is reported once. If there was no room for it, the next firing
                // reports it.
                (*known).probing = 0;
            }
        }
        answered
    });
}

/// Reports the end of a socket if an event has reported the socket, and forgets it, so
/// that another socket can have the address. `fill` fills in the event.
#[inline(always)]
pub fn send_closed(sk: u64, fill: impl FnOnce(&mut Event)) {
    if let Some(known) = forget(sk) {
        reserve::<Event>(kind::CLOSED, |event| {
            fill(event);
            event.born_ns = known.born_ns;
            true
        });
    }
}

/// Reports the end of a socket that a firing has seen, and forgets the socket. The event
/// of the firing becomes that of the end.
#[inline(always)]
pub fn send_closed_by(firing: &mut Firing) {
    let Firing { owner, event, .. } = firing;
    if let Some(known) = forget(event.socket.sk) {
        event.kind = kind::CLOSED;
        known.complete(owner, event);
        output(event);
    }
}

/// Forgets a socket that an event has reported. Returns what was kept for it if the event mask
/// asks for its end.
#[inline(always)]
fn forget(sk: u64) -> Option<Known> {
    // SAFETY: a value of the map stays mapped while programs run.
    let known = unsafe { *SOCKETS.get_ptr_mut(sk)? };
    // The CPU that removes the socket reports its end: another CPU may see the same end.
    (SOCKETS.remove(sk).is_ok() && wanted(kind::CLOSED)).then_some(known)
}

/// Gives a socket its identity: its address, and the time now.
#[inline(always)]
fn remember(event: &mut Event, probing: u32) {
    let known = Known {
        born_ns: now_ns(),
        cgroup: event.cgroup,
        inode: event.inode,
        netns: event.socket.netns,
        probing,
    };
    if SOCKETS.insert(event.socket.sk, known, 0).is_ok() {
        event.born_ns = known.born_ns;
    } else {
        // The place of a firing still holds the `born_ns` of the firing before it.
        event.born_ns = 0;
        event.flags |= flag::UNTRACKED;
        count(counter::SOCKET_UNTRACKED);
    }
}

/// Copies an event into the ring buffer, or counts it as lost.
#[inline(always)]
fn output(event: &mut Event) {
    event.version = VERSION;
    match EVENTS.reserve::<Event>(0) {
        Some(mut slot) => {
            copy(event, &mut slot);
            slot.submit(0);
        }
        None => count(event.kind as u32),
    }
}

/// Builds a message in the ring buffer, or counts it as lost. `fill` fills it in, and
/// returns whether to keep it.
#[inline(always)]
fn reserve<T: Message + 'static>(kind: u16, fill: impl FnOnce(&mut T) -> bool) {
    if !build(kind, fill) {
        count(kind as u32);
    }
}

/// Builds a message in the ring buffer. `fill` fills it in, and returns whether to keep it.
/// Returns whether there was room.
#[inline(always)]
fn build<T: Message + 'static>(kind: u16, fill: impl FnOnce(&mut T) -> bool) -> bool {
    let Some(mut slot) = EVENTS.reserve::<T>(0) else {
        return false;
    };
    clear::<T>(&mut slot);
    // SAFETY: a message has only integers, for which zero is a value.
    let message = unsafe { slot.assume_init_mut() };
    if !fill(message) {
        slot.discard(0);
        return true;
    }
    let event = message.event();
    event.version = VERSION;
    event.kind = kind;
    slot.submit(0);
    true
}
