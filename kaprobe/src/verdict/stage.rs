//! The stage between the correlator and the sinks: filters, numbers and judges.
//!
//! Verdicts are made of the numbered records, so that a log gives the same again when
//! it is read. What was only left out by its name is judged too, and has no number to
//! be named by; what is of other sockets is not.

use crate::filter::Filter;
use crate::model::record::{EventName, Record};
use crate::verdict::{EVIDENCE, Judge};

/// Takes a record of the correlator, or of a log, to the filter and to the judge of
/// its host; shows it where it is asked for, and what follows from it. Verdicts of a
/// log are made anew, not taken: their evidence has other numbers here.
pub fn judge(
    filter: &mut Filter,
    judge: &mut Judge,
    record: &mut Record,
    mut show: impl FnMut(&mut Record),
) {
    if record.event == EventName::Verdict || filter.is_done() {
        return;
    }
    let verdict = if filter.asks_for(record.event) {
        if !filter.pass(record) {
            return;
        }
        let verdict = judge.push(record);
        show(record);
        verdict
    } else if EVIDENCE.contains(&record.event) && filter.concerns(record) {
        judge.push(record)
    } else {
        None
    };
    if let Some(mut verdict) = verdict
        && filter.pass(&mut verdict)
    {
        show(&mut verdict);
    }
}
