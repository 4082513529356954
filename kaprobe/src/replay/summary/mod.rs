//! `kaprobe replay --summary`: counts events and verdicts by remote endpoint.

mod counts;
mod output;

pub(super) use crate::replay::summary::counts::ReplaySummary;
pub(super) use crate::replay::summary::output::{SummaryFormat, write};
