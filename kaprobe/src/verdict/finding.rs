//! Findings: the conclusions of the rules, as data. `words.rs` turns them into text.

use crate::model::record::{EventName, Record};
use crate::model::remedy::Remedy;
use crate::model::values::{Confidence, Errno, VerdictName};
use crate::text::escape::Escaped;
use crate::timeout::estimate::TimeoutBounds;
use crate::timeout::middlebox::Fit;

/// The conclusion that a rule draws from a record.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) verdict: VerdictName,
    pub(super) confidence: Confidence,
    /// The idle age that the verdict reports, ms.
    pub(super) idle_ms: Option<u64>,
    /// The numbers of other records that support the conclusion.
    pub(super) evidence: Vec<u64>,
    /// The known timeouts that explain the end.
    pub(super) fits: Vec<Fit>,
    /// The learned bounds for the idle timeout on the path.
    pub(super) bounds: Option<TimeoutBounds>,
    /// The host of the peer, if its log was read and has no record of the reset.
    pub(super) peer_host: Option<Escaped>,
    /// The TTL of the reset, if it is that of the peer's segments.
    pub(super) same_ttl: Option<u8>,
    /// Why the connection ended.
    pub(super) explanation: Explanation,
    /// The setting that would have kept the connection.
    pub(super) remedy: Option<Remedy>,
}

impl Finding {
    pub(super) const fn new(
        verdict: VerdictName,
        confidence: Confidence,
        explanation: Explanation,
    ) -> Self {
        Self {
            verdict,
            confidence,
            idle_ms: None,
            evidence: Vec::new(),
            fits: Vec::new(),
            bounds: None,
            peer_host: None,
            same_ttl: None,
            explanation,
            remedy: None,
        }
    }

    /// Whether the records show an idle timeout as the cause: connections died of it more
    /// than once, or this host applies it on the path. Otherwise the cause is a guess.
    pub(super) fn is_settled(&self) -> bool {
        let repeats = |it: &TimeoutBounds| it.is_believed() && !it.contradictory;
        self.bounds.as_ref().is_some_and(repeats) || self.fits.iter().any(Fit::is_host)
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Explanation {
    /// The other end no longer knew the idle connection. If a box between forgot it, a
    /// first probe after this time would have prevented that.
    Forgotten {
        /// What limits the advised TCP_KEEPIDLE.
        limit: IdleLimit,
        /// Who may have forgotten the connection.
        by: ForgottenBy,
    },
    /// The other end forgot the connection after this idle age, ms, which is too short
    /// for any TCP_KEEPIDLE.
    ForgottenTooSoon(u64),
    /// The other end forgot the connection after an idle age that this connection had
    /// survived, ms: the peer restarted.
    Survived(u64),
    /// The peer had already closed when the probe or segment reached it.
    PeerHadClosed,
    /// The peer was reachable but no longer knew the connection.
    PeerRestarted,
    /// The peer, or a layer-7 proxy with about this idle timeout, reset the connection
    /// while this host sent nothing.
    Unsolicited(Option<Fit>),
    /// The program sent data after the peer had closed.
    SentAfterPeerClosed,
    /// One end had closed, and this host's timeout for such connections had passed.
    HalfClosedForgotten(Fit),
    /// The peer closed while data was on its way.
    CrossedPeerClose,
    /// The peer reset the connection after it had not answered retransmissions.
    ResetWhileRetransmitting,
    /// The peer reset the connection while it was in use.
    InUse,
    /// The connection was reset before the peer had sent any data.
    BeforeAnswer,
    /// This host itself sent the reset in place of the peer: its firewall did. If the
    /// peer's handshake was not seen, a local proxy may have.
    ByThisHost,
    /// A box between sent the reset.
    ByBox(OtherTtl),
    /// The records of the other end show why it reset the connection.
    ByOtherEnd(OtherEnd),
    /// The peer's host or the path to it is down.
    Unreachable,
    /// TCP_USER_TIMEOUT passed before all probes were sent.
    UserTimeout,
    /// The program closed the connection and the peer never did.
    FinWait2,
    /// This host reset the connection.
    Aborted(Abort),
    /// Data arrived after the program had closed the connection.
    DataAfterClose,
    /// The accept queue was full, and net.ipv4.tcp_abort_on_overflow is 1.
    AcceptQueueFull,
    /// A segment arrived for a connection that this host does not have.
    Stray(Stray),
    /// A segment arrived for a connection that had ended here, and the peer was not told.
    EndedHere(SilentEnd),
    /// conntrack took a segment of a translated connection for INVALID, and delivered it
    /// here.
    NotTranslated,
    /// The peer has an older connection with the ports of a new one.
    PortsReused,
    /// Data was sent and not acknowledged.
    Stuck(Stuck),
    /// A program closed the connection after a time without data.
    IdleClose(IdleClose),
    /// The process at the other end ended, and the kernel closed its connections.
    PeerExited(OtherEnd),
    /// Keepalive gave up, and ICMP had reported this error.
    Rejected(Errno),
}

/// Data that was sent and not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    pub(super) why: StuckWhy,
    /// The kernel has given up; else it still sends the data again.
    pub(super) gave_up: bool,
    /// Another connection to the same endpoint was heard meanwhile.
    pub(super) others_work: bool,
    /// What limits the advised TCP_KEEPIDLE, if the connection was idle before.
    pub(super) limit: Option<IdleLimit>,
}

/// Why data was not acknowledged, as far as the records show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StuckWhy {
    /// ICMP reported this error.
    Icmp(Errno),
    /// The connection was silent before: a box may have forgotten it.
    Silence,
    /// The silence before was too short for an idle timeout on the way.
    Outage {
        /// The longest silence that the connection survived, if it was no shorter, ms.
        survived_ms: Option<u64>,
    },
    /// TCP_USER_TIMEOUT passed with data on its way.
    UserTimeout,
    /// The peer's window was closed: the data waited here.
    ZeroWindow,
}

/// A close after a time without data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdleClose {
    /// The peer closed; else `program`.
    pub(super) by_peer: bool,
    /// The program of this host, if it is known.
    pub(super) program: Option<String>,
    /// The other end, if it closed and its own record of that is known.
    pub(super) other_end: Option<OtherEnd>,
    /// The time without data, ms.
    pub(super) quiet_ms: u64,
    /// Keepalive probes were answered during that time.
    pub(super) answered: bool,
    /// SO_KEEPALIVE was on at this end.
    pub(super) keepalive: bool,
    /// Data that drew a reset.
    pub(super) late: Option<LateData>,
}

impl IdleClose {
    /// Whether the other end, which closed, has a verdict of its own in the same trace.
    pub(super) fn is_told(&self) -> bool {
        self.other_end.as_ref().is_some_and(|it| it.is_told)
    }
}

/// Data for a connection that its reader had closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LateData {
    /// It was on its way when the reader closed.
    OnItsWay,
    /// It was sent so long after the close, ms.
    After(u64),
    /// It was on its way, and the program that had closed reads on: no reset tells.
    Lingered,
}

/// A reset's TTL that is not that of the peer's segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OtherTtl {
    /// The TTL of the reset.
    pub(super) reset: u8,
    /// The TTL of the peer's segments.
    pub(super) peer: u8,
}

impl OtherTtl {
    /// The initial TTLs in use.
    const INITIAL: [u8; 3] = [64, 128, 255];

    /// The two, if a box sent the reset that is nearer than the peer, or one that starts at
    /// another TTL. A host that is further away may be the peer, on another path.
    pub(super) fn of_box(reset: u8, peer: u8) -> Option<Self> {
        let initial = |ttl| Self::INITIAL.into_iter().find(|&it| ttl <= it);
        let is_box = initial(reset) != initial(peer) || reset > peer;
        is_box.then_some(Self { reset, peer })
    }
}

/// A segment of a connection that this host does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stray {
    /// What limits the TCP_KEEPIDLE that is advised for the peer.
    pub(super) limit: IdleLimit,
    /// What is known of a restart.
    pub(super) restart: Restart,
    /// How long before it the records began, or the last loss was, ms.
    pub(super) since_ms: u64,
}

/// The end of a connection that its peer was not told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SilentEnd {
    /// The number of its record.
    pub(super) seq: u64,
    /// When it was, CLOCK_MONOTONIC ns.
    pub(super) mono_ns: u64,
    /// The process that ended it, or else the one that held it, if either is known.
    pub(super) by: Option<String>,
}

impl SilentEnd {
    /// The end that a record of it tells.
    pub(super) fn of(record: &Record) -> Self {
        Self {
            seq: record.seq,
            mono_ns: record.mono_ns,
            by: record.closer(),
        }
    }
}

/// What is known of a restart that may have ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// This host started so many seconds ago.
    Host(u64),
    /// The program that listens started so many seconds ago.
    Program(u64),
    /// The program that listens has run for so many seconds, and so has this host.
    NotSince(u64),
    /// Nothing.
    Unknown,
}

/// What limits the advised TCP_KEEPIDLE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IdleLimit {
    /// Half of a known timeout that explains the end.
    Fit(Fit),
    /// Half of the shortest idle age, ms, after which a connection was found dead or its data
    /// was not acknowledged.
    Death(u64),
    /// The longest idle age that connections survived, ms.
    Survived(u64),
    /// Half of a timeout of this host, by the component that applies it.
    Host(String),
    /// Half of the shortest common default of a middlebox.
    Common,
}

/// Who may have forgotten an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForgottenBy {
    /// The peer restarted, its program closed the connection, or a box between forgot it.
    PeerOrBox,
    /// The peer restarted, or a box between forgot the connection.
    RestartOrBox,
    /// The peer restarted, or different boxes are on the paths to it: other connections
    /// survived as long.
    RestartOrManyBoxes,
    /// The peer's program closes idle connections or restarted more than once, or a box
    /// between forgets them.
    ProgramOrBox,
    /// This host, which applies a timeout that matches.
    HostBox,
    /// A box between.
    Box,
    /// A box between: the reset's TTL is not that of the peer's segments.
    BoxByTtl(OtherTtl),
}

/// The other end of a connection, and why it closed or reset it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OtherEnd {
    /// The number of its record.
    pub(super) seq: u64,
    /// Its program; `None` if no socket was left.
    pub(super) program: Option<String>,
    /// The names of that, for tables of programs.
    pub(super) names: Option<String>,
    /// Its host, if the records are from several hosts.
    pub(super) host: Option<Escaped>,
    /// Its network namespace.
    pub(super) netns: u32,
    /// The name of that.
    pub(super) netns_name: Option<Escaped>,
    /// Why it sent the reset.
    pub(super) why: OtherEndWhy,
    /// It has a verdict of its own in the same trace: one death is not to be told twice.
    pub(super) is_told: bool,
}

impl OtherEnd {
    /// The end that sent the reset or FIN of this record, for this reason. Without a finding,
    /// the record itself may tell. `None` if it ends no connection of another.
    pub(super) fn of(record: &Record, finding: Option<&Finding>) -> Option<Self> {
        let explanation = finding.map(|it| &it.explanation);
        let why = match explanation {
            Some(Explanation::Aborted(abort)) => OtherEndWhy::Aborted(*abort),
            Some(Explanation::DataAfterClose | Explanation::IdleClose(_)) => OtherEndWhy::Closed,
            Some(Explanation::AcceptQueueFull) => {
                OtherEndWhy::AcceptQueueFull(record.endpoints?.lport)
            }
            Some(Explanation::Stray(_) | Explanation::EndedHere(_)) => OtherEndWhy::Unknown,
            Some(Explanation::NotTranslated) => OtherEndWhy::NotTranslated,
            Some(Explanation::PortsReused) => OtherEndWhy::PortsReused,
            Some(_) => return None,
            None if record.event == EventName::FinSent => {
                record.actor.by_exiting.filter(|&it| it)?;
                OtherEndWhy::Exited
            }
            None if record.firing_ns.is_some() => OtherEndWhy::GaveUp,
            None => return None,
        };
        Some(Self {
            seq: record.seq,
            program: match (explanation, why) {
                // Its record of the close named it. No socket was left for data that came late.
                (Some(Explanation::IdleClose(it)), _) => it.program.clone(),
                // Whoever destroyed it is no end of the connection.
                (_, OtherEndWhy::Aborted(Abort::Destroyed)) => record.process.label(),
                _ => record.closer(),
            },
            names: record.closer_names(),
            host: record.host.clone(),
            netns: record.endpoints?.netns,
            netns_name: record.netns_name.clone(),
            why,
            is_told: finding.is_some() || why == OtherEndWhy::GaveUp,
        })
    }
}

/// Why the other end sent a reset or a FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherEndWhy {
    /// It reset the connection itself.
    Aborted(Abort),
    /// It had closed the connection. If it sent a reset, data arrived then.
    Closed,
    /// It has no such connection.
    Unknown,
    /// conntrack took a segment for INVALID there.
    NotTranslated,
    /// The accept queue of this port was full there.
    AcceptQueueFull(u16),
    /// It opened a new connection with the same ports.
    PortsReused,
    /// Its process ended.
    Exited,
    /// Its keepalive timer gave up on this end.
    GaveUp,
}

/// Why this host reset a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abort {
    /// The program closed it with data unread.
    DataUnread {
        /// The process was ending: killed, or by itself. `None` if it is not known.
        exiting: Option<bool>,
    },
    /// TCP_LINGER2 was below 0.
    NoFinWait2,
    /// TCP_LINGER2 was below 0, inferred from the answer to a late segment.
    NoFinWait2Late,
    /// There were too many orphans, or TCP used too much memory.
    Memory,
    /// The program disconnected it with data unsent.
    DisconnectWithData,
    /// The listener was closed before a program accepted the connection.
    NeverAccepted,
    /// The program set SO_LINGER 0, or disconnected it.
    LingerOrDisconnect,
    /// An orphan: TCP_LINGER2 was below 0, or there were too many orphans.
    OrphanLinger2OrMemory,
    /// Data unread, SO_LINGER 0 or a disconnect. The kernel does not report which.
    UnreadLingerOrDisconnect,
    /// An orphan: there were too many, or an administrator destroyed it.
    OrphanMemoryOrDestroyed,
    /// An administrator destroyed the socket.
    Destroyed,
}
