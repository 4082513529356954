//! A process that holds descriptors it is given: this test binary, started again.

use std::env;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::child::Killed;

/// Says that a process is to hold what comes over its standard input.
const ASKED: &str = "KAPROBE_TEST_HOLDER";

/// A byte with a descriptor: hold it, and answer with its number there.
const HOLD: u8 = b'h';
/// A byte: fork, and answer with the pid of a child that holds the same.
const FORK: u8 = b'f';

/// A process that holds what it is given. Killed when dropped, and what it forked dies
/// with it.
#[derive(Debug)]
pub struct Holder {
    child: Killed,
    over: UnixStream,
}

impl Holder {
    /// Starts one.
    pub fn start() -> Result<Self> {
        let (over, there) = UnixStream::pair()?;
        let child = Command::new(env::current_exe()?)
            .env(ASKED, "1")
            .stdin(Stdio::from(OwnedFd::from(there)))
            .spawn()?;
        Ok(Self {
            child: Killed(child),
            over,
        })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Passes a descriptor to it: its number there, once it is there.
    pub fn pass(&mut self, fd: impl AsFd) -> Result<u32> {
        send(&self.over, HOLD, fd)?;
        self.answer()
    }

    /// Has it fork: the pid of the child.
    pub fn fork(&mut self) -> Result<u32> {
        self.over.write_all(&[FORK])?;
        self.answer()
    }

    fn answer(&mut self) -> Result<u32> {
        let mut number = [0; 4];
        self.over.read_exact(&mut number).context("it ended")?;
        Ok(u32::from_ne_bytes(number))
    }
}

/// In a process that was started to hold: does so until there is no more to come.
pub fn hold_if_asked() -> Option<ExitCode> {
    env::var_os(ASKED)?;
    Some(match hold() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("holder: {why:#}");
            ExitCode::FAILURE
        }
    })
}

fn hold() -> Result<()> {
    let mut over = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut held = Vec::new();
    loop {
        let (kind, fd) = receive(&over)?;
        let answer = match (kind, fd) {
            (Some(HOLD), Some(fd)) => {
                let number = fd.as_raw_fd();
                held.push(fd);
                number
            }
            (Some(FORK), None) => fork()?,
            (None, _) => return Ok(()),
            other => bail!("what is {other:?}?"),
        };
        over.write_all(&answer.to_ne_bytes())?;
    }
}

/// The pid of a child that has what this process has, and does nothing.
fn fork() -> Result<libc::pid_t> {
    // SAFETY: this process has one thread; the child makes system calls and no more.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).context("fork"),
        0 => {
            if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
                std::process::abort();
            }
            loop {
                thread::park();
            }
        }
        pid => Ok(pid),
    }
}

/// Sends a byte and a descriptor.
pub fn send(over: &UnixStream, kind: u8, fd: impl AsFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    ensure!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(
        over,
        &[IoSlice::new(&[kind])],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

/// Receives a byte, unless there is no more to come, and the descriptor that it bears.
pub fn receive(over: &UnixStream) -> Result<(Option<u8>, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let got = recvmsg(over, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let fd = { fds }.next();
    Ok(((got > 0).then_some(byte[0]), fd))
}
