//! Traces several hosts at once, each by a kaprobe of its own, and replays their logs together.

use std::fs;
use std::net::TcpStream;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::command;
use crate::ipvs::Host;
use crate::log::{self, Record, TraceLog};
use crate::tracer::Kaprobe;
use crate::wait::wait_until;

/// Running traces, each on a host.
#[derive(Debug)]
pub struct Traces {
    running: Vec<(&'static str, Kaprobe)>,
    dir: TempDir,
}

/// The logs of traces that have ended.
#[derive(Debug)]
pub struct Logs {
    /// The log of each host, with its name.
    pub logs: Vec<(&'static str, TraceLog)>,
    /// A replay of all of them.
    pub merged: TraceLog,
}

impl Traces {
    /// Traces these hosts.
    pub fn start(hosts: &[&Host]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let start = |host: &&Host| -> Result<_> {
            let log = path(&dir, host.name);
            let arguments = ["--netns", host.name, "-o", &log];
            let kaprobe = host.on(|| Kaprobe::trace(&arguments)?.ready())?;
            Ok((host.name, kaprobe))
        };
        let running = hosts.iter().map(start).collect::<Result<_>>()?;
        Ok(Self { running, dir })
    }

    /// Waits until the log of a host has a record of this event on a connection from a port.
    pub fn wait_for(&self, host: &Host, event: &str, remote_port: u16) -> Result<()> {
        let file = path(&self.dir, host.name);
        let parts = [
            format!("\"event\":\"{event}\""),
            format!("\"rport\":{remote_port},"),
        ];
        wait_until(&format!("{} logs {event}", host.name), || {
            let log = fs::read_to_string(&file)?;
            let is_it = |line: &str| parts.iter().all(|part| line.contains(part));
            Ok(log.lines().any(is_it))
        })
    }

    /// Stops all traces, and replays their logs together.
    pub fn stop(self) -> Result<Logs> {
        let Self { running, dir } = self;
        let files: Vec<_> = running.iter().map(|(name, _)| path(&dir, name)).collect();
        let stop = |(name, kaprobe): (_, Kaprobe)| Ok((name, kaprobe.stop()?));
        let logs = running.into_iter().map(stop).collect::<Result<_>>()?;
        let files = files.iter().map(String::as_str);
        let arguments: Vec<_> = ["replay", "--json"].into_iter().chain(files).collect();
        let merged = String::from_utf8(command::run(&arguments)?.stdout)?;
        // Each log has a header; one is enough for the schema.
        let is_header = |line: &str| line.starts_with("{\"header\"");
        let mut headers = 0;
        let lines = merged.lines().filter(|line| {
            headers += usize::from(is_header(line));
            headers == 1 || !is_header(line)
        });
        let lines: Vec<_> = lines.collect();
        Ok(Logs {
            logs,
            merged: TraceLog::parse(&lines)?,
        })
    }
}

fn path(dir: &TempDir, host: &str) -> String {
    let path = dir.path().join(format!("{host}.jsonl"));
    path.to_string_lossy().into_owned()
}

impl Logs {
    /// The verdicts of a host's own log, but for closes in order after a time without data.
    pub fn of(&self, host: &Host) -> Vec<&Record> {
        let own = self.logs.iter().filter(|(name, _)| *name == host.name);
        let records = own.flat_map(|(_, log)| &log.records);
        let verdicts = records.filter(|it| it.event() == "verdict");
        verdicts
            .filter(|it| it.text("verdict") != Some("idle_close"))
            .collect()
    }

    /// The only verdict of a host's own log.
    pub fn one(&self, host: &Host) -> Result<&Record> {
        match self.of(host).as_slice() {
            [one] => Ok(one),
            other => bail!("{}: {other:#?}", host.name),
        }
    }

    /// The only verdict on a host in the replay of all logs.
    pub fn merged(&self, host: &Host) -> Result<&Record> {
        let records = self.merged.records.iter();
        let own = records.filter(|it| it.text("host") == Some(host.name));
        let verdicts: Vec<_> = own.filter(|it| it.event() == "verdict").collect();
        match verdicts.as_slice() {
            [one] => Ok(one),
            other => bail!("{}: {other:#?}", host.name),
        }
    }

    /// Checks the verdicts on a connection of a host, in its own log and in the replay of all
    /// logs, and that there are no others.
    pub fn expect(&self, host: &Host, ends: Ends, expected: &[Expected<'_>]) -> Result<()> {
        for log in [self.log(host)?, &self.merged] {
            let of_host = log.records.iter().filter(|it| {
                let name = it.text("host");
                ends.are_of(it) && name.is_none_or(|name| name == host.name)
            });
            let verdicts: Vec<_> = of_host.filter(|it| it.event() == "verdict").collect();
            ensure!(
                verdicts.len() == expected.len(),
                "{}: {} verdicts, not {}: {verdicts:#?}",
                host.name,
                verdicts.len(),
                expected.len()
            );
            for (verdict, expected) in verdicts.iter().zip(expected) {
                log::check(verdict, expected.verdict, expected.words)?;
                ensure!(verdict.text("set") == expected.set, "{verdict:#?}");
            }
        }
        Ok(())
    }

    /// The records of a connection of a host.
    pub fn records(&self, host: &Host, ends: Ends) -> Result<Vec<&Record>> {
        let records = self.log(host)?.records.iter();
        Ok(records.filter(|it| ends.are_of(it)).collect())
    }

    /// The only record of an event on a connection of a host.
    pub fn only(&self, host: &Host, ends: Ends, event: &str) -> Result<&Record> {
        let records = self.records(host, ends)?;
        let mut found = records.into_iter().filter(|it| it.event() == event);
        let first = found.next();
        ensure!(found.next().is_none(), "several {event} on {}", host.name);
        first.with_context(|| format!("no {event} on {}", host.name))
    }

    /// The log of a host.
    fn log(&self, host: &Host) -> Result<&TraceLog> {
        let mut logs = self.logs.iter();
        let own = logs.find(|(name, _)| *name == host.name);
        Ok(&own
            .with_context(|| format!("{} was not traced", host.name))?
            .1)
    }
}

/// The ports of a connection: of this end, and of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    local: u16,
    remote: u16,
}

impl Ends {
    /// The ports of a stream that is connected.
    pub fn of(stream: &TcpStream) -> Result<Self> {
        Ok(Self {
            local: stream.local_addr()?.port(),
            remote: stream.peer_addr()?.port(),
        })
    }

    /// The ports as the other end has them.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            local: self.remote,
            remote: self.local,
        }
    }

    fn are_of(self, record: &Record) -> bool {
        let port = |name| record.number(name);
        (port("lport"), port("rport")) == (Some(self.local.into()), Some(self.remote.into()))
    }
}

/// A verdict that is expected.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The verdict and its confidence.
    pub verdict: [&'a str; 2],
    /// Words of its advice.
    pub words: &'a [&'a str],
    /// The settings that it advises.
    pub set: Option<&'a str>,
}
