//! A child process that holds open the descriptors it receives: this test binary again.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::{env, thread};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::child::Killed;

/// Tells a process to hold the descriptors that arrive on its standard input.
const HOLDER_ENV: &str = "KAPROBE_TEST_HOLDER";

/// A request with a descriptor: hold it. The answer is its number in the holder.
const HOLD: u8 = b'h';
/// A request: fork. The answer is the pid of the child, which inherits the descriptors.
const FORK: u8 = b'f';

/// A process that holds descriptors. Killed when dropped, together with its children.
#[derive(Debug)]
pub struct Holder {
    child: Killed,
    socket: UnixStream,
}

impl Holder {
    /// Starts the process.
    pub fn start() -> Result<Self> {
        let (socket, stdin) = UnixStream::pair()?;
        let child = Command::new(env::current_exe()?)
            .env(HOLDER_ENV, "1")
            .stdin(Stdio::from(OwnedFd::from(stdin)))
            .spawn()?;
        Ok(Self {
            child: Killed(child),
            socket,
        })
    }

    /// The pid of the holder.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Passes a descriptor to the holder. Returns its number there, once it has arrived.
    pub fn pass(&mut self, fd: impl AsFd) -> Result<u32> {
        send(&self.socket, HOLD, fd)?;
        self.answer()
    }

    /// Makes the holder fork. Returns the pid of the child.
    pub fn fork(&mut self) -> Result<u32> {
        self.socket.write_all(&[FORK])?;
        self.answer()
    }

    fn answer(&mut self) -> Result<u32> {
        let mut number = [0; 4];
        self.socket
            .read_exact(&mut number)
            .context("the holder ended")?;
        Ok(u32::from_ne_bytes(number))
    }
}

/// Runs as a holder until end of input. `None` if this process is not a holder.
pub fn run_if_holder() -> Option<ExitCode> {
    env::var_os(HOLDER_ENV)?;
    Some(match hold() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("holder: {why:#}");
            ExitCode::FAILURE
        }
    })
}

fn hold() -> Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut held = Vec::new();
    loop {
        let (kind, fd) = receive(&socket)?;
        let answer = match (kind, fd) {
            (Some(HOLD), Some(fd)) => {
                let number = fd.as_raw_fd();
                held.push(fd);
                number
            }
            (Some(FORK), None) => fork()?,
            (None, _) => return Ok(()),
            other => bail!("unknown request {other:?}"),
        };
        socket.write_all(&answer.to_ne_bytes())?;
    }
}

/// Forks a child that sleeps and keeps the descriptors open. Returns its pid.
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
pub fn send(socket: &UnixStream, kind: u8, fd: impl AsFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    ensure!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(
        socket,
        &[IoSlice::new(&[kind])],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

/// Receives a byte, `None` at end of input, and the descriptor sent with it, if any.
pub fn receive(socket: &UnixStream) -> Result<(Option<u8>, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let got = recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let fd = { fds }.next();
    Ok(((got > 0).then_some(byte[0]), fd))
}
