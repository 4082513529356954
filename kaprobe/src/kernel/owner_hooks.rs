//! Attaches the programs that see what may give a socket another owner.

use anyhow::{Result, anyhow, bail, ensure};
use kaprobe_ebpf::config::DescriptorOffsets;

use crate::exit;
use crate::kernel::object::LoadedObject;
use crate::kernel::programs;
use crate::kernel::refusal::reason;
use crate::model::attach_mode::AttachMode;

/// How changes of owners are seen.
#[derive(Clone, Debug)]
pub struct OwnerHooks {
    /// Whether the function is hooked by fentry that the kernel calls for a socket that a
    /// process receives; or why not.
    pub received: Result<(), String>,
}

impl LoadedObject {
    /// Attaches the programs that see changes of the processes that hold sockets, and, if the
    /// kernel takes one, the program that sees a process receive a socket.
    ///
    /// # Errors
    /// Why the first can't be attached, or say nothing here. Then nothing is attached.
    pub fn attach_owner_hooks(&mut self) -> Result<OwnerHooks> {
        ensure!(
            self.config.in_initial_pid_namespace != 0,
            "kaprobe is in a pid namespace of its own, where processes have other numbers"
        );
        let tracepoints = programs::OWNER_CHANGES;
        let attached = tracepoints
            .into_iter()
            .try_for_each(|part| self.attach_part(part));
        if let Err(why) = attached {
            self.detach_owner_hooks();
            let cause = exit::exhausted(&why).map(anyhow::Error::from);
            return Err(cause.unwrap_or_else(|| anyhow!(reason(&why))));
        }
        match self.attach_received() {
            Err(why) if exit::exhausted(&why).is_some() => {
                self.detach_owner_hooks();
                Err(why)
            }
            received => Ok(OwnerHooks {
                received: received.map_err(|why| reason(&why)),
            }),
        }
    }

    /// Removes the programs that see changes of owners from the kernel.
    pub fn detach_owner_hooks(&mut self) {
        let tracepoints = programs::OWNER_CHANGES;
        for part in tracepoints.into_iter().chain([programs::RECEIVED_SOCKET]) {
            self.detach_part(part);
        }
    }

    /// Hooks the function that the kernel calls for a socket that a process receives, and tests
    /// whether that is seen.
    ///
    /// # Errors
    /// Why it can't be hooked, or sees nothing. Then it is not hooked.
    fn attach_received(&mut self) -> Result<()> {
        let mode = AttachMode::Fentry;
        ensure!(
            self.config.offsets.descriptors != DescriptorOffsets::ABSENT,
            "the kernel's files are not as kaprobe knows them"
        );
        ensure!(
            self.mode.is_none_or(|only| only == mode),
            "--attach does not ask for {mode}"
        );
        if let Some((_, why)) = self.blind.iter().find(|(blind, _)| *blind == mode) {
            bail!("{why}");
        }
        let attached = self.attach_part(programs::RECEIVED_SOCKET);
        let seen = attached.and_then(|()| self.test_received(mode));
        if seen.is_err() {
            self.detach_part(programs::RECEIVED_SOCKET);
        }
        seen
    }
}
