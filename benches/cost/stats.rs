//! The kernel's run-time statistics of BPF programs.

use std::collections::BTreeMap;

use anyhow::Result;
use kaprobe_testkit::bpf;
use rustix::process::Pid;

/// The run time and the number of runs of a program so far.
#[derive(Clone, Copy, Default)]
struct Run {
    ns: u64,
    count: u64,
}

/// Statistics of the programs of one process, by program id.
#[derive(Default)]
pub struct ProgramStats(BTreeMap<u32, Run>);

impl ProgramStats {
    /// Reads the statistics from the process's descriptors, without those of other
    /// tracers.
    pub fn of(pid: Pid) -> Result<Self> {
        let mut programs = BTreeMap::new();
        for text in bpf::descriptors(pid.as_raw_pid().cast_unsigned())? {
            let field = |name| -> Option<u64> {
                let line = text.lines().find_map(|l| l.strip_prefix(name))?;
                line.trim().parse().ok()
            };
            if let (Some(id), Some(ns), Some(count)) =
                (field("prog_id:"), field("run_time_ns:"), field("run_cnt:"))
            {
                programs.insert(u32::try_from(id)?, Run { ns, count });
            }
        }
        Ok(Self(programs))
    }

    /// Leaves a program out.
    pub fn leave_out(&mut self, id: u32) {
        self.0.remove(&id);
    }

    /// Whether a program belongs to the process.
    pub fn has(&self, id: u32) -> bool {
        self.0.contains_key(&id)
    }

    /// The number of runs of the program that ran most often.
    pub fn runs(&self) -> u64 {
        self.0.values().map(|run| run.count).max().unwrap_or(0)
    }

    /// The ns per firing since `earlier`, all programs together. A firing runs the entry
    /// program once, and no program more often.
    pub fn ns_per_firing(&self, earlier: &Self) -> Option<f64> {
        let since = |id, run: &Run| {
            let before = earlier.0.get(id).copied().unwrap_or_default();
            Run {
                ns: run.ns - before.ns,
                count: run.count - before.count,
            }
        };
        let runs: Vec<_> = self.0.iter().map(|(id, run)| since(id, run)).collect();
        let firings = runs.iter().map(|run| run.count).max()?;
        let ns: u64 = runs.iter().map(|run| run.ns).sum();
        (firings > 0).then(|| ns as f64 / firings as f64)
    }
}
