//! The steps that only the scripts of tests take.

use std::fs;
use std::io;
use std::net::Shutdown;

use kaprobe::traffic::script::{CLOSE, CustomStep, ScriptedConnection};
use kaprobe::traffic::sockopt::tcp_info;

use crate::traffic::ends::{far_asks, far_reads, fill, set_linger2, unacknowledged};
use crate::traffic::lock::LockHeld;

/// The kernel's number of a TCP state: FIN sent and acknowledged; the peer has not closed.
pub const FIN_WAIT2: u8 = 5;
/// Likewise: the peer has closed.
pub const CLOSE_WAIT: u8 = 8;

/// `/proc/sys/net` shows the network namespace of the thread that opens it.
const FIN_TIMEOUT: &str = "/proc/sys/net/ipv4/tcp_fin_timeout";

/// One of those steps. "We" are the near end, the one with the timer.
#[derive(Clone, Copy, Debug)]
pub enum TestStep {
    /// Goes on when so many probes are out, unanswered; or the connection has ended.
    Probes(u8),
    /// The peer turns keepalive on too, with the settings of our side.
    PeerAsks,
    /// The peer reads, until nothing of what we sent waits any more on either side.
    PeerReadsAll,
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
}

impl CustomStep for TestStep {
    fn take(&self, connection: &mut ScriptedConnection) -> io::Result<bool> {
        let keepalive = connection.scenario.keepalive;
        let pair = connection.pair()?;
        match *self {
            Self::Probes(n) => {
                let seen = tcp_info(pair.near()?)?;
                return Ok(seen.probes_out >= n || seen.state == CLOSE);
            }
            Self::PeerAsks => far_asks(pair, keepalive)?,
            Self::PeerReadsAll => {
                far_reads(pair)?;
                return Ok(unacknowledged(pair.near()?)? == 0);
            }
            Self::Fill => fill(pair)?,
            Self::Lock => {
                let held = LockHeld::take(pair.near()?)?;
                connection.guard = Some(Box::new(held));
            }
            Self::Unlock => connection.guard = None,
            Self::Mark(mark) => pair.near()?.set_mark(mark)?,
            Self::Shutdown => pair.near()?.shutdown(Shutdown::Write)?,
            Self::Linger2(seconds) => set_linger2(pair.near()?, seconds)?,
            Self::FinTimeout(seconds) => fs::write(FIN_TIMEOUT, seconds.to_string())?,
            Self::Close => pair.close(),
        }
        Ok(true)
    }
}
