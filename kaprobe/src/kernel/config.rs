//! What a trace is asked for, and the settings of the BPF programs that follow from it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kaprobe_ebpf::config::{ABSENT, Config, MAX_CGROUPS, MAX_NETNS, filter};

use crate::filter::kernel::KernelFilter;
use crate::host::cgroup::Cgroup;
use crate::host::proc;
use crate::kernel::btf::KernelTypes;
use crate::kernel::{kfunc, members};
use crate::model::attach_mode::AttachMode;
use crate::model::limits::Limits;
use crate::model::values::Family;

/// What to trace. Names are resolved to the numbers that the kernel uses.
#[derive(Clone, Default)]
pub struct TracerConfig {
    /// Sockets and events to keep. Its names of network namespaces and cgroups are resolved
    /// in `netns` and `cgroups`.
    pub filter: KernelFilter,
    /// Inode numbers of the network namespaces to keep, at most [`MAX_NETNS`]. Empty keeps
    /// all.
    pub netns: Vec<u32>,
    /// cgroups to keep, with all cgroups below them, at most [`MAX_CGROUPS`]. Empty keeps
    /// all.
    pub cgroups: Vec<Cgroup>,
    /// Report a FIN only after this time without data.
    pub fin_idle: Duration,
    /// Report a connection as stalled at this retransmission of the same data.
    pub stalled_after: u8,
    /// How to attach; `None` takes the cheapest mode that works.
    pub attach: Option<AttachMode>,
    /// Hook the segments that answer probes.
    pub rtt: bool,
    /// How many sockets are known at once, and the size of the ring buffer: a power of two, at
    /// least a page.
    pub limits: Limits,
    /// Log details that only the programs know.
    pub debug: bool,
}

impl TracerConfig {
    /// Settings that the programs of an object are loaded with, on a kernel that has these types.
    ///
    /// # Errors
    /// When the kernel lacks a member that kaprobe needs.
    pub(super) fn for_programs(&self, types: &KernelTypes, object: &[u8]) -> Result<Config> {
        let mut config = Config::EMPTY;
        config.offsets = types.offsets()?;
        config.types = kfunc::types(types);
        if config.types.rdonly_cast == ABSENT {
            config.runs = members::runs(object, &config.offsets)?;
        }
        config.event_mask = self.filter.event_mask;
        config.family = self.filter.sockets.family.map_or(0, Family::number);
        config.debug = u32::from(self.debug);
        config.fin_idle_ms = u32::try_from(self.fin_idle.as_millis()).unwrap_or(u32::MAX);
        config.stalled_after = self.stalled_after.into();
        config.in_initial_pid_namespace = u32::from(proc::in_initial_pid_namespace());
        // `UTS_VERSION` names the preemption model (init/Makefile).
        let uname = rustix::system::uname();
        let mut words = uname.version().to_bytes().split(|&byte| byte == b' ');
        config.preempt_rt = u32::from(words.any(|word| word == b"PREEMPT_RT"));
        if let Some(position) = types.parameter("tcp_send_active_reset", "reason") {
            let slot = config.reset_reason_at.get_mut(position);
            *slot
                .context("tcp_send_active_reset takes its reason where kaprobe does not look")? = 1;
        }
        // (sk, skb) until 6.10, then (sk, skb, reason).
        let passive = types.parameter("tcp_v4_send_reset", "reason");
        config.passive_with_reason = u32::from(passive == Some(2));
        let traced = types.tracepoint_arguments("tcp_send_reset");
        config.reset_traced_with_reason = u32::from(traced.is_some_and(|n| n > 2));
        let sockets = &self.filter.sockets;
        for (is_unset, bit) in [
            (sockets.local_ports.is_empty(), filter::LOCAL_PORT),
            (sockets.remote_ports.is_empty(), filter::REMOTE_PORT),
            (sockets.ports.is_empty(), filter::EITHER_PORT),
            (sockets.networks.is_empty(), filter::ADDRESS),
        ] {
            config.filters |= if is_unset { 0 } else { bit };
        }
        config.netns_count = u32::try_from(self.netns.len().min(MAX_NETNS))?;
        for (slot, &inum) in config.netns.iter_mut().zip(&self.netns) {
            *slot = inum;
        }
        config.cgroup_count = u32::try_from(self.cgroups.len().min(MAX_CGROUPS))?;
        for (slot, cgroup) in config.cgroups.iter_mut().zip(&self.cgroups) {
            slot.id = cgroup.id;
            slot.level = cgroup.level;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::object::OBJECT;
    use crate::kernel::registers::Registers;
    use crate::kernel::{loader, programs};

    /// Another name would take a pass over all types of its own.
    #[test]
    fn one_pass_finds_all_names() -> Result<()> {
        let Ok(types) = KernelTypes::read() else {
            println!("skipped: this kernel has no BTF");
            return Ok(());
        };
        let found = types.names();
        TracerConfig::default().for_programs(&types, OBJECT)?;
        let _registers = Registers::find(&types);
        let _functions = loader::functions(&types, programs::functions());
        let _reasons = types.reset_reasons();
        let _position = types.parameter("tcp_reset", "skb");
        assert_eq!(types.names(), found);
        Ok(())
    }
}
