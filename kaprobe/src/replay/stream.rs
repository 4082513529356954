//! What happens to records between the logs and the sinks.

use crate::model::header;
use std::fs::File;

use crate::correlate::MAX_SOCKETS;
use crate::filter::Filter;
use crate::model::header::{Filters, Header};
use crate::model::named::Named as _;
use crate::model::record::{EventName, Record};
use crate::replay::line::Item;
use crate::replay::log::{LogError, Remark};
use crate::replay::merge::{From, Merge};
use crate::replay::plan::ReplayPlan;
use crate::replay::story::Stories;
use crate::report::Outcome;
use crate::sink::{Head, SinkError, Sinks};
use crate::text::escape::Escaped;
use crate::timeout::estimate::TimeoutEstimator;
use crate::verdict::judge::{EVIDENCE, Judge};
use crate::verdict::pipeline::Pipeline;

/// Why a replay ends before its logs do.
pub(super) enum ReplayEnd {
    Log(From, LogError),
    Sink(SinkError),
}

/// Where the records of a replay go.
pub(super) trait RecordSink {
    /// See [`Sinks::head`].
    fn head(&mut self, head: &Head<'_>) -> Result<(), SinkError>;
    /// See [`Sinks::next_trace`].
    fn next_trace(&mut self, header: &Header) -> Result<(), SinkError>;
    /// See [`Sinks::record`].
    fn record(&mut self, record: &Record) -> Result<(), SinkError>;
    /// See [`Sinks::flush`].
    fn flush(&mut self) -> Result<(), SinkError>;
    /// A trace has ended, or the replay: what its records show of idle timeouts. They are
    /// of this host, where they name one.
    fn learned(&mut self, _host: Option<&Escaped>, _estimator: &TimeoutEstimator) {}
}

impl RecordSink for Sinks {
    fn head(&mut self, head: &Head<'_>) -> Result<(), SinkError> {
        Self::head(self, head)
    }

    fn next_trace(&mut self, header: &Header) -> Result<(), SinkError> {
        Self::next_trace(self, header)
    }

    fn record(&mut self, record: &Record) -> Result<(), SinkError> {
        Self::record(self, record)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Self::flush(self)
    }
}

/// See the module.
pub(super) struct Stream {
    headers: Vec<Header>,
    /// Records name their host.
    hosts: bool,
    sources: Vec<Source>,
    /// What this replay leaves out, for the headers that follow.
    given: Filters,
    pipeline: Pipeline,
    /// What is told of one connection by several hosts.
    stories: Stories,
}

/// What is known of a log.
#[derive(Default)]
struct Source {
    /// What its host is called where there are several.
    host: Escaped,
    /// Sockets of the traces in it that have ended.
    sockets: u64,
    /// Sockets of the trace at hand: they are numbered from 1.
    last_socket: u64,
    /// Records of the trace at hand, and after how many it was told to stop.
    records: u64,
    count: Option<u64>,
}

/// What makes the verdicts on a trace anew. `None` where the log does not have all
/// that they rest on, but has them: it was told to leave out the rest. A log that was
/// told to leave verdicts out has none, unless they are asked for now.
fn judge(header: Option<&Header>, given: &Filters) -> Option<Judge> {
    let has = |filters: &Filters, event: EventName| {
        let events = filters.get("events");
        events.is_none_or(|it| it.iter().any(|it| it == event.name()))
    };
    let timeouts = match header {
        None => &[][..],
        Some(header) => {
            let mut kept = |event| filters_of(header).all(|it| has(it, event));
            let anew = if kept(EventName::Verdict) {
                EVIDENCE.into_iter().all(&mut kept)
            } else {
                given.contains_key("events") && has(given, EventName::Verdict)
            };
            if !anew {
                return None;
            }
            &header.timeouts
        }
    };
    Some(Judge::new(MAX_SOCKETS, timeouts))
}

impl Source {
    /// Takes note of the trace whose records follow.
    fn start(&mut self, header: Option<&Header>) {
        let counts = header.into_iter().flat_map(filters_of);
        let counts = counts.filter_map(|it| it.get("count")).flatten();
        self.sockets = self.sockets.saturating_add(self.last_socket);
        (self.last_socket, self.records) = (0, 0);
        self.count = counts.filter_map(|it| it.parse().ok()).min();
    }

    /// Takes note of a record, before it is shown: whether its trace stopped here, and
    /// says no more of it.
    fn note(&mut self, record: &Record) -> bool {
        self.last_socket = self.last_socket.max(record.sock.unwrap_or_default());
        self.records += 1;
        self.count == Some(self.records)
    }
}

/// All filters that the records of a log went through.
fn filters_of(header: &Header) -> impl Iterator<Item = &Filters> + Clone {
    std::iter::once(&header.filters).chain(&header.narrowed)
}

/// What the host of each log is called: those of one name by their logs as well.
fn called(headers: &[Vec<Header>], names: &[String]) -> Vec<Escaped> {
    let hosts = headers.iter().map(|it| it.first().map(|it| &it.host));
    let hosts: Vec<_> = hosts.collect();
    let is_shared = |host: &Escaped| hosts.iter().flatten().filter(|it| **it == host).count() > 1;
    let call = |(host, name): (&Option<&Escaped>, &String)| match *host {
        None => Escaped::from_escaped(name),
        Some(host) if is_shared(host) => Escaped::from_escaped(&format!("{host}({name})")),
        Some(host) => host.clone(),
    };
    hosts.iter().zip(names).map(call).collect()
}

impl Stream {
    pub(super) fn new(plan: &ReplayPlan, names: &[String], headers: Vec<Vec<Header>>) -> Self {
        let hosts = headers.len() > 1 || headers.iter().flatten().count() > 1;
        let sources = headers.iter().zip(called(&headers, names));
        let sources: Vec<_> = sources
            .map(|(_, host)| Source {
                host,
                ..Source::default()
            })
            .collect();
        let mut stream = Self {
            headers: Vec::new(),
            hosts,
            sources,
            given: plan.given.clone(),
            pipeline: Pipeline::of(Filter::new(plan.records.clone()), headers.len()),
            stories: Stories::new(),
        };
        for (from, headers) in headers.into_iter().enumerate() {
            // A log of several was merged before: its records name their hosts, and
            // sockets of several hosts have one number.
            let merged = headers.len() > 1;
            if !merged {
                stream.start(from, headers.first());
            }
            for mut header in headers {
                if hosts && !merged {
                    header.host.clone_from(&stream.sources[from].host);
                }
                let header = stream.as_written(header);
                stream.headers.push(header);
            }
        }
        stream
    }

    /// Takes note of the trace whose records follow in a log.
    fn start(&mut self, from: From, header: Option<&Header>) {
        self.sources[from].start(header);
        self.pipeline.set_judge(from, judge(header, &self.given));
    }

    /// The header as it stands over what this replay writes.
    fn as_written(&self, mut header: Header) -> Header {
        header::VERSION.clone_into(&mut header.version);
        if !self.given.is_empty() {
            header.narrowed.push(self.given.clone());
        }
        header
    }

    /// Shows the logs to their end, or until nobody wants more.
    pub(super) fn run(
        &mut self,
        merge: &mut Merge<File>,
        sinks: &mut impl RecordSink,
        tell: &mut dyn FnMut(From, Remark),
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
            let next = merge.next(tell);
            match next.map_err(|(from, why)| ReplayEnd::Log(from, why))? {
                Some((from, Item::Record(record))) => self.show(from, *record, sinks),
                Some((from, Item::Header(header))) => self.next_trace(from, *header, sinks),
                None => break,
            }
            .map_err(ReplayEnd::Sink)?;
        }
        (0..self.sources.len()).for_each(|from| self.trace_ended(from, sinks));
        Ok(())
    }

    /// Tells what was learned of the trace at hand.
    fn trace_ended(&self, from: From, sinks: &mut impl RecordSink) {
        if let Some(judge) = self.pipeline.judge(from) {
            let host = &self.sources[from].host;
            sinks.learned(self.hosts.then_some(host), judge.estimator());
        }
    }

    /// Shows a record, and the verdict that follows. An answer is taken as it is: what
    /// it was derived from need not be in the log.
    fn show(
        &mut self,
        from: From,
        mut record: Record,
        sinks: &mut impl RecordSink,
    ) -> Result<(), SinkError> {
        let source = &mut self.sources[from];
        if source.note(&record) {
            self.pipeline.set_judge(from, None);
        }
        if self.hosts && record.host.is_none() {
            record.host = Some(source.host.clone());
        }
        // Of the log's own hosts, told anew.
        record.story = None;
        let (hosts, stories) = (self.hosts, &mut self.stories);
        let host = record.host.clone();
        let mut outcome = Ok(());
        self.pipeline.push(from, &mut record, |record| {
            record.host.clone_from(&host);
            if hosts {
                stories.tell(record);
            }
            if outcome.is_ok() {
                outcome = sinks.record(record);
            }
        });
        outcome
    }

    fn next_trace(
        &mut self,
        from: From,
        header: Header,
        sinks: &mut impl RecordSink,
    ) -> Result<(), SinkError> {
        self.trace_ended(from, sinks);
        self.sources[from].host.clone_from(&header.host);
        self.start(from, Some(&header));
        sinks.next_trace(&self.as_written(header))
    }

    /// What was shown.
    pub(super) fn outcome(&self) -> Outcome {
        let sockets = |it: &Source| it.sockets.saturating_add(it.last_socket);
        let sockets = self.sources.iter().map(sockets);
        Outcome {
            counts: self.pipeline.counts().clone(),
            sockets: sockets.fold(0, u64::saturating_add),
            ..Outcome::default()
        }
    }
}
