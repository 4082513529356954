//! The trailer: the last line of a log that is whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::named::Named as _;
use crate::model::tally::Tally;
use crate::model::time::WallTime;

/// The trailer of a log: that it ended in order, and what is in it since its header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// When the log ended.
    pub ended: WallTime,
    /// Number of records since the header.
    pub records: u64,
    /// Number of records by event.
    pub events: BTreeMap<String, u64>,
    /// Number of lost events that these records report, by reason.
    pub lost: BTreeMap<String, u64>,
    /// The trace goes on in the next file of this log.
    #[serde(default, skip_serializing_if = "is_false")]
    pub continued: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Trailer {
    /// The trailer after these records.
    #[must_use]
    pub fn new(ended: WallTime, tally: &Tally) -> Self {
        let mut lost = BTreeMap::new();
        for (why, count) in tally.losses() {
            *lost.entry(why.name().to_owned()).or_default() += count;
        }
        let events = tally.events();
        Self {
            ended,
            records: tally.records(),
            events: events
                .map(|(event, count)| (event.name().to_owned(), count))
                .collect(),
            lost,
            continued: false,
        }
    }
}

/// The last line of a log. Its only key is `trailer`, which no record has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailerLine<T = Trailer> {
    /// The trailer of the log.
    pub trailer: T,
}
