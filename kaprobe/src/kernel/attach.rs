//! Attaching: which programs each way takes, and trying the ways in turn.

use crate::model::named::Named as _;
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;
use aya::programs::{Program, ProgramError};
use aya::sys::SyscallError;

use crate::exit;
use crate::kernel::btf::KernelTypes;
use crate::model::attach_mode::AttachMode;
use crate::model::values::Hook;

/// Where the kernel lists its kprobe event source, if it was built with
/// CONFIG_KPROBE_EVENTS.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

/// A program of the object, and what it attaches to.
type Part = (&'static str, &'static str);

/// The programs that hook a fact in one way, entry before exit; none where there
/// is no such way.
fn parts(hook: Hook, way: AttachMode) -> &'static [Part] {
    match (hook, way) {
        (Hook::KeepaliveTimer, AttachMode::Fentry) => &[
            ("timer_fentry", "tcp_keepalive_timer"),
            ("timer_fexit", "tcp_keepalive_timer"),
        ],
        (Hook::KeepaliveTimer, AttachMode::Kprobe) => &[
            ("timer_kprobe", "tcp_keepalive_timer"),
            ("timer_kretprobe", "tcp_keepalive_timer"),
        ],
        (Hook::KeepaliveTimer, AttachMode::Tracepoint) => &[
            ("timer_expire_entry", "timer_expire_entry"),
            ("timer_expire_exit", "timer_expire_exit"),
        ],
        (Hook::SendActiveReset, AttachMode::Fentry) => &[("reset_fentry", "tcp_send_active_reset")],
        (Hook::SendActiveReset, AttachMode::Kprobe) => &[("reset_kprobe", "tcp_send_active_reset")],
        (Hook::SendActiveReset, AttachMode::Tracepoint) => {
            &[("reset_tracepoint", "tcp_send_reset")]
        }
        (Hook::DestroySock, AttachMode::Tracepoint) => {
            &[("destroy_tracepoint", "tcp_destroy_sock")]
        }
        (Hook::SendReset, AttachMode::Fentry) => &[
            ("passive_v4_fentry", "tcp_v4_send_reset"),
            ("passive_v6_fentry", "tcp_v6_send_reset"),
        ],
        (Hook::SendReset, AttachMode::Kprobe) => &[
            ("passive_v4_kprobe", "tcp_v4_send_reset"),
            ("passive_v6_kprobe", "tcp_v6_send_reset"),
        ],
        (Hook::SendReset, AttachMode::Tracepoint) => &[("passive_tracepoint", "tcp_send_reset")],
        (Hook::ReceiveReset, AttachMode::Tracepoint) => {
            &[("receive_tracepoint", "tcp_receive_reset")]
        }
        (Hook::Probe, AttachMode::Tracepoint) => &[("segment_tracepoint", "tcp_probe")],
        (
            Hook::DestroySock | Hook::ReceiveReset | Hook::Probe,
            AttachMode::Fentry | AttachMode::Kprobe,
        ) => &[],
    }
}

/// The ways there are for a hook, cheapest first.
pub fn ways(hook: Hook) -> impl Iterator<Item = AttachMode> {
    AttachMode::ALL
        .iter()
        .copied()
        .filter(move |&way| !parts(hook, way).is_empty())
}

/// How a hook was attached, and what was tried before.
#[derive(Debug)]
pub struct Attached {
    /// Which hook.
    pub hook: Hook,
    /// The way that worked.
    pub way: AttachMode,
    /// The ways that did not, and why.
    pub refused: Vec<(AttachMode, String)>,
}

/// Attaches programs, reading what more than one attachment needs only once.
pub struct Attacher<'a> {
    ebpf: &'a mut Ebpf,
    types: &'a KernelTypes,
}

impl<'a> Attacher<'a> {
    pub const fn new(ebpf: &'a mut Ebpf, types: &'a KernelTypes) -> Self {
        Self { ebpf, types }
    }

    /// The object whose programs are attached.
    pub const fn ebpf(&mut self) -> &mut Ebpf {
        self.ebpf
    }

    /// Attaches a hook in the first of `ways` that works.
    ///
    /// # Errors
    /// Names every way that was tried, and why the kernel refused it.
    pub fn attach(&mut self, hook: Hook, ways: Vec<AttachMode>) -> Result<Attached> {
        let mut refused = Vec::new();
        for way in ways {
            match self.attach_way(hook, way) {
                Ok(()) => return Ok(Attached { hook, way, refused }),
                Err(why) => refused.push((way, reason(&why))),
            }
        }
        let tried: Vec<_> = refused
            .iter()
            .map(|(way, why)| format!("{way}: {why}"))
            .collect();
        Err(exit::Error::kernel(format!("cannot hook {hook}: {}", tried.join("; "))).into())
    }

    /// Attaches a hook in one way, all of it or nothing.
    ///
    /// # Errors
    /// Why the kernel refused it.
    pub fn attach_way(&mut self, hook: Hook, way: AttachMode) -> Result<()> {
        let outcome = parts(hook, way)
            .iter()
            .try_for_each(|&part| self.attach_part(part));
        if outcome.is_err() {
            self.detach_way(hook, way);
        }
        outcome
    }

    /// Takes a hook's programs out of the kernel again.
    pub fn detach_way(&mut self, hook: Hook, way: AttachMode) {
        for (program, _) in parts(hook, way) {
            // What was never loaded can't be unloaded, and that is what is wanted.
            let _not_loaded = match self.ebpf.program_mut(program) {
                Some(Program::FEntry(p)) => p.unload(),
                Some(Program::FExit(p)) => p.unload(),
                Some(Program::KProbe(p)) => p.unload(),
                Some(Program::RawTracePoint(p)) => p.unload(),
                _ => Ok(()),
            };
        }
    }

    fn attach_part(&mut self, (program, target): Part) -> Result<()> {
        let found = self
            .ebpf
            .program_mut(program)
            .with_context(|| format!("the BPF object has no program {program}"))?;
        match found {
            Program::FEntry(p) => {
                p.load(target, self.types.attachable())?;
                p.attach()?;
            }
            Program::FExit(p) => {
                p.load(target, self.types.attachable())?;
                p.attach()?;
            }
            Program::KProbe(p) => {
                ensure!(Path::new(KPROBES).exists(), "this kernel has no kprobes");
                p.load()?;
                p.attach(target, 0)?;
            }
            Program::RawTracePoint(p) => {
                p.load()?;
                p.attach(target)?;
            }
            _ => bail!("{program} is of a type that kaprobe has no use for"),
        }
        Ok(())
    }
}

/// Why the kernel refused a program, in one line: aya's own text holds the whole of
/// the verifier's.
pub fn reason(why: &anyhow::Error) -> String {
    match why.downcast_ref() {
        Some(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) => {
            let log = verifier_log.to_string();
            // The verifier's last line but its statistics says what it objects to.
            let said = log
                .lines()
                .rfind(|line| !STATISTICS.iter().any(|s| line.starts_with(s)));
            match said.filter(|line| !line.trim().is_empty()) {
                Some(line) => format!("{io_error}: {}", line.trim()),
                None => io_error.to_string(),
            }
        }
        Some(ProgramError::SyscallError(SyscallError { call, io_error })) => {
            format!("{call}: {io_error}")
        }
        _ => format!("{why:#}"),
    }
}

/// How the lines begin that the verifier ends with, whatever it found.
const STATISTICS: [&str; 3] = ["verification time", "stack depth", "processed"];

/// The functions that programs attach to by their numbers: fentry and fexit, and what the
/// kernel calls for each item of an iterator.
pub fn functions() -> BTreeSet<&'static str> {
    let targets = Hook::ALL
        .iter()
        .flat_map(|&hook| parts(hook, AttachMode::Fentry))
        .map(|(_, target)| *target);
    let iterators = ["bpf_iter_tcp", "bpf_iter_task_file"];
    // Entry and exit attach to one function.
    targets.chain(iterators).collect()
}

/// The programs that are loaded for a hook in one way.
pub fn programs(ebpf: &Ebpf, hook: Hook, way: AttachMode) -> impl Iterator<Item = &Program> {
    parts(hook, way)
        .iter()
        .filter_map(|(program, _)| ebpf.program(program))
}
