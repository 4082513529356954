//! Tests that attached programs see what they are attached to.
//!
//! A program may attach and never run: the kernel calls none through ftrace while
//! `kernel.ftrace_enabled` is 0, and no kprobe while they are switched off. So kaprobe makes
//! the keepalive timer of a socket fire, and the programs must see it begin and end.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kaprobe_ebpf::config::{SELF_TEST_USER_TIMEOUT, State};

use crate::kernel::object::{self, LoadedObject};
use crate::kernel::switches;
use crate::model::attach_mode::AttachMode;
use crate::traffic::pair::{Keepalive, Pair, Path, Planned};
use crate::traffic::sockopt;

/// How long a firing is waited for. It comes at the next tick of the timer; for a second
/// around the time when the kernel's 32-bit jiffies wrap, it comes up to a second later.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two looks for the firing.
const LOOK: Duration = Duration::from_millis(1);

impl LoadedObject {
    /// Makes the timer of a socket fire, and checks that the programs saw it. The hook
    /// `tcp_keepalive_timer` must be attached, in this mode.
    ///
    /// # Errors
    /// When they saw nothing.
    pub fn test_sight(&mut self, mode: AttachMode) -> Result<()> {
        let pair = match unconnected() {
            Ok(pair) => pair,
            Err(why) => {
                self.untested = Some(format!("{why:#}"));
                return Ok(());
            }
        };
        let state = State {
            timer_function: self.timer_function,
            self_test: 1,
            ..State::EMPTY
        };
        object::set_state(&mut self.ebpf, state)?;
        let seen = self.await_firing(&pair);
        object::set_state(&mut self.ebpf, State::EMPTY)?;
        if !seen? {
            let why = switches::off(mode).unwrap_or_else(|| "why is not known".to_owned());
            bail!("attached, but blind: a timer fired and was not seen: {why}");
        }
        Ok(())
    }

    /// Makes the timer fire until the programs have seen it, or until it is too late.
    fn await_firing(&mut self, pair: &Pair) -> Result<bool> {
        object::forget_sight(&mut self.ebpf)?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            fire(pair).context("cannot set a keepalive timer")?;
            thread::sleep(LOOK);
            if object::has_sight(&mut self.ebpf)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A socket that waits for a connection which never comes, with its keepalive timer set.
/// Its firing does nothing, and changes no counter of the kernel.
fn unconnected() -> Result<Pair> {
    let open = |path| -> std::io::Result<Pair> {
        let pair = Planned::bind(path)?.connect_unheard(Keepalive::new(1, 1, 1))?;
        let own = libc::c_int::try_from(SELF_TEST_USER_TIMEOUT).unwrap_or(libc::c_int::MAX);
        sockopt::set(pair.near()?, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, own)?;
        Ok(pair)
    };
    let pair = open(Path::V4).or_else(|_| open(Path::V6));
    pair.context("no socket can be made on loopback here")
}

/// Sets the socket's timer to the next tick. It never heard a peer, so it has been idle for
/// longer than any keepalive time (`tcp_sock_set_keepidle_locked`, net/ipv4/tcp.c).
fn fire(pair: &Pair) -> std::io::Result<()> {
    sockopt::set(pair.near()?, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 1)
}
