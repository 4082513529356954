//! Attaching: the programs of a hook, in the first mode that works.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{Program, ProgramError};
use aya::sys::SyscallError;

use crate::exit;
use crate::kernel::object::LoadedObject;
use crate::kernel::programs::{self, Part};
use crate::model::attach_mode::AttachMode;
use crate::model::values::Hook;

/// Where the kernel lists its kprobe event source, if it was built with
/// CONFIG_KPROBE_EVENTS.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

/// How a hook was attached, and which modes the kernel refused before.
#[derive(Debug)]
pub struct Attached {
    /// The hook.
    pub hook: Hook,
    /// The mode that worked.
    pub mode: AttachMode,
    /// The modes that did not work, and why.
    pub refused: Vec<(AttachMode, String)>,
}

impl LoadedObject {
    /// Attaches a hook in the first mode that is allowed and works.
    ///
    /// # Errors
    /// Names every mode that was tried, and why the kernel refused it; or what has run out.
    pub fn attach(&mut self, hook: Hook) -> Result<Attached> {
        let mut modes: Vec<_> = programs::modes(hook).collect();
        // A hook with a single mode leaves no choice.
        if let Some(mode) = self.mode
            && modes.len() > 1
        {
            modes = vec![mode];
        }
        let mut refused = Vec::new();
        for mode in modes {
            match self.attach_by(hook, mode) {
                Ok(()) => {
                    return Ok(Attached {
                        hook,
                        mode,
                        refused,
                    });
                }
                Err(why) => {
                    if let Some(cause) = exit::exhausted(&why) {
                        return Err(cause).with_context(|| format!("cannot hook {hook} by {mode}"));
                    }
                    refused.push((mode, reason(&why)));
                }
            }
        }
        let refused = refused.iter().map(|(mode, why)| format!("{mode}: {why}"));
        let refused: Vec<_> = refused.collect();
        Err(exit::Error::kernel(format!("cannot hook {hook}: {}", refused.join("; "))).into())
    }

    /// Attaches all programs of a hook in one mode, or none of them.
    ///
    /// # Errors
    /// Why the kernel refused one.
    pub fn attach_by(&mut self, hook: Hook, mode: AttachMode) -> Result<()> {
        let outcome = programs::parts(hook, mode)
            .iter()
            .try_for_each(|&part| self.attach_part(part));
        if outcome.is_err() {
            self.detach(hook, mode);
        } else if let Some(wakeup) = programs::wakeup(hook, mode) {
            self.sees_wakeups = self.attach_part(wakeup).is_ok();
        }
        outcome
    }

    /// Removes the programs of a hook from the kernel.
    pub fn detach(&mut self, hook: Hook, mode: AttachMode) {
        let parts = programs::parts(hook, mode).iter().copied();
        for (program, _) in parts.chain(programs::wakeup(hook, mode)) {
            // A program that was never loaded can't be unloaded, which is the aim anyway.
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
        let found = self.ebpf.program_mut(program);
        match found.with_context(|| format!("the BPF object has no program {program}"))? {
            Program::FEntry(p) => {
                p.load(target, &self.functions)?;
                p.attach()?;
            }
            Program::FExit(p) => {
                p.load(target, &self.functions)?;
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

/// Why the kernel refused a program, in one line: aya's own text contains the whole log of
/// the verifier.
pub fn reason(why: &anyhow::Error) -> String {
    match why.downcast_ref() {
        Some(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) => {
            let log = verifier_log.to_string();
            // The last line before the verifier's statistics says what it objects to.
            let objection = log
                .lines()
                .rfind(|line| !STATISTICS.iter().any(|s| line.starts_with(s)));
            match objection.filter(|line| !line.trim().is_empty()) {
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

/// The beginnings of the lines that the verifier ends its log with, whatever it found.
const STATISTICS: [&str; 3] = ["verification time", "stack depth", "processed"];
