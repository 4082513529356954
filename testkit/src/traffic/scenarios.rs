//! Scenarios: one for each branch of `tcp_keepalive_timer` (net/ipv4/tcp_timer.c).
//!
//! In scenarios with several answered probes, the interval is longer than the time. If
//! they were equal, an answer one tick late would make the timer fire one tick early.

use kaprobe::traffic::pair::{Keepalive, Side};
pub use kaprobe::traffic::scenarios::{SILENT, USER_TIMEOUT, VANISHED};
use kaprobe::traffic::script::Step::{Abort, Close, Custom, Hear, PeerSends, Send, Silence, Until};
use kaprobe::traffic::script::Wait::{Ms, State};
use kaprobe::traffic::script::{CLOSE, Scenario, Start};

use crate::traffic::steps::FIN_WAIT2;
use crate::traffic::steps::TestStep::{
    Fill, FinTimeout, Linger2, Lock, Mark, PeerKeepalive, PeerReadsAll, Probes, Shutdown, Unlock,
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

/// The peer answers every probe. The connection does not end.
pub const ENDLESS: Scenario = Scenario {
    name: "endless",
    steps: &[],
    ..ANSWERED
};

/// The peer answers every probe of an accepted socket, which inherits the listener's
/// settings.
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

/// The peer receives nothing, but sends probes itself. Their sequence number is one byte
/// old, so they do not answer our probes.
pub const SILENT_PEER_PROBES: Scenario = Scenario {
    name: "silent_peer_probes",
    steps: &[Custom(&PeerKeepalive), Silence, Until(State(CLOSE)), Abort],
    ..SILENT
};

/// Data is unacknowledged: retransmission runs, and keepalive sends no probe.
pub const DATA_PENDING: Scenario = Scenario {
    name: "data_pending",
    steps: &[Silence, Send, Until(Ms(2600)), Abort],
    ..SILENT
};

/// The peer's window is zero: everything is acknowledged, but data waits. Window probes
/// and keepalive probes are counted in the same variable.
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

/// An application closes while its data, or only its FIN, is unacknowledged.
pub const ORPHAN: Scenario = Scenario {
    name: "orphan",
    steps: &[Silence, Close, Until(Ms(2600)), Hear],
    ..SILENT
};

/// The peer sends data: the timer fires early each time, until the peer stops.
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

/// The mark of packets that [`crate::egress`] drops.
pub const MARK_DROP: u32 = 0xdead;
/// The mark of packets that [`crate::egress`] drops as congested.
pub const MARK_CONGEST: u32 = 0xc0de;

/// This host drops the probes. The kernel counts them as sent.
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

/// An orphan stays in FIN_WAIT2 longer than TIME_WAIT lasts, then enters TIME_WAIT.
pub const FIN_WAIT2_TIME_WAIT: Scenario = Scenario {
    name: "fin_wait2_time_wait",
    steps: &[
        Custom(&Shutdown),
        Until(State(FIN_WAIT2)),
        Custom(&Linger2(61)),
        Close,
        Until(Ms(1600)),
    ],
    ..SILENT
};

/// An orphan in FIN_WAIT2 is reset because `tcp_fin_timeout` is lowered meanwhile. No
/// other socket of the namespace may depend on that sysctl.
pub const FIN_WAIT2_RESET: Scenario = Scenario {
    name: "fin_wait2_reset",
    steps: &[
        Custom(&Shutdown),
        Until(State(FIN_WAIT2)),
        Custom(&FinTimeout(61)),
        Close,
        Custom(&FinTimeout(60)),
        Until(Ms(1600)),
    ],
    ..SILENT
};

/// The timer fires in SYN_SENT and does nothing.
pub const SYN_SENT: Scenario = Scenario {
    name: "syn_sent",
    start: Start::Unheard,
    keepalive: Keepalive::new(1, 1, 3),
    steps: &[Until(Ms(1600)), Abort],
};

/// The peer is silent, and probes continue. The socket inherits the listener's settings;
/// the interval is the sysctl's.
pub const ZOMBIE: Scenario = Scenario {
    name: "zombie",
    start: SERVER,
    keepalive: Keepalive {
        time: Some(1),
        intvl: None,
        probes: Some(100),
        user_timeout: None,
    },
    // Long enough that they are no outage that passes.
    steps: &[Silence, Custom(&Probes(5))],
};

/// Data is unacknowledged. The connection does not end.
pub const STUCK: Scenario = Scenario {
    name: "stuck",
    steps: &[Silence, Send],
    ..DATA_PENDING
};

/// The peer has sent data that we never read.
pub const UNREAD: Scenario = Scenario {
    name: "unread",
    start: SERVER,
    keepalive: Keepalive::new(7200, 75, 9),
    steps: &[PeerSends],
};

/// The scenarios that do not end.
pub const ALL_ENDLESS: &[Scenario] = &[ENDLESS, ZOMBIE, STUCK, UNREAD];

/// The scenarios that end. They need root and their own network namespace. Two of them
/// need [`crate::egress`].
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
