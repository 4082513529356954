//! What the screen makes of a group of connections.

use std::borrow::Cow;

use crate::model::peer_group::PeerGroup;
use crate::text::cell::NOTHING;
use crate::text::escape::Escaped;

/// The program of a group, for people.
pub(super) fn program(group: &PeerGroup) -> Cow<'_, str> {
    group.name().unwrap_or_else(|| NOTHING.into())
}

/// Whether the program of a group, what it belongs to, or its remote end contains a text, which is in
/// lower case.
pub(super) fn contains(group: &PeerGroup, text: &str) -> bool {
    let names = [&group.comm, &group.cmdline];
    let mut names = names.into_iter().flatten().map(Escaped::as_str);
    names.any(|name| name.to_lowercase().contains(text))
        || group.workload.contains(text)
        || group.peers.to_string().contains(text)
}
