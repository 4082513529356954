//! The connections of the demo: what happens to each, and what it is in production.

use crate::traffic::pair::Keepalive;
use crate::traffic::scenarios::{SILENT, USER_TIMEOUT, VANISHED};
use crate::traffic::script::Scenario;
use crate::traffic::script::Step::{Hear, PeerSends, Send, Silence, Until};
use crate::traffic::script::Wait::Ms;

/// One connection of the demo.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// What it is called on the screen.
    pub letter: char,
    /// What happens.
    pub scenario: Scenario,
    /// What happens, told beforehand.
    pub plot: &'static str,
    /// What this is in production, told afterwards.
    pub lesson: &'static str,
    /// Needs CAP_NET_ADMIN.
    pub privileged: bool,
}

/// First probe after a second, the next ones a second apart, three in all.
const IMPATIENT: Keepalive = Keepalive::new(1, 1, 3);
/// The same, but the timer of an answered probe fires only every other second: the
/// story would else repeat itself.
const CALM: Keepalive = Keepalive::new(1, 2, 3);

/// All of them, in the order of the screen.
pub const CAST: &[Role] = &[
    Role {
        letter: 'A',
        scenario: Scenario {
            name: "answered",
            keepalive: CALM,
            // The demo ends when the last script does: this one.
            steps: &[Until(Ms(10_000))],
            ..SILENT
        },
        plot: "the peer answers",
        lesson: "A healthy idle connection. Its probes also remind load balancers and \
                 firewalls on the way that it is alive, if the first comes earlier than \
                 their idle timeout.",
        privileged: false,
    },
    Role {
        letter: 'B',
        scenario: Scenario {
            keepalive: IMPATIENT,
            ..SILENT
        },
        plot: "the peer falls silent",
        lesson: "A host without power, a cut cable, a firewall that drops. By Linux's \
                 defaults (2 h, then 9 probes 75 s apart) giving up takes 2 h 11 min, and \
                 without keepalive it never happens.",
        privileged: false,
    },
    Role {
        letter: 'C',
        scenario: USER_TIMEOUT,
        plot: "the peer falls silent; TCP_USER_TIMEOUT is 2.5 s",
        lesson: "The same death, bounded in time: TCP_USER_TIMEOUT decides, whatever the \
                 probe count says.",
        privileged: false,
    },
    Role {
        letter: 'D',
        scenario: Scenario {
            keepalive: IMPATIENT,
            ..VANISHED
        },
        plot: "the peer forgets the connection",
        lesson: "A load balancer or NAT that dropped an idle session, or a peer that \
                 restarted: `probe_reset` on the host that asked, `stray_segment` on the \
                 one that answered. A first probe earlier than that idle timeout prevents it.",
        privileged: true,
    },
    Role {
        letter: 'E',
        scenario: Scenario {
            name: "data_pending",
            keepalive: CALM,
            steps: &[Silence, Send, Until(Ms(3500)), Hear],
            ..SILENT
        },
        plot: "data is sent, and for a while not acknowledged",
        lesson: "While data is unacknowledged keepalive is out of play: retransmission \
                 decides, for some 15 minutes by default. TCP_USER_TIMEOUT bounds that too.",
        privileged: false,
    },
    Role {
        letter: 'F',
        scenario: Scenario {
            name: "early",
            keepalive: CALM,
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
        plot: "the peer talks for a while",
        lesson: "A connection in use costs no probes: the timer sees the traffic and goes \
                 back to sleep. `kaprobe trace` shows that only with -e early.",
        privileged: false,
    },
];
