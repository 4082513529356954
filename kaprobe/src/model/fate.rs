//! The fate of a connection whose path has an idle timeout.

use crate::model::named::named_enum;

named_enum! {
    /// The fate of a connection.
    pub enum Fate {
        /// Nothing has been acknowledged for some time, although it was sent again and again.
        /// The kernel ends the connection unless the peer answers.
        Dying = "dying",
        /// The connection is dead, but the local socket is still open: it has been idle
        /// for a multiple of the timeout.
        Zombie = "zombie",
        /// Nothing refreshes the connection while it is idle.
        Unprotected = "unprotected",
        /// Keepalive is on, but its probe is sent too late.
        AtRisk = "at_risk",
        /// Not enough is known.
        Unknown = "unknown",
        /// Keepalive of this host does not protect the connection, but probes of the peer kept
        /// it alive as far as they were seen. They may stop.
        KeptByPeer = "kept_by_peer",
        /// Keepalive does not protect the connection, but its own traffic kept it alive
        /// while it was observed. A longer silence may come.
        KeptByTraffic = "kept_by_traffic",
        /// A probe is sent in time.
        Safe = "safe",
    }
}

named_enum! {
    /// The reason for a fate that is not `Safe`.
    pub enum Why {
        /// Data was sent again several times, and not acknowledged.
        Unacknowledged = "unacknowledged",
        /// The peer's window is shut, and several window probes were not answered.
        ZeroWindow = "zero_window",
        /// Probes were sent and not answered.
        ProbesUnanswered = "probes_unanswered",
        /// Keepalive is off, and the connection has been idle for long.
        NoProbes = "no_probes",
        /// Keepalive is off.
        KeepaliveOff = "keepalive_off",
        /// Probes do not restart the timeout.
        NotRefreshed = "not_refreshed",
        /// The keepalive time is too long.
        LateProbe = "late_probe",
        /// The keepalive interval is too long. The next probe follows an answered probe
        /// after this time.
        LateInterval = "late_interval",
        /// The settings are good, but the timer was armed before they were made.
        LateTimer = "late_timer",
        /// No idle timeout is known on the path to the remote address.
        NoTimeout = "no_timeout",
        /// The settings of the socket are not known.
        NoSettings = "no_settings",
    }
}
