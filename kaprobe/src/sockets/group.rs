//! Groups sockets by program and remote end, for `kaprobe sockets --group`. Pure.
//!
//! `schema/kaprobe-socket-groups.schema.json` documents the fields too. A test checks that
//! the names are the same.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::cli::args::Sort;
use crate::keepalive::connection::Connection;
use crate::keepalive::zombie::{PathTimeout, zombie};
use crate::model::field::record;
use crate::model::peer_group::{Listeners, PeerGroup, Pids, widen};
use crate::model::peers::Peers;
use crate::model::row::Row;
use crate::model::time::WallTime;
use crate::model::values::State;
use crate::text::escape::Escaped;

/// Version of this format, which each JSON line bears.
pub const VERSION: &str = "1.0";

record! {
    /// Connections of one program with one service. A field that does not apply, or is not
    /// known, is absent. A minimum and a maximum are those of the connections in which the
    /// value is known.
    pub struct SocketGroup {
        /// Time of reading, wall clock.
        time: WallTime,
        /// Network namespace, inode number.
        netns: u32,
        /// Name of the network namespace.
        netns_name: Option<Escaped>,
        /// Command name of the program that holds the connections.
        comm: Option<Escaped>,
        /// What a runtime runs.
        cmdline: Option<Escaped>,
        /// systemd unit of the program.
        unit: Option<Escaped>,
        /// Container of the program: its name, or the first 12 digits of its id.
        container: Option<Escaped>,
        /// Name of the Kubernetes pod of the program.
        pod: Option<Escaped>,
        /// Kubernetes namespace of the pod.
        pod_namespace: Option<Escaped>,
        /// The lowest process ID.
        pid: Option<u32>,
        /// Number of processes, of which at most 1,000 are counted.
        processes: u64,
        /// The connections were accepted: a socket listens on their local port.
        accepted: bool,
        /// Local port, if they were accepted.
        lport: Option<u16>,
        /// Remote address, if they were not.
        raddr: Option<IpAddr>,
        /// Remote port, if they were not.
        rport: Option<u16>,
        /// Number of connections.
        count: u64,
        /// Number of those with SO_KEEPALIVE on.
        keepalive_on: u64,
        /// Number of those with SO_KEEPALIVE off.
        keepalive_off: u64,
        /// Number of those that have keepalive options set while SO_KEEPALIVE is off.
        unused_options: u64,
        /// Shortest idle time before the first probe, of those with keepalive on, ms.
        keepalive_time_min_ms: Option<u64>,
        /// Longest idle time before the first probe, of those with keepalive on, ms.
        keepalive_time_max_ms: Option<u64>,
        /// Shortest time between probes, of those with keepalive on, ms.
        keepalive_intvl_min_ms: Option<u64>,
        /// Longest time between probes, of those with keepalive on, ms.
        keepalive_intvl_max_ms: Option<u64>,
        /// Lowest probe count, of those with keepalive on.
        keepalive_probes_min: Option<u64>,
        /// Highest probe count, of those with keepalive on.
        keepalive_probes_max: Option<u64>,
        /// Shortest TCP_USER_TIMEOUT of those that have one, ms.
        user_timeout_min_ms: Option<u64>,
        /// Longest TCP_USER_TIMEOUT of those that have one, ms.
        user_timeout_max_ms: Option<u64>,
        /// Shortest time since data or an acknowledgement was received, ms.
        idle_min_ms: Option<u64>,
        /// Median of these times, ms: the lower one of two.
        idle_median_ms: Option<u64>,
        /// Longest of these times, ms.
        idle_max_ms: Option<u64>,
        /// Number of connections with data or window probes sent again and again, and not
        /// answered.
        stalled: u64,
        /// Number of connections that are dead, while the local socket is still open.
        zombies: u64,
        /// Shortest time until the kernel gives up if the peer is gone, ms.
        dead_in_min_ms: Option<u64>,
        /// Longest time until the kernel gives up if the peer is gone, ms.
        dead_in_max_ms: Option<u64>,
    }
    order {
        time,
        netns,
        netns_name,
        comm,
        cmdline,
        unit,
        container,
        pod,
        pod_namespace,
        pid,
        processes,
        accepted,
        lport,
        raddr,
        rport,
        count,
        keepalive_on,
        keepalive_off,
        unused_options,
        keepalive_time_min_ms,
        keepalive_time_max_ms,
        keepalive_intvl_min_ms,
        keepalive_intvl_max_ms,
        keepalive_probes_min,
        keepalive_probes_max,
        user_timeout_min_ms,
        user_timeout_max_ms,
        idle_min_ms,
        idle_median_ms,
        idle_max_ms,
        stalled,
        zombies,
        dead_in_min_ms,
        dead_in_max_ms,
    }
}

/// All groups. Memory grows with the number of groups, and by eight bytes a connection.
#[derive(Debug)]
pub(super) struct SocketGroups {
    groups: BTreeMap<PeerGroup, Members>,
    listeners: Listeners,
    /// Without probes, only a silence of a multiple of this time tells a zombie, ms.
    longest_timeout_ms: u64,
}

/// Counts and ranges of a group's connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    time: WallTime,
    pub pids: Pids,
    pub count: u64,
    pub on: u64,
    pub off: u64,
    pub unused_options: u64,
    pub time_ms: Option<(u64, u64)>,
    pub intvl_ms: Option<(u64, u64)>,
    pub probes: Option<(u64, u64)>,
    pub user_timeout_ms: Option<(u64, u64)>,
    idle_ms: Vec<u64>,
    pub stalled: u64,
    pub zombies: u64,
    pub dead_in_ms: Option<(u64, u64)>,
}

impl SocketGroups {
    pub(super) fn new(longest_timeout_ms: u64) -> Self {
        Self {
            groups: BTreeMap::new(),
            listeners: Listeners::default(),
            longest_timeout_ms,
        }
    }

    /// Adds a socket. Listeners only tell which connections were accepted.
    pub(super) fn add(&mut self, row: &Row) {
        self.listeners.see(row);
        if row.state == State::Listen {
            return;
        }
        let key = PeerGroup::of(
            &row.endpoints,
            row.netns_name.as_ref(),
            &row.process,
            row.is_ownerless(),
            self.listeners.accepted(&row.endpoints),
        );
        let members = self.groups.entry(key).or_default();
        members.add(row, PathTimeout::NoneLongerThan(self.longest_timeout_ms));
    }

    /// The groups: the largest first, or those that are idle for longest, or that are given
    /// up first.
    pub(super) fn sorted(&mut self, by: Option<Sort>) -> Vec<(&PeerGroup, &Members)> {
        for members in self.groups.values_mut() {
            members.idle_ms.sort_unstable();
        }
        let mut all: Vec<_> = self.groups.iter().collect();
        all.sort_by_key(|(_, it)| {
            let first = match by {
                Some(Sort::Idle) => Reverse(it.idle_ms.last().copied()),
                Some(Sort::Dead) => {
                    Reverse(it.dead_in_ms.map(|(soonest_ms, _)| u64::MAX - soonest_ms))
                }
                _ => Reverse(None),
            };
            (first, Reverse(it.count))
        });
        all
    }
}

impl Members {
    fn add(&mut self, row: &Row, path: PathTimeout) {
        let settings = &row.settings;
        self.time = row.time;
        self.count += 1;
        if let Some(pid) = row.process.pid {
            self.pids.add(pid);
        }
        if settings.keepalive == Some(true) {
            self.on += 1;
            widen(&mut self.time_ms, settings.keepalive_time_ms);
            widen(&mut self.intvl_ms, settings.keepalive_intvl_ms);
            widen(&mut self.probes, settings.keepalive_probes);
        }
        self.off += u64::from(settings.keepalive == Some(false));
        self.unused_options += u64::from(settings.unused_options().is_some());
        widen(
            &mut self.user_timeout_ms,
            settings.user_timeout_ms.map(u64::from),
        );
        self.idle_ms.extend(row.ages.idle_ms);
        widen(&mut self.dead_in_ms, row.dead_in_ms);
        if let Some(connection) = Connection::from_row(row) {
            self.stalled += u64::from(connection.stalled.is_some());
            self.zombies += u64::from(zombie(&connection, path).is_some());
        }
    }

    /// The shortest idle time, the median and the longest, ms.
    pub(super) fn idle_ms(&self) -> Option<[u64; 3]> {
        let sorted = &self.idle_ms;
        let median = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
        Some([*sorted.first()?, median, *sorted.last()?])
    }

    /// The group as a record.
    pub(super) fn record(&self, key: &PeerGroup) -> SocketGroup {
        let least = |range: Option<(u64, u64)>| range.map(|(least, _)| least);
        let most = |range: Option<(u64, u64)>| range.map(|(_, most)| most);
        let idle_ms = self.idle_ms();
        let workload = &key.workload;
        let (lport, server) = match key.peers {
            Peers::Clients(port) => (Some(port), None),
            Peers::Server(address, port) => (None, Some((address, port))),
        };
        SocketGroup {
            time: self.time,
            netns: key.netns,
            netns_name: key.netns_name.clone(),
            comm: key.comm.clone(),
            cmdline: key.cmdline.clone(),
            unit: workload.unit.clone(),
            container: workload.container.clone(),
            pod: workload.pod.clone(),
            pod_namespace: workload.pod_namespace.clone(),
            pid: self.pids.lowest.first().copied(),
            processes: self.pids.lowest.len() as u64,
            accepted: lport.is_some(),
            lport,
            raddr: server.map(|(address, _)| address),
            rport: server.map(|(_, port)| port),
            count: self.count,
            keepalive_on: self.on,
            keepalive_off: self.off,
            unused_options: self.unused_options,
            keepalive_time_min_ms: least(self.time_ms),
            keepalive_time_max_ms: most(self.time_ms),
            keepalive_intvl_min_ms: least(self.intvl_ms),
            keepalive_intvl_max_ms: most(self.intvl_ms),
            keepalive_probes_min: least(self.probes),
            keepalive_probes_max: most(self.probes),
            user_timeout_min_ms: least(self.user_timeout_ms),
            user_timeout_max_ms: most(self.user_timeout_ms),
            idle_min_ms: idle_ms.map(|[it, ..]| it),
            idle_median_ms: idle_ms.map(|[_, it, _]| it),
            idle_max_ms: idle_ms.map(|[.., it]| it),
            stalled: self.stalled,
            zombies: self.zombies,
            dead_in_min_ms: least(self.dead_in_ms),
            dead_in_max_ms: most(self.dead_in_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::field::Fields as _;
    use crate::sample::golden_rows;

    #[test]
    fn the_schema_has_every_field() -> serde_json::Result<()> {
        let schema = include_str!("../../../schema/kaprobe-socket-groups.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema)?;
        let fields = schema["properties"].as_object();
        let mut documented: Vec<_> = fields.into_iter().flat_map(|it| it.keys()).collect();
        // The writer of the lines adds the version.
        documented.retain(|name| *name != "version");
        let mut names = SocketGroup::NAMES.to_vec();
        documented.sort_unstable();
        names.sort_unstable();
        assert_eq!(documented, names);
        Ok(())
    }

    /// The groups of the golden sockets: the remote end, and the counts.
    fn groups(by: Option<Sort>) -> Result<Vec<String>, String> {
        let mut groups = SocketGroups::new(1_000);
        for row in golden_rows()? {
            groups.add(&row);
        }
        let sorted = groups.sorted(by);
        let texts = sorted.into_iter().map(|(key, it)| {
            let (to, program) = (key.peers.to_string(), key.program(&it.pids));
            let idle = it.idle_ms();
            let idle = idle.map_or("-".to_owned(), |it| format!("{it:?}"));
            format!("{} {program} {to} idle {idle}", it.count)
        });
        Ok(texts.collect())
    }

    #[test]
    fn every_connection_is_in_one_group() -> Result<(), String> {
        let rows = golden_rows()?;
        let listeners = rows.iter().filter(|it| it.state == State::Listen).count();
        let mut groups = SocketGroups::new(1_000);
        rows.iter().for_each(|row| groups.add(row));
        let sorted = groups.sorted(None);
        let count: u64 = sorted.iter().map(|(_, it)| it.count).sum();
        assert_eq!(count, (rows.len() - listeners) as u64);
        for (key, it) in sorted {
            assert!(it.on + it.off <= it.count, "{key:?}");
            assert!(it.zombies + it.stalled <= it.count, "{key:?}");
        }
        Ok(())
    }

    #[test]
    fn groups_are_sorted() -> Result<(), String> {
        let first = |by| groups(by)?.first().cloned().ok_or("no group".to_owned());
        let largest = first(None)?;
        assert!(largest.contains(" 10.0.0.2:5672 "), "{largest}");
        let longest_idle = first(Some(Sort::Idle))?;
        assert!(longest_idle.contains("7300"), "{longest_idle}");
        Ok(())
    }

    #[test]
    fn the_median_is_one_of_the_times() {
        for (idle_ms, expected) in [
            (&[][..], None),
            (&[5], Some([5, 5, 5])),
            (&[1, 2], Some([1, 1, 2])),
            (&[1, 2, 9], Some([1, 2, 9])),
        ] {
            let members = Members {
                idle_ms: idle_ms.to_vec(),
                ..Members::default()
            };
            assert_eq!(members.idle_ms(), expected);
        }
    }
}
