//! Keeps a log in the segments of a folder, which never takes more than its room.

mod folder;
mod log;
mod writer;

pub(super) use crate::sink::segments::log::SegmentLog;
pub(super) use crate::sink::segments::writer::SegmentWriter;

#[cfg(test)]
mod tests;
