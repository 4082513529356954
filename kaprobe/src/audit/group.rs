//! Connections of one program to one place, of one fate and one remedy: a line each,
//! however many there are. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::audit::assessment::Assessment;
use crate::model::fate::{Fate, Why};
use crate::model::remedy::SetIn;
use crate::text::escape::Escaped;
use crate::text::histogram::Histogram;

/// Processes and idle times of a group that are told.
const MOST_PIDS: usize = 4;

/// What the connections of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What becomes of them.
    pub fate: Fate,
    /// Why it is no better.
    pub why: Option<Why>,
    /// Where they are.
    pub netns: u32,
    /// The name of that place.
    pub netns_name: Option<Escaped>,
    /// The command of the program that holds them.
    pub comm: Option<Escaped>,
    /// Somebody holds them who can't be seen.
    pub ownerless: bool,
    /// What they are connected to.
    pub place: Peers,
    /// Where a setting would save them.
    pub set_in: Option<SetIn>,
    /// That setting.
    pub set: Option<Escaped>,
    /// By which timeout they are judged.
    pub timeout_ms: Option<u64>,
}

/// The other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peers {
    /// Clients of this local port.
    Clients(u16),
    /// A server.
    Server(IpAddr, u16),
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// How many connections.
    pub count: u64,
    /// The first processes that hold them.
    pub pids: BTreeSet<u32>,
    /// There are more processes.
    pub more_pids: bool,
    /// The shortest and the longest idle time, ms.
    pub idle_ms: Option<(u64, u64)>,
    /// Likewise, of the silences that the settings let pass.
    pub silence_ms: Option<(u64, u64)>,
    /// Likewise, until timers fire.
    pub next_ms: Option<(u64, u64)>,
    /// How many have been silent for longer than the timeout already.
    pub past: u64,
}

/// All that was found, in a space that grows with the groups alone.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    groups: BTreeMap<Key, Group>,
    counts: BTreeMap<Fate, u64>,
    /// Safe ones that can't lose a probe.
    pub tight: u64,
    /// Connections that pass no middlebox.
    pub loopback: u64,
    /// How long connections have been idle.
    pub idle: Histogram,
    /// The silences that their settings let pass.
    pub silence: Histogram,
}

impl Groups {
    /// Adds a connection.
    pub fn add(&mut self, it: &Assessment) {
        let key = Key {
            fate: it.fate,
            why: it.why,
            netns: it.endpoints.netns,
            netns_name: it.netns_name.clone(),
            comm: it.process.comm.clone(),
            ownerless: it.is_ownerless(),
            place: if it.accepted == Some(true) {
                Peers::Clients(it.endpoints.lport)
            } else {
                Peers::Server(it.endpoints.raddr.to_canonical(), it.endpoints.rport)
            },
            set_in: it.set_in,
            set: it.set.clone(),
            timeout_ms: it.timeout_ms,
        };
        self.groups.entry(key).or_default().add(it);
        *self.counts.entry(it.fate).or_default() += 1;
        self.tight += u64::from(it.fate == Fate::Safe && it.probes_spare == Some(0));
        if let Some(ms) = it.ages.idle_ms {
            self.idle.add(ms);
        }
        if let Some(ms) = it.silence_ms {
            self.silence.add(ms);
        }
    }

    /// The groups: the worst fate first, then the largest.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&Key, &Group)> {
        let mut all: Vec<_> = self.groups.iter().collect();
        all.sort_by_key(|(key, group)| (key.fate, std::cmp::Reverse(group.count)));
        all
    }

    /// How many connections have this fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> u64 {
        self.counts.get(&fate).copied().unwrap_or_default()
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Whether every connection is known to be safe.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.connections() == self.count(Fate::Safe)
    }
}

impl Group {
    fn add(&mut self, it: &Assessment) {
        self.count += 1;
        if let Some(pid) = it.process.pid {
            self.pids.insert(pid);
            if self.pids.len() > MOST_PIDS {
                self.pids.pop_last();
                self.more_pids = true;
            }
        }
        widen(&mut self.idle_ms, it.ages.idle_ms);
        widen(&mut self.silence_ms, it.silence_ms);
        widen(&mut self.next_ms, it.keepalive_next_ms);
        let is_past = it
            .ages
            .idle_ms
            .zip(it.timeout_ms)
            .is_some_and(|(idle, timeout)| idle > timeout);
        self.past += u64::from(is_past);
    }
}

fn widen(range: &mut Option<(u64, u64)>, value: Option<u64>) {
    if let Some(value) = value {
        let (least, most) = range.unwrap_or((value, value));
        *range = Some((least.min(value), most.max(value)));
    }
}
