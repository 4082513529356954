//! Groups of connections with the same program and the same remote end.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use crate::model::peers::Peers;
use crate::model::row::Row;
use crate::model::socket::{Endpoints, Process};
use crate::model::values::State;
use crate::model::workload::Workload;
use crate::text::cell::{NOTHING, UNSEEN, word};
use crate::text::escape::Escaped;

/// Maximum number of process IDs kept for a group.
const PID_LIMIT: usize = 1_000;

/// What the connections of a group have in common: the program that holds them, and the
/// service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerGroup {
    /// Network namespace, inode number.
    pub netns: u32,
    /// Name of the network namespace.
    pub netns_name: Option<Escaped>,
    /// Command name of the program that holds the connections.
    pub comm: Option<Escaped>,
    /// What a runtime runs.
    pub cmdline: Option<Escaped>,
    /// The unit, the container and the pod of the program.
    pub workload: Workload,
    /// The process that holds the connections can't be read.
    pub ownerless: bool,
    /// The remote end of the connections.
    pub peers: Peers,
}

impl PeerGroup {
    /// The group of a connection.
    #[must_use]
    pub fn of(
        endpoints: &Endpoints,
        netns_name: Option<&Escaped>,
        process: &Process,
        ownerless: bool,
        accepted: bool,
    ) -> Self {
        Self {
            netns: endpoints.netns,
            netns_name: netns_name.cloned(),
            comm: process.comm.clone(),
            cmdline: process.cmdline.clone(),
            workload: process.workload(),
            ownerless,
            peers: Peers::of(endpoints, accepted),
        }
    }

    /// What a runtime runs, or the command name.
    #[must_use]
    pub fn name(&self) -> Option<Cow<'_, str>> {
        let cmdline = self.cmdline.as_ref().map(|it| it.as_str().into());
        cmdline.or_else(|| self.comm.as_ref().map(|it| word(it.as_str())))
    }

    /// The program and its process, or the number of its processes.
    #[must_use]
    pub fn program(&self, pids: &Pids) -> String {
        let Some(program) = self.name() else {
            return if self.ownerless { UNSEEN } else { NOTHING }.to_owned();
        };
        match (pids.lowest.first(), pids.lowest.len()) {
            (Some(pid), 1) => format!("{program}[{pid}]"),
            (_, count) if pids.more => format!("{program} ({count}+ processes)"),
            (_, count) => format!("{program} ({count} processes)"),
        }
    }

    /// The network namespace: its name or number.
    #[must_use]
    pub fn netns(&self) -> Cow<'_, str> {
        match &self.netns_name {
            Some(name) => word(name.as_str()),
            None => self.netns.to_string().into(),
        }
    }
}

/// The processes of a group. Memory is bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    /// The lowest process IDs.
    pub lowest: BTreeSet<u32>,
    /// There are more processes than these.
    pub more: bool,
}

impl Pids {
    /// Adds a process.
    pub fn add(&mut self, pid: u32) {
        self.lowest.insert(pid);
        if self.lowest.len() > PID_LIMIT {
            self.lowest.pop_last();
            self.more = true;
        }
    }
}

/// The ports that sockets listen on, which tell the connections that were accepted.
#[derive(Clone, Debug, Default)]
pub struct Listeners(HashSet<(u32, u16)>);

impl FromIterator<(u32, u16)> for Listeners {
    fn from_iter<T: IntoIterator<Item = (u32, u16)>>(ports: T) -> Self {
        Self(ports.into_iter().collect())
    }
}

impl Listeners {
    /// Takes note of a listener. The iterator and sock_diag report listeners before
    /// connections (`tcp_seq_start`, net/ipv4/tcp_ipv4.c).
    pub fn see(&mut self, row: &Row) {
        if row.state == State::Listen {
            self.0.insert((row.endpoints.netns, row.endpoints.lport));
        }
    }

    /// Whether a connection was accepted: a socket listens on its local port.
    #[must_use]
    pub fn accepted(&self, endpoints: &Endpoints) -> bool {
        self.0.contains(&(endpoints.netns, endpoints.lport))
    }
}

/// Widens a range by a value.
pub fn widen(range: &mut Option<(u64, u64)>, value: Option<u64>) {
    if let Some(value) = value {
        let (min, max) = range.unwrap_or((value, value));
        *range = Some((min.min(value), max.max(value)));
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn only_the_port_of_the_service_counts() {
        let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut listeners = Listeners::default();
        let listener = Endpoints::new((here, 443), (IpAddr::from([0; 4]), 0), 1);
        listeners.see(&Row {
            endpoints: listener,
            state: State::Listen,
            ..Row::default()
        });
        for (endpoints, label) in [
            (
                Endpoints::new((here, 443), (there, 50_000), 1),
                "clients of :443",
            ),
            (
                Endpoints::new((here, 443), (there, 50_000), 2),
                "10.0.0.2:50000",
            ),
            (
                Endpoints::new((here, 50_000), (there, 443), 1),
                "10.0.0.2:443",
            ),
        ] {
            let accepted = listeners.accepted(&endpoints);
            assert_eq!(Peers::of(&endpoints, accepted).to_string(), label);
        }
    }

    #[test]
    fn many_processes_are_counted() {
        let process = Process {
            comm: Some(Escaped::from("a b\u{1b}[2J")),
            ..Process::default()
        };
        let group = PeerGroup::of(&Endpoints::default(), None, &process, false, false);
        let mut pids = Pids::default();
        pids.add(7);
        assert_eq!(group.program(&pids), r"a\x20b\u{1b}[2J[7]");
        pids.add(8);
        assert_eq!(group.program(&pids), r"a\x20b\u{1b}[2J (2 processes)");
        (0..2_000).for_each(|pid| pids.add(pid));
        assert_eq!(group.program(&pids), r"a\x20b\u{1b}[2J (1000+ processes)");
    }
}
