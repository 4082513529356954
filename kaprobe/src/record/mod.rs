//! `kaprobe record`: keeps the last days of a trace in the segments of a folder.

pub mod plan;

use anyhow::Result;
use bytesize::ByteSize;

use crate::record::plan::RecordPlan;
use crate::shutdown::{self, StopWhen};
use crate::sink::LiveSinks;
use crate::sink::options::RecorderFolder;
use crate::text::escape::Escaped;
use crate::trace::plan::TracePlan;
use crate::trace::{Observer, Session};
use crate::{host, stderr};

/// Runs `kaprobe record`.
///
/// # Errors
/// If the trace can't start, or if the folder can't be written.
pub fn run(plan: &RecordPlan) -> Result<()> {
    let recording = UnshownTrace::start(&plan.trace, Some(&plan.to))?;
    // Nothing is to be opened anew.
    recording.watch_signals(&plan.trace, || ())?;
    recording.follow(&plan.trace, &mut |_| {})
}

/// A trace without a screen, and the folder that it is kept in, if there is one.
pub struct UnshownTrace {
    session: Session,
    sinks: LiveSinks,
}

impl UnshownTrace {
    /// Attaches the programs, and opens the folder.
    ///
    /// # Errors
    /// If the trace can't start, or if the folder can't be opened.
    pub fn start(trace: &TracePlan, to: Option<&RecorderFolder>) -> Result<Self> {
        host::processes::check(&trace.records.processes.pids)?;
        stderr::never_wait();
        let session = Session::start(trace)?;
        // Opened last: an earlier failure leaves no folder behind.
        let sinks = match to {
            Some(to) => LiveSinks::in_segments(to, session.header(), session.stopper())?,
            None => LiveSinks::none(session.header(), session.stopper()),
        };
        if let Some(to) = to
            && !trace.quiet
        {
            stderr::line(format_args!(
                "records to {}, at most {}",
                Escaped::from_path(&to.dir),
                ByteSize(to.max_size)
            ));
        }
        Ok(Self { session, sinks })
    }

    /// The trace.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// The folder as an output.
    #[must_use]
    pub const fn sinks(&self) -> &LiveSinks {
        &self.sinks
    }

    /// Ends the trace on a signal, or when its time is over. `hangup` is called on SIGHUP.
    ///
    /// # Errors
    /// If signals can't be watched.
    pub fn watch_signals(
        &self,
        trace: &TracePlan,
        hangup: impl Fn() + Send + 'static,
    ) -> Result<()> {
        let cut_off = self.sinks.cut_off();
        shutdown::watch(
            self.session.stopper(),
            StopWhen {
                duration: trace.duration,
                // Nobody reads standard output.
                hangup: Some(Box::new(hangup)),
                cut_off: Some(Box::new(move || {
                    stderr::lines(cut_off.cut_off());
                    stderr::finish();
                })),
                suspend: None,
            },
        )
    }

    /// Runs the trace to its end, and reports to an observer.
    ///
    /// # Errors
    /// If the folder or the kernel fails.
    pub fn follow(self, trace: &TracePlan, observer: Observer<'_>) -> Result<()> {
        self.session.observed(trace, self.sinks, observer)
    }
}
