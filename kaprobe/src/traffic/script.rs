//! A scenario as data, and what plays many at once.
//!
//! A script waits for facts where the kernel shows them and for time to pass only
//! where nothing shows, so that it takes the same course on a machine that is
//! twenty times slower.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::traffic::pair::{Keepalive, Pair, Path, Planned, Side};
use crate::traffic::sockopt;

/// The kernel's number of the TCP state that has no connection any more.
pub const CLOSE: u8 = 7;

/// What can be seen of the near end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// So many ms have passed since the previous step.
    Ms(u64),
    /// The near end is in this TCP state.
    State(u8),
}

/// One step of a script. "We" are the near end, the one with the timer.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Goes on when this is so.
    Until(Wait),
    /// The peer hears nothing any more, and so does not answer.
    Silence,
    /// The peer hears again.
    Hear,
    /// The peer forgets the connection without telling.
    Vanish,
    /// The peer sends a byte.
    PeerSends,
    /// We send a byte.
    Send,
    /// Our timer stops, and once every script has ended both ends are reset; nothing
    /// stays behind. Not before: a timer that fires while this task is inside the
    /// kprobe of a reset is skipped by kprobes (`kprobe_ftrace_handler`,
    /// arch/x86/kernel/kprobes/ftrace.c), and before 6.7 that is counted nowhere.
    Abort,
    /// A step that the author of the scenario defines.
    Custom(&'static dyn CustomStep),
}

/// A step of a script beyond those of [`Step`].
pub trait CustomStep: Debug + Sync {
    /// Takes the step, or says that it has to wait.
    fn take(&self, connection: &mut ScriptedConnection) -> io::Result<bool>;
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
#[derive(Clone, Copy, Debug)]
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

/// A connection that plays a scenario.
pub struct ScriptedConnection {
    /// What it plays.
    pub scenario: Scenario,
    /// The near end's address.
    pub local: SocketAddr,
    /// The far end's address.
    pub remote: SocketAddr,
    planned: Option<Planned>,
    /// What a custom step leaves behind for as long as it lasts. Dropped before the
    /// connection: nothing can close a socket whose lock is held.
    pub guard: Option<Box<dyn Send>>,
    pair: Option<Pair>,
    next: usize,
    since: Instant,
    /// Both ends are to be reset.
    aborts: bool,
}

impl ScriptedConnection {
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
            guard: None,
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

    /// The connection, once it is made.
    pub fn pair(&mut self) -> io::Result<&mut Pair> {
        Ok(self.pair.as_mut().ok_or(io::ErrorKind::NotConnected)?)
    }

    /// Takes a step, or says that it has to wait.
    fn take(&mut self, step: Step) -> io::Result<bool> {
        let since = self.since;
        let pair = self.pair()?;
        match step {
            Step::Until(Wait::Ms(ms)) => {
                return Ok(since.elapsed() >= Duration::from_millis(ms));
            }
            Step::Until(Wait::State(wanted)) => {
                return Ok(sockopt::tcp_info(pair.near()?)?.state == wanted);
            }
            Step::Silence => pair.silence()?,
            Step::Hear => pair.hear()?,
            Step::Vanish => pair.vanish()?,
            Step::PeerSends => pair.far_sends()?,
            Step::Send => pair.send()?,
            Step::Abort => {
                pair.disarm()?;
                self.aborts = true;
            }
            Step::Custom(step) => return step.take(self),
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

/// How often to look whether a connection can go on.
const TICK: Duration = Duration::from_millis(10);

/// Plays all the scripts at once, each at its own pace, until every one has ended or
/// `go_on` says no; tells whether they all have. Ends that no script closed stay as they
/// are until the connections are dropped, and are reset then.
pub fn play(
    connections: &mut [ScriptedConnection],
    mut go_on: impl FnMut() -> bool,
) -> io::Result<bool> {
    loop {
        let mut more = false;
        for connection in &mut *connections {
            more |= in_scenario(connection, ScriptedConnection::advance)?;
        }
        if !more {
            for connection in connections {
                in_scenario(connection, ScriptedConnection::end)?;
            }
            return Ok(true);
        }
        if !go_on() {
            return Ok(false);
        }
        thread::sleep(TICK);
    }
}

/// Has a connection do something; an error names its scenario.
fn in_scenario<T>(
    connection: &mut ScriptedConnection,
    act: fn(&mut ScriptedConnection) -> io::Result<T>,
) -> io::Result<T> {
    let name = connection.scenario.name;
    act(connection).map_err(|e| io::Error::new(e.kind(), format!("scenario {name}: {e}")))
}
