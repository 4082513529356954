//! The first line of a log: what the records are made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::time::WallTime;
use crate::text::escape::Escaped;

/// Version of the log format. The first number changes when a reader of the old
/// format would read the new one wrong.
pub const VERSION: &str = "1.3";

/// Filters as they were given, by the name of their flag.
pub type Filters = BTreeMap<String, Vec<String>>;

/// The first line of a log: what the records were made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub version: String,
    /// Name of the host.
    pub host: Escaped,
    /// Its kernel, as `uname -r`.
    pub kernel: Escaped,
    /// Version of kaprobe.
    pub kaprobe: String,
    /// When the trace began.
    pub started: WallTime,
    /// Wall clock less CLOCK_MONOTONIC when the trace began, ns.
    pub clock_offset_ns: i64,
    /// Timer ticks a second.
    pub hz: u32,
    /// The hooks, and how each was attached.
    pub hooks: BTreeMap<String, String>,
    /// The filters, as they were given, by the name of their flag.
    pub filters: Filters,
    /// The filters of each replay since, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub narrowed: Vec<Filters>,
    /// Idle timeouts that this host applies to connections through it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeouts: Vec<HostTimeout>,
}

/// An idle timeout that the host itself applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTimeout {
    /// What applies it: `ipvs` or `conntrack`.
    pub what: Escaped,
    /// The network namespace in which it does, inode number.
    pub netns: u32,
    /// After how many seconds without a packet.
    pub seconds: u64,
}

/// The first line of a log, whole: it has one key, which no record has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderLine<H = Header> {
    /// The header.
    pub header: H,
}
