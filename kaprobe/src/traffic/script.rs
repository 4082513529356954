//! Scenarios as data, and a function that plays many at once.
//!
//! A script waits for a state of the kernel if it can, and for a fixed time only if the
//! kernel shows nothing. So it runs the same on a machine that is twenty times slower.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::traffic::pair::{Keepalive, Pair, Path, Planned, Side};
use crate::traffic::sockopt;

/// The kernel's number of the TCP state CLOSE_WAIT.
pub const CLOSE_WAIT: u8 = 8;
/// The kernel's number of the TCP state CLOSE.
pub const CLOSE: u8 = 7;

/// A condition that a script waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// This time has passed since the previous step, ms.
    Ms(u64),
    /// The near end is in this TCP state.
    State(u8),
}

/// One step of a script. The near end has the timer; the peer is the far end.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Waits for a condition.
    Until(Wait),
    /// The peer drops all incoming segments, so it answers nothing.
    Silence,
    /// The peer receives segments again.
    Hear,
    /// The peer closes its socket without a FIN or RST.
    Vanish,
    /// The peer closes, as a server closes an idle connection: it sends a FIN.
    PeerCloses,
    /// The near end closes, as an application does.
    Close,
    /// The peer sends a byte.
    PeerSends,
    /// The near end sends a byte.
    Send,
    /// The near end's timer stops. After all scripts have ended, both ends are reset, and
    /// nothing stays behind. Not earlier: if a timer fires while this task is inside the
    /// kprobe of a reset, kprobes skip it (`kprobe_ftrace_handler`,
    /// arch/x86/kernel/kprobes/ftrace.c), and kernels before 6.7 do not count it.
    Abort,
    /// A step defined by the scenario's author.
    Custom(&'static dyn CustomStep),
}

/// A step that [`Step`] does not have.
pub trait CustomStep: Debug + Sync {
    /// Takes the step. Returns `false` if it has to wait.
    fn take(&self, connection: &mut ScriptedConnection) -> io::Result<bool>;
}

/// How a connection starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Established, with the timer on this side.
    Connected(Side),
    /// The near end stays in SYN_SENT: the listener drops all segments.
    Unheard,
}

/// A scripted connection, as data.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name of the scenario.
    pub name: &'static str,
    /// How the connection starts.
    pub start: Start,
    /// The timer's settings.
    pub keepalive: Keepalive,
    /// The steps, in order.
    pub steps: &'static [Step],
}

/// A connection that plays a scenario.
pub struct ScriptedConnection {
    /// The scenario it plays.
    pub scenario: Scenario,
    /// The near end's address.
    pub local: SocketAddr,
    /// The far end's address.
    pub remote: SocketAddr,
    planned: Option<Planned>,
    /// A resource that a custom step keeps. Dropped before the connection: nothing can
    /// close a socket while its lock is held.
    pub guard: Option<Box<dyn Send>>,
    pair: Option<Pair>,
    next: usize,
    since: Instant,
    /// The script asked to reset both ends.
    aborts: bool,
}

impl ScriptedConnection {
    /// Binds both ends: the addresses are known, nothing has been sent.
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

    /// The scenario's name and the next step, unless the script has ended.
    #[must_use]
    pub fn waits_for(&self) -> Option<(&'static str, Step)> {
        let step = self.scenario.steps.get(self.next)?;
        Some((self.scenario.name, *step))
    }

    /// Connects on the first call, then takes all steps that need not wait. Returns
    /// whether steps remain.
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

    /// The connection, after it was made.
    pub fn pair(&mut self) -> io::Result<&mut Pair> {
        Ok(self.pair.as_mut().ok_or(io::ErrorKind::NotConnected)?)
    }

    /// Takes a step. Returns `false` if it has to wait.
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
            Step::PeerCloses => pair.far_closes(),
            Step::Close => pair.close(),
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

    /// Resets both ends if the script asked for it.
    fn end(&mut self) -> io::Result<()> {
        match &mut self.pair {
            Some(pair) if self.aborts => pair.abort(),
            _ => Ok(()),
        }
    }
}

/// Interval between attempts to take the next steps.
const TICK: Duration = Duration::from_millis(10);

/// Plays all scripts at once, until all have ended or `go_on` returns `false`. Returns
/// whether all have ended. Ends that no script closed are reset when the connections are
/// dropped.
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

/// Calls `act` on a connection. Adds the scenario's name to an error.
fn in_scenario<T>(
    connection: &mut ScriptedConnection,
    act: fn(&mut ScriptedConnection) -> io::Result<T>,
) -> io::Result<T> {
    let name = connection.scenario.name;
    act(connection).map_err(|e| io::Error::new(e.kind(), format!("scenario {name}: {e}")))
}
