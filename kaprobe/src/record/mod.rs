//! `kaprobe record`: keeps the last days of a trace in the segments of a folder.

pub mod plan;

use anyhow::Result;
use bytesize::ByteSize;

use crate::record::plan::RecordPlan;
use crate::shutdown::{self, StopWhen};
use crate::sink::LiveSinks;
use crate::text::escape::Escaped;
use crate::trace::Session;
use crate::{host, stderr};

/// Runs `kaprobe record`.
///
/// # Errors
/// If the trace can't start, or if the folder can't be written.
pub fn run(plan: &RecordPlan) -> Result<()> {
    host::processes::check(&plan.trace.records.pids)?;
    stderr::never_wait();
    let session = Session::start(&plan.trace)?;
    // Opened last: an earlier failure leaves no folder behind.
    let sinks = LiveSinks::in_segments(&plan.to, session.header(), session.stopper())?;
    let cut_off = sinks.cut_off();
    if !plan.trace.quiet {
        stderr::line(format_args!(
            "records to {}, at most {}",
            Escaped::from_path(&plan.to.dir),
            ByteSize(plan.to.max_size)
        ));
    }
    shutdown::watch(
        session.stopper(),
        StopWhen {
            duration: plan.trace.duration,
            // Nothing is to be opened anew, and nobody reads standard output.
            hangup: Some(Box::new(|| ())),
            cut_off: Some(Box::new(move || {
                stderr::lines(cut_off.cut_off());
                stderr::finish();
            })),
            suspend: None,
        },
    )?;
    session.follow(&plan.trace, sinks)
}
