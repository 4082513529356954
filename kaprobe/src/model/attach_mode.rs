//! The ways to attach to a hook.

use std::fmt;
use std::str::FromStr;

/// How a BPF program can be attached; in the order in which `auto` tries them,
/// cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    /// BPF trampolines at a function's entry and exit.
    Fentry,
    /// A kprobe at a function's entry, a kretprobe at its exit.
    Kprobe,
    /// Raw tracepoints.
    Tracepoint,
}

impl Way {
    /// Every way, in the order in which `auto` tries them.
    pub const ALL: [Self; 3] = [Self::Fentry, Self::Kprobe, Self::Tracepoint];

    /// Its name on the command line, in the banner and in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Not the name of a [`Way`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWay;

impl fmt::Display for UnknownWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a way to attach: it is fentry, kprobe or tracepoint")
    }
}

impl std::error::Error for UnknownWay {}

impl FromStr for Way {
    type Err = UnknownWay;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|way| way.name() == name);
        named.ok_or(UnknownWay)
    }
}

#[cfg(test)]
mod tests {
    use crate::model::attach_mode::{UnknownWay, Way};

    #[test]
    fn names_are_read_back() {
        for way in Way::ALL {
            assert_eq!(way.to_string().parse(), Ok(way));
        }
        for not_a_way in ["", "auto", "Fentry", "fentry "] {
            assert_eq!(not_a_way.parse::<Way>(), Err(UnknownWay), "{not_a_way:?}");
        }
    }
}
