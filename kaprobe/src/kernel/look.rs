//! Has the programs look again at a socket whose data had stalled.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::RawTracePoint;
use kaprobe_ebpf::wire::look;

use crate::kernel::bpf;
use crate::model::event::SocketId;

/// Name of the program in the object.
const PROGRAM: &str = "look_again";

/// The program that looks at a socket. It reads memory only: it takes no lock, and is in no
/// network namespace.
pub struct StallLook {
    program: OwnedFd,
}

impl StallLook {
    /// Loads the program, and runs it once.
    ///
    /// # Errors
    /// When the kernel refuses it, or does not run such programs on request.
    pub(super) fn load(ebpf: &mut Ebpf) -> Result<Self> {
        let program = ebpf.program_mut(PROGRAM);
        let program = program.with_context(|| format!("the BPF object has no {PROGRAM}"))?;
        let program: &mut RawTracePoint = program.try_into()?;
        program.load()?;
        let program = program.fd()?.as_fd().try_clone_to_owned()?;
        let look = Self { program };
        // No socket has this address.
        look.is_waiting(SocketId { sk: 0, born_ns: 0 })?;
        Ok(look)
    }

    /// Whether nothing was acknowledged yet, and the socket is there. If something was, the
    /// program has sent an event.
    ///
    /// # Errors
    /// When the kernel does not run the program.
    pub fn is_waiting(&self, id: SocketId) -> io::Result<bool> {
        let shown = bpf::run_raw_tracepoint(self.program.as_fd(), &[id.sk, id.born_ns])?;
        Ok(shown == look::WAITING)
    }
}
