//! What kaprobe is allowed to do here.

use std::path::Path;
use std::{fs, io};

use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use serde::Serialize;

use crate::exit;

/// The inode number of the host's user namespace: PROC_USER_INIT_INO,
/// include/linux/proc_ns.h.
const HOST_NAMESPACE: &str = "user:[4026531837]";

const FIND_OWNERS: &str = "to find the owners of other users' sockets";

/// What kaprobe makes use of. On 6.18 the first two were seen to be enough to trace,
/// and the others to be of use only together.
const USED: [Used; 4] = [
    Used {
        name: "CAP_BPF",
        // `bpf_capable`, include/linux/capability.h.
        granted_by: CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN),
        needed: true,
        purpose: "to load BPF programs",
    },
    Used {
        name: "CAP_PERFMON",
        // `perfmon_capable`, in the same place.
        granted_by: CapabilitySet::PERFMON.union(CapabilitySet::SYS_ADMIN),
        needed: true,
        purpose: "to attach them, and to read kernel memory",
    },
    Used {
        name: "CAP_SYS_PTRACE",
        // `proc_fd_access_allowed`, fs/proc/base.c.
        granted_by: CapabilitySet::SYS_PTRACE,
        needed: false,
        purpose: FIND_OWNERS,
    },
    Used {
        name: "CAP_DAC_READ_SEARCH",
        // `proc_fd_permission`, fs/proc/fd.c; each of the two overrides file modes.
        granted_by: CapabilitySet::DAC_READ_SEARCH.union(CapabilitySet::DAC_OVERRIDE),
        needed: false,
        purpose: FIND_OWNERS,
    },
];

struct Used {
    name: &'static str,
    /// Any of these.
    granted_by: CapabilitySet,
    /// There is no tracing without it.
    needed: bool,
    purpose: &'static str,
}

/// A privilege that kaprobe makes use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Privilege {
    /// The capability's name.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// There is no tracing without it.
    pub needed: bool,
    /// It, or one that includes it, is in force.
    pub held: bool,
}

/// The privileges of this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    effective: CapabilitySet,
    /// Capabilities hold inside a user namespace only; the kernel asks for the
    /// host's.
    confined: bool,
    /// Lockdown forbids BPF programs to read kernel memory.
    locked_down: bool,
    root: bool,
}

impl Privileges {
    /// Reads them.
    ///
    /// # Errors
    /// When the kernel does not tell, which it has no reason for.
    pub fn read() -> io::Result<Self> {
        Ok(Self {
            effective: capabilities(None)?.effective,
            confined: fs::read_link("/proc/self/ns/user")? != Path::new(HOST_NAMESPACE),
            // Not to be read where securityfs is not mounted. Then the verifier says
            // that the function that reads kernel memory is unknown.
            locked_down: fs::read_to_string("/sys/kernel/security/lockdown")
                .is_ok_and(|modes| modes.contains("[confidentiality]")),
            root: geteuid().is_root(),
        })
    }

    /// Those that kaprobe makes use of, held or not.
    pub fn used(self) -> impl Iterator<Item = Privilege> {
        USED.iter().map(move |used| Privilege {
            name: used.name,
            purpose: used.purpose,
            needed: used.needed,
            held: !self.confined && self.effective.intersects(used.granted_by),
        })
    }

    /// Whether they allow to look at the processes of other users.
    #[must_use]
    pub fn may_ptrace(self) -> bool {
        self.effective.contains(CapabilitySet::SYS_PTRACE)
    }

    /// Whether they allow tracing.
    ///
    /// # Errors
    /// With what is missing, and what to do.
    pub fn check_trace(self) -> Result<(), exit::Error> {
        let missing = self.used().filter(|used| used.needed && !used.held);
        let missing: Vec<_> = missing.map(|used| used.name).collect();
        if !missing.is_empty() {
            let missing = missing.join(" and ");
            let remedy = match self {
                Self { confined: true, .. } => {
                    "those of a user namespace do not count; run it on the host"
                }
                Self { root: true, .. } => {
                    "root has not got them here; a container gets them by --privileged"
                }
                _ => "run it with sudo",
            };
            return Err(exit::Error::privilege(format!(
                "tracing needs {missing}: {remedy}"
            )));
        }
        if self.locked_down {
            return Err(exit::Error::kernel(
                "this kernel is locked down (confidentiality) and lets no BPF program read \
                 its memory: boot it with lockdown=integrity or without",
            ));
        }
        Ok(())
    }
}

/// Lets BPF maps take what memory they need, as far as that is allowed; returns the
/// limit that stays, bytes.
///
/// Only kernels before 5.11 count BPF memory against RLIMIT_MEMLOCK
/// (`bpf_charge_memlock`, kernel/bpf/syscall.c); there, one that is too low makes
/// creating a map fail with EPERM. Others pay no heed.
pub fn raise_memlock() -> Option<u64> {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if setrlimit(Resource::Memlock, unlimited).is_ok() {
        return None;
    }
    // Without CAP_SYS_RESOURCE it can be raised to the hard limit, and no further.
    let hard = getrlimit(Resource::Memlock).maximum;
    let raised = Rlimit {
        current: hard,
        maximum: hard,
    };
    // It fails for a limit that another thread lowers in between, and that stays.
    let _lowered = setrlimit(Resource::Memlock, raised);
    getrlimit(Resource::Memlock).current
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Privileges = Privileges {
        effective: CapabilitySet::empty(),
        confined: false,
        locked_down: false,
        root: false,
    };

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let enough = Privileges {
            effective: CapabilitySet::BPF.union(CapabilitySet::PERFMON),
            ..USER
        };
        let admin = Privileges {
            effective: CapabilitySet::SYS_ADMIN,
            ..USER
        };
        let root = Privileges { root: true, ..USER };
        let half = Privileges {
            effective: CapabilitySet::BPF,
            ..USER
        };
        let confined = Privileges {
            effective: CapabilitySet::all(),
            confined: true,
            root: true,
            ..USER
        };
        let locked = Privileges {
            locked_down: true,
            ..admin
        };
        let rows = [
            (enough, None),
            (admin, None),
            (
                USER,
                Some((
                    exit::Code::Privilege,
                    "tracing needs CAP_BPF and CAP_PERFMON: run it with sudo",
                )),
            ),
            (
                half,
                Some((
                    exit::Code::Privilege,
                    "tracing needs CAP_PERFMON: run it with sudo",
                )),
            ),
            (
                root,
                Some((
                    exit::Code::Privilege,
                    "tracing needs CAP_BPF and CAP_PERFMON: root has not got them here; a container gets them by --privileged",
                )),
            ),
            (
                confined,
                Some((
                    exit::Code::Privilege,
                    "tracing needs CAP_BPF and CAP_PERFMON: those of a user namespace do not count; run it on the host",
                )),
            ),
            (
                locked,
                Some((
                    exit::Code::Kernel,
                    "this kernel is locked down (confidentiality) and lets no BPF program read its memory: boot it with lockdown=integrity or without",
                )),
            ),
        ];
        for (privileges, expected) in rows {
            let said = privileges.check_trace().err();
            let said = said.map(|error| (error.code(), error.to_string()));
            let expected = expected.map(|(code, text)| (code, text.to_owned()));
            assert_eq!(said, expected, "{privileges:?}");
        }
    }

    #[test]
    fn a_limit_on_memory_is_never_lowered() {
        let before = getrlimit(Resource::Memlock).current;
        let stays = raise_memlock();
        assert_eq!(stays, getrlimit(Resource::Memlock).current);
        assert!(stays.is_none_or(|stays| before.is_some_and(|before| before <= stays)));
    }
}
