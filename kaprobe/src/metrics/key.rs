//! What tells one series from another: the program, where it runs, and the remote end.

use crate::model::peer_group::PeerGroup;
use crate::model::peers::Peers;
use crate::model::socket::Process;
use crate::text::escape::Escaped;

/// Most characters of a label's value.
const MAX_LABEL: usize = 128;

/// What stands in a label that is shorter than the name.
const CUT: char = '…';

/// The remote end of the series that all others share. No other has this name: each names a
/// port.
pub const OTHER: &str = "other";

/// What the connections of a series have in common. A label without a value is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    program: Option<Box<str>>,
    unit: Option<Box<str>>,
    /// `None` for the series that all others share.
    remote: Option<Peers>,
}

impl SeriesKey {
    /// The series of a process and a remote end.
    #[must_use]
    pub fn new(process: &Process, remote: Peers) -> Self {
        let program = process.cmdline.as_ref().or(process.comm.as_ref());
        Self::of_names(program, process.unit.as_ref(), remote)
    }

    fn of_names(program: Option<&Escaped>, unit: Option<&Escaped>, remote: Peers) -> Self {
        let label = |it: Option<&Escaped>| it.map(|it| cut(it.as_str()));
        Self {
            program: label(program),
            unit: label(unit),
            remote: Some(remote),
        }
    }

    /// Whether the series is of this process, if it is known.
    pub(super) fn is_of(&self, process: &Process) -> bool {
        let known = process.cmdline.as_ref().or(process.comm.as_ref());
        known.is_none_or(|name| {
            let matches = |label: &Option<Box<str>>, name: Option<&Escaped>| {
                label.as_deref() == name.map(|it| cut(it.as_str())).as_deref()
            };
            matches(&self.program, Some(name)) && matches(&self.unit, process.unit.as_ref())
        })
    }
}

impl From<&PeerGroup> for SeriesKey {
    fn from(group: &PeerGroup) -> Self {
        let program = group.cmdline.as_ref().or(group.comm.as_ref());
        Self::of_names(program, group.unit.as_ref(), group.peers)
    }
}

/// A label's value, cut to its greatest length.
fn cut(name: &str) -> Box<str> {
    match name.char_indices().nth(MAX_LABEL) {
        None => name.into(),
        Some(_) => {
            let kept = name.chars().take(MAX_LABEL - 1);
            kept.chain([CUT]).collect::<String>().into()
        }
    }
}

impl SeriesKey {
    /// The labels, with values that may hold any character but control characters.
    #[must_use]
    pub fn labels(&self) -> Vec<(&'static str, String)> {
        let names = [("program", &self.program), ("unit", &self.unit)];
        let names = names.into_iter().filter_map(|(name, value)| {
            let value = value.as_deref()?;
            Some((name, value.to_owned()))
        });
        let remote = self.remote.map(|it| it.to_string());
        let remote = remote.unwrap_or_else(|| OTHER.to_owned());
        names.chain([("remote", remote)]).collect()
    }
}
