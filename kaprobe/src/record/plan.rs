//! The checked arguments of `kaprobe record`. Makes no system call.

use crate::cli::args::RecordingArgs;
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
            max_size,
            segment_age,
            alive_interval,
            quiet,
            filters,
            running,
        } = args;
        if max_size < LEAST_SIZE {
            return Err(exit::Error::usage("--max-size is at least 1MiB"));
        }
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
        Ok(Self {
            trace: TracePlan {
                alive: Some(alive_interval),
                ..TracePlan::of(filters, running, nothing, quiet)?
            },
            to: RecorderFolder {
                dir,
                max_size,
                segment_size: (max_size / SEGMENTS).min(MAX_SEGMENT),
                segment_age,
            },
        })
    }
}
