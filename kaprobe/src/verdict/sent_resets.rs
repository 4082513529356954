//! Joins the two ends of a connection: a received reset or FIN with the record of the end
//! that sent it, on this host or in the log of another.

use std::net::IpAddr;
use std::num::NonZeroUsize;

use crate::lru::LruMap;
use crate::model::flow::Flow;
use crate::model::record::{EventName, Record};
use crate::text::escape::Escaped;
use crate::verdict::finding::{Finding, OtherEnd};

/// The maximum number of resets kept. A reset arrives soon after it was sent.
const MAX_RESETS: NonZeroUsize = NonZeroUsize::new(1_024).expect("it is not zero");

/// The longest time from a reset to its arrival, ns. Long enough for a busy host or for
/// clocks that differ, and too short for the ports to be used again.
const MAX_TRANSIT_NS: u64 = 5_000_000_000;

/// The longest time from a reset of this host to its arrival on this host, ns, where only
/// one end of the two is known to be the same.
const MAX_LOCAL_TRANSIT_NS: u64 = 100_000_000;

/// The maximum number of addresses whose hosts are kept.
const MAX_ADDRESSES: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not zero");

/// The resets that the ends of connections sent, in all sources of records.
#[derive(Debug)]
pub struct AllSentResets {
    resets: LruMap<Flow, SentReset>,
    fins: LruMap<Flow, SentReset>,
    /// The source that has the records of an address. Empty with one source.
    hosts: LruMap<IpAddr, AddressHost>,
    sources: usize,
}

/// A trace: the number of its source, and its number in that source.
type TraceId = (usize, u64);

/// A reset or a FIN.
#[derive(Debug)]
struct SentReset {
    trace: TraceId,
    mono_ns: u64,
    wall_ns: i64,
    by: OtherEnd,
}

/// The host whose records have an address as their local one.
#[derive(Debug)]
struct AddressHost {
    source: usize,
    name: Option<Escaped>,
}

/// What the records of other ends tell of a received reset.
#[derive(Clone, Debug, Default)]
pub(super) struct Sender {
    /// The end that sent it, if its record is known.
    pub(super) other_end: Option<OtherEnd>,
    /// The host of the peer, if its log is read and has no record of the reset.
    pub(super) peer_host: Option<Escaped>,
}

impl AllSentResets {
    /// None yet, of this number of sources.
    #[must_use]
    pub fn new(sources: usize) -> Self {
        Self {
            resets: LruMap::with_capacity(MAX_RESETS),
            fins: LruMap::with_capacity(MAX_RESETS),
            hosts: LruMap::with_capacity(MAX_ADDRESSES),
            sources,
        }
    }

    /// Where what an event reports is kept: a FIN apart from a reset, which may follow it.
    const fn sent(&mut self, event: EventName) -> &mut LruMap<Flow, SentReset> {
        match event {
            EventName::FinSent | EventName::FinReceived => &mut self.fins,
            _ => &mut self.resets,
        }
    }

    /// The resets as a trace sees them.
    pub const fn of_trace(&mut self, trace: TraceId) -> SentResets<'_> {
        SentResets { all: self, trace }
    }
}

/// The resets that the ends of connections sent, as one trace sees them.
#[derive(Debug)]
pub struct SentResets<'a> {
    all: &'a mut AllSentResets,
    trace: TraceId,
}

impl SentResets<'_> {
    /// Keeps the host that has the local address of a record.
    pub(super) fn note_host(&mut self, record: &Record) {
        let Some(endpoints) = record.endpoints.filter(|_| self.all.sources > 1) else {
            return;
        };
        let address = endpoints.laddr.to_canonical();
        let source = self.trace.0;
        let is_known = self.all.hosts.get_mut(&address);
        if !address.is_loopback() && is_known.is_none_or(|it| it.source != source) {
            let name = record.host.clone();
            self.all.hosts.push(address, AddressHost { source, name });
        }
    }

    /// The host of the peer, if its records are in another source.
    fn peer_host(&self, record: &Record) -> Option<Escaped> {
        let address = record.endpoints?.raddr.to_canonical();
        let host = self.all.hosts.peek(&address)?;
        host.name.clone().filter(|_| host.source != self.trace.0)
    }

    /// Keeps the reset or FIN of a record, for the verdict on the other end.
    pub(super) fn note(&mut self, record: &Record, finding: Option<&Finding>) {
        let (Some(endpoints), Some(by)) = (record.endpoints, OtherEnd::of(record, finding)) else {
            return;
        };
        let reset = SentReset {
            trace: self.trace,
            mono_ns: record.mono_ns,
            wall_ns: record.time.0,
            by,
        };
        self.all.sent(record.event).push(endpoints.flow(), reset);
    }

    /// What the records of other ends tell of the reset or FIN whose arrival this record
    /// reports.
    pub(super) fn sender(&mut self, record: &Record) -> Sender {
        let other_end = self.take(record);
        let peer_host = self.peer_host(record);
        Sender {
            peer_host: peer_host.filter(|_| other_end.is_none()),
            other_end,
        }
    }

    /// Takes the reset or FIN whose arrival this record reports.
    fn take(&mut self, record: &Record) -> Option<OtherEnd> {
        if record.from_this_host == Some(true) {
            return self.take_redirected(record);
        }
        let sent = self.all.sent(record.event);
        let reset = sent.remove(&record.endpoints?.flow().reversed())?;
        let is_same_trace = reset.trace == self.trace;
        // An earlier trace of the same source has another clock and other sockets.
        if !is_same_trace && reset.trace.0 == self.trace.0 {
            return None;
        }
        let transit_ns = if is_same_trace {
            record.mono_ns.saturating_sub(reset.mono_ns)
        } else {
            record.time.0.abs_diff(reset.wall_ns)
        };
        let is_told = reset.by.is_told && is_same_trace;
        (transit_ns <= MAX_TRANSIT_NS).then_some(OtherEnd {
            is_told,
            ..reset.by
        })
    }

    /// Takes the reset of a proxy on this host to which the connection was redirected: its
    /// end has another local address and port than the peer.
    fn take_redirected(&mut self, record: &Record) -> Option<OtherEnd> {
        let local = record.endpoints?.flow().local();
        let is_sender = |(flow, reset): &(&Flow, &SentReset)| {
            let transit_ns = record.mono_ns.saturating_sub(reset.mono_ns);
            reset.trace == self.trace
                && flow.remote() == local
                && transit_ns <= MAX_LOCAL_TRANSIT_NS
        };
        let senders = self.all.resets.iter().filter(is_sender);
        let (flow, _) = senders.max_by_key(|(_, reset)| reset.mono_ns)?;
        let flow = flow.clone();
        self.all.resets.remove(&flow).map(|it| it.by)
    }
}
