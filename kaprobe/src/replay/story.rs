//! Combines the verdicts on one connection into a story. They come from its two
//! endpoints, and from a host that reset it without having it.
//!
//! Pure: time comes from the records. Addresses and ports identify a connection. A NAT
//! changes them, and they are reused; so the times of the verdicts must match too.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::num::NonZeroUsize;

use crate::lru::LruMap;
use crate::model::record::{EventName, Record};
use crate::model::time::ms_to_ns;
use crate::model::values::{Evidence, VerdictName};
use crate::text::escape::Escaped;
use crate::text::units::Ms;

/// Most connections that are remembered.
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(16_384).expect("it is not zero");

/// Most hosts in all. Verdicts of others are in no story.
const MAX_NAMES: usize = 1_000;

/// Most hosts per connection.
const MAX_HOSTS: usize = 8;

/// Two hosts may see the same segment this far apart, ns. Allows for clock differences.
const MAX_SKEW_NS: i64 = 5_000_000_000;

/// Both endpoints, the lesser first: equal on both hosts.
type EndpointPair = [(IpAddr, u16); 2];

/// The last verdict of each host, by connection.
#[derive(Debug)]
pub(super) struct Stories {
    connections: LruMap<EndpointPair, Vec<HostVerdict>>,
    /// The names of the hosts, to keep each in memory once.
    hosts: BTreeSet<Escaped>,
}

/// A host's verdict on a connection.
#[derive(Clone, Debug)]
struct HostVerdict {
    host: Escaped,
    verdict: VerdictName,
    /// The sequence number of its record.
    seq: u64,
    /// Wall clock time, ns.
    at_ns: i64,
    idle_ms: u64,
}

impl Stories {
    pub(super) fn new() -> Self {
        Self {
            connections: LruMap::with_capacity(MAX_CONNECTIONS),
            hosts: BTreeSet::new(),
        }
    }

    /// Adds the verdicts of other hosts on the same connection to a verdict.
    pub(super) fn add_story(&mut self, record: &mut Record) {
        let Some((endpoints, mut part)) = HostVerdict::of(record) else {
            return;
        };
        match self.hosts.get(&part.host) {
            Some(known) => part.host.clone_from(known),
            None if self.hosts.len() == MAX_NAMES => return,
            None => drop(self.hosts.insert(part.host.clone())),
        }
        let parts = self.connections.get_or_insert_with(endpoints, Vec::new);
        parts.retain(|it| it.host != part.host);
        // The addresses were reused by another connection.
        if !parts.iter().any(|it| it.fits(&part)) {
            parts.clear();
        }
        if parts.len() == MAX_HOSTS {
            parts.remove(0);
        }
        parts.push(part);
        if parts.len() < 2 {
            return;
        }
        let mut evidence = record.evidence.take().unwrap_or_default().0;
        let others = parts.iter().map(|it| it.seq);
        evidence.extend(others.filter(|&seq| seq > 0 && seq != record.seq));
        evidence.sort_unstable();
        evidence.dedup();
        record.evidence = Some(Evidence(evidence));
        record.story = Some(Escaped::from_escaped(&story(parts)));
    }
}

impl HostVerdict {
    fn of(record: &Record) -> Option<(EndpointPair, Self)> {
        let mut endpoints = [
            (
                record.endpoints.map(|it| it.laddr)?.to_canonical(),
                record.endpoints.map(|it| it.lport)?,
            ),
            (
                record.endpoints.map(|it| it.raddr)?.to_canonical(),
                record.endpoints.map(|it| it.rport)?,
            ),
        ];
        endpoints.sort_unstable();
        let part = Self {
            host: record.host.clone()?,
            verdict: record
                .verdict
                .filter(|_| record.event == EventName::Verdict)?,
            seq: record.seq,
            at_ns: record.time.0,
            idle_ms: record.ages.idle_ms.unwrap_or_default(),
        };
        Some((endpoints, part))
    }

    /// When the peer was last heard, ns.
    fn heard_ns(&self) -> i64 {
        let idle_ns = ms_to_ns(self.idle_ms);
        self.at_ns.saturating_sub_unsigned(idle_ns)
    }

    fn is_stray(&self) -> bool {
        self.verdict == VerdictName::StraySegment
    }

    /// Whether two verdicts may be of one connection. Its endpoints fall silent together,
    /// or one kills the other; a stray segment comes while an endpoint is silent.
    fn fits(&self, other: &Self) -> bool {
        let near = |a: i64, b: i64| a.abs_diff(b) <= MAX_SKEW_NS.unsigned_abs();
        let during = |it: &Self, at: i64| {
            at >= it.heard_ns().saturating_sub(MAX_SKEW_NS)
                && at <= it.at_ns.saturating_add(MAX_SKEW_NS)
        };
        match (self.is_stray(), other.is_stray()) {
            (true, true) => near(self.at_ns, other.at_ns),
            (true, false) => during(other, self.at_ns),
            (false, true) => during(self, other.at_ns),
            (false, false) => {
                near(self.at_ns, other.at_ns) || near(self.heard_ns(), other.heard_ns())
            }
        }
    }

    fn sentence(&self) -> String {
        let Self { host, idle_ms, .. } = self;
        let idle = Ms(*idle_ms);
        match self.verdict {
            VerdictName::IdleEviction => {
                format!("{host} sent after {idle} of silence and was reset")
            }
            VerdictName::StraySegment => {
                format!("{host} answered with a reset, having no such connection")
            }
            VerdictName::ProbeReset => {
                format!("{host} held its end until a probe after {idle} of silence drew a reset")
            }
            VerdictName::PeerUnreachable | VerdictName::UserTimeout => {
                format!("{host} held its end until it gave up after {idle} of silence")
            }
            VerdictName::AbortedByPeer => format!("{host} was reset by its peer"),
            VerdictName::AbortedLocally => format!("{host} reset it"),
            VerdictName::FinWait2 => format!("{host} had closed it"),
            VerdictName::SilentDrop => {
                format!("{host} sent after {idle} of silence and got no answer")
            }
            VerdictName::PathLost => format!("{host} sent and got no answer"),
            VerdictName::IcmpRejected => format!("{host} sent and got an ICMP error"),
            VerdictName::IdleClose => {
                format!("{host} saw one end close it after {idle} without data")
            }
            VerdictName::IdleCloseRace => format!(
                "{host} saw one end close it after {idle} without data, with data on its way"
            ),
            VerdictName::PeerExited => {
                format!("{host} held one end until the process at the other end ended")
            }
        }
    }
}

/// The story: the verdicts in order of time, as far as the hosts' clocks agree.
fn story(parts: &[HostVerdict]) -> String {
    let mut parts: Vec<_> = parts.iter().collect();
    // The host that sent a stray segment comes before the host that received it.
    parts.sort_by_key(|it| {
        (
            it.at_ns
                .saturating_add(if it.is_stray() { MAX_SKEW_NS } else { 0 }),
            it.seq,
        )
    });
    let mut story = String::new();
    for part in &parts {
        let comma = if story.is_empty() { "" } else { "; " };
        // Writing to a String cannot fail.
        let _ = write!(story, "{comma}{}", part.sentence());
    }
    let endpoints = parts.iter().filter(|it| !it.is_stray()).count();
    if endpoints > 1 && endpoints < parts.len() {
        story.push_str(": a box between forgot the connection, and sent it elsewhere");
    }
    story
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::socket::Endpoints;
    use crate::model::time::Instant;

    const CLIENT: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 1)), 40_000);
    const SERVICE: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 100)), 5672);

    /// A verdict of a host, `ms` after the start.
    fn verdict(ms: u32, seq: u64, host: &str, verdict: VerdictName, idle_ms: u64) -> Record {
        let ns = i64::from(ms) * 1_000_000;
        let at = Instant {
            mono_ns: ns.unsigned_abs(),
            wall_ns: ns,
        };
        let mut record = Record::new(at, EventName::Verdict);
        record.seq = seq;
        let is_client = host == "client";
        let (local, remote) = if is_client {
            (CLIENT, SERVICE)
        } else {
            (SERVICE, CLIENT)
        };
        record.host = Some(Escaped::from(host));
        record.endpoints = Some(Endpoints::new(local, remote, 0));
        record.verdict = Some(verdict);
        record.evidence = Some(Evidence(vec![seq - 1]));
        record.ages.idle_ms = Some(idle_ms).filter(|&it| it > 0);
        record
    }

    fn stories(records: Vec<Record>) -> Vec<(Option<String>, Vec<u64>)> {
        let mut stories = Stories::new();
        let combined = records.into_iter().map(|mut record| {
            stories.add_story(&mut record);
            let story = record.story.map(|it| it.to_string());
            (story, record.evidence.unwrap_or_default().0)
        });
        combined.collect()
    }

    #[test]
    fn verdicts_of_three_hosts_make_one_story() {
        use VerdictName::{IdleEviction, ProbeReset, StraySegment};
        let combined = stories(vec![
            verdict(20_000, 2, "server2", StraySegment, 0),
            verdict(20_001, 4, "client", IdleEviction, 12_000),
            verdict(32_000, 8, "server1", ProbeReset, 24_000),
        ]);
        let client = "client sent after 12s of silence and was reset";
        let stray = "server2 answered with a reset, having no such connection";
        let zombie = "server1 held its end until a probe after 24s of silence drew a reset";
        let end = ": a box between forgot the connection, and sent it elsewhere";
        assert_eq!(
            combined,
            [
                (None, vec![1]),
                (Some(format!("{client}; {stray}")), vec![2, 3]),
                (
                    Some(format!("{client}; {stray}; {zombie}{end}")),
                    vec![2, 4, 7]
                ),
            ]
        );
    }

    #[test]
    fn verdicts_too_far_apart_are_of_different_connections() {
        use VerdictName::{AbortedByPeer, AbortedLocally, IdleEviction, ProbeReset, StraySegment};
        let rows = [
            // A stray segment before the endpoint fell silent, and long after it died.
            (StraySegment, 1_000, 0, IdleEviction, 30_000, 12_000, false),
            (IdleEviction, 30_000, 12_000, StraySegment, 40_000, 0, false),
            (StraySegment, 20_000, 0, ProbeReset, 32_000, 24_000, true),
            // One endpoint reset the other; an hour apart they are unrelated.
            (AbortedLocally, 20_000, 0, AbortedByPeer, 20_001, 10, true),
            (
                AbortedLocally,
                20_000,
                0,
                AbortedByPeer,
                3_620_001,
                10,
                false,
            ),
        ];
        for (first, at, idle, second, later, later_idle, tied) in rows {
            let combined = stories(vec![
                verdict(at, 2, "client", first, idle),
                verdict(later, 4, "server1", second, later_idle),
            ]);
            let has_story = combined[1].0.is_some();
            assert_eq!(has_story, tied, "{first:?} {second:?}: {combined:?}");
        }
    }

    #[test]
    fn verdicts_of_one_host_make_no_story() {
        use VerdictName::{AbortedByPeer, AbortedLocally};
        let combined = stories(vec![
            verdict(1, 2, "client", AbortedByPeer, 0),
            verdict(2, 4, "client", AbortedLocally, 0),
        ]);
        let no_story = combined.iter().all(|(story, _)| story.is_none());
        assert!(no_story, "{combined:?}");
    }
}
