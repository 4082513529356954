//! Processes that /proc does not show.

use std::fmt;

use rustix::fd::BorrowedFd;

use crate::host::privilege::Privileges;
use crate::host::proc;

/// What can't be seen of the host's processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// How many are listed, and may not be looked at.
    unreadable: usize,
    /// Those of others are not even listed.
    hidden: bool,
    /// CAP_SYS_PTRACE would show them.
    lacks_ptrace: bool,
}

impl Unseen {
    /// Where so many could not be looked at.
    #[must_use]
    pub fn new(proc: BorrowedFd<'_>, unreadable: usize) -> Self {
        Self {
            unreadable,
            hidden: proc::hides(proc),
            lacks_ptrace: !Privileges::read().is_ok_and(Privileges::may_ptrace),
        }
    }

    /// What could not be seen at one time or the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            unreadable: self.unreadable.max(other.unreadable),
            hidden: self.hidden || other.hidden,
            lacks_ptrace: self.lacks_ptrace || other.lacks_ptrace,
        }
    }

    /// Whether there is nothing of the kind.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self.unreadable == 0 && !self.hidden
    }

    /// Whether CAP_SYS_PTRACE would show it.
    #[must_use]
    pub fn wants_privilege(self) -> bool {
        self.lacks_ptrace && !self.is_nothing()
    }
}

/// What, and what to do about it.
impl fmt::Display for Unseen {
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
            let unseen = Unseen {
                unreadable,
                hidden,
                lacks_ptrace,
            };
            assert_eq!(unseen.to_string(), said);
            assert_eq!(unseen.wants_privilege(), lacks_ptrace);
        }
        assert!(
            Unseen {
                lacks_ptrace: true,
                ..Unseen::default()
            }
            .is_nothing()
        );
    }
}
