//! `kaprobe replay --summary`: counts events and verdicts by remote endpoint.

mod counts;
mod output;

pub(crate) use crate::replay::summary::counts::ReplaySummary;
pub(crate) use crate::replay::summary::output::{SummaryFormat, row_name, timeout_sentence, write};
