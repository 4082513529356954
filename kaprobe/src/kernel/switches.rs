//! The switches that silence programs which stay attached: the kernel says nothing when
//! they are turned.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use crate::kernel::clock;
use crate::model::attach_mode::AttachMode;
use crate::model::event::Lost;
use crate::model::values::{Hook, LostWhy};
use crate::stderr;

/// Stops ftrace from calling anything: `ftrace_enable_sysctl`, kernel/trace/ftrace.c.
const FTRACE: &str = "/proc/sys/kernel/ftrace_enabled";
/// Disarms all kprobes: `write_enabled_file_bool`, kernel/kprobes.c.
const KPROBES: &str = "/sys/kernel/debug/kprobes/enabled";

/// Time between two looks at the switches.
const PAUSE: Duration = Duration::from_secs(1);

/// Why programs that are attached in this mode see nothing, as far as a switch tells;
/// `None` if no switch is off.
pub fn off(mode: AttachMode) -> Option<String> {
    let switches: &[&str] = match mode {
        AttachMode::Fentry => &[FTRACE],
        // A kprobe uses ftrace at the start of a function (`arm_kprobe_ftrace`,
        // kernel/kprobes.c).
        AttachMode::Kprobe => &[KPROBES, FTRACE],
        AttachMode::Tracepoint => &[],
    };
    // Without debugfs its switch can't be read: then it stays unknown.
    let is_off = |path: &&&str| fs::read_to_string(path).is_ok_and(|value| value.trim() == "0");
    let off = switches.iter().find(is_off);
    off.map(|path| format!("{path} is 0"))
}

/// Watches the switches during a trace.
pub struct SwitchWatch {
    hooks: Vec<(Hook, AttachMode)>,
    /// The hooks that a switch silences now.
    silent: BTreeSet<Hook>,
    looked: Instant,
}

impl SwitchWatch {
    /// Watches the switches of these hooks. They have just been seen to work.
    pub fn new(hooks: impl Iterator<Item = (Hook, AttachMode)>) -> Self {
        Self {
            hooks: hooks.collect(),
            silent: BTreeSet::new(),
            looked: Instant::now(),
        }
    }

    /// The losses of hooks that a switch has silenced or enabled since the last look. Nobody
    /// knows how many events they miss.
    pub fn new_losses(&mut self) -> Vec<Lost> {
        if self.looked.elapsed() < PAUSE {
            return Vec::new();
        }
        self.looked = Instant::now();
        let mut losses = Vec::new();
        for &(hook, mode) in &self.hooks {
            let why = off(mode);
            let changed = match &why {
                Some(_) => self.silent.insert(hook),
                None => self.silent.remove(&hook),
            };
            if !changed {
                continue;
            }
            stderr::line(match why {
                Some(why) => format!("{hook} by {mode} sees nothing from now on: {why}"),
                None => format!("{hook} by {mode} sees events again"),
            });
            losses.push(Lost {
                at: clock::now(),
                hook,
                kind: None,
                why: LostWhy::SwitchedOff,
                count: 0,
            });
        }
        losses
    }
}
