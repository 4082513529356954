//! The process that takes the snapshots, and the thread that talks to it.
//!
//! The iterator waits for the lock of each socket, and a thread that waits for one can't be
//! ended (see `trace/snapshot.rs`). So it runs in another process: `kaprobe top --reader`.
//! That process also sums up the rows, so that few bytes are passed on for many sockets. Each
//! line of its standard input is a [`CensusRequest`]; each line of its standard output is a
//! [`Census`].

use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::audit::assessment::{Assessment, fate};
use crate::audit::plan::is_local;
use crate::census::plan::CensusPlan;
use crate::census::sums::{Census, CensusRequest, CensusTaker};
use crate::model::fate::Fate;
use crate::model::row::Row;
use crate::model::time::WallTime;
use crate::model::values::State;
use crate::sockets::snapshot::Snapshots;
use crate::text::escape;
use crate::timeout::timeouts::Timeouts;
use crate::{host, kernel};

/// The running program, even if its file has been replaced.
const SELF: &str = "/proc/self/exe";

/// The shortest time between two reads of this host's timeouts.
const TIMEOUTS_AGE: Duration = Duration::from_secs(5);
/// How many times as long as a read of the timeouts they are used.
const REST: u32 = 100;

/// The process that takes snapshots. Dropping this kills it.
pub(crate) struct SnapshotReader {
    child: Child,
    requests: Sender<CensusRequest>,
}

impl SnapshotReader {
    /// Starts the process. `answer` takes the answer to each request, and returns whether
    /// there is a reader of more.
    ///
    /// # Errors
    /// If a process or thread can't be started.
    pub(crate) fn start(
        plan: &CensusPlan,
        answer: impl Fn(Result<Box<Census>>) -> bool + Send + 'static,
    ) -> Result<Self> {
        let mut child = Command::new(SELF)
            .arg0("kaprobe")
            .args(&plan.reader)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for this process, which then ends the other.
            .process_group(0)
            .spawn()
            .context("cannot start a process that reads the sockets")?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (requests, asked) = channel();
        let reader = Self { child, requests };
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(anyhow!("the process that reads the sockets has no pipes"));
        };
        let pipes = Pipes {
            stdin,
            stdout: BufReader::new(stdout),
            stderr,
        };
        thread::Builder::new()
            .name("snapshots".to_owned())
            .spawn(move || pipes.pass_on(&asked, &answer))
            .context("cannot start the thread that waits for snapshots")?;
        Ok(reader)
    }

    /// The ID of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks for a snapshot.
    pub(crate) fn request(&self, request: CensusRequest) {
        // If the thread has ended, its last answer has said why.
        let _ended = self.requests.send(request);
    }
}

impl Drop for SnapshotReader {
    fn drop(&mut self) {
        // The process may never end (see the module docs): don't wait.
        let _gone = self.child.kill();
        let _status = self.child.try_wait();
    }
}

struct Pipes {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
}

impl Pipes {
    /// Passes on the answer to each request, until a failure or the end of requests.
    fn pass_on(
        mut self,
        asked: &Receiver<CensusRequest>,
        answer: &dyn Fn(Result<Box<Census>>) -> bool,
    ) {
        for request in asked {
            let census = self.ask(&request);
            let failed = census.is_err();
            if !answer(census) || failed {
                return;
            }
        }
    }

    fn ask(&mut self, request: &CensusRequest) -> Result<Box<Census>> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        let asked = self.stdin.write_all(line.as_bytes());
        line.clear();
        if asked.is_err() || self.stdout.read_line(&mut line)? == 0 {
            return Err(anyhow!(self.last_words()));
        }
        serde_json::from_str(&line).context("cannot parse a snapshot")
    }

    /// Why the process has ended: its last message.
    fn last_words(&mut self) -> String {
        let said = io::read_to_string(&mut self.stderr).unwrap_or_default();
        let last = said.lines().next_back().unwrap_or_default();
        match last.strip_prefix("kaprobe: ").unwrap_or(last) {
            "" => "the process that reads the sockets has ended".to_owned(),
            last => escape::message(last),
        }
    }
}

/// Takes a snapshot for each line of standard input.
///
/// # Errors
/// If the sockets can't be read, or standard output can't be written.
pub(crate) fn serve(plan: &CensusPlan) -> Result<()> {
    let mut snapshots = Snapshots::open(&plan.selection)?;
    let mut timeouts = PathTimeouts::new(plan);
    let mut out = BufWriter::new(io::stdout().lock());
    for request in io::stdin().lines() {
        let request = serde_json::from_str(&request?).context("cannot parse a request")?;
        let census = take(plan, &mut snapshots, timeouts.now(), request)?;
        serde_json::to_writer(&mut out, &census)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

/// Takes a snapshot and sums it up.
fn take(
    plan: &CensusPlan,
    snapshots: &mut Snapshots<'_>,
    timeouts: &Timeouts,
    request: CensusRequest,
) -> Result<Census> {
    let mut taker = CensusTaker::new(request);
    let notes = snapshots.take(&mut |rows| {
        for row in &rows {
            if row.state == State::Listen {
                taker.listener(row);
            } else if plan.keeps(row) {
                let fate = judged(plan, row, timeouts);
                taker.connection(row, fate, |accepted| {
                    Assessment::unobserved(row, accepted, timeouts)
                });
            }
        }
        Ok(())
    })?;
    let now = kernel::now();
    Ok(Census {
        time: WallTime(now.wall_ns),
        mono_ns: now.mono_ns,
        notes: notes.messages,
        is_judged: !timeouts.is_empty(),
        ..taker.end()
    })
}

/// The fate of a connection that passes a middlebox, and of one whose data is stuck.
fn judged(plan: &CensusPlan, row: &Row, timeouts: &Timeouts) -> Option<Fate> {
    if row.state != State::Established {
        return None;
    }
    let passes_box = plan.loopback || !is_local(row);
    Some(fate(row, timeouts)).filter(|fate| passes_box || *fate == Fate::Dying)
}

/// The timeouts that connections are judged by.
struct PathTimeouts {
    timeouts: Timeouts,
    /// They are this host's own, which change, and may be used until then.
    of_host_until: Option<Instant>,
}

impl PathTimeouts {
    fn new(plan: &CensusPlan) -> Self {
        let is_host = plan.timeouts.is_empty();
        Self {
            timeouts: Timeouts::new(plan.timeouts.clone(), Vec::new()),
            of_host_until: is_host.then(Instant::now),
        }
    }

    /// The timeouts as they are now, or were a moment ago.
    fn now(&mut self) -> &Timeouts {
        let began = Instant::now();
        if self.of_host_until.is_some_and(|until| until <= began) {
            // Those that can't be read are not known: no connection is judged by them.
            let host = host::timeouts::read().unwrap_or_default();
            self.timeouts = Timeouts::of_host(host.timeouts);
            let rest = began.elapsed().saturating_mul(REST).max(TIMEOUTS_AGE);
            self.of_host_until = Some(Instant::now() + rest);
        }
        &self.timeouts
    }
}
