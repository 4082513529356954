//! `kaprobe replay`: from logs to the sinks, with what lies between them in a trace.
//!
//! A log is read as it comes and forgotten as it is shown: memory does not grow with
//! it. A log is not trusted: what it says is checked and escaped like what the kernel
//! says.

mod line;
mod log;
mod merge;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};

pub use self::line::Item;
pub use self::log::{Counts, LONGEST, Log, LogError, Remark, What};
pub use self::merge::{From, Merge};

use crate::escape::Escaped;
use crate::exit;
use crate::filter::Filter;
use crate::plan::{Input, Outputs, ReplayPlan};
use crate::record::{self, Header, Record};
use crate::report::{self, Outcome};
use crate::sink::{self, Head, SinkError, Sinks};

/// Runs `kaprobe replay`.
///
/// # Errors
/// When a log can't be read, or holds lines that are no records; when it can't write.
pub fn run(plan: &ReplayPlan) -> Result<()> {
    let names: Vec<_> = plan.logs.iter().map(name).collect();
    let mut tell = |from: From, remark| {
        let said = format!("kaprobe: {}:{remark}\n", names[from]);
        // Nobody may be there to read it, which is no reason to fail.
        let _unread = io::stderr().write_all(said.as_bytes());
    };
    let failed = |(from, why)| failure(&names, from, &why);
    let files = open(plan, &names)?;
    let mut merge = Merge::new(files.into_iter().map(Log::new).collect());
    let headers = merge.start(&mut tell).map_err(failed)?;
    let mut stream = Stream::new(plan, &names, headers);
    // Opened last: what fails before leaves no file behind.
    let mut sinks = sink::open(&plan.outputs)?;
    let shown = stream.run(&mut merge, &mut sinks, &mut tell);
    // What one sink can't take any more, another may still have waiting.
    let flushed = sinks.flush();
    if !plan.quiet {
        report::summary(&stream.outcome());
    }
    match shown.and(flushed.map_err(Stop::Sink)) {
        Err(Stop::Log(from, why)) => return Err(failure(&names, from, &why).into()),
        Err(Stop::Sink(SinkError::Failed(why))) => return Err(why.into()),
        Ok(()) | Err(Stop::Sink(SinkError::Closed)) => {}
    }
    Ok(complete(&merge)?)
}

/// How a log is called on stderr.
fn name(log: &Input) -> String {
    match log {
        Input::Stdin => "standard input".to_owned(),
        Input::File(path) => Escaped::from_bytes(path.as_os_str().as_encoded_bytes()).to_string(),
    }
}

/// Opens the logs, and sees to it that none of them is what is to be written.
fn open(plan: &ReplayPlan, names: &[String]) -> Result<Vec<File>> {
    let written = written(&plan.outputs);
    let mut files = Vec::with_capacity(names.len());
    for (log, name) in plan.logs.iter().zip(names) {
        let file = match log {
            Input::Stdin => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            Input::File(path) => File::open(path),
        };
        let file = file.with_context(|| format!("cannot read {name}"))?;
        let id = file.metadata().ok().map(|it| (it.dev(), it.ino()));
        if id.is_some() && id == written {
            let same = format!("--output {name}: it is a log that is to be read");
            return Err(exit::Error::usage(same).into());
        }
        files.push(file);
    }
    Ok(files)
}

/// The file that is there and will be overwritten, by what tells it from others.
fn written(outputs: &Outputs) -> Option<(u64, u64)> {
    let log = outputs.file.as_ref().filter(|log| log.overwrite)?;
    let file = fs::metadata(&log.path).ok()?;
    Some((file.dev(), file.ino()))
}

fn failure(names: &[String], from: From, why: &LogError) -> exit::Error {
    let name = &names[from];
    exit::Error::failure(match why {
        LogError::Io(why) => format!("cannot read {name}: {why}"),
        LogError::Version { .. } => format!("{name}:{why}"),
    })
}

/// Fails where lines were skipped: whoever reads only what was shown must know.
fn complete<R: io::Read>(merge: &Merge<R>) -> Result<(), exit::Error> {
    let broken: u64 = merge.logs().iter().map(|log| log.counts().broken).sum();
    match broken {
        0 => Ok(()),
        1 => Err(exit::Error::failure("1 line skipped: it is no record")),
        _ => Err(exit::Error::failure(format!(
            "{broken} lines skipped: they are no records"
        ))),
    }
}

/// Why a replay ends before its logs do.
enum Stop {
    Log(From, LogError),
    Sink(SinkError),
}

/// What happens to records between the logs and the sinks.
struct Stream {
    headers: Vec<Header>,
    /// Records name their host.
    hosts: bool,
    sources: Vec<Source>,
    /// What this replay leaves out, for the headers that follow.
    given: record::Filters,
    filter: Filter,
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
}

impl Stream {
    fn new(plan: &ReplayPlan, names: &[String], headers: Vec<Vec<Header>>) -> Self {
        let hosts = headers.len() > 1 || headers.iter().flatten().count() > 1;
        let own: Vec<_> = headers.iter().map(|it| it.first()).collect();
        let host_of = |from: usize| match own[from] {
            None => Escaped::from_escaped(&names[from]),
            Some(header)
                if own
                    .iter()
                    .flatten()
                    .filter(|it| it.host == header.host)
                    .count()
                    > 1 =>
            {
                Escaped::from_escaped(&format!("{}({})", header.host, names[from]))
            }
            Some(header) => header.host.clone(),
        };
        let sources: Vec<_> = (0..headers.len())
            .map(|from| Source {
                host: host_of(from),
                ..Source::default()
            })
            .collect();
        let mut stream = Self {
            headers: Vec::new(),
            hosts,
            sources,
            given: plan.given.clone(),
            filter: Filter::new(plan.records.clone()),
        };
        for (from, headers) in headers.into_iter().enumerate() {
            // A log of several was merged before: its records name their hosts.
            let merged = headers.len() > 1;
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

    /// The header as it stands over what this replay writes.
    fn as_written(&self, mut header: Header) -> Header {
        record::VERSION.clone_into(&mut header.version);
        if !self.given.is_empty() {
            header.narrowed.push(self.given.clone());
        }
        header
    }

    fn run(
        &mut self,
        merge: &mut Merge<File>,
        sinks: &mut Sinks,
        tell: &mut dyn FnMut(From, Remark),
    ) -> Result<(), Stop> {
        let head = Head {
            headers: &self.headers,
            hosts: self.hosts,
        };
        sinks.head(&head).map_err(Stop::Sink)?;
        while !self.filter.is_done() {
            if merge.waits() {
                sinks.flush().map_err(Stop::Sink)?;
            }
            let next = merge.next(tell);
            match next.map_err(|(from, why)| Stop::Log(from, why))? {
                Some((from, Item::Record(record))) => self.show(from, *record, sinks),
                Some((from, Item::Header(header))) => self.next_trace(from, *header, sinks),
                None => break,
            }
            .map_err(Stop::Sink)?;
        }
        Ok(())
    }

    /// Shows a record. One that the trace derived is taken as it is: not all that it
    /// was derived from need be in the log.
    fn show(&mut self, from: From, mut record: Record, sinks: &mut Sinks) -> Result<(), SinkError> {
        let source = &mut self.sources[from];
        source.last_socket = source.last_socket.max(record.sock.unwrap_or_default());
        if self.hosts && record.host.is_none() {
            record.host = Some(source.host.clone());
        }
        match self.filter.pass(record) {
            Some(record) => sinks.record(&record),
            None => Ok(()),
        }
    }

    fn next_trace(
        &mut self,
        from: From,
        header: Header,
        sinks: &mut Sinks,
    ) -> Result<(), SinkError> {
        let source = &mut self.sources[from];
        source.sockets = source.sockets.saturating_add(source.last_socket);
        source.last_socket = 0;
        source.host.clone_from(&header.host);
        sinks.next_trace(&self.as_written(header))
    }

    fn outcome(&self) -> Outcome {
        let sockets = |it: &Source| it.sockets.saturating_add(it.last_socket);
        let sockets = self.sources.iter().map(sockets);
        Outcome {
            counts: self.filter.counts().clone(),
            sockets: sockets.fold(0, u64::saturating_add),
            ..Outcome::default()
        }
    }
}
