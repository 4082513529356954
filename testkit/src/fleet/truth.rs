//! What happened in a fleet, which its logs should show.

use std::collections::{BTreeMap, BTreeSet};

/// What happened in a fleet.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// The idle timeout towards an endpoint, ms.
    pub timeouts_ms: BTreeMap<String, u64>,
    /// The endpoints of servers that were restarted once, and have no idle timeout.
    pub restarted: BTreeSet<String>,
    /// The connections that a balancer forgot.
    pub stories: BTreeSet<Story>,
    /// How many connections to an endpoint died by its idle timeout.
    pub evicted: BTreeMap<String, u64>,
    /// Host, program and endpoint of the connections that died by an idle timeout.
    pub unprotected: BTreeSet<(String, String, String)>,
    /// How many events each host lost.
    pub lost: BTreeMap<String, u64>,
    /// The hosts whose log ended long before the others.
    pub silent: BTreeSet<String>,
    /// The hosts whose recorder was killed, and started again.
    pub killed: BTreeSet<String>,
    /// Records in all logs.
    pub records: u64,
    /// Bytes of all logs, as JSON lines.
    pub bytes: u64,
    /// Bytes of all segments.
    pub compressed: u64,
}

/// A connection that a balancer forgot: three hosts have a part in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Story {
    /// The host that sent after a silence.
    pub client: String,
    /// The service that it sent to.
    pub endpoint: String,
    /// The server to which the balancer sent that segment.
    pub strayed_to: String,
    /// The server that held its end.
    pub held_by: String,
}

impl Truth {
    /// Adds what happened on other hosts.
    pub fn append(&mut self, other: Self) {
        self.timeouts_ms.extend(other.timeouts_ms);
        self.restarted.extend(other.restarted);
        self.stories.extend(other.stories);
        for (endpoint, count) in other.evicted {
            *self.evicted.entry(endpoint).or_default() += count;
        }
        self.unprotected.extend(other.unprotected);
        self.lost.extend(other.lost);
        self.silent.extend(other.silent);
        self.killed.extend(other.killed);
        self.records += other.records;
        self.bytes += other.bytes;
        self.compressed += other.compressed;
    }
}
