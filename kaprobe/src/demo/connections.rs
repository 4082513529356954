//! The connections of the demo: what happens to each, and what it means in production.

use crate::traffic::pair::Keepalive;
use crate::traffic::scenarios::{SILENT, USER_TIMEOUT, VANISHED};
use crate::traffic::script::Step::{Close, Hear, PeerCloses, PeerSends, Send, Silence, Until};
use crate::traffic::script::Wait::{Ms, State};
use crate::traffic::script::{CLOSE_WAIT, Scenario};

/// One connection of the demo.
#[derive(Clone, Copy, Debug)]
pub(super) struct DemoConnection {
    /// Its name on the screen.
    pub letter: char,
    /// The steps that it goes through.
    pub scenario: Scenario,
    /// What will happen, shown at the start.
    pub summary: &'static str,
    /// What this means in production, shown at the end.
    pub explanation: &'static str,
    /// It needs CAP_NET_ADMIN.
    pub privileged: bool,
}

/// The first probe after a second, then one each second, three in all.
const EACH_SECOND: Keepalive = Keepalive::new(1, 1, 3);
/// The same with two seconds between probes: fewer lines of answered probes on the screen.
const EVERY_OTHER_SECOND: Keepalive = Keepalive::new(1, 2, 3);

/// All connections, in the order of the screen.
pub const CONNECTIONS: &[DemoConnection] = &[
    DemoConnection {
        letter: 'A',
        scenario: Scenario {
            name: "answered",
            keepalive: EVERY_OTHER_SECOND,
            // The demo ends when the last script does: this one.
            steps: &[Until(Ms(10_000))],
            ..SILENT
        },
        summary: "the peer answers",
        explanation: "A healthy idle connection. Its probes also keep it known to load balancers \
                      and firewalls on the path, if the first comes before their idle timeout.",
        privileged: false,
    },
    DemoConnection {
        letter: 'B',
        scenario: Scenario {
            keepalive: EACH_SECOND,
            ..SILENT
        },
        summary: "the peer goes silent",
        explanation: "A host without power, a cut cable, a firewall that drops packets. With \
                      Linux's defaults (2 h, then 9 probes 75 s apart) the kernel gives up after \
                      2 h 11 min; without keepalive it never does.",
        privileged: false,
    },
    DemoConnection {
        letter: 'C',
        scenario: USER_TIMEOUT,
        summary: "the peer goes silent; TCP_USER_TIMEOUT is 2.5 s",
        explanation: "The same failure with a time limit: TCP_USER_TIMEOUT decides, and not the \
                      probe count.",
        privileged: false,
    },
    DemoConnection {
        letter: 'D',
        scenario: Scenario {
            keepalive: EACH_SECOND,
            ..VANISHED
        },
        summary: "the peer forgets the connection",
        explanation: "A load balancer or NAT that dropped an idle session, or a peer that \
                      restarted: `probe_reset` on the host that probed, `stray_segment` on the \
                      one that answered. A first probe before the idle timeout prevents it.",
        privileged: true,
    },
    DemoConnection {
        letter: 'E',
        scenario: Scenario {
            name: "data_pending",
            keepalive: EVERY_OTHER_SECOND,
            steps: &[Silence, Send, Until(Ms(3500)), Hear],
            ..SILENT
        },
        summary: "sent data is not acknowledged for a while",
        explanation: "While data is unacknowledged, keepalive sends no probes: retransmission \
                      decides, after some 15 minutes by default. TCP_USER_TIMEOUT limits that too.",
        privileged: false,
    },
    DemoConnection {
        letter: 'F',
        scenario: Scenario {
            name: "early",
            keepalive: EVERY_OTHER_SECOND,
            steps: &[
                Until(Ms(700)),
                PeerSends,
                Until(Ms(700)),
                PeerSends,
                Until(Ms(700)),
                PeerSends,
                Until(Ms(700)),
                PeerSends,
            ],
            ..SILENT
        },
        summary: "the peer sends data for a while",
        explanation: "A connection in use needs no probes: the timer sees the traffic and is set \
                      again. `kaprobe trace` shows that only with -e early.",
        privileged: false,
    },
    DemoConnection {
        letter: 'G',
        scenario: Scenario {
            name: "silent_drop",
            keepalive: Keepalive::SYSCTL,
            steps: &[Until(Ms(5_500)), Silence, Send, Until(Ms(2_500)), Hear],
            ..SILENT
        },
        summary: "after 5.5 s of silence, the path drops what is sent",
        explanation: "A firewall or NAT that forgot the idle connection, and drops its packets \
                      without a reset. The program waits for some 15 minutes. A first probe before \
                      the box's idle timeout prevents it; TCP_USER_TIMEOUT ends it sooner.",
        privileged: false,
    },
    DemoConnection {
        letter: 'H',
        scenario: Scenario {
            name: "idle_close",
            keepalive: EACH_SECOND,
            steps: &[
                Until(Ms(3_500)),
                PeerCloses,
                Until(State(CLOSE_WAIT)),
                Close,
            ],
            ..SILENT
        },
        summary: "the peer's program closes after 3.5 s without data",
        explanation: "An idle timeout of a program, as HTTP keep-alive has. TCP keepalive was on, \
                      and every probe was answered: it keeps the path open, but the program counts \
                      requests and not probes. The two keepalives have only the name in common.",
        privileged: false,
    },
];
