//! What becomes of a connection that an idle timeout lies in wait for.

use crate::model::named::named_enum;

named_enum! {
    /// What becomes of a connection.
    Fate {
        /// It is dead, and its end does not know: silent for some times the timeout.
        Zombie = "zombie",
        /// Nothing refreshes it while it is idle.
        Unprotected = "unprotected",
        /// Keepalive is on, and comes too late.
        AtRisk = "at_risk",
        /// Not enough is known.
        Unknown = "unknown",
        /// A probe comes in time.
        Safe = "safe",
    }
}

named_enum! {
    /// Why it is no better.
    Why {
        /// Probes are out, unanswered.
        ProbesUnanswered = "probes_unanswered",
        /// Keepalive is off, and the silence is long.
        NoProbes = "no_probes",
        /// Keepalive is off.
        KeepaliveOff = "keepalive_off",
        /// What has the timeout does not count probes.
        NotRefreshed = "not_refreshed",
        /// The keepalive time is too long.
        LateProbe = "late_probe",
        /// The interval is: it is the time from an answered probe to the next.
        LateInterval = "late_interval",
        /// The settings would do, but the timer was set before them.
        LateTimer = "late_timer",
        /// No idle timeout is known on the way to there.
        NoTimeout = "no_timeout",
        /// The settings of this socket are not known.
        NoSettings = "no_settings",
    }
}
