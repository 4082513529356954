//! Scenarios in which a connection ends by its keepalive timer.

use crate::traffic::pair::{Keepalive, Side};
use crate::traffic::script::Step::{Abort, Silence, Until, Vanish};
use crate::traffic::script::Wait::State;
use crate::traffic::script::{CLOSE, Scenario, Start};

/// The peer falls silent: gives up after as many probes as the count allows.
pub const SILENT: Scenario = Scenario {
    name: "silent",
    start: Start::Connected(Side::Client),
    keepalive: Keepalive::new(1, 1, 3),
    steps: &[Silence, Until(State(CLOSE)), Abort],
};

/// The peer falls silent: gives up because of TCP_USER_TIMEOUT, whatever the count.
pub const USER_TIMEOUT: Scenario = Scenario {
    name: "user_timeout",
    keepalive: Keepalive::new(1, 1, 9).user_timeout(2500),
    ..SILENT
};

/// The peer vanishes: the probe draws a reset.
pub const VANISHED: Scenario = Scenario {
    name: "vanished",
    steps: &[Vanish, Until(State(CLOSE)), Abort],
    ..SILENT
};
