//! Script steps that only tests use.

use std::net::Shutdown;
use std::{fs, io};

use kaprobe::traffic::script::{CLOSE, CustomStep, ScriptedConnection};
use kaprobe::traffic::sockopt::tcp_info;

use crate::traffic::ends::{far_reads, fill, set_far_keepalive, set_linger2, unacknowledged};
use crate::traffic::lock::LockHeld;

/// The kernel's number of FIN_WAIT2: FIN sent and acknowledged; the peer has not closed.
pub const FIN_WAIT2: u8 = 5;

/// The sysctl `tcp_fin_timeout`, in the network namespace of the thread that opens it.
const FIN_TIMEOUT: &str = "/proc/sys/net/ipv4/tcp_fin_timeout";

/// A step of a test script. "We" are the near end, which has the timer.
#[derive(Clone, Copy, Debug)]
pub enum TestStep {
    /// Waits for a number of unanswered probes, or until the connection has ended.
    Probes(u8),
    /// The peer turns keepalive on, with our settings.
    PeerKeepalive,
    /// The peer reads until everything that we sent is acknowledged and read.
    PeerReadsAll,
    /// We send until the buffers of both ends are full.
    Fill,
    /// Takes our socket's lock and holds it.
    Lock,
    /// Frees our socket's lock.
    Unlock,
    /// Marks our packets from now on; 0 is no mark.
    Mark(u32),
    /// We send a FIN: shutdown(2) for writing.
    Shutdown,
    /// Sets the seconds in FIN_WAIT2 for our socket.
    Linger2(i32),
    /// Sets the seconds in FIN_WAIT2 for the network namespace.
    FinTimeout(u16),
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
            Self::PeerKeepalive => set_far_keepalive(pair, keepalive)?,
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
        }
        Ok(true)
    }
}
