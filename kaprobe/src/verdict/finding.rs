//! A finding: what a rule concludes from a record, as data. Its words are made once, at
//! the end (`words.rs`).

use crate::model::remedy::Remedy;
use crate::model::values::{Confidence, VerdictName};
use crate::timeout::estimate::TimeoutBounds;
use crate::timeout::middlebox::Fit;

/// What follows from a record.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) verdict: VerdictName,
    pub(super) confidence: Confidence,
    /// The idle age that matters, ms.
    pub(super) idle_ms: Option<u64>,
    /// Other records that it rests on.
    pub(super) evidence: Vec<u64>,
    /// The timeouts that fit.
    pub(super) fits: Vec<Fit>,
    /// What was learned of the timeout on the way.
    pub(super) bounds: Option<TimeoutBounds>,
    /// Why the connection ended.
    pub(super) because: Because,
    /// What would have kept it.
    pub(super) remedy: Option<Remedy>,
}

impl Finding {
    pub(super) const fn new(
        verdict: VerdictName,
        confidence: Confidence,
        because: Because,
    ) -> Self {
        Self {
            verdict,
            confidence,
            idle_ms: None,
            evidence: Vec::new(),
            fits: Vec::new(),
            bounds: None,
            because,
            remedy: None,
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Because {
    /// It was forgotten while it was idle: a first probe after half of that time would
    /// have come before.
    Forgotten(HalfOf),
    /// It was forgotten after less time than a first probe can come, ms.
    ForgottenAtOnce(u64),
    /// A probe reached a peer that had closed before.
    PeerHadClosed,
    /// A probe reached a peer that was back and had forgotten the connection.
    PeerRestarted,
    /// The peer, or a layer-7 proxy that closes after about this idle time, reset it
    /// unasked.
    Unasked(Option<Fit>),
    /// The peer had closed, and the program still sent.
    SentAfterPeerClosed,
    /// The peer reset it while it was in use.
    InUse,
    /// The peer, or the way to it, is gone.
    Unreachable,
    /// TCP_USER_TIMEOUT passed before all probes were sent.
    UserTimeout,
    /// The peer never closed a connection that the program had closed.
    FinWait2,
    /// This host reset it.
    Aborted(Abort),
    /// Data came for what the program had closed.
    DataAfterClose,
    /// A segment came for a connection that this host does not have.
    Stray(HalfOf),
}

/// A time of which half is advised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HalfOf {
    /// A timeout that fits what was seen.
    Fit(Fit),
    /// The shortest idle age, ms, that one did not survive.
    Death(u64),
    /// The timeout of this host that is applied by this.
    Host(String),
    /// The shortest default that is common.
    Common,
}

/// Why this host reset a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abort {
    /// Data was unread at close.
    DataUnread,
    /// TCP_LINGER2 below 0.
    NoFinWait2,
    /// The same, known from the answer to a segment.
    NoFinWait2Left,
    /// Too many orphans, or too much memory.
    Memory,
    /// A disconnect with data unsent.
    DisconnectWithData,
    /// Its listener was closed before a program accepted it.
    NeverAccepted,
    /// SO_LINGER 0, or a disconnect.
    LingerOrDisconnect,
    /// An orphan: TCP_LINGER2 below 0, or too many orphans.
    OrphanLinger2OrMemory,
    /// Data unread, SO_LINGER 0 or a disconnect: the kernel reports no more.
    UnreadLingerOrDisconnect,
    /// An orphan: too many of them, or somebody destroyed it.
    OrphanMemoryOrDestroyed,
    /// Somebody destroyed it.
    Destroyed,
}
