//! What the connections of a group have in common: the program and the remote end.

use serde::{Deserialize, Serialize};

use crate::model::peers::Peers;
use crate::model::socket::{Endpoints, Process};
use crate::text::cell::NOTHING;
use crate::text::escape::Escaped;

/// The program that holds connections, and their remote end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct GroupId {
    /// What a runtime runs, or the command name. `None` if it is not known.
    pub(super) program: Option<Escaped>,
    /// systemd unit or container of the program.
    pub(super) unit: Option<Escaped>,
    /// Network namespace, inode number.
    pub(super) netns: u32,
    /// The remote end.
    pub(super) peers: Peers,
}

impl GroupId {
    pub(super) fn of(process: &Process, endpoints: &Endpoints, accepted: bool) -> Self {
        Self {
            program: process.cmdline.as_ref().or(process.comm.as_ref()).cloned(),
            unit: process.unit.clone(),
            netns: endpoints.netns,
            peers: Peers::of(endpoints, accepted),
        }
    }

    /// The program for people.
    pub(super) fn program(&self) -> &str {
        self.program.as_ref().map_or(NOTHING, Escaped::as_str)
    }

    /// Whether the program, its unit or the remote end contains a text, which is in lower
    /// case.
    pub(super) fn contains(&self, text: &str) -> bool {
        let mut names = self.program.iter().chain(&self.unit);
        names.any(|name| name.as_str().to_lowercase().contains(text))
            || self.peers.to_string().contains(text)
    }
}
