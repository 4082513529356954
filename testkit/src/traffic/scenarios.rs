//! The scenarios: one for each thing a keepalive timer can do, by the rows of
//! `tcp_keepalive_timer`'s decision tree (net/ipv4/tcp_timer.c).
//!
//! Where a second probe has to follow an answered one, the interval is longer than
//! the time: were they equal, an answer one tick late would make the timer fire one
//! tick early.

use kaprobe::traffic::pair::{Keepalive, Side};
pub use kaprobe::traffic::scenarios::{SILENT, USER_TIMEOUT, VANISHED};
use kaprobe::traffic::script::Step::{Abort, Custom, Hear, PeerSends, Send, Silence, Until};
use kaprobe::traffic::script::Wait::{Ms, State};
use kaprobe::traffic::script::{CLOSE, Scenario, Start};

use crate::traffic::steps::FIN_WAIT2;
use crate::traffic::steps::TestStep::{
    Close, Fill, FinTimeout, Linger2, Lock, Mark, PeerAsks, PeerReadsAll, Probes, Shutdown, Unlock,
};

const CLIENT: Start = Start::Connected(Side::Client);
const SERVER: Start = Start::Connected(Side::Server);

/// The peer answers every probe.
pub const ANSWERED: Scenario = Scenario {
    name: "answered",
    start: CLIENT,
    keepalive: Keepalive::new(1, 2, 3),
    steps: &[Until(Ms(3600)), Abort],
};

/// The peer answers every probe, for as long as the connection is there.
pub const STAYS: Scenario = Scenario {
    name: "stays",
    steps: &[],
    ..ANSWERED
};

/// Likewise on an accepted socket, which has its settings from the listener.
pub const ACCEPTED: Scenario = Scenario {
    name: "accepted",
    start: SERVER,
    ..ANSWERED
};

/// [`SILENT`] with every setting left to the sysctls.
pub const SYSCTL: Scenario = Scenario {
    name: "sysctl",
    keepalive: Keepalive::SYSCTL,
    ..SILENT
};

/// The peer misses two probes and answers the third.
pub const RECOVERS: Scenario = Scenario {
    name: "recovers",
    start: CLIENT,
    keepalive: Keepalive::new(1, 2, 5),
    steps: &[Silence, Custom(&Probes(2)), Hear, Until(Ms(4600)), Abort],
};

/// The peer hears nothing, but has probes of its own to send, which are older by a byte
/// than what we wait for: no answer to ours.
pub const ASKED_BY_THE_SILENT: Scenario = Scenario {
    name: "asked_by_the_silent",
    steps: &[Custom(&PeerAsks), Silence, Until(State(CLOSE)), Abort],
    ..SILENT
};

/// Data goes unacknowledged: retransmission is in charge, keepalive stands back.
pub const DATA_PENDING: Scenario = Scenario {
    name: "data_pending",
    steps: &[Silence, Send, Until(Ms(2600)), Abort],
    ..SILENT
};

/// The peer's window is shut: everything is acknowledged, but data waits. The
/// window probes count in the same variable as keepalive's.
pub const WINDOW_SHUT: Scenario = Scenario {
    name: "window_shut",
    steps: &[
        Custom(&Fill),
        Until(Ms(2600)),
        Custom(&PeerReadsAll),
        Until(Ms(2600)),
        Abort,
    ],
    ..ANSWERED
};

/// An application closes while its data, or only its FIN, goes unacknowledged.
pub const ORPHAN: Scenario = Scenario {
    name: "orphan",
    steps: &[Silence, Custom(&Close), Until(Ms(2600)), Hear],
    ..SILENT
};

/// The peer talks: the timer fires early every time, until it stops talking.
pub const EARLY: Scenario = Scenario {
    name: "early",
    steps: &[
        Until(Ms(400)),
        PeerSends,
        Until(Ms(400)),
        PeerSends,
        Until(Ms(400)),
        PeerSends,
        Until(Ms(400)),
        PeerSends,
        Until(Ms(400)),
        PeerSends,
        Until(Ms(1600)),
        Abort,
    ],
    ..ANSWERED
};

/// The application is inside a send each time the timer fires.
pub const BUSY: Scenario = Scenario {
    name: "busy",
    steps: &[
        Custom(&Lock),
        Until(Ms(1600)),
        Custom(&Unlock),
        Custom(&PeerReadsAll),
        Until(Ms(400)),
        Abort,
    ],
    ..SILENT
};

/// What is sent with this mark is dropped on its way out, where a program heeds it.
pub const MARK_DROP: u32 = 0xdead;
/// What is sent with this mark meets congestion on its way out, likewise.
pub const MARK_CONGEST: u32 = 0xc0de;

/// This host drops the probes: the kernel counts them as sent.
pub const LOCAL_DROP: Scenario = Scenario {
    name: "local_drop",
    steps: &[Custom(&Mark(MARK_DROP)), Until(State(CLOSE)), Abort],
    ..SILENT
};

/// The probes meet local congestion, until it clears.
pub const CONGESTED: Scenario = Scenario {
    name: "congested",
    steps: &[
        Custom(&Mark(MARK_CONGEST)),
        Until(Ms(2200)),
        Custom(&Mark(0)),
        Until(Ms(1600)),
        Abort,
    ],
    ..ANSWERED
};

/// An orphan in FIN_WAIT2 waits longer than TIME_WAIT lasts, then goes there.
pub const FIN_WAIT2_TIME_WAIT: Scenario = Scenario {
    name: "fin_wait2_time_wait",
    steps: &[
        Custom(&Shutdown),
        Until(State(FIN_WAIT2)),
        Custom(&Linger2(61)),
        Custom(&Close),
        Until(Ms(1600)),
    ],
    ..SILENT
};

/// The same, but the sysctl that it waits by is lowered meanwhile: it is reset.
/// No other socket of the namespace may depend on that sysctl.
pub const FIN_WAIT2_RESET: Scenario = Scenario {
    name: "fin_wait2_reset",
    steps: &[
        Custom(&Shutdown),
        Until(State(FIN_WAIT2)),
        Custom(&FinTimeout(61)),
        Custom(&Close),
        Custom(&FinTimeout(60)),
        Until(Ms(1600)),
    ],
    ..SILENT
};

/// The timer fires in SYN_SENT, where there is nothing to keep alive.
pub const SYN_SENT: Scenario = Scenario {
    name: "syn_sent",
    start: Start::Unheard,
    keepalive: Keepalive::new(1, 1, 3),
    steps: &[Until(Ms(1600)), Abort],
};

/// The peer has fallen silent, and an interval later it is known; the probes go on. Of
/// the settings, which are the listener's, one is left to the sysctl.
pub const ZOMBIE: Scenario = Scenario {
    name: "zombie",
    start: SERVER,
    keepalive: Keepalive {
        time: Some(1),
        intvl: None,
        probes: Some(100),
        user_timeout: None,
    },
    steps: &[Silence, Custom(&Probes(2))],
};

/// Data goes unacknowledged, for as long as the connection is there.
pub const STUCK: Scenario = Scenario {
    name: "stuck",
    steps: &[Silence, Send],
    ..DATA_PENDING
};

/// The peer has sent what we never read.
pub const UNREAD: Scenario = Scenario {
    name: "unread",
    start: SERVER,
    keepalive: Keepalive::new(7200, 75, 9),
    steps: &[PeerSends],
};

/// Those that are there for as long as the connection is.
pub const LASTING: &[Scenario] = &[STAYS, ZOMBIE, STUCK, UNREAD];

/// All that end. They need root, a network namespace of their own, and two of them a
/// program that heeds the marks.
pub const ALL: &[Scenario] = &[
    ANSWERED,
    ACCEPTED,
    SILENT,
    SYSCTL,
    USER_TIMEOUT,
    RECOVERS,
    VANISHED,
    DATA_PENDING,
    WINDOW_SHUT,
    ORPHAN,
    EARLY,
    BUSY,
    LOCAL_DROP,
    CONGESTED,
    FIN_WAIT2_TIME_WAIT,
    FIN_WAIT2_RESET,
    SYN_SENT,
];
