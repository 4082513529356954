//! Filters records, numbers them, and counts them.

pub mod events;
pub mod kernel;
pub mod ports;
pub mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU64;

use ipnet::{IpNet, Ipv6Net};

use crate::filter::ports::PortSet;
use crate::filter::processes::{ProcessFilter, passes};
use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::model::socket::Endpoints;
use crate::model::values::{Family, Hook};
use crate::text::escape::Escaped;

/// Filters of sockets. A socket must pass every filter. An empty or `None` filter
/// passes all sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketFilter {
    /// Local ports to keep.
    pub local_ports: PortSet,
    /// Remote ports to keep.
    pub remote_ports: PortSet,
    /// Ports to keep, local or remote.
    pub ports: PortSet,
    /// Networks to keep, local or remote. IPv4 networks contain IPv4-mapped addresses
    /// too. No network is itself IPv4-mapped.
    pub networks: Vec<IpNet>,
    /// Address family of the sockets to keep.
    pub family: Option<Family>,
}

impl SocketFilter {
    /// Whether a socket passes, by the rules of the BPF programs. `None`, a record
    /// without a socket, passes only if no filter is set.
    #[must_use]
    pub fn keeps(&self, endpoints: Option<&Endpoints>) -> bool {
        let Some(it) = endpoints else {
            return *self == Self::default();
        };
        let either = |ports: &PortSet| ports.contains(it.lport) || ports.contains(it.rport);
        let unset = PortSet::is_empty;
        self.family.is_none_or(|family| family == it.family)
            && (unset(&self.local_ports) || self.local_ports.contains(it.lport))
            && (unset(&self.remote_ports) || self.remote_ports.contains(it.rport))
            && (unset(&self.ports) || either(&self.ports))
            && (self.networks.is_empty() || self.contains(it.laddr) || self.contains(it.raddr))
    }

    fn contains(&self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut networks = self.networks.iter();
        networks.any(|it| to_ipv6(it).contains(&address))
    }
}

/// Converts an IPv4 network to an IPv4-mapped one, as the BPF programs compare. `::/0`
/// then contains IPv4 too.
fn to_ipv6(network: &IpNet) -> Ipv6Net {
    match network {
        IpNet::V4(v4) => Ipv6Net::new(v4.addr().to_ipv6_mapped(), 96 + v4.prefix_len()),
        IpNet::V6(v6) => Ok(*v6),
    }
    .unwrap_or_default()
}

/// Filters of records. A record must pass every filter. An empty set of namespaces
/// passes all records. `lost` passes every filter, so that no gap is
/// hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Events to keep.
    pub events: BTreeSet<EventName>,
    /// Sockets to keep. Not set if the kernel filters them.
    pub sockets: SocketFilter,
    /// Network namespaces to keep, inode numbers. Not set if the kernel filters them.
    pub netns: BTreeSet<u32>,
    /// Names of network namespaces to keep. A namespace is kept if its number or its name is.
    pub netns_names: BTreeSet<Escaped>,
    /// Processes to keep.
    pub processes: ProcessFilter,
    /// Maximum number of records to keep.
    pub count: Option<NonZeroU64>,
}

impl RecordFilter {
    /// Whether a record passes, apart from the maximum number.
    #[must_use]
    pub fn keeps(&self, record: &Record) -> bool {
        record.event == EventName::Lost
            || self.events.contains(&record.event) && self.passes_other_filters(record)
    }

    fn passes_other_filters(&self, record: &Record) -> bool {
        let endpoints = record.endpoints.as_ref();
        self.sockets.keeps(endpoints)
            && self.passes_netns(endpoints.map(|it| &it.netns), record.netns_name.as_ref())
            && self.processes.keeps(&record.process)
    }

    fn passes_netns(&self, number: Option<&u32>, name: Option<&Escaped>) -> bool {
        match (self.netns.is_empty(), self.netns_names.is_empty()) {
            (_, true) => passes(&self.netns, number),
            (true, false) => passes(&self.netns_names, name),
            (false, false) => passes(&self.netns, number) || passes(&self.netns_names, name),
        }
    }
}

/// Applies a [`RecordFilter`] to a stream of records.
#[derive(Debug)]
pub struct Filter {
    keep: RecordFilter,
    /// Whether each event is kept, in the order of [`EventName::ALL`].
    keeps_event: [bool; EVENTS],
    /// No filter is set but the event filter.
    keeps_all_else: bool,
    /// Records by event, in the order of [`EventName::ALL`].
    events: [u64; EVENTS],
    /// All counts but those by event.
    counts: FilterCounts,
}

/// The number of events that a record may report.
const EVENTS: usize = EventName::ALL.len();

/// Counts of the records that passed a [`Filter`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterCounts {
    /// Total records.
    pub records: u64,
    /// Records by event.
    pub events: BTreeMap<EventName, u64>,
    /// Events lost, by hook.
    pub lost: BTreeMap<Hook, u64>,
    /// Records that an output of the trace lost. The kernel delivered their events.
    pub lost_by_outputs: u64,
    /// Hooks that missed events of which nobody knows the number.
    pub silenced: BTreeSet<Hook>,
}

impl Filter {
    /// Makes a filter for a new stream.
    #[must_use]
    pub fn new(keep: RecordFilter) -> Self {
        let mut keeps_event = [false; EVENTS];
        for &event in keep.events.iter().chain([&EventName::Lost]) {
            keeps_event[event as usize] = true;
        }
        let only_events = RecordFilter {
            events: keep.events.clone(),
            count: keep.count,
            ..RecordFilter::default()
        };
        Self {
            keeps_event,
            keeps_all_else: keep == only_events,
            events: [0; EVENTS],
            counts: FilterCounts::default(),
            keep,
        }
    }

    /// Whether a record passes. If it does, sets its number and counts it.
    pub fn pass(&mut self, record: &mut Record) -> bool {
        let keeps = |it: &Self, record: &Record| {
            it.passes_event(record.event)
                && (record.event == EventName::Lost || it.passes_other_filters(record))
        };
        if self.is_done() || !keeps(self, record) {
            return false;
        }
        self.counts.records += 1;
        record.seq = self.counts.records;
        self.events[record.event as usize] += 1;
        match (record.hook, record.lost) {
            (Some(hook), Some(lost)) => {
                let sum = self.counts.lost.entry(hook).or_default();
                *sum = sum.saturating_add(lost);
            }
            (Some(hook), None) => {
                self.counts.silenced.insert(hook);
            }
            (None, Some(lost)) => {
                let sum = &mut self.counts.lost_by_outputs;
                *sum = sum.saturating_add(lost);
            }
            (None, None) => {}
        }
        true
    }

    /// Whether the event filter passes this event.
    #[must_use]
    pub fn passes_event(&self, event: EventName) -> bool {
        self.keeps_event[event as usize]
    }

    /// Whether a record passes every filter except the event filter.
    #[must_use]
    pub fn passes_other_filters(&self, record: &Record) -> bool {
        self.keeps_all_else || self.keep.passes_other_filters(record)
    }

    /// Whether the maximum number of records has passed. No more records pass then.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.keep
            .count
            .is_some_and(|count| self.counts.records >= count.get())
    }

    /// The number of records of an event that passed.
    #[must_use]
    pub fn count(&self, event: EventName) -> u64 {
        self.events[event as usize]
    }

    /// Counts of the records that passed.
    #[must_use]
    pub fn counts(&self) -> FilterCounts {
        let events = EventName::ALL.iter().copied().zip(self.events);
        FilterCounts {
            events: events.filter(|&(_, count)| count > 0).collect(),
            ..self.counts.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::model::owner::Owner;
    use crate::model::socket::Process;
    use crate::model::values::LostWhy;

    fn record(event: EventName, pid: Option<u32>, comm: Option<&str>) -> Record {
        let comm = comm.map(Escaped::from);
        Record {
            event,
            process: Owner::from(Process {
                pid,
                comm,
                ..Process::default()
            }),
            ..Record::default()
        }
    }

    #[test]
    fn values_of_a_filter_mean_or_and_filters_mean_and() {
        use EventName::{Lost, Probe, Timeout};
        let keep = RecordFilter {
            events: [Probe].into(),
            processes: ProcessFilter {
                pids: [7, 8].into(),
                comms: [Escaped::from("nginx")].into(),
                ..ProcessFilter::default()
            },
            ..RecordFilter::default()
        };
        for (mut record, kept) in [
            (record(Probe, Some(7), Some("nginx")), true),
            (record(Probe, Some(8), Some("nginx")), true),
            (record(Probe, Some(9), Some("nginx")), false),
            (record(Probe, Some(7), Some("nginx2")), false),
            (record(Timeout, Some(7), Some("nginx")), false),
            (record(Probe, None, None), false),
            (record(Lost, None, None), true),
        ] {
            assert_eq!(
                Filter::new(keep.clone()).pass(&mut record),
                kept,
                "{record:?}"
            );
        }
    }

    #[test]
    fn the_socket_filter_works_as_in_the_kernel() -> Result<(), Box<dyn std::error::Error>> {
        let socket = |local: &str, remote: &str| -> Result<Record, std::net::AddrParseError> {
            let (local, remote): (SocketAddr, SocketAddr) = (local.parse()?, remote.parse()?);
            let mut record = record(EventName::Probe, None, None);
            let [local, remote] = [local, remote].map(|it| (it.ip(), it.port()));
            record.endpoints = Some(Endpoints::new(local, remote, 0));
            Ok(record)
        };
        let ports = |text: &str| text.parse().map(|it| PortSet::from(vec![it]));
        let none = SocketFilter::default;
        let networks = |text: &str| text.parse().map(|it| vec![it]);
        let v4 = socket("10.0.0.1:80", "10.9.0.2:4000")?;
        let v6 = socket("[fd00::1]:80", "[fd00::2]:5000")?;
        let mapped = socket("[::ffff:10.0.0.1]:81", "[::ffff:10.9.0.2]:80")?;
        let lost = record(EventName::Probe, None, None);
        #[rustfmt::skip]
        let rows = [
            (none(), [true, true, true, true]),
            (SocketFilter { local_ports: ports("80")?, ..none() }, [true, true, false, false]),
            (SocketFilter { remote_ports: ports("4000-5000")?, ..none() }, [true, true, false, false]),
            (SocketFilter { ports: ports("80")?, ..none() }, [true, true, true, false]),
            (SocketFilter { ports: ports("81-4000")?, ..none() }, [true, false, true, false]),
            (SocketFilter { networks: networks("10.9.0.0/16")?, ..none() }, [true, false, true, false]),
            (SocketFilter { networks: networks("fd00::/8")?, ..none() }, [false, true, false, false]),
            (SocketFilter { networks: networks("0.0.0.0/0")?, ..none() }, [true, false, true, false]),
            (SocketFilter { networks: networks("::/0")?, ..none() }, [true, true, true, false]),
            (SocketFilter { family: Some(Family::Inet), ..none() }, [true, false, false, false]),
            (SocketFilter { family: Some(Family::Inet6), ..none() }, [false, true, true, false]),
            (SocketFilter { family: Some(Family::Inet6), ports: ports("81")?, ..none() }, [false, false, true, false]),
        ];
        for (filter, kept) in rows {
            let records = [&v4, &v6, &mapped, &lost];
            assert_eq!(
                records.map(|it| filter.keeps(it.endpoints.as_ref())),
                kept,
                "{filter:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn passed_records_are_numbered_counted_and_limited() {
        let keep = RecordFilter {
            events: [EventName::Probe].into(),
            count: NonZeroU64::new(4),
            ..RecordFilter::default()
        };
        let mut filter = Filter::new(keep);
        let mut lost = record(EventName::Lost, None, None);
        (lost.hook, lost.lost) = (Some(Hook::KeepaliveTimer), Some(5));
        let probe = || record(EventName::Probe, Some(1), None);
        let early = record(EventName::Early, Some(1), None);
        let by_output = Record {
            lost: Some(7),
            lost_why: Some(LostWhy::Output),
            ..record(EventName::Lost, None, None)
        };
        let stream = [probe(), early, lost, by_output, probe(), probe()];
        let numbers: Vec<_> = stream
            .into_iter()
            .map(|mut it| filter.pass(&mut it).then_some(it.seq))
            .collect();
        assert_eq!(numbers, [Some(1), None, Some(2), Some(3), Some(4), None]);
        assert!(filter.is_done());
        let events = [(EventName::Probe, 2), (EventName::Lost, 2)].into();
        let lost = [(Hook::KeepaliveTimer, 5)].into();
        assert_eq!(
            filter.counts(),
            FilterCounts {
                records: 4,
                events,
                lost,
                lost_by_outputs: 7,
                silenced: BTreeSet::new(),
            }
        );
    }
}
