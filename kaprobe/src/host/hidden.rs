//! Processes whose descriptors and namespaces /proc does not show.

use std::fmt;

use rustix::fd::BorrowedFd;

use crate::host::privilege::Privileges;
use crate::host::proc;

/// Processes of this host that kaprobe can't look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HiddenProcesses {
    /// How many /proc lists but does not let be read.
    unreadable: usize,
    /// /proc does not list processes of other users.
    hidden: bool,
    /// kaprobe does not have CAP_SYS_PTRACE, which would show them.
    lacks_ptrace: bool,
}

impl HiddenProcesses {
    /// Counts the processes that could not be read, and asks what else is hidden.
    #[must_use]
    pub fn new(proc: BorrowedFd<'_>, unreadable: usize) -> Self {
        Self {
            unreadable,
            hidden: proc::hides(proc),
            lacks_ptrace: !Privileges::read().is_ok_and(Privileges::may_ptrace),
        }
    }

    /// What was hidden in one walk or the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            unreadable: self.unreadable.max(other.unreadable),
            hidden: self.hidden || other.hidden,
            lacks_ptrace: self.lacks_ptrace || other.lacks_ptrace,
        }
    }

    /// Whether nothing is hidden.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.unreadable == 0 && !self.hidden
    }

    /// Whether CAP_SYS_PTRACE would show what is hidden.
    #[must_use]
    pub fn wants_privilege(self) -> bool {
        self.lacks_ptrace && !self.is_none()
    }
}

/// Says what is hidden, and what would show it.
impl fmt::Display for HiddenProcesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hidden {
            f.write_str("this /proc hides the processes of other users (hidepid)")?;
        } else {
            let count = self.unreadable;
            write!(f, "{count} of the host's processes may not be looked at")?;
        }
        f.write_str(if self.lacks_ptrace {
            "; CAP_SYS_PTRACE allows it"
        } else {
            ", even with CAP_SYS_PTRACE"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_would_help() {
        for (unreadable, hidden, lacks_ptrace, said) in [
            (
                3,
                false,
                true,
                "3 of the host's processes may not be looked at; CAP_SYS_PTRACE allows it",
            ),
            (
                1,
                false,
                false,
                "1 of the host's processes may not be looked at, even with CAP_SYS_PTRACE",
            ),
            (
                0,
                true,
                true,
                "this /proc hides the processes of other users (hidepid); CAP_SYS_PTRACE allows it",
            ),
        ] {
            let processes = HiddenProcesses {
                unreadable,
                hidden,
                lacks_ptrace,
            };
            assert_eq!(processes.to_string(), said);
            assert_eq!(processes.wants_privilege(), lacks_ptrace);
        }
        assert!(
            HiddenProcesses {
                lacks_ptrace: true,
                ..HiddenProcesses::default()
            }
            .is_none()
        );
    }
}
