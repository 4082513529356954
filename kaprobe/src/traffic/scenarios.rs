//! Scenarios in which the keepalive timer ends a connection.

use crate::traffic::pair::{Keepalive, Side};
use crate::traffic::script::Step::{Abort, Silence, Until, Vanish};
use crate::traffic::script::Wait::State;
use crate::traffic::script::{CLOSE, Scenario, Start};

/// The peer falls silent. The timer gives up after TCP_KEEPCNT probes.
pub const SILENT: Scenario = Scenario {
    name: "silent",
    start: Start::Connected(Side::Client),
    keepalive: Keepalive::new(1, 1, 3),
    steps: &[Silence, Until(State(CLOSE)), Abort],
};

/// The peer falls silent. The timer gives up after TCP_USER_TIMEOUT, not TCP_KEEPCNT.
pub const USER_TIMEOUT: Scenario = Scenario {
    name: "user_timeout",
    keepalive: Keepalive::new(1, 1, 9).user_timeout(2500),
    ..SILENT
};

/// The peer vanishes. A reset answers the probe.
pub const VANISHED: Scenario = Scenario {
    name: "vanished",
    steps: &[Vanish, Until(State(CLOSE)), Abort],
    ..SILENT
};
