//! A remedy: the settings that save a connection, and where to change them.

use std::fmt;
use std::fmt::Display;

use crate::model::field::group;
use crate::model::named::named_enum;
use crate::text::escape::Escaped;

named_enum! {
    /// Where a setting is changed.
    pub enum SetIn {
        /// In the program, by setsockopt.
        Program = "program",
        /// In the sysctls of the network namespace.
        Sysctl = "sysctl",
        /// In the program at the remote end.
        Peer = "peer",
    }
}

named_enum! {
    /// The connections that a changed setting reaches.
    pub enum Reach {
        /// Those made after the change.
        New = "new",
        /// Those, and open ones when they are next used.
        NextUse = "next_use",
    }
}

group! {
    /// A remedy in the words of the program that holds the connection.
    #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
    pub struct ProgramAdvice {
        /// The program, as the table of programs names it.
        program: Option<Escaped>,
        /// The program's own settings to change; absent if it has none for this.
        program_set: Option<Escaped>,
        /// Where they are written, and how the program is told.
        program_apply: Option<Escaped>,
        /// The connections that the change reaches.
        program_reaches: Option<Reach>,
        /// The sysctls to change besides, as `NAME=VALUE`.
        program_sysctl: Option<Escaped>,
        /// Another way, which is not a keepalive setting.
        program_or: Option<Escaped>,
    }
}

/// Settings to change, in this order: TCP_KEEPIDLE arms the timer only if keepalive is
/// already on (`tcp_sock_set_keepidle_locked`, net/ipv4/tcp.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remedy {
    /// Where to change the settings.
    pub set_in: SetIn,
    /// Turn SO_KEEPALIVE on.
    pub keepalive: bool,
    /// Time between probes, s.
    pub intvl_s: Option<u64>,
    /// Idle time before the first probe, s.
    pub time_s: Option<u64>,
    /// TCP_USER_TIMEOUT, ms.
    pub user_timeout_ms: Option<u64>,
}

impl Remedy {
    /// A remedy that only turns SO_KEEPALIVE on.
    pub const SWITCH: Self = Self {
        set_in: SetIn::Program,
        keepalive: true,
        intvl_s: None,
        time_s: None,
        user_timeout_ms: None,
    };

    /// A remedy that sets only the idle time before the first probe, s.
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

/// Written as `NAME=VALUE`, separated by spaces.
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
