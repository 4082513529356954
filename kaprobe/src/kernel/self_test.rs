//! Tests that attached programs see what they are attached to.
//!
//! A program may attach and never run: the kernel calls none through ftrace while
//! `kernel.ftrace_enabled` is 0, and no kprobe while they are switched off. So kaprobe makes
//! the keepalive timer of a socket fire, and the programs must see it begin and end. It also
//! resets connections of its own: a hook on a function that the compiler copied or put into
//! its callers would be silent for itself.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use kaprobe_ebpf::config::{State, sight};
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg,
    sendmsg,
};

use crate::exit;
use crate::kernel::object::{self, LoadedObject};
use crate::kernel::switches;
use crate::kernel::testbed::{self, Testbed};
use crate::model::attach_mode::AttachMode;
use crate::model::values::Hook;
use crate::traffic::pair::{Keepalive, Pair, Path, Planned};
use crate::traffic::sockopt;

/// How long a firing is waited for. It comes at the next tick of the timer; for a second
/// around the time when the kernel's 32-bit jiffies wrap, it comes up to a second later.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two looks for what is to be seen.
const LOOK: Duration = Duration::from_millis(1);
/// What the programs see of a firing.
const FIRING: &[usize] = &[sight::FIRING_BEGAN, sight::FIRING_ENDED];

impl LoadedObject {
    /// Makes the timer of a socket fire, and checks that the programs saw it. The hook
    /// `tcp_keepalive_timer` must be attached, in this mode.
    ///
    /// # Errors
    /// When they saw nothing.
    pub fn test_firing(&mut self, mode: AttachMode) -> Result<()> {
        let pair = match unconnected() {
            Ok(pair) => pair,
            Err(why) => {
                self.untested = Some(format!("the hook of timers: {why:#}"));
                return Ok(());
            }
        };
        let seen = self.watching(|it| it.await_firing(&pair))?;
        ensure!(seen, "{}", blind("a timer fired", mode));
        Ok(())
    }

    /// Resets connections, and checks that the programs of a hook saw it. Only hooks that see
    /// resets or states are tested so. The hook must be attached, in this mode.
    ///
    /// # Errors
    /// When they saw nothing.
    pub fn test_resets(&mut self, hook: Hook, mode: AttachMode) -> Result<()> {
        let Some(sights) = sights(hook, mode) else {
            return Ok(());
        };
        let reset = match &self.testbed {
            Some(_) => Ok(()),
            None => Testbed::new().map(|made| self.testbed = Some(made)),
        };
        let seen = reset.and_then(|()| self.watching(|it| it.await_resets(sights)));
        match seen {
            Ok(true) => Ok(()),
            Ok(false) => bail!(blind("a connection was reset", mode)),
            Err(why) if exit::exhausted(&why).is_some() => Err(why),
            Err(why) => {
                self.untested = Some(format!("the hooks of resets: {why:#}"));
                Ok(())
            }
        }
    }

    /// Receives a socket, and checks that the program saw it. The function that the kernel
    /// calls for it must be hooked, in this mode.
    ///
    /// # Errors
    /// When it saw nothing, or when no socket can be received.
    pub fn test_received(&mut self, mode: AttachMode) -> Result<()> {
        let seen = self.watching(|it| {
            receive_socket().context("cannot receive a socket")?;
            object::have_seen(&mut it.ebpf, &[sight::RECEIVED_DESCRIPTOR])
        })?;
        ensure!(seen, "{}", blind("a socket was received", mode));
        Ok(())
    }

    /// Has the programs note what they see while `act` runs.
    fn watching<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let state = State {
            timer_function: self.timer_function,
            self_test: 1,
            ..State::EMPTY
        };
        object::set_state(&mut self.ebpf, state)?;
        let outcome = object::forget_sight(&mut self.ebpf).and_then(|()| act(self));
        object::set_state(&mut self.ebpf, State::EMPTY)?;
        outcome
    }

    /// Resets connections, and waits until the programs have seen it, or until it is too
    /// late. A family that this kernel does not have shows nothing.
    fn await_resets(&mut self, sights: [usize; 2]) -> Result<bool> {
        let testbed = self.testbed.as_ref().context("no testbed")?;
        let families = testbed.reset_connections()?;
        let expected = sights.into_iter().zip(families);
        let expected: Vec<_> = expected.filter_map(|(it, has)| has.then_some(it)).collect();
        let start = Instant::now();
        while !object::have_seen(&mut self.ebpf, &expected)? {
            if start.elapsed() > PATIENCE {
                return Ok(false);
            }
            thread::sleep(LOOK);
        }
        Ok(true)
    }

    /// Makes the timer fire until the programs have seen it, or until it is too late.
    fn await_firing(&mut self, pair: &Pair) -> Result<bool> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            fire(pair).context("cannot set a keepalive timer")?;
            thread::sleep(LOOK);
            if object::have_seen(&mut self.ebpf, FIRING)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What the programs of a hook see when a connection of IPv4, or of IPv6, is reset; `None` if
/// this is not what they see.
fn sights(hook: Hook, mode: AttachMode) -> Option<[usize; 2]> {
    match hook {
        Hook::SendActiveReset => Some([sight::ACTIVE_RESET; 2]),
        // One program sees both.
        Hook::SendReset if mode == AttachMode::Tracepoint => Some([sight::PASSIVE_RESET_V4; 2]),
        Hook::SendReset => Some([sight::PASSIVE_RESET_V4, sight::PASSIVE_RESET_V6]),
        Hook::ReceiveReset => Some([sight::RECEIVED_RESET; 2]),
        Hook::Reset => Some([sight::RESET_SEGMENT; 2]),
        Hook::SetState => Some([sight::STATE; 2]),
        Hook::KeepaliveTimer | Hook::DestroySock | Hook::Probe | Hook::Retransmit => None,
    }
}

/// Says that programs are attached and did not see what happened.
fn blind(what: &str, mode: AttachMode) -> String {
    let why = switches::off(mode).unwrap_or_else(|| "why is not known".to_owned());
    format!("attached, but blind: {what} and was not seen: {why}")
}

/// A socket that waits for a connection which never comes, with its keepalive timer set.
/// Its firing does nothing, and changes no counter of the kernel.
fn unconnected() -> Result<Pair> {
    let open = |path| -> std::io::Result<Pair> {
        let pair = Planned::bind(path)?.connect_unheard(Keepalive::new(1, 1, 1))?;
        testbed::mark(pair.near()?)?;
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

/// Passes a socket from this process to itself.
fn receive_socket() -> std::io::Result<()> {
    let (sender, receiver) = UnixStream::pair()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [sender.as_fd()];
    // There is room for one descriptor.
    let _has_room = control.push(SendAncillaryMessage::ScmRights(&fds));
    let data = [IoSlice::new(&[0])];
    sendmsg(&sender, &data, &mut control, SendFlags::empty())?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    // Dropping it closes what was received.
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    recvmsg(&receiver, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    use rustix::process::geteuid;

    use super::*;
    use crate::kernel::config::TracerConfig;

    /// The hooks that see resets or states, in the mode that every kernel has.
    const HOOKS: [(Hook, AttachMode); 4] = [
        (Hook::SendActiveReset, AttachMode::Tracepoint),
        (Hook::SendReset, AttachMode::Tracepoint),
        (Hook::ReceiveReset, AttachMode::Tracepoint),
        (Hook::SetState, AttachMode::Tracepoint),
    ];

    /// Runs the next test in a process of its own: loading an object keeps all threads of a
    /// process from opening files ([`crate::kernel::loader`]).
    #[test]
    fn a_hook_that_sees_no_reset_is_blind() -> Result<()> {
        if !geteuid().is_root() {
            return Ok(());
        }
        let own = "kernel::self_test::tests::blind_hooks_are_told_from_others";
        let arguments = ["--exact", own, "--ignored"];
        let output = Command::new(env::current_exe()?).args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 passed"), "{output:?}");
        Ok(())
    }

    #[test]
    #[ignore = "in a process of its own"]
    fn blind_hooks_are_told_from_others() -> Result<()> {
        let mut object = LoadedObject::load(&TracerConfig::default())?;
        for (hook, mode) in HOOKS {
            // Nothing is attached, so nothing can be seen.
            let Err(blind) = object.test_resets(hook, mode) else {
                bail!("{hook} sees without being attached: {:?}", object.untested);
            };
            assert!(
                blind.to_string().contains("attached, but blind"),
                "{blind:#}"
            );
            object.attach_seeing(hook, mode)?;
            assert_eq!(object.untested, None);
            object.detach(hook, mode);
        }
        Ok(())
    }
}
