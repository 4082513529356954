//! What becomes of a connection that an idle timeout lies in wait for.

use crate::model::named::words;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is dead, and its end does not know: silent for [`FAR`] times the timeout.
    Zombie,
    /// Nothing refreshes it while it is idle.
    Unprotected,
    /// Keepalive is on, and comes too late.
    AtRisk,
    /// Not enough is known.
    Unknown,
    /// A probe comes in time.
    Safe,
}

words!(Fate {
    Zombie => "zombie",
    Unprotected => "unprotected",
    AtRisk => "at_risk",
    Unknown => "unknown",
    Safe => "safe",
});

/// Why it is no better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Probes are out, unanswered.
    ProbesUnanswered,
    /// Keepalive is off, and the silence is long.
    NoProbes,
    /// Keepalive is off.
    KeepaliveOff,
    /// What has the timeout does not count probes.
    NotRefreshed,
    /// The keepalive time is too long.
    LateProbe,
    /// The interval is: it is the time from an answered probe to the next.
    LateInterval,
    /// The settings would do, but the timer was set before them.
    LateTimer,
    /// No idle timeout is known on the way to there.
    NoTimeout,
    /// The settings of this socket are not known.
    NoSettings,
}

words!(Why {
    ProbesUnanswered => "probes_unanswered",
    NoProbes => "no_probes",
    KeepaliveOff => "keepalive_off",
    NotRefreshed => "not_refreshed",
    LateProbe => "late_probe",
    LateInterval => "late_interval",
    LateTimer => "late_timer",
    NoTimeout => "no_timeout",
    NoSettings => "no_settings",
});
