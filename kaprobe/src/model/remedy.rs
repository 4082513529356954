//! A remedy: the settings that would have kept a connection, and where they are made.

use std::fmt;
use std::fmt::Display;

use crate::model::named::named_enum;

named_enum! {
    /// Where a setting is made.
    SetIn {
        /// In the program, by setsockopt.
        Program = "program",
        /// In the sysctls of the network namespace.
        Sysctl = "sysctl",
        /// In the program at the other end.
        Peer = "peer",
    }
}

/// Settings to make, in this order: TCP_KEEPIDLE sets the timer of a socket whose
/// keepalive is on (`tcp_sock_set_keepidle_locked`, net/ipv4/tcp.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remedy {
    /// Where.
    pub set_in: SetIn,
    /// SO_KEEPALIVE is to be turned on.
    pub keepalive: bool,
    /// The time between probes, s.
    pub intvl_s: Option<u64>,
    /// The idle time before the first probe, s.
    pub time_s: Option<u64>,
    /// TCP_USER_TIMEOUT, ms.
    pub user_timeout_ms: Option<u64>,
}

impl Remedy {
    /// A first probe after so many seconds.
    #[must_use]
    pub const fn first_probe(set_in: SetIn, time_s: u64) -> Self {
        Self {
            set_in,
            keepalive: false,
            intvl_s: None,
            time_s: Some(time_s),
            user_timeout_ms: None,
        }
    }
}

/// `NAME=VALUE`, several separated by a space.
impl Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (intvl, time) = match self.set_in {
            SetIn::Program | SetIn::Peer => ("TCP_KEEPINTVL", "TCP_KEEPIDLE"),
            SetIn::Sysctl => (
                "net.ipv4.tcp_keepalive_intvl",
                "net.ipv4.tcp_keepalive_time",
            ),
        };
        let mut before = "";
        for (name, value) in [
            ("SO_KEEPALIVE", self.keepalive.then_some(1)),
            (intvl, self.intvl_s),
            (time, self.time_s),
            ("TCP_USER_TIMEOUT", self.user_timeout_ms),
        ] {
            if let Some(value) = value {
                write!(f, "{before}{name}={value}")?;
                before = " ";
            }
        }
        Ok(())
    }
}
