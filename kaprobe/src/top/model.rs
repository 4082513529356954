//! Joins the last snapshot with the records of the trace: the rows to show, in their order.
//! Pure.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use crate::census::sums::{Census, CensusGroup, LiveConnection, Sums};
use crate::cli::args::TopSort;
use crate::model::fate::Fate;
use crate::model::flow::FlowKey;
use crate::model::peer_group::PeerGroup;
use crate::model::socket::Endpoints;
use crate::text::cell::endpoint;
use crate::text::escape::Escaped;
use crate::top::events::{Counts, Events, Timeline};
use crate::top::grouping::contains;

/// The sums of a group that has no connection now.
static NO_SUMS: Sums = Sums::NONE;
/// The counts of a group that has no records.
static NO_COUNTS: Counts = Counts::NONE;

/// The last snapshot and the records so far.
#[derive(Clone, Copy)]
pub(super) struct Model<'a> {
    pub(super) census: &'a Census,
    pub(super) events: &'a Events,
}

/// A group, with what the snapshot and the records tell.
#[derive(Clone, Copy)]
pub(super) struct GroupRow<'a> {
    pub(super) id: &'a PeerGroup,
    pub(super) netns_name: Option<&'a Escaped>,
    pub(super) sums: &'a Sums,
    pub(super) counts: &'a Counts,
    worst: &'a [LiveConnection],
}

/// A connection, with what the snapshot and the records tell. It has at least one of them.
#[derive(Clone, Copy)]
pub(super) struct ConnectionRow<'a> {
    pub(super) endpoints: &'a Endpoints,
    pub(super) live: Option<&'a LiveConnection>,
    pub(super) timeline: Option<&'a Timeline>,
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) by: TopSort,
    pub(super) reversed: bool,
}

impl<'a> Model<'a> {
    /// The groups that contain a text, sorted.
    pub(super) fn groups(self, order: Order, filter: &str) -> Vec<GroupRow<'a>> {
        let filter = filter.to_lowercase();
        let mut rows: Vec<_> = self.all_groups();
        rows.retain(|row| row.contains(&filter));
        match order.by {
            TopSort::Trouble => rows.sort_by_cached_key(|row| Reverse(row.trouble())),
            TopSort::Connections => rows.sort_by_key(|row| Reverse(row.sums.connections)),
            TopSort::Idle => rows.sort_by_key(|row| Reverse(row.sums.idle_ms.map(|it| it.1))),
            TopSort::Probes => rows.sort_by_key(|row| Reverse(row.counts.probes)),
            TopSort::Verdicts => rows.sort_by_key(|row| Reverse(row.counts.verdict_count())),
            TopSort::Program => {}
        }
        if order.reversed {
            rows.reverse();
        }
        rows
    }

    /// All groups, by name.
    fn all_groups(self) -> Vec<GroupRow<'a>> {
        let of_census = self.census.groups.iter().map(|group| GroupRow {
            counts: self.events.counts(&group.id).unwrap_or(&NO_COUNTS),
            ..GroupRow::of(group)
        });
        let mut rows: Vec<_> = of_census.collect();
        let known: HashSet<_> = rows.iter().map(|row| row.id).collect();
        let others = self
            .events
            .groups()
            .filter(|(id, _)| !known.contains(id))
            .map(|(id, counts)| GroupRow {
                id,
                netns_name: None,
                sums: &NO_SUMS,
                counts,
                worst: &[],
            });
        rows.extend(others);
        rows.sort_by_key(|row| row.id);
        rows
    }

    /// A group.
    pub(super) fn group(self, id: &'a PeerGroup) -> GroupRow<'a> {
        let found = self.census.groups.iter().find(|it| it.id == *id);
        let row = found.map_or(
            GroupRow {
                id,
                netns_name: None,
                sums: &NO_SUMS,
                counts: &NO_COUNTS,
                worst: &[],
            },
            GroupRow::of,
        );
        GroupRow {
            counts: self.events.counts(id).unwrap_or(&NO_COUNTS),
            ..row
        }
    }

    /// The connections of a group that contain a text: those in trouble first, then those
    /// with a verdict, then the others that live, then those that are over.
    pub(super) fn connections(self, id: &'a PeerGroup, filter: &str) -> Vec<ConnectionRow<'a>> {
        let filter = filter.to_lowercase();
        let mut with_records: HashMap<&FlowKey, &Timeline> = self
            .events
            .connections()
            .filter(|(_, it)| it.group == *id)
            .collect();
        let live = self.group(id).worst.iter().map(|live| {
            let endpoints = &live.assessment.endpoints;
            ConnectionRow {
                endpoints,
                live: Some(live),
                timeline: with_records.remove(&FlowKey::from(endpoints)),
            }
        });
        let mut rows: Vec<_> = live.collect();
        let mut others: Vec<_> = with_records.into_values().collect();
        others.sort_by_key(|it| Reverse(it.lines.back().map(|line| line.last)));
        rows.extend(others.into_iter().map(|timeline| ConnectionRow {
            endpoints: &timeline.endpoints,
            live: None,
            timeline: Some(timeline),
        }));
        rows.retain(|row| row.contains(&filter));
        rows.sort_by_key(ConnectionRow::rank);
        rows
    }

    /// A connection of a group. `None` if neither the snapshot nor the records have it.
    pub(super) fn connection(self, id: &'a PeerGroup, key: &FlowKey) -> Option<ConnectionRow<'a>> {
        let live = self.group(id).worst.iter();
        let live = live
            .clone()
            .find(|it| FlowKey::from(&it.assessment.endpoints) == *key);
        let timeline = self.events.timeline_of(key);
        let endpoints = match (live, timeline) {
            (Some(live), _) => &live.assessment.endpoints,
            (None, timeline) => &timeline?.endpoints,
        };
        Some(ConnectionRow {
            endpoints,
            live,
            timeline,
        })
    }
}

impl<'a> GroupRow<'a> {
    fn of(group: &'a CensusGroup) -> Self {
        Self {
            id: &group.id,
            netns_name: group.netns_name.as_ref(),
            sums: &group.sums,
            counts: &NO_COUNTS,
            worst: &group.worst,
        }
    }

    /// Whether the group's names contain a text, which is in lower case.
    fn contains(&self, text: &str) -> bool {
        let has_name = |name: &&Escaped| name.as_str().to_lowercase().contains(text);
        contains(self.id, text) || self.netns_name.as_ref().is_some_and(has_name)
    }

    /// How much is wrong: connections that are dead or dying, verdicts, connections that an
    /// idle timeout would kill, and all connections.
    fn trouble(&self) -> [u64; 4] {
        let sums = self.sums;
        [
            sums.stalled + sums.unanswered + sums.of(Fate::Zombie),
            self.counts.verdict_count(),
            sums.of(Fate::Unprotected) + sums.of(Fate::AtRisk),
            sums.connections,
        ]
    }
}

impl ConnectionRow<'_> {
    /// Its key.
    pub(super) fn key(&self) -> FlowKey {
        FlowKey::from(self.endpoints)
    }

    /// Process ID of its owner.
    pub(super) fn pid(&self) -> Option<u32> {
        let live = self.live.and_then(|it| it.assessment.process.pid);
        live.or_else(|| self.timeline?.pid)
    }

    fn rank(&self) -> u8 {
        let has_verdict = self.timeline.is_some_and(|it| it.verdict.is_some());
        match self.live {
            Some(live) if live.is_in_trouble() => 0,
            _ if has_verdict => 1,
            Some(_) => 2,
            None => 3,
        }
    }

    fn contains(&self, text: &str) -> bool {
        let ends = [self.endpoints.local(), self.endpoints.remote()];
        ends.map(endpoint).iter().any(|it| it.contains(text))
            || self.pid().is_some_and(|pid| pid.to_string() == text)
    }
}
