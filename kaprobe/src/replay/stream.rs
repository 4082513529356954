//! Passes records from the logs through the filters and judges to the sinks.

use std::mem;
use std::num::NonZeroUsize;

use crate::filter::Filter;
use crate::messages::Outcome;
use crate::model::header::{self, Filters, Header, TimeoutsChange};
use crate::model::host_timeout::HostTimeouts;
use crate::model::limits::MAX_SOCKETS;
use crate::model::record::{EventName, Record};
use crate::model::tally::Tally;
use crate::model::trailer::Trailer;
use crate::replay::chain::LogIndex;
use crate::replay::line::{Item, Version};
use crate::replay::log::{LogError, Remark};
use crate::replay::merge::{Merge, MergedLog, SourceIndex};
use crate::replay::plan::LogSelection;
use crate::replay::story::Stories;
use crate::sink::{Head, SinkError, Sinks};
use crate::text::escape::Escaped;
use crate::timeout::estimate::TimeoutEstimator;
use crate::verdict::judge::{EVIDENCE, Judge};
use crate::verdict::pipeline::Pipeline;

/// Why a replay ends before its logs do.
pub(crate) enum ReplayEnd {
    Log(LogIndex, LogError),
    Sink(SinkError),
}

/// Where the records of logs go.
pub(crate) trait RecordSink {
    /// See [`Sinks::head`].
    fn head(&mut self, head: &Head<'_>) -> Result<(), SinkError>;
    /// See [`Sinks::next_trace`].
    fn next_trace(&mut self, header: &Header) -> Result<(), SinkError>;
    /// Receives the header of the next part of the same trace.
    fn next_part(&mut self, _: &Header) -> Result<(), SinkError> {
        Ok(())
    }
    /// See [`Sinks::timeouts`].
    fn timeouts(&mut self, _: &TimeoutsChange) -> Result<(), SinkError> {
        Ok(())
    }
    /// See [`Sinks::record`].
    fn record(&mut self, record: &Record) -> Result<(), SinkError>;
    /// See [`Sinks::trailer`].
    fn trailer(&mut self, _trailer: &Trailer) -> Result<(), SinkError> {
        Ok(())
    }
    /// See [`Sinks::flush`].
    fn flush(&mut self) -> Result<(), SinkError>;
    /// Receives the idle timeouts learned from a trace that has ended. `host` is `None`
    /// if the records do not name their hosts.
    fn learned(&mut self, _host: Option<&Escaped>, _estimator: &TimeoutEstimator) {}
}

impl RecordSink for Sinks {
    fn head(&mut self, head: &Head<'_>) -> Result<(), SinkError> {
        Self::head(self, head)
    }

    fn next_trace(&mut self, header: &Header) -> Result<(), SinkError> {
        Self::next_trace(self, header)
    }

    fn next_part(&mut self, header: &Header) -> Result<(), SinkError> {
        Self::next_trace(self, header)
    }

    fn timeouts(&mut self, change: &TimeoutsChange) -> Result<(), SinkError> {
        Self::timeouts(self, change)
    }

    fn record(&mut self, record: &Record) -> Result<(), SinkError> {
        Self::record(self, record)
    }

    fn trailer(&mut self, trailer: &Trailer) -> Result<(), SinkError> {
        Self::trailer(self, trailer)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Self::flush(self)
    }
}

/// The state of a replay.
pub(super) struct ReplayStream {
    headers: Vec<Header>,
    /// Records name their hosts.
    hosts: bool,
    logs: Vec<LogState>,
    /// The filters of this replay, for the headers it writes.
    given: Filters,
    /// Most sockets that a judge remembers; `None` for as many as the trace remembered.
    max_sockets: Option<NonZeroUsize>,
    pipeline: Pipeline,
    stories: Stories,
    /// What was written since the last header.
    written: Tally,
}

/// The state of one log.
#[derive(Default)]
struct LogState {
    /// The name of its host in records.
    host: Escaped,
    /// It was merged from logs of several hosts, and its records name them.
    is_merged: bool,
    /// It has a header, which names its host.
    is_headed: bool,
    /// The number of sockets in its finished traces.
    sockets: u64,
    /// The highest socket number of the current trace; numbers start at 1.
    last_socket: u64,
    /// The number of records of the current trace so far.
    records: u64,
    /// The trace stopped after this number of records (`--count`).
    count: Option<u64>,
    /// The last header.
    header: Option<Box<Header>>,
    /// The trailer that came after it.
    trailer: Option<Box<Trailer>>,
}

/// Makes a judge for a trace, to recompute its verdicts. `None` keeps the log's own
/// verdicts: its filters removed events that a judge needs. If its filters removed the
/// verdicts, a judge is made only if this replay's `--events` selects verdicts.
fn judge(
    header: Option<&Header>,
    given: &Filters,
    max_sockets: Option<NonZeroUsize>,
) -> Option<Judge> {
    let timeouts = match header {
        None => HostTimeouts::default(),
        Some(header) => {
            let recompute = if header.keeps(&[EventName::Verdict]) {
                let is_summed = header.alive_ms.is_some();
                header.keeps(&EVIDENCE) && (!is_summed || header.keeps(&[EventName::Alive]))
            } else {
                given.contains_key("events") && header::keeps(given, EventName::Verdict)
            };
            if !recompute {
                return None;
            }
            header.host_timeouts()
        }
    };
    let recorded = header.map_or(MAX_SOCKETS, Header::max_sockets);
    Some(Judge::new(max_sockets.unwrap_or(recorded), &timeouts))
}

impl LogState {
    /// Resets the state for the next trace.
    fn start(&mut self, header: Option<&Header>) {
        let counts = header.into_iter().flat_map(filters_of);
        let counts = counts.filter_map(|it| it.get("count")).flatten();
        self.sockets = self.sockets.saturating_add(self.last_socket);
        (self.last_socket, self.records) = (0, 0);
        self.count = counts.filter_map(|it| it.parse().ok()).min();
    }

    /// Starts the next trace, or the next part of the current one.
    fn set_header(&mut self, header: Option<&Header>) {
        self.header = header.cloned().map(Box::new);
        self.trailer = None;
    }

    /// Whether its current trace has ended in order, as far as its format shows.
    fn is_whole(&self) -> bool {
        let header = self.header.as_deref();
        self.trailer.is_some() || !header.is_some_and(|it| Version::has_trailer(&it.version))
    }

    /// The host that a line of this log names in the output, where `hosts` are named.
    fn host_of(&self, named: Option<Escaped>, hosts: bool) -> Option<Escaped> {
        match named {
            // The sinks add the host again.
            _ if !hosts && self.is_headed => None,
            Some(host) if self.is_merged || !self.is_headed => Some(host),
            _ if hosts => Some(self.host.clone()),
            host => host,
        }
    }

    /// Counts a record before it is shown. Returns whether it is the last of its trace.
    fn note(&mut self, record: &Record) -> bool {
        self.last_socket = self.last_socket.max(record.sock.unwrap_or_default());
        self.records += 1;
        self.count == Some(self.records)
    }
}

/// All filters that were applied to the records of a log.
fn filters_of(header: &Header) -> impl Iterator<Item = &Filters> + Clone {
    std::iter::once(&header.filters).chain(&header.narrowed)
}

/// The name of each log's host. If several share a name, the log's name is appended.
fn host_names(logs: &[MergedLog]) -> Vec<Escaped> {
    let hosts = logs.iter().map(|it| it.headers.first().map(|it| &it.host));
    let hosts: Vec<_> = hosts.collect();
    let is_shared = |host: &Escaped| hosts.iter().flatten().filter(|it| **it == host).count() > 1;
    let unique_name = |(host, name): (&Option<&Escaped>, &String)| match *host {
        None => Escaped::from_escaped(name),
        Some(host) if is_shared(host) => Escaped::from_escaped(&format!("{host}({name})")),
        Some(host) => host.clone(),
    };
    let names = logs.iter().map(|it| &it.name);
    hosts.iter().zip(names).map(unique_name).collect()
}

impl ReplayStream {
    pub(super) fn new(selection: &LogSelection, merged: Vec<MergedLog>) -> Self {
        let hosts = merged.len() > 1 || merged.iter().any(|it| it.headers.len() > 1);
        let logs = merged.iter().zip(host_names(&merged));
        let logs: Vec<_> = logs
            .map(|(log, host)| LogState {
                host,
                is_merged: log.headers.len() > 1,
                is_headed: !log.headers.is_empty(),
                ..LogState::default()
            })
            .collect();
        let mut stream = Self {
            headers: Vec::new(),
            hosts,
            logs,
            given: selection.given.clone(),
            max_sockets: selection.max_sockets,
            pipeline: Pipeline::of(Filter::new(selection.records.clone()), merged.len()),
            stories: Stories::new(),
            written: Tally::default(),
        };
        for (from, MergedLog { headers, .. }) in merged.into_iter().enumerate() {
            // A log with several headers is the result of a merge: its records name their
            // hosts, and sockets of different hosts share numbers.
            let merged = headers.len() > 1;
            stream.logs[from].set_header(headers.last());
            if !merged {
                stream.start(from, headers.first());
            }
            for mut header in headers {
                if hosts && !merged {
                    header.host.clone_from(&stream.logs[from].host);
                }
                let header = stream.as_written(header);
                stream.headers.push(header);
            }
        }
        stream
    }

    /// Starts the next trace of a log.
    fn start(&mut self, from: SourceIndex, header: Option<&Header>) {
        self.logs[from].start(header);
        let judge = judge(header, &self.given, self.max_sockets);
        self.pipeline.set_judge(from, judge);
    }

    /// The header that this replay writes.
    fn as_written(&self, mut header: Header) -> Header {
        header::VERSION.clone_into(&mut header.version);
        if !self.given.is_empty() {
            header.narrowed.push(self.given.clone());
        }
        header
    }

    /// Shows the logs to their end, or until the pipeline is done.
    pub(super) fn run(
        &mut self,
        merge: &mut Merge,
        sinks: &mut impl RecordSink,
        on_remark: &mut dyn FnMut(LogIndex, Remark),
    ) -> Result<(), ReplayEnd> {
        let head = Head {
            headers: &self.headers,
            hosts: self.hosts,
        };
        sinks.head(&head).map_err(ReplayEnd::Sink)?;
        while !self.pipeline.is_done() {
            if merge.waits() {
                sinks.flush().map_err(ReplayEnd::Sink)?;
            }
            let next = merge.next(on_remark);
            match next.map_err(|(from, why)| ReplayEnd::Log(from, why))? {
                Some((from, Item::Record(record))) => self.show(from, *record, sinks),
                Some((from, Item::Header(header))) => self.next_trace(from, *header, sinks),
                Some((from, Item::Timeouts(change))) => self.timeouts(from, *change, sinks),
                Some((from, Item::Trailer(trailer))) => {
                    self.logs[from].trailer = Some(trailer);
                    Ok(())
                }
                None => break,
            }
            .map_err(ReplayEnd::Sink)?;
        }
        (0..self.logs.len()).for_each(|from| self.trace_ended(from, sinks));
        if self.pipeline.is_done() || self.logs.iter().all(LogState::is_whole) {
            let trailers = self.logs.iter().filter_map(|log| log.trailer.as_deref());
            let last = trailers.max_by_key(|it| it.ended).cloned();
            self.write_trailer(last, sinks).map_err(ReplayEnd::Sink)?;
        }
        Ok(())
    }

    /// Writes the trailer of what was written since the last header. It has the time and
    /// the end of the log's own one, if there is one.
    fn write_trailer(
        &mut self,
        of_log: Option<Trailer>,
        sinks: &mut impl RecordSink,
    ) -> Result<(), SinkError> {
        let written = mem::take(&mut self.written);
        let of_log = of_log.unwrap_or_else(|| Trailer {
            ended: written.last_time().unwrap_or_default(),
            ..Trailer::default()
        });
        sinks.trailer(&Trailer {
            continued: of_log.continued,
            ..Trailer::new(of_log.ended, &written)
        })
    }

    /// Reports the idle timeouts learned from the current trace.
    fn trace_ended(&self, from: SourceIndex, sinks: &mut impl RecordSink) {
        if let Some(judge) = self.pipeline.judge(from) {
            let host = &self.logs[from].host;
            sinks.learned(self.hosts.then_some(host), judge.estimator());
        }
    }

    /// Shows a record and its verdict. Keeps `answered` records as they are: the log may
    /// lack the events they were derived from.
    fn show(
        &mut self,
        from: SourceIndex,
        mut record: Record,
        sinks: &mut impl RecordSink,
    ) -> Result<(), SinkError> {
        let log = &mut self.logs[from];
        if log.note(&record) {
            self.pipeline.set_judge(from, None);
        }
        record.host = log.host_of(record.host.take(), self.hosts);
        // Recomputed from the verdicts of these logs.
        record.story = None;
        let (hosts, stories) = (self.hosts, &mut self.stories);
        let (host, written) = (record.host.clone(), &mut self.written);
        let mut outcome = Ok(());
        self.pipeline.push(from, &mut record, |record| {
            record.host.clone_from(&host);
            if hosts {
                stories.add_story(record);
            }
            if outcome.is_ok() {
                written.count(record);
                outcome = sinks.record(record);
            }
        });
        outcome
    }

    fn next_trace(
        &mut self,
        from: SourceIndex,
        header: Header,
        sinks: &mut impl RecordSink,
    ) -> Result<(), SinkError> {
        let was_whole = self.logs[from].is_whole();
        if was_whole {
            let trailer = self.logs[from].trailer.take();
            self.write_trailer(trailer.map(|it| *it), sinks)?;
        }
        self.written = Tally::default();
        let last = self.logs[from].header.take();
        self.logs[from].set_header(Some(&header));
        if let Some(last) = last.filter(|last| header.continues(last)) {
            if !was_whole || header.missing_since(&last).is_some() {
                self.pipeline.lose(from);
            }
            return sinks.next_part(&self.as_written(header));
        }
        self.trace_ended(from, sinks);
        self.logs[from].host.clone_from(&header.host);
        self.logs[from].is_headed = true;
        self.start(from, Some(&header));
        sinks.next_trace(&self.as_written(header))
    }

    /// Shows a change of the host's idle timeouts. Later verdicts follow from it.
    fn timeouts(
        &mut self,
        from: SourceIndex,
        mut change: TimeoutsChange,
        sinks: &mut impl RecordSink,
    ) -> Result<(), SinkError> {
        self.pipeline.apply(from, &change.namespaces);
        change.host = self.logs[from].host_of(change.host, self.hosts);
        sinks.timeouts(&change)
    }

    /// Counts of the shown records and sockets.
    pub(super) fn outcome(&self) -> Outcome {
        let sockets = |it: &LogState| it.sockets.saturating_add(it.last_socket);
        let sockets = self.logs.iter().map(sockets);
        Outcome {
            counts: self.pipeline.counts(),
            sockets: sockets.fold(0, u64::saturating_add),
            ..Outcome::default()
        }
    }
}
