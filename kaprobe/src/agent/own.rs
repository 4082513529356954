//! What the agent itself uses: CPU time, memory, files, and the folder of the recorder.

use std::path::PathBuf;

use procfs::process::{LimitValue, Process};
use procfs::{boot_time_secs, page_size, ticks_per_second};

use crate::metrics::exposition::{ProcessFacts, RecorderFacts};
use crate::model::segment::SegmentName;
use crate::output_file::folder::Folder;
use crate::sink::OutputsWatch;
use crate::sink::options::RecorderFolder;

/// Reads what a process uses. What can't be read is 0.
pub(super) fn process(pid: u32) -> ProcessFacts {
    let read = i32::try_from(pid)
        .ok()
        .and_then(|pid| Process::new(pid).ok());
    read.and_then(|it| facts(&it)).unwrap_or_default()
}

fn facts(process: &Process) -> Option<ProcessFacts> {
    let stat = process.stat().ok()?;
    let seconds = |ticks: u64| ticks as f64 / ticks_per_second().max(1) as f64;
    let limits = process.limits().ok();
    let max_fds = limits.map(|it| match it.max_open_files.soft_limit {
        LimitValue::Value(most) => most,
        LimitValue::Unlimited => u64::MAX,
    });
    Some(ProcessFacts {
        cpu_s: seconds(stat.utime + stat.stime),
        resident: stat.rss * page_size(),
        virtual_: stat.vsize,
        fds: process.fd_count().unwrap_or_default() as u64,
        max_fds: max_fds.unwrap_or_default(),
        threads: stat.num_threads.try_into().unwrap_or_default(),
        started_s: boot_time_secs().unwrap_or_default() as f64 + seconds(stat.starttime),
    })
}

/// The folder of the recorder, looked at from outside.
pub(super) struct RecorderWatch {
    dir: PathBuf,
    max_bytes: u64,
    outputs: OutputsWatch,
    /// The greatest number of lost records so far: the output may find some again.
    lost: u64,
}

impl RecorderWatch {
    pub(super) fn new(to: &RecorderFolder, outputs: OutputsWatch) -> Self {
        Self {
            dir: to.dir.clone(),
            max_bytes: to.max_size,
            outputs,
            lost: 0,
        }
    }

    /// Looks at the folder. One that can't be read has nothing in it.
    pub(super) fn look(&mut self) -> RecorderFacts {
        let files = Folder::open(&self.dir).and_then(|folder| folder.files());
        let files = files.unwrap_or_default();
        let segments = files
            .iter()
            .filter(|file| SegmentName::parse(&file.name).is_some());
        self.lost = self.lost.max(self.outputs.lost());
        RecorderFacts {
            bytes: segments.clone().map(|file| file.size).sum(),
            max_bytes: self.max_bytes,
            segments: segments.count() as u64,
            lost: self.lost,
        }
    }
}
