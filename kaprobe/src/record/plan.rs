//! The checked arguments of `kaprobe record`. Makes no system call.

use std::path::PathBuf;

use crate::cli::args::{FilterArgs, RecordingArgs, RunningArgs, SegmentArgs};
use crate::exit;
use crate::sink::options::{
    ColorWhen, Format, Outputs, RecorderFolder, ScreenFormat, TextStyle, TimeFormat,
};
use crate::trace::plan::TracePlan;

/// The least size of a folder, bytes: with less, a segment has no room for a busy minute.
const LEAST_SIZE: u64 = 1 << 20;

/// The share of the folder's size at which a segment ends. What is removed at once is no more.
const SEGMENTS: u64 = 32;

/// The longest segment, bytes.
const MAX_SEGMENT: u64 = 64 << 20;

/// The checked arguments of `kaprobe record`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlan {
    /// The trace that is recorded.
    pub trace: TracePlan,
    /// Where it is kept.
    pub to: RecorderFolder,
}

impl RecordPlan {
    /// Makes a plan from the arguments of `kaprobe record`.
    ///
    /// # Errors
    /// [`exit::Code::Usage`], with the name of the invalid argument.
    pub fn new(args: RecordingArgs) -> Result<Self, exit::Error> {
        let RecordingArgs {
            dir,
            segments,
            quiet,
            filters,
            running,
        } = args;
        Ok(Self {
            trace: TracePlan {
                alive: Some(segments.alive_interval),
                ..trace(filters, running, quiet)?
            },
            to: folder(dir, &segments)?,
        })
    }
}

/// The plan of a trace without a screen.
///
/// # Errors
/// [`exit::Code::Usage`], with the name of the invalid argument.
pub fn trace(
    filters: FilterArgs,
    running: RunningArgs,
    quiet: bool,
) -> Result<TracePlan, exit::Error> {
    let nothing = Outputs {
        screen: ScreenFormat::Every(Format::Json),
        file: None,
        text: TextStyle {
            time: TimeFormat::Clock,
            wide: false,
            heading: false,
            color: ColorWhen::Never,
        },
    };
    TracePlan::of(filters, running, nothing, quiet)
}

/// The folder of a recorder.
///
/// # Errors
/// [`exit::Code::Usage`], with the name of the invalid argument.
pub fn folder(dir: PathBuf, segments: &SegmentArgs) -> Result<RecorderFolder, exit::Error> {
    let max_size = segments.max_size;
    if max_size < LEAST_SIZE {
        return Err(exit::Error::usage("--max-size is at least 1MiB"));
    }
    Ok(RecorderFolder {
        dir,
        max_size,
        segment_size: (max_size / SEGMENTS).min(MAX_SEGMENT),
        segment_age: segments.segment_age,
    })
}
