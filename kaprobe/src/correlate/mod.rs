//! Turns events into records: numbers the sockets, and concludes which probes were
//! answered.
//!
//! Pure: no clock, no I/O, no randomness, bounded memory. Time comes from events; the
//! same events give the same records. A [`Lost`] event can only remove conclusions.

pub mod order;
mod snapshot;

use std::borrow::Cow;
use std::mem;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};

use crate::correlate::snapshot::{NewZombie, ZombieFinder};
use crate::lru::LruMap;
use crate::model::event::{Event, Kind, Lost, PassiveReset, SocketEvent, SocketId};
use crate::model::flow::Flow;
use crate::model::owner::{Owner, OwnerLease};
use crate::model::record::{EventName, Record};
use crate::model::row::Row;
use crate::model::time::{Instant, TICK_MS, ms_to_ns};
use crate::model::values::{Direction, Errno, Hook, LostWhy, State, TcpFlags};
use crate::text::escape::Escaped;

/// Turns events into records.
#[derive(Debug)]
pub struct Correlator {
    sockets: LruMap<SocketId, Socket>,
    /// The number of the newest socket.
    numbered: u64,
    evicted: u64,
    /// Probes may be missing up to this time, CLOCK_MONOTONIC ns.
    gap_ns: u64,
    snapshot: ZombieFinder,
}

/// The state of one socket. There are many, so it is small.
#[derive(Debug)]
struct Socket {
    number: u64,
    /// Its close was seen: little is lost when it is evicted.
    closed: bool,
    /// The last probe, until its answer is known.
    waiting: Option<WaitingProbe>,
    /// Data that was reported as stalled, until it is known to be acknowledged.
    stalled: Option<Box<StalledData>>,
    last: LastSeen,
}

/// Data that was sent again several times and not acknowledged.
#[derive(Debug)]
struct StalledData {
    /// When it was reported, CLOCK_MONOTONIC ns.
    at_ns: u64,
    /// When it was first sent, CLOCK_MONOTONIC ns.
    since_ns: u64,
    retransmits: u8,
}

/// A recorded probe that waits for its answer.
#[derive(Debug)]
struct WaitingProbe {
    at_ns: u64,
    /// The timer was due again after this time, ms. It sends no other probe earlier.
    due_ms: Option<NonZeroU32>,
    /// The last acknowledgement came this long before the probe, ms.
    acked_ms: u32,
    probe: NonZeroU16,
}

impl Correlator {
    /// Makes a correlator that remembers at most `max_sockets` sockets. Beyond that it
    /// evicts closed sockets first, then the least recently seen. An evicted socket that
    /// is seen again gets a new number.
    #[must_use]
    pub fn new(max_sockets: NonZeroUsize) -> Self {
        Self {
            sockets: LruMap::with_capacity(max_sockets),
            numbered: 0,
            evicted: 0,
            gap_ns: 0,
            snapshot: ZombieFinder::none(),
        }
    }

    /// Expects the rows of a snapshot between the events of a trace that began at `began_ns`,
    /// CLOCK_MONOTONIC. Assumes that no idle timeout is longer than `longest_ms`.
    #[must_use]
    pub fn with_snapshot(self, began_ns: u64, longest_ms: u64) -> Self {
        Self {
            snapshot: ZombieFinder::begun(self.sockets.capacity(), began_ns, longest_ms),
            ..self
        }
    }

    /// Takes the next event and emits its records in order. Their `seq` is 0: the filter
    /// assigns it later. Records are lent, because they are large and most are only read.
    ///
    /// The source reads its loss counters after the events of a batch, but reports the
    /// losses before these events. A loss is stamped no earlier than it was read: each of
    /// these events, and the events after them, may follow a gap.
    pub fn push(&mut self, event: &Event, emit: &mut impl FnMut(&mut Record)) {
        match event {
            Event::Lost(lost) => {
                if hides_probes(lost) {
                    self.gap_ns = self.gap_ns.max(lost.at.mono_ns);
                }
                emit(&mut lost_record(lost));
            }
            Event::Socket(event) if is_no_reset(event) => {}
            Event::Socket(event) => self.socket(event, emit),
            Event::PassiveReset(reset) => emit(&mut passive_record(reset)),
            Event::Snapshot(row) => self.row(row, emit),
            Event::SnapshotEnd => self.snapshot.end(),
        }
    }

    /// The owner in the last event of the same socket, and how long it may be used. `None` if
    /// the socket is another one, or has another inode.
    pub fn last_owner(&mut self, event: &SocketEvent) -> Option<(&Owner, OwnerLease)> {
        let last = &self.sockets.get_mut(&event.id)?.last;
        let is_same = event.identity.inode == Some(last.inode) && last.is_of(event);
        is_same.then_some((&last.owner, last.lease))
    }

    /// How many sockets were seen.
    #[must_use]
    pub fn sockets(&self) -> u64 {
        self.numbered
    }

    /// How many sockets were evicted for lack of room before their close was seen.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn socket(&mut self, event: &SocketEvent, emit: &mut impl FnMut(&mut Record)) {
        // An untracked socket may be gone, and its address reused by another.
        let is_tracked = event.id.born_ns != 0;
        let gap_ns = self.gap_ns;
        if matches!(event.kind, Kind::Answered | Kind::Resumed) {
            if let Some(socket) = self.sockets.get_mut(&event.id)
                && socket.last.is_of(event)
            {
                socket.concluded(event, emit);
            }
            return;
        }
        let socket = match self.sockets.get_mut(&event.id) {
            Some(known) if known.last.is_of(event) => known,
            _ => self.begin(event),
        };
        let number = socket.number;
        socket.closed |= event.kind == Kind::Closed;
        let filled = &*socket.last.update(event);
        let waiting = socket.waiting.take_if(|_| event.probes_out == 0);
        if let Some(waiting) = waiting {
            // All events of this socket since the probe were received.
            let certain = is_tracked && waiting.at_ns > gap_ns;
            if let Some(at) = answered_at(&waiting, event, certain) {
                emit(&mut answered_record(filled, number, &waiting, at));
            }
        }
        if event.kind == Kind::Probe {
            socket.waiting = Some(WaitingProbe::new(event));
        }
        if let Some(stalled) = socket.stalled.take_if(|it| it.is_acknowledged(event)) {
            emit(&mut resumed_record(filled, number, &stalled));
        }
        if event.kind == Kind::Stalled {
            socket.stalled = StalledData::of(event).map(Box::new);
        }
        emit(&mut event_record(filled, number));
        self.snapshot.note(event, number);
        if event.kind == Kind::Closed {
            // Kept while there is room: a firing that destroys its socket is reported
            // after the close.
            self.sockets.demote(&event.id);
        }
    }

    /// Adds a socket that was not seen before.
    fn begin(&mut self, event: &SocketEvent) -> &mut Socket {
        let number = self.snapshot.claim(event);
        let socket = Socket {
            number: number.unwrap_or_else(|| self.next_number()),
            closed: false,
            waiting: None,
            stalled: None,
            last: LastSeen::of(event),
        };
        let (socket, before) = self.sockets.push(event.id, socket);
        // Another socket may have replaced an untracked one at the same address.
        let evicted = before.filter(|(id, socket)| *id != event.id && !socket.closed);
        self.evicted += u64::from(evicted.is_some());
        socket
    }

    fn row(&mut self, row: &Row, emit: &mut impl FnMut(&mut Record)) {
        let Some(NewZombie { why, number }) = self.snapshot.check(row) else {
            return;
        };
        let number = number.unwrap_or_else(|| {
            let number = self.next_number();
            self.evicted += u64::from(self.snapshot.remember(row, number));
            number
        });
        emit(&mut snapshot::record(row, number, why));
    }

    const fn next_number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }
}

impl Socket {
    /// Handles an event that ends what an earlier one began.
    fn concluded(&mut self, event: &SocketEvent, emit: &mut impl FnMut(&mut Record)) {
        if event.kind == Kind::Answered {
            self.answered(event, emit);
        } else if let Some(stalled) = self.stalled.take_if(|it| it.is_acknowledged(event)) {
            emit(&mut resumed_record(event, self.number, &stalled));
        }
    }

    /// Handles an incoming answer. Ignores it if the event of its probe was lost: its
    /// round-trip time is unknown.
    fn answered(&mut self, event: &SocketEvent, emit: &mut impl FnMut(&mut Record)) {
        let is_its_probe = |waiting: &WaitingProbe| {
            waiting.probe.get() == u16::from(event.probes_out) && waiting.at_ns <= event.at.mono_ns
        };
        if let Some(waiting) = self.waiting.take().filter(is_its_probe) {
            emit(&mut seen_record(event, self.number, &waiting));
        }
    }
}

/// The last known inode, owner and endpoints of a socket. It loses them before it is
/// destroyed: the endpoints on a disconnect (`tcp_disconnect`, net/ipv4/tcp.c). They
/// complete the record of its close, and tell it from another socket at its address.
#[derive(Debug)]
struct LastSeen {
    /// 0 if the socket had none.
    inode: u64,
    /// 0 while the kernel has not made one.
    cookie: u64,
    owner: Owner,
    lease: OwnerLease,
    pair: Flow,
}

impl LastSeen {
    fn of(event: &SocketEvent) -> Self {
        Self {
            inode: event.identity.inode.unwrap_or(0),
            cookie: event.identity.cookie.unwrap_or(0),
            owner: event.owner.clone(),
            lease: event.lease,
            pair: Flow::from(&event.endpoints),
        }
    }

    /// Whether an event is of this socket. Another one may have its address if its end was
    /// missed, or if its events are not tracked. A socket that disconnects and connects
    /// again is another connection.
    fn is_of(&self, event: &SocketEvent) -> bool {
        let cookie = event.identity.cookie.unwrap_or(0);
        // A cookie is made when it is first asked for, and then stays.
        let same_cookie = self.cookie == 0 || self.cookie == cookie;
        same_cookie && (lacks_endpoints(event) || self.pair == Flow::from(&event.endpoints))
    }

    /// Remembers the owner of an event, or fills in what the event has lost: a socket that no
    /// process holds any more keeps the one that held it last.
    fn update<'a>(&mut self, event: &'a SocketEvent) -> Cow<'a, SocketEvent> {
        if event.kind != Kind::Closed && !lacks_endpoints(event) {
            if event.owner.is_known() && event.owner != self.owner {
                *self = Self::of(event);
            }
            self.cookie = event.identity.cookie.unwrap_or(self.cookie);
            self.lease = event.lease;
            if event.owner.is_known() || event.identity.inode.is_some() || !self.owner.is_known() {
                return Cow::Borrowed(event);
            }
            let mut orphaned = event.clone();
            orphaned.owner.clone_from(&self.owner);
            return Cow::Owned(orphaned);
        }
        let mut end = event.clone();
        if end.kind == Kind::Closed && !end.owner.is_known() {
            end.identity.inode = Some(self.inode).filter(|&inode| inode != 0);
            end.owner = mem::take(&mut self.owner);
        }
        if lacks_endpoints(event) {
            (end.endpoints.laddr, end.endpoints.lport) = self.pair.local();
            (end.endpoints.raddr, end.endpoints.rport) = self.pair.remote();
        }
        Cow::Owned(end)
    }
}

/// Whether a socket was disconnected before the event.
const fn lacks_endpoints(event: &SocketEvent) -> bool {
    event.endpoints.rport == 0
}

impl StalledData {
    fn of(event: &SocketEvent) -> Option<Self> {
        let stalled_ms = event.transfer.as_ref()?.stalled_ms?;
        Some(Self {
            at_ns: event.at.mono_ns,
            since_ns: event.at.mono_ns.saturating_sub(ms_to_ns(stalled_ms)),
            retransmits: event.retransmits,
        })
    }

    /// Whether a later event shows that the data was acknowledged: `tcp_ack`
    /// (net/ipv4/tcp_input.c) stamps an acknowledgement, and counts the retransmissions
    /// from 0 again if it acknowledges anything.
    fn is_acknowledged(&self, event: &SocketEvent) -> bool {
        let acked_ns = acked_ns(event);
        !matches!(event.kind, Kind::Timeout(_) | Kind::Stalled)
            && event.retransmits < self.retransmits
            && acked_ns > self.at_ns.saturating_add(ms_to_ns(TICK_MS))
    }
}

impl WaitingProbe {
    fn new(event: &SocketEvent) -> Self {
        let short = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
        Self {
            at_ns: event.at.mono_ns,
            // At 0 ms no answer fits in between.
            due_ms: event.next_ms.and_then(|ms| NonZeroU32::new(short(ms))),
            acked_ms: short(event.lastack_ms),
            probe: probe_number(event),
        }
    }

    fn due_ns(&self) -> Option<u64> {
        let ms = self.due_ms?.get().into();
        Some(self.at_ns.saturating_add(ms_to_ns(ms)))
    }

    fn acked_ns(&self) -> u64 {
        self.at_ns.saturating_sub(ms_to_ns(self.acked_ms.into()))
    }
}

/// The number of the probe that this event sent or will send next. Counted from the
/// probes out before the event: an answer may arrive before the count after it is read.
fn probe_number(event: &SocketEvent) -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(event.probes_out.into())
}

/// Whether what looks like a received reset is data for an orphan.
///
/// No process can read such data, so the kernel treats it as a reset, and answers with one
/// (`tcp_rcv_state_process`, net/ipv4/tcp_input.c): that reset has its own event. If the
/// segment is not known: the kernel has then just processed the acknowledgement in it; it
/// does not process that of a reset.
fn is_no_reset(event: &SocketEvent) -> bool {
    if let Some(flags) = event.arrival.flags {
        return event.kind == Kind::RstReceived && !flags.resets();
    }
    let is_closing = matches!(
        State::from_number(event.state),
        Some(State::FinWait1 | State::FinWait2)
    );
    event.kind == Kind::RstReceived
        && event.identity.orphan == Some(true)
        && is_closing
        && event.lastack_ms <= TICK_MS
}

fn hides_probes(lost: &Lost) -> bool {
    lost.hook == Hook::KeepaliveTimer && matches!(lost.kind, None | Some(Kind::Probe))
}

/// When the last acknowledgement came, CLOCK_MONOTONIC ns, accurate to a tick.
fn acked_ns(event: &SocketEvent) -> u64 {
    event.at.mono_ns.saturating_sub(ms_to_ns(event.lastack_ms))
}

/// The latest time at which the probe was answered, CLOCK_MONOTONIC ns. `event` has no
/// probe out. `None` if it may not have been answered.
///
/// `tcp_ack` resets the probe count and stamps the acknowledgement, so the stamp must be
/// newer than the probe (`tcp_disconnect` resets the count without a stamp). If events
/// are missing, another probe may have been sent and answered: then the acknowledgement
/// must have come before the kernel could send another.
fn answered_at(waiting: &WaitingProbe, event: &SocketEvent, certain: bool) -> Option<u64> {
    let acked = acked_ns(event);
    if acked <= waiting.acked_ns().saturating_add(ms_to_ns(TICK_MS)) {
        return None;
    }
    if !certain
        && waiting
            .due_ns()
            .is_none_or(|due| acked.saturating_add(ms_to_ns(TICK_MS)) >= due)
    {
        return None;
    }
    Some(acked.clamp(waiting.at_ns, event.at.mono_ns.max(waiting.at_ns)))
}

/// The record of an answer that an event reported when it arrived.
fn seen_record(event: &SocketEvent, sock: u64, waiting: &WaitingProbe) -> Record {
    let took_ns = event.at.mono_ns.saturating_sub(waiting.at_ns);
    let mut record = answered_record(event, sock, waiting, event.at.mono_ns);
    record.rtt_us = Some(took_ns / 1_000);
    record.ttl = event.arrival.ttl;
    record
}

/// The record of an answer that came at `at_ns`, CLOCK_MONOTONIC.
fn answered_record(event: &SocketEvent, sock: u64, waiting: &WaitingProbe, at_ns: u64) -> Record {
    let after_ns = at_ns.saturating_sub(waiting.at_ns);
    let at = before(event.at, at_ns);
    let mut record = socket_record(event, sock, at, EventName::Answered);
    record.probe = Some(waiting.probe.get().into());
    record.probes_out = Some(0);
    record.answered_after_ms = Some(after_ns / 1_000_000);
    record
}

/// The record of stalled data that was acknowledged, as a later event or a look shows. It is of
/// the time of the last acknowledgement: no later than that, the data was acknowledged.
fn resumed_record(event: &SocketEvent, sock: u64, stalled: &StalledData) -> Record {
    let at = before(event.at, acked_ns(event));
    let stalled_ns = at.mono_ns.saturating_sub(stalled.since_ns);
    let mut record = socket_record(event, sock, at, EventName::Resumed);
    record.probes_out = Some(0);
    record.retransmits = Some(stalled.retransmits);
    record.transfer.stalled_ms = Some(stalled_ns / 1_000_000);
    record
}

/// An earlier time, CLOCK_MONOTONIC ns, by both clocks.
fn before(now: Instant, mono_ns: u64) -> Instant {
    let before_ns = now.mono_ns.saturating_sub(mono_ns);
    Instant {
        mono_ns,
        wall_ns: now.wall_ns.saturating_sub_unsigned(before_ns),
    }
}

fn event_record(event: &SocketEvent, sock: u64) -> Record {
    let probe = matches!(event.kind, Kind::Probe | Kind::ProbeCongested);
    let received = event.kind == Kind::RstReceived;
    // The kernel sets the time stamps behind the ages when the handshake is over
    // (`tcp_finish_connect`, net/ipv4/tcp_input.c).
    let connected = State::from_number(event.state) != Some(State::SynSent);
    let mut record = socket_record(event, sock, event.at, event.kind.into());
    record.probe = probe.then(|| probe_number(event).get().into());
    record.probes_out = Some(event.probes_out_after);
    if connected {
        record.ages = event.ages();
    }
    if event.kind == Kind::FinReceived {
        // The kernel has processed the acknowledgement in the FIN's segment already: it hides
        // an earlier one.
        record.ages.idle_ms = record.ages.lastrcv_ms;
        record.ages.heard_ms = None;
    }
    record.next_ms = event.next_ms;
    record.late_ms = event.late_ms;
    record.unacked = Some(event.unacked);
    match event.kind {
        Kind::Timeout(cause) => record.cause = Some(cause),
        Kind::FinWait2(to) => record.to = to,
        _ => {}
    }
    record.err = event.err.map(Errno);
    if event.kind == Kind::RstSent {
        record.direction = Some(Direction::Active);
        record.state = State::from_number(event.state_after);
        let before = (event.state != event.state_after).then_some(event.state);
        record.state_before = before.and_then(State::from_number);
    }
    record.reason = event.reason.as_deref().map(Escaped::from);
    record.firing_ns = event.firing_ns;
    let retransmits = received || event.transfer.is_some();
    let ends_in_order = matches!(event.kind, Kind::FinReceived | Kind::FinSent);
    record.unsent = (received || ends_in_order).then_some(event.write_queue);
    record.retransmits = retransmits.then_some(event.retransmits);
    record.actor = event.actor.as_deref().cloned().unwrap_or_default();
    record.transfer = event.transfer.as_deref().copied().unwrap_or_default();
    record.dead_in_ms = event.dead_in_ms;
    record.dead_by = event.dead_by;
    record.ttl = event.arrival.ttl;
    record.peer_ttl = event.arrival.peer_ttl;
    record.from_this_host = event.arrival.from_this_host;
    record.data_received = event.arrival.data_received;
    record
}

/// A record with the fields that do not depend on the event's kind. Callers assign the
/// other fields: `..socket_record()` would copy a large record.
fn socket_record(event: &SocketEvent, sock: u64, at: Instant, name: EventName) -> Record {
    Record {
        sock: Some(sock),
        process: event.owner.clone(),
        endpoints: Some(event.endpoints),
        identity: event.identity,
        state: State::from_number(event.state),
        settings: event.settings,
        mptcp: event.mptcp.filter(|&it| it),
        ..Record::new(at, name)
    }
}

fn passive_record(reset: &PassiveReset) -> Record {
    Record {
        process: reset.owner.clone(),
        endpoints: Some(reset.endpoints),
        state: State::from_number(reset.state),
        direction: Some(Direction::Passive),
        reason: reset.reason.as_deref().map(Escaped::from),
        flags: Some(TcpFlags(reset.flags)),
        len: Some(reset.len),
        ttl: Some(reset.ttl),
        tracked: reset.tracked,
        process_age_s: reset.process_age_s,
        met: Some(reset.met),
        ..Record::new(reset.at, EventName::RstSent)
    }
}

fn lost_record(lost: &Lost) -> Record {
    Record {
        hook: Some(lost.hook),
        lost_kind: lost.kind.map(EventName::from),
        lost_why: Some(lost.why),
        lost: (lost.why != LostWhy::SwitchedOff).then_some(lost.count),
        ..Record::new(lost.at, EventName::Lost)
    }
}

#[cfg(test)]
mod tests;
