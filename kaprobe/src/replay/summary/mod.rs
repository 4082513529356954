//! `kaprobe replay --summary`: what became of the connections to each remote endpoint.

mod counts;
mod output;

pub(super) use crate::replay::summary::counts::ReplaySummary;
pub(super) use crate::replay::summary::output::{Look, write};
