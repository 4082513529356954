//! What tells one series from another: the program, where it runs, and the remote end.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

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
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeriesKey {
    /// The values of [`NAMES`].
    names: [Option<Box<str>>; NAMES.len()],
    /// `None` for the series that all others share.
    remote: Option<Peers>,
    /// The hash of all that: each record is looked up by it.
    hash: u64,
}

impl Hash for SeriesKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// The labels that say which program it is, and where it runs.
pub const NAMES: [&str; 5] = ["program", "unit", "container", "pod", "pod_namespace"];

/// The values of [`NAMES`], uncut.
type Names<'a> = [Option<&'a Escaped>; NAMES.len()];

impl SeriesKey {
    /// The series of a process and a remote end.
    #[must_use]
    pub fn new(process: &Process, remote: Peers) -> Self {
        Self::of_names(names(process), remote)
    }

    fn of_names(names: Names<'_>, remote: Peers) -> Self {
        let names = names.map(|it| it.map(|it| Box::from(cut(it.as_str()))));
        let remote = Some(remote);
        // Tables hash it again, with keys of their own.
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((&names, remote));
        Self {
            names,
            remote,
            hash,
        }
    }

    /// The server of a series whose connections this host opened.
    pub(super) fn server(&self) -> Option<(IpAddr, u16)> {
        match self.remote? {
            Peers::Server(address, port) => Some((address, port)),
            Peers::Clients(_) => None,
        }
    }

    /// Whether the series is of this process, if it is known.
    pub(super) fn is_of(&self, process: &Process) -> bool {
        let names = names(process);
        let [program, ..] = names;
        let mut pairs = self.names.iter().zip(names);
        program.is_none()
            || pairs.all(|(label, name)| match (label, name) {
                (Some(label), Some(name)) => **label == *cut(name.as_str()),
                (label, name) => label.is_none() && name.is_none(),
            })
    }
}

fn names(process: &Process) -> Names<'_> {
    [
        process.cmdline.as_ref().or(process.comm.as_ref()),
        process.unit.as_ref(),
        process.container.as_ref(),
        process.pod.as_ref(),
        process.pod_namespace.as_ref(),
    ]
}

impl From<&PeerGroup> for SeriesKey {
    fn from(group: &PeerGroup) -> Self {
        let workload = &group.workload;
        let names = [
            group.cmdline.as_ref().or(group.comm.as_ref()),
            workload.unit.as_ref(),
            workload.container.as_ref(),
            workload.pod.as_ref(),
            workload.pod_namespace.as_ref(),
        ];
        Self::of_names(names, group.peers)
    }
}

/// A label's value, cut to its greatest length.
fn cut(name: &str) -> Cow<'_, str> {
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
        let names = NAMES.into_iter().zip(&self.names);
        let names = names.filter_map(|(name, value)| Some((name, value.as_deref()?.to_owned())));
        let remote = self.remote.map(|it| it.to_string());
        let remote = remote.unwrap_or_else(|| OTHER.to_owned());
        names.chain([("remote", remote)]).collect()
    }
}
