//! Groups of connections with the same program, remote endpoint, fate and remedy. Text
//! output has one line for each group. Pure.

use std::collections::BTreeMap;

use crate::audit::assessment::Assessment;
use crate::model::fate::{Fate, Why};
use crate::model::peer_group::{PeerGroup, Pids, widen};
use crate::model::remedy::{ProgramAdvice, SetIn};
use crate::text::escape::Escaped;
use crate::text::histogram::Histogram;

/// The fields that the connections of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupKey {
    /// The fate of the connections.
    pub fate: Fate,
    /// The reason for the fate.
    pub why: Option<Why>,
    /// The program that holds the connections, and the service.
    pub peer: PeerGroup,
    /// The keepalive options that do nothing while SO_KEEPALIVE is off.
    pub unused_options: Option<Escaped>,
    /// Where to change a setting that saves the connections.
    pub set_in: Option<SetIn>,
    /// The settings to change.
    pub set: Option<Escaped>,
    /// The socket options that do the same as these sysctls.
    pub socket_set: Option<Escaped>,
    /// The settings to change in the words of the program.
    pub own: ProgramAdvice,
    /// The idle timeout used for the fate, ms.
    pub timeout_ms: Option<u64>,
    /// What applies that timeout, and how it is known to be on the path.
    pub timeout_about: Option<Escaped>,
}

/// Counts and ranges of a group's connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// Number of connections.
    pub count: u64,
    /// The processes that hold the connections.
    pub pids: Pids,
    /// The shortest and the longest time since the peer was heard, ms.
    pub quiet_ms: Option<(u64, u64)>,
    /// The shortest and the longest silence that a probe of the peer ended, ms.
    pub peer_probes_after_ms: Option<(u64, u64)>,
    /// The shortest and the longest silence that the settings allow, ms.
    pub silence_ms: Option<(u64, u64)>,
    /// The shortest and the longest time until a keepalive timer fires, ms.
    pub next_ms: Option<(u64, u64)>,
    /// The lowest and the highest number of retransmissions or of unanswered probes.
    pub again: Option<(u64, u64)>,
    /// The shortest and the longest time for which nothing was acknowledged, ms.
    pub stalled_ms: Option<(u64, u64)>,
    /// The shortest and the longest time until the kernel gives up, ms.
    pub dead_in_ms: Option<(u64, u64)>,
    /// The shortest and the longest TCP_USER_TIMEOUT of those whose keepalive is off, ms.
    pub user_timeout_ms: Option<(u64, u64)>,
    /// The shortest and the longest time that a connection was observed, ms.
    pub observed_ms: Option<(u64, u64)>,
    /// The longest silences that were observed: the shortest and the longest of them, ms.
    pub observed_silence_ms: Option<(u64, u64)>,
    /// Number of connections already idle for longer than the timeout.
    pub past: u64,
    /// Number of connections that were silent for longer than the timeout and lived.
    pub outlived: u64,
}

/// All groups and counts of an audit. Memory grows with the number of groups only.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<GroupKey, Group>,
    counts: BTreeMap<Fate, u64>,
    /// Number of safe connections that can't afford to lose a probe.
    pub tight: u64,
    /// Number of connections with keepalive options that do nothing while SO_KEEPALIVE is off.
    pub unused_options: u64,
    /// Number of connections within this host, which pass no middlebox.
    pub loopback: u64,
    /// Times since the peers were heard.
    pub quiet: Histogram,
    /// Longest silences that the settings allow.
    pub silence: Histogram,
}

impl Groups {
    /// Adds a connection.
    pub fn add(&mut self, it: &Assessment) {
        let key = GroupKey {
            fate: it.fate,
            why: it.why,
            peer: PeerGroup::of(
                &it.endpoints,
                it.netns_name.as_ref(),
                &it.process,
                it.is_ownerless(),
                it.accepted == Some(true),
            ),
            unused_options: it.unused_options.clone(),
            set_in: it.set_in,
            set: it.set.clone(),
            socket_set: it.socket_set.clone(),
            own: it.own.clone(),
            timeout_ms: it.timeout_ms,
            timeout_about: it.timeout_about.clone(),
        };
        self.groups.entry(key).or_default().add(it);
        *self.counts.entry(it.fate).or_default() += 1;
        self.unused_options += u64::from(it.unused_options.is_some());
        self.tight += u64::from(it.fate == Fate::Safe && it.probes_spare == Some(0));
        if let Some(ms) = it.ages.quiet_ms() {
            self.quiet.add(ms);
        }
        if let Some(ms) = it.silence_ms {
            self.silence.add(ms);
        }
    }

    /// The groups, sorted by worst fate, then by largest count.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&GroupKey, &Group)> {
        let mut all: Vec<_> = self.groups.iter().collect();
        all.sort_by_key(|(key, group)| (key.fate, std::cmp::Reverse(group.count)));
        all
    }

    /// Number of connections with this fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> u64 {
        self.counts.get(&fate).copied().unwrap_or_default()
    }

    /// Total number of connections.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Whether every connection is safe, or kept by its traffic or its peer as far as was seen.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        let kept = [Fate::Safe, Fate::KeptByTraffic, Fate::KeptByPeer];
        self.connections() == kept.map(|fate| self.count(fate)).iter().sum::<u64>()
    }
}

impl Group {
    fn add(&mut self, it: &Assessment) {
        self.count += 1;
        if let Some(pid) = it.process.pid {
            self.pids.add(pid);
        }
        widen(&mut self.quiet_ms, it.ages.quiet_ms());
        widen(&mut self.peer_probes_after_ms, it.peer_probes_after_ms());
        widen(&mut self.silence_ms, it.silence_ms);
        widen(&mut self.next_ms, it.keepalive_next_ms);
        let again = match it.why {
            Some(Why::ZeroWindow) => it.probes_out,
            _ => it.retransmits,
        };
        widen(&mut self.again, again.map(u64::from));
        widen(&mut self.stalled_ms, it.transfer.stalled_ms);
        widen(&mut self.dead_in_ms, it.dead_in_ms);
        let is_off = it.settings.keepalive == Some(false);
        let user_timeout_ms = it.settings.user_timeout_ms.filter(|_| is_off);
        widen(&mut self.user_timeout_ms, user_timeout_ms.map(u64::from));
        widen(&mut self.observed_ms, it.observed.observed_ms);
        let silence_ms = it.observed.observed_silence_max_ms;
        widen(&mut self.observed_silence_ms, silence_ms);
        let is_past = it
            .ages
            .quiet_ms()
            .zip(it.timeout_ms)
            .is_some_and(|(quiet, timeout)| quiet > timeout);
        self.past += u64::from(is_past);
        self.outlived += u64::from(it.observed.outlived_silence_ms.is_some());
    }
}
