//! Attaching: the programs of a hook, in the first mode that works.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::programs::Program;

use crate::exit;
use crate::kernel::object::LoadedObject;
use crate::kernel::programs::{self, Part};
use crate::kernel::refusal::reason;
use crate::kernel::switches;
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
            modes.retain(|it| *it == mode);
            if modes.is_empty() {
                let why = format!("cannot hook {hook} by {mode}");
                return Err(exit::Error::kernel(why).into());
            }
        }
        let mut refused = Vec::new();
        for mode in modes {
            match self.attach_seeing(hook, mode) {
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

    /// Attaches all programs of a hook in one mode, and tests whether they see what they are
    /// attached to. The kernel must be calibrated before.
    ///
    /// # Errors
    /// Why the kernel refused one, or why they see nothing. Then nothing is attached.
    pub fn attach_seeing(&mut self, hook: Hook, mode: AttachMode) -> Result<()> {
        if let Some((_, why)) = self.blind.iter().find(|(blind, _)| *blind == mode) {
            bail!("{why}");
        }
        // The segment came with 5.12.
        if hook == Hook::Reset && self.types.parameter("tcp_reset", "skb") != Some(1) {
            bail!("this kernel's tcp_reset does not have the segment");
        }
        // 5.10 attaches nothing to a function while ftrace is switched off.
        self.attach_by(hook, mode)
            .map_err(|why| match switches::off(mode) {
                Some(off) => anyhow!("{off}: {why:#}"),
                None => why,
            })?;
        let sight = match hook {
            Hook::KeepaliveTimer => self.test_firing(mode),
            _ => self.test_resets(hook, mode),
        };
        if let Err(why) = &sight {
            self.detach(hook, mode);
            // The tracepoints of other hooks do not depend on those of timers.
            if hook == Hook::KeepaliveTimer && mode != AttachMode::Tracepoint {
                self.blind.push((mode, format!("{why:#}")));
            }
        }
        sight
    }

    /// Attaches all programs of a hook in one mode, or none of them.
    ///
    /// # Errors
    /// Why the kernel refused one.
    fn attach_by(&mut self, hook: Hook, mode: AttachMode) -> Result<()> {
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
        if hook == Hook::KeepaliveTimer {
            self.sees_wakeups = false;
        }
        let parts = programs::parts(hook, mode).iter().copied();
        for part in parts.chain(programs::wakeup(hook, mode)) {
            self.detach_part(part);
        }
    }

    /// Removes one program from the kernel.
    pub fn detach_part(&mut self, (program, _): Part) {
        // A program that was never loaded can't be unloaded, which is the aim anyway.
        let _not_loaded = match self.ebpf.program_mut(program) {
            Some(Program::FEntry(p)) => p.unload(),
            Some(Program::FExit(p)) => p.unload(),
            Some(Program::KProbe(p)) => p.unload(),
            Some(Program::RawTracePoint(p)) => p.unload(),
            _ => Ok(()),
        };
    }

    /// Attaches one program.
    ///
    /// # Errors
    /// Why the kernel refused it.
    pub fn attach_part(&mut self, (program, target): Part) -> Result<()> {
        let knows_registers = self.knows_registers;
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
                ensure!(
                    knows_registers,
                    "kaprobe does not know the registers of this architecture"
                );
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
