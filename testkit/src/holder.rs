//! A child process that holds open the descriptors it receives: this test binary again.

use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::{env, thread};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::set_name;

use crate::child::Killed;

/// Tells a process to hold the descriptors that arrive on its standard input.
const HOLDER_ENV: &str = "KAPROBE_TEST_HOLDER";

/// A request with a descriptor: hold it. The answer is its number in the holder.
const HOLD: u8 = b'h';
/// A request: fork. The answer is the pid of the child, which inherits the descriptors.
const FORK: u8 = b'f';
/// A request: send back the descriptor that was held last, and close it. It comes with the
/// byte of the request.
const GIVE: u8 = b'g';
/// A request: close what is held. The answer is 0.
const CLOSE: u8 = b'c';
/// A request: get the name [`RENAMED`]. The answer is 0.
const RENAME: u8 = b'r';
/// A request: execute this program again, with the descriptors open. The answer is 0, by the
/// new program.
const EXECUTE: u8 = b'e';

/// The name of a holder after [`Holder::rename`].
pub const RENAMED: &str = "renamed holder";
/// The name of a holder after [`Holder::execute`]: the kernel takes it from the path.
pub const EXECUTED: &str = "exe";
/// What a holder executes.
const SELF: &str = "/proc/self/exe";
/// The value of [`HOLDER_ENV`] that tells a holder to say that it has started.
const AGAIN: &str = "again";

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

    /// Makes the holder send back what it got last, and close it.
    pub fn give(&mut self) -> Result<OwnedFd> {
        self.socket.write_all(&[GIVE])?;
        match receive(&self.socket)? {
            (Some(GIVE), Some(fd)) => Ok(fd),
            other => bail!("the holder gave {other:?}"),
        }
    }

    /// Makes the holder close what it holds. Its children still hold it.
    pub fn close(&mut self) -> Result<()> {
        self.request(CLOSE)
    }

    /// Gives the holder the name [`RENAMED`].
    pub fn rename(&mut self) -> Result<()> {
        self.request(RENAME)
    }

    /// Makes the holder execute a program that holds what it held: it is [`EXECUTED`]. That one
    /// can't give it or close it.
    pub fn execute(&mut self) -> Result<()> {
        self.request(EXECUTE)
    }

    fn request(&mut self, request: u8) -> Result<()> {
        self.socket.write_all(&[request])?;
        let answer = self.answer()?;
        ensure!(answer == 0, "the holder answered {answer}");
        Ok(())
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
    let mut held: Vec<OwnedFd> = Vec::new();
    if env::var_os(HOLDER_ENV).is_some_and(|it| it == AGAIN) {
        socket.write_all(&0_u32.to_ne_bytes())?;
    }
    loop {
        let (kind, fd) = receive(&socket)?;
        let answer = match (kind, fd) {
            (Some(HOLD), Some(fd)) => {
                let number = fd.as_raw_fd();
                held.push(fd);
                number
            }
            (Some(FORK), None) => fork()?,
            (Some(GIVE), None) => {
                send(&socket, GIVE, held.pop().context("nothing is held")?)?;
                continue;
            }
            (Some(CLOSE), None) => {
                held.clear();
                0
            }
            (Some(RENAME), None) => {
                set_name(&CString::new(RENAMED)?)?;
                0
            }
            (Some(EXECUTE), None) => {
                for fd in &held {
                    fcntl_setfd(fd, FdFlags::empty())?;
                }
                let why = Command::new(SELF).env(HOLDER_ENV, AGAIN).exec();
                return Err(why).context("cannot execute itself");
            }
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
