//! Counts by program: the processes of one name on one host.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::model::record::{EventName, Record};
use crate::model::socket::Settings;
use crate::model::values::VerdictName;
use crate::model::workload::Workload;
use crate::text::escape::Escaped;
use crate::text::units::Ms;

/// Most programs that have a row each. All others share one.
const MAX_PROGRAMS: usize = 256;

/// Most different settings of a program that are kept.
const MAX_SETTINGS: usize = 4;

/// A program on a host. `None` is an unknown program.
pub(super) type ProgramKey = (usize, Option<ProgramName>);

/// A program without the numbers of its processes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProgramName {
    /// What a runtime runs, or the command name.
    name: Escaped,
    workload: Workload,
}

impl ProgramName {
    /// The program that holds the socket of a record.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let process = &record.process;
        let name = process.cmdline.as_ref().or(process.comm.as_ref())?;
        Some(Self {
            name: name.clone(),
            workload: process.workload(),
        })
    }

    pub(super) fn text(&self) -> String {
        format!("{}{}", self.name, self.workload.suffix())
    }
}

/// The counts of a program.
#[derive(Clone, Debug, Default)]
pub(super) struct ProgramCounts {
    pub(super) sockets: u64,
    pub(super) probes: u64,
    pub(super) answered: u64,
    pub(super) verdicts: BTreeMap<VerdictName, u64>,
    /// The keepalive settings that its sockets had.
    pub(super) settings: BTreeSet<String>,
    /// There were more settings than are kept.
    pub(super) has_more_settings: bool,
}

/// The counts of all programs.
#[derive(Debug, Default)]
pub(super) struct Programs {
    rows: BTreeMap<ProgramKey, ProgramCounts>,
    /// All programs that have no row.
    rest: Option<ProgramCounts>,
}

impl Programs {
    /// Counts a record of a host. `is_new` is the first record of a socket.
    pub(super) fn count(&mut self, host: usize, record: &Record, is_new: bool) {
        if record.sock.is_none() {
            return;
        }
        let key = (host, ProgramName::of(record));
        let has_room = self.rows.len() < MAX_PROGRAMS || self.rows.contains_key(&key);
        let counts = if has_room {
            self.rows.entry(key).or_default()
        } else {
            self.rest.get_or_insert_default()
        };
        counts.sockets += u64::from(is_new);
        match record.event {
            EventName::Probe => counts.probes += 1,
            EventName::Alive => {
                let summed = record.alive.as_ref().map_or(0, |it| it.probes_answered);
                counts.probes = counts.probes.saturating_add(summed);
                counts.answered = counts.answered.saturating_add(summed);
            }
            EventName::Answered => counts.answered += 1,
            EventName::Verdict => {
                if let Some(verdict) = record.verdict {
                    *counts.verdicts.entry(verdict).or_default() += 1;
                }
            }
            _ => {}
        }
        if let Some(settings) = keepalive(&record.settings)
            && !counts.settings.contains(&settings)
        {
            if counts.settings.len() < MAX_SETTINGS {
                counts.settings.insert(settings);
            } else {
                counts.has_more_settings = true;
            }
        }
    }

    /// The rows, most verdicts first, then most sockets. The last one is of all others.
    pub(super) fn rows(&self) -> Vec<(Option<&ProgramKey>, &ProgramCounts)> {
        let mut rows: Vec<_> = self.rows.iter().map(|(key, it)| (Some(key), it)).collect();
        let most = std::cmp::Reverse;
        rows.sort_by_key(|(_, it)| (most(it.verdicts.values().sum::<u64>()), most(it.sockets)));
        rows.extend(self.rest.as_ref().map(|it| (None, it)));
        rows
    }
}

/// The keepalive settings of a socket: `off`, or time, interval and count, with their
/// origins, and TCP_USER_TIMEOUT.
fn keepalive(it: &Settings) -> Option<String> {
    let mut text = if it.keepalive? {
        format!(
            "{}/{}/{} ({}/{}/{})",
            Ms(it.keepalive_time_ms?),
            Ms(it.keepalive_intvl_ms?),
            it.keepalive_probes?,
            it.keepalive_time_from?,
            it.keepalive_intvl_from?,
            it.keepalive_probes_from?,
        )
    } else {
        "off".to_owned()
    };
    if let Some(ms) = it.user_timeout_ms {
        // Writing to a String cannot fail.
        let _ = write!(text, ", TCP_USER_TIMEOUT {}", Ms(ms.into()));
    }
    Some(text)
}
