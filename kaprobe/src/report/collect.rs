//! Collects what a report shows while logs are read. Keeps no records: memory is bounded,
//! and what is left out is counted.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::header::{Header, TimeoutsChange};
use crate::model::owner::Owner;
use crate::model::record::{EventName, Record};
use crate::model::time::WallTime;
use crate::model::trailer::Trailer;
use crate::model::values::VerdictName;
use crate::replay::RecordSink;
use crate::replay::summary::ReplaySummary;
use crate::report::ages::IdleAges;
use crate::report::conversations::Conversations;
use crate::report::programs::Programs;
use crate::report::recording::Recording;
use crate::report::remedies::Remedies;
use crate::sink::{Head, SinkError};
use crate::text::escape::Escaped;
use crate::timeout::estimate::TimeoutEstimator;

/// Most hosts that are told apart. The records of all others are of one host without a
/// name.
const MAX_HOSTS: usize = 1_000;

/// Most characters of a text in a record. kaprobe writes fewer; a log may have any. The page is to
/// fit a ticket, whatever its logs hold.
const MAX_TEXT: usize = 1_000;

/// Most timeouts that explain a verdict.
const MAX_FITS: usize = 16;

/// What a report is made of.
#[derive(Debug, Default)]
pub(super) struct Collection {
    hosts: Vec<HostRecords>,
    /// Records name their hosts.
    has_hosts: bool,
    pub(super) summary: ReplaySummary,
    pub(super) conversations: Conversations,
    pub(super) programs: Programs,
    pub(super) remedies: Remedies,
    pub(super) ages: IdleAges,
    pub(super) recording: Recording,
    pub(super) verdicts: BTreeMap<VerdictName, u64>,
    pub(super) events: BTreeMap<EventName, u64>,
    /// Answered probes that `alive` records sum.
    pub(super) summed_probes: u64,
    /// The known timeouts that explain verdicts.
    pub(super) fits: BTreeSet<Escaped>,
    /// The first and the last time in the logs, wall clock ns.
    span_ns: Option<(i64, i64)>,
}

/// A host of the logs.
#[derive(Clone, Debug)]
struct HostRecords {
    name: Option<Escaped>,
    /// The number of its current trace: sockets are numbered per trace.
    trace: u64,
}

impl Collection {
    /// The number of a host.
    fn host(&mut self, name: Option<&Escaped>) -> usize {
        let name = name.map(|it| it.shortened(MAX_TEXT));
        let name = name.as_ref();
        let known = self.hosts.iter().position(|it| it.name.as_ref() == name);
        known.unwrap_or_else(|| {
            let is_full = self.hosts.len() >= MAX_HOSTS;
            let name = name.filter(|_| !is_full).cloned();
            if is_full && let Some(rest) = self.hosts.iter().position(|it| it.name.is_none()) {
                return rest;
            }
            self.hosts.push(HostRecords { name, trace: 0 });
            self.hosts.len() - 1
        })
    }

    /// The name of a host, if records name their hosts.
    pub(super) fn host_name(&self, host: usize) -> Option<&Escaped> {
        let known = self.hosts.get(host)?;
        known.name.as_ref()
    }

    /// The names of all hosts.
    pub(super) fn host_names(&self) -> BTreeSet<&Escaped> {
        if self.has_hosts {
            self.hosts
                .iter()
                .filter_map(|it| it.name.as_ref())
                .collect()
        } else {
            self.recording.traces.iter().map(|it| &it.host).collect()
        }
    }

    /// The first and the last time in the logs, wall clock ns.
    pub(super) fn span_ns(&self) -> Option<(i64, i64)> {
        self.span_ns
    }

    fn at(&mut self, at_ns: i64) {
        let (from, to) = self.span_ns.unwrap_or((at_ns, at_ns));
        self.span_ns = Some((from.min(at_ns), to.max(at_ns)));
    }

    fn trace(&mut self, header: &Header) {
        self.at(header.started.0);
        self.recording.trace(header);
        let host = self.has_hosts.then(|| header.host.to_string());
        for it in &header.timeouts {
            self.ages.host_timeout(host.as_deref(), it);
        }
    }

    fn count(&mut self, record: &Record) {
        self.at(record.time.0);
        *self.events.entry(record.event).or_default() += 1;
        let summed = record.alive.as_ref().map_or(0, |it| it.probes_answered);
        self.summed_probes = self.summed_probes.saturating_add(summed);
        let host = self.host(record.host.as_ref());
        if record.event == EventName::Lost {
            return self.recording.lost(host, record);
        }
        if let Some(verdict) = record.verdict {
            *self.verdicts.entry(verdict).or_default() += 1;
            self.remedies.add(host, record);
            if let Some(fit) = &record.middlebox
                && self.fits.len() < MAX_FITS
            {
                self.fits.insert(fit.clone());
            }
        }
        let trace = self.hosts[host].trace;
        let seen = self.conversations.push(host, trace, record);
        self.programs.count(host, record, seen.is_new);
        self.ages.count(record, seen);
    }
}

/// The record, with only the beginnings of texts that are too long.
fn shortened(record: &Record) -> Record {
    let mut short = record.clone();
    let texts = [
        &mut short.host,
        &mut short.netns_name,
        &mut short.reason,
        &mut short.middlebox,
        &mut short.story,
        &mut short.set,
        &mut short.actor.by_comm,
    ];
    for text in texts.into_iter().flatten() {
        *text = text.shortened(MAX_TEXT);
    }
    if short.process.is_known() {
        shorten_names(&mut short.process);
    }
    if let Some(advice) = &mut short.advice
        && advice.as_str().len() > MAX_TEXT
    {
        **advice = advice.text().shortened(MAX_TEXT).into();
    }
    short
}

/// Shortens the names of a process that are too long. One whose names are short stays shared
/// with its other records.
fn shorten_names(process: &mut Owner) {
    let mut names = (**process).clone();
    let texts = [
        &mut names.comm,
        &mut names.cmdline,
        &mut names.unit,
        &mut names.container,
        &mut names.container_id,
        &mut names.pod,
        &mut names.pod_namespace,
        &mut names.pod_uid,
    ];
    for text in texts.into_iter().flatten() {
        *text = text.shortened(MAX_TEXT);
    }
    if names != **process {
        *process = names.into();
    }
}

impl RecordSink for Collection {
    fn head(&mut self, head: &Head<'_>) -> Result<(), SinkError> {
        self.has_hosts = head.hosts;
        head.headers.iter().for_each(|it| self.trace(it));
        self.summary.head(head)
    }

    fn next_trace(&mut self, header: &Header) -> Result<(), SinkError> {
        self.trace(header);
        let name = self.has_hosts.then_some(&header.host);
        let host = self.host(name);
        self.hosts[host].trace += 1;
        self.summary.next_trace(header)
    }

    fn timeouts(&mut self, change: &TimeoutsChange) -> Result<(), SinkError> {
        let host = change.host.as_ref().filter(|_| self.has_hosts);
        for it in change.namespaces.iter().flat_map(|it| &it.timeouts) {
            self.ages.host_timeout(host.map(Escaped::as_str), it);
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<(), SinkError> {
        let record = shortened(record);
        self.count(&record);
        self.summary.record(&record)
    }

    fn trailer(&mut self, trailer: &Trailer) -> Result<(), SinkError> {
        if trailer.ended != WallTime::default() {
            self.at(trailer.ended.0);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn learned(&mut self, host: Option<&Escaped>, estimator: &TimeoutEstimator) {
        self.summary.learned(host, estimator);
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::Value;

    use super::*;
    use crate::sample;

    /// Makes every text of a JSON value long that may be so.
    fn lengthen(value: &mut Value, is_record: impl Fn(&Value) -> bool + Copy) -> usize {
        let mut count = 0;
        let keys: Vec<_> = value
            .as_object()
            .into_iter()
            .flatten()
            .map(|it| it.0.clone())
            .collect();
        for key in keys {
            let kept = value[&key].clone();
            if kept.is_string() {
                value[&key] = "x".repeat(3 * MAX_TEXT).into();
                if is_record(value) {
                    count += 1;
                } else {
                    value[&key] = kept;
                }
            }
        }
        count
    }

    /// No text of a record may make a page long, whichever fields records get.
    #[test]
    fn every_text_of_a_record_is_shortened() -> Result<(), serde_json::Error> {
        let mut all = 0;
        for record in sample::records(&sample::everything()) {
            let mut value = serde_json::to_value(&record)?;
            let is_record = |value: &Value| Record::deserialize(value).is_ok();
            all += lengthen(&mut value, is_record);
            let long = Record::deserialize(&value)?;
            let short = serde_json::to_value(shortened(&long))?;
            for (name, value) in short.as_object().into_iter().flatten() {
                let length = value.as_str().map_or(0, |it| it.chars().count());
                assert!(length <= MAX_TEXT + 3, "{name}: {length}");
            }
        }
        assert!(all > 20, "{all} texts");
        Ok(())
    }
}
