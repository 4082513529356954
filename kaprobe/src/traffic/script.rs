//! A scenario as data, and the stage that plays many at once.
//!
//! A script waits for facts where the kernel shows them and for time to pass only
//! where nothing shows, so that it takes the same course on a machine that is
//! twenty times slower.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::traffic::lock::LockHeld;
use crate::traffic::pair::{Keepalive, Pair, Path, Planned, Side};
use crate::traffic::sockopt::{self, TcpInfo};

/// The kernel's numbers of the TCP states that scripts wait for.
pub mod state {
    /// FIN sent and acknowledged; the peer has not closed.
    pub const FIN_WAIT2: u8 = 5;
    /// No connection any more.
    pub const CLOSE: u8 = 7;
    /// The peer has closed.
    pub const CLOSE_WAIT: u8 = 8;
}

/// What can be seen of the near end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// So many ms have passed since the previous step.
    Ms(u64),
    /// So many probes are out, unanswered; or the connection has ended.
    Probes(u8),
    /// The near end is in this TCP state.
    State(u8),
}

/// One step of a script. "We" are the near end, the one with the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Goes on when this is so.
    Until(Wait),
    /// The peer hears nothing any more, and so does not answer.
    Silence,
    /// The peer hears again.
    Hear,
    /// The peer forgets the connection without telling.
    Vanish,
    /// The peer turns keepalive on too, with the settings of our side.
    PeerAsks,
    /// The peer sends a byte.
    PeerSends,
    /// The peer reads, until nothing of what we sent waits any more on either side.
    PeerReadsAll,
    /// We send a byte.
    Send,
    /// We send until there is no more room on either side.
    Fill,
    /// Our socket's lock is taken and stays taken.
    Lock,
    /// Our socket's lock is free again.
    Unlock,
    /// What we send bears this mark from now on; 0 for none.
    Mark(u32),
    /// We have no more to send, and say so.
    Shutdown,
    /// So many seconds in FIN_WAIT2, for our socket.
    Linger2(i32),
    /// So many seconds in FIN_WAIT2, for the whole network namespace.
    FinTimeout(u16),
    /// We close as an application would.
    Close,
    /// Our timer stops, and once every script has ended both ends are reset; nothing
    /// stays behind. Not before: a timer that fires while this task is inside the
    /// kprobe of a reset is skipped by kprobes (`kprobe_ftrace_handler`,
    /// arch/x86/kernel/kprobes/ftrace.c), and before 6.7 that is counted nowhere.
    Abort,
}

/// How the connection starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Established, with the timer on one side.
    Connected(Side),
    /// We connect, and nobody hears.
    Unheard,
}

/// One story of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// How it starts.
    pub start: Start,
    /// The timer's settings.
    pub keepalive: Keepalive,
    /// What happens, in order.
    pub steps: &'static [Step],
}

/// A scenario being played.
#[derive(Debug)]
pub struct Actor {
    /// What it plays.
    pub scenario: Scenario,
    /// The near end's address.
    pub local: SocketAddr,
    /// The far end's address.
    pub remote: SocketAddr,
    planned: Option<Planned>,
    // Dropped before `pair`: nothing can close a socket whose lock is held.
    lock: Option<LockHeld>,
    pair: Option<Pair>,
    next: usize,
    since: Instant,
    /// Both ends are to be reset.
    aborts: bool,
}

impl Actor {
    /// Gets ready: both addresses are known, nothing has been sent.
    pub fn new(scenario: Scenario, path: Path) -> io::Result<Self> {
        let planned = Planned::bind(path)?;
        let (client, server) = (planned.client_addr, planned.server_addr);
        let (local, remote) = match scenario.start {
            Start::Connected(Side::Client) | Start::Unheard => (client, server),
            Start::Connected(Side::Server) => (server, client),
        };
        Ok(Self {
            scenario,
            local,
            remote,
            planned: Some(planned),
            lock: None,
            pair: None,
            next: 0,
            since: Instant::now(),
            aborts: false,
        })
    }

    /// The scenario and the step that comes next, unless the script has ended.
    #[must_use]
    pub fn waits_for(&self) -> Option<(&'static str, Step)> {
        let step = self.scenario.steps.get(self.next)?;
        Some((self.scenario.name, *step))
    }

    /// Connects, or takes the steps that can be taken now. Whether there is more to
    /// come.
    fn advance(&mut self) -> io::Result<bool> {
        if let Some(planned) = self.planned.take() {
            self.pair = Some(match self.scenario.start {
                Start::Connected(side) => planned.connect(side, self.scenario.keepalive)?,
                Start::Unheard => planned.connect_unheard(self.scenario.keepalive)?,
            });
            self.since = Instant::now();
        }
        while let Some(&step) = self.scenario.steps.get(self.next) {
            if !self.take(step)? {
                return Ok(true);
            }
            self.next += 1;
            self.since = Instant::now();
        }
        Ok(false)
    }

    /// Takes a step, or says that it has to wait.
    fn take(&mut self, step: Step) -> io::Result<bool> {
        let pair = self.pair.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        match step {
            Step::Until(Wait::Ms(ms)) => {
                return Ok(self.since.elapsed() >= Duration::from_millis(ms));
            }
            Step::Until(Wait::Probes(n)) => {
                let TcpInfo { state, probes_out } = sockopt::tcp_info(pair.near()?)?;
                return Ok(probes_out >= n || state == state::CLOSE);
            }
            Step::Until(Wait::State(wanted)) => {
                return Ok(sockopt::tcp_info(pair.near()?)?.state == wanted);
            }
            Step::Silence => pair.silence()?,
            Step::Hear => pair.hear()?,
            Step::Vanish => pair.vanish()?,
            Step::PeerAsks => pair.far_asks(self.scenario.keepalive)?,
            Step::PeerSends => pair.far_sends()?,
            Step::PeerReadsAll => {
                pair.far_reads()?;
                return Ok(sockopt::unacknowledged(pair.near()?)? == 0);
            }
            Step::Send => pair.send()?,
            Step::Fill => pair.fill()?,
            Step::Lock => self.lock = Some(LockHeld::take(pair.near()?)?),
            Step::Unlock => self.lock.take().map_or(Ok(()), LockHeld::release)?,
            Step::Mark(mark) => sockopt::set_mark(pair.near()?, mark)?,
            Step::Shutdown => pair.near()?.shutdown(std::net::Shutdown::Write)?,
            Step::Linger2(seconds) => sockopt::set_linger2(pair.near()?, seconds)?,
            Step::FinTimeout(seconds) => std::fs::write(FIN_TIMEOUT, seconds.to_string())?,
            Step::Close => pair.close(),
            Step::Abort => {
                pair.disarm()?;
                self.aborts = true;
            }
        }
        Ok(true)
    }

    /// Resets both ends, if the script said so.
    fn end(&mut self) -> io::Result<()> {
        match &mut self.pair {
            Some(pair) if self.aborts => pair.abort(),
            _ => Ok(()),
        }
    }
}

/// `/proc/sys/net` shows the network namespace of the thread that opens it.
const FIN_TIMEOUT: &str = "/proc/sys/net/ipv4/tcp_fin_timeout";

/// How often the stage looks whether an actor can go on.
const TICK: Duration = Duration::from_millis(10);

/// Plays all the actors at once, each at its own pace, until every script has ended
/// or `go_on` says no; tells whether they all have. Ends that no script closed stay as
/// they are until the actors are dropped, and are reset then.
pub fn play(actors: &mut [Actor], mut go_on: impl FnMut() -> bool) -> io::Result<bool> {
    loop {
        let mut more = false;
        for actor in &mut *actors {
            more |= in_scenario(actor, Actor::advance)?;
        }
        if !more {
            for actor in actors {
                in_scenario(actor, Actor::end)?;
            }
            return Ok(true);
        }
        if !go_on() {
            return Ok(false);
        }
        thread::sleep(TICK);
    }
}

/// Has an actor do something; an error names its scenario.
fn in_scenario<T>(actor: &mut Actor, act: fn(&mut Actor) -> io::Result<T>) -> io::Result<T> {
    act(actor)
        .map_err(|e| io::Error::new(e.kind(), format!("scenario {}: {e}", actor.scenario.name)))
}
