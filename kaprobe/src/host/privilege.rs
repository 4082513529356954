//! The privileges of this process: what they allow, and what is missing.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use serde::Serialize;

use crate::exit;
use crate::host::proc;

/// The inode number of the host's user namespace: PROC_USER_INIT_INO,
/// include/linux/proc_ns.h.
const HOST_NAMESPACE: &str = "user:[4026531837]";

const FIND_OWNERS: &str = "to find the owners of other users' sockets";

/// Capabilities that kaprobe uses: the only list, to which the unit and the page of the agent are
/// held. Seen on 6.18: the first two are enough to trace, and the two for owners help only
/// together.
const USED: [Used; 7] = [
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
    Used {
        name: "CAP_SYS_ADMIN",
        // `netns_install`, net/core/net_namespace.c.
        granted_by: CapabilitySet::SYS_ADMIN,
        needed: false,
        purpose: "to read the sockets and timeouts of other network namespaces",
    },
    Used {
        name: "CAP_NET_ADMIN",
        // `ip_vs_genl_ops`, net/netfilter/ipvs/ip_vs_ctl.c. Anyone may read those of conntrack.
        granted_by: CapabilitySet::NET_ADMIN,
        needed: false,
        purpose: "to read the timeouts of IPVS",
    },
    Used {
        name: "CAP_SYS_RESOURCE",
        // `do_prlimit`, kernel/sys.c.
        granted_by: CapabilitySet::SYS_RESOURCE,
        needed: false,
        purpose: "to lock memory for BPF maps, before Linux 5.11",
    },
];

struct Used {
    name: &'static str,
    /// Capabilities of which one is enough.
    granted_by: CapabilitySet,
    /// Tracing is impossible without it.
    needed: bool,
    purpose: &'static str,
}

/// A privilege that kaprobe uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Privilege {
    /// The capability's name.
    pub name: &'static str,
    /// Purpose, to follow the capability's name.
    pub purpose: &'static str,
    /// Tracing is impossible without it.
    pub needed: bool,
    /// This thread has it, or one that includes it.
    pub held: bool,
}

/// The privileges of this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    effective: CapabilitySet,
    /// The capabilities are those of a user namespace; the kernel requires the host's.
    confined: bool,
    root: bool,
}

impl Privileges {
    /// Reads the privileges of this thread.
    ///
    /// # Errors
    /// When /proc does not show them.
    pub fn read() -> Result<Self> {
        proc::open_proc().context("cannot read /proc")?;
        Ok(Self {
            effective: capabilities(None)?.effective,
            confined: fs::read_link("/proc/self/ns/user")? != Path::new(HOST_NAMESPACE),
            root: geteuid().is_root(),
        })
    }

    /// The privileges that kaprobe uses, held or not.
    pub fn used(self) -> impl Iterator<Item = Privilege> {
        USED.iter().map(move |used| Privilege {
            name: used.name,
            purpose: used.purpose,
            needed: used.needed,
            held: !self.confined && self.effective.intersects(used.granted_by),
        })
    }

    /// Whether they allow reading the processes of other users.
    #[must_use]
    pub fn may_ptrace(self) -> bool {
        self.effective.contains(CapabilitySet::SYS_PTRACE)
    }

    /// Whether they allow tracing.
    ///
    /// # Errors
    /// Says what is missing, and what to do.
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
        Ok(())
    }
}

/// Raises the limit on the memory of BPF maps as far as allowed. Returns the limit that
/// remains, bytes.
///
/// Only kernels before 5.11 count BPF memory against RLIMIT_MEMLOCK
/// (`bpf_charge_memlock`, kernel/bpf/syscall.c); there, one that is too low makes
/// creating a map fail with EPERM. Later kernels ignore it.
pub fn raise_memlock() -> Option<u64> {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if setrlimit(Resource::Memlock, unlimited).is_ok() {
        return None;
    }
    // Without CAP_SYS_RESOURCE it can only be raised to the hard limit.
    let hard = getrlimit(Resource::Memlock).maximum;
    let raised = Rlimit {
        current: hard,
        maximum: hard,
    };
    // It fails only if another thread lowers the limit in between; that limit stays.
    let _lowered = setrlimit(Resource::Memlock, raised);
    getrlimit(Resource::Memlock).current
}

/// Raises the limit on open descriptors to the hard limit. A trace holds some 60, and one
/// more for each network namespace.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // A limit up to the hard one may always be set (`do_prlimit`, kernel/sys.c).
    let _cannot_fail = setrlimit(Resource::Nofile, raised);
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Privileges = Privileges {
        effective: CapabilitySet::empty(),
        confined: false,
        root: false,
    };

    #[test]
    fn the_unit_and_the_page_of_the_agent_have_these_capabilities() {
        let used: Vec<_> = USED.iter().map(|it| it.name).collect();
        let unit = include_str!("../../../contrib/systemd/kaprobe.service").lines();
        let mut left = unit
            .clone()
            .filter_map(|it| it.strip_prefix("CapabilityBoundingSet="));
        let mut left: Vec<_> = left.next().unwrap_or_default().split(' ').collect();
        // It raises the limit itself, and so needs no capability for that.
        assert!({ unit }.any(|it| it == "LimitMEMLOCK=infinity"));
        left.push("CAP_SYS_RESOURCE");
        assert_eq!(left, used);
        let page = include_str!("../../../docs/operate.md").lines();
        let rows = page.filter(|line| line.starts_with("| CAP_"));
        let names = rows.filter_map(|row| row.split(" | ").next());
        let names: Vec<_> = names
            .flat_map(|it| it.trim_start_matches("| ").split(", "))
            .collect();
        assert_eq!(names, used);
    }

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
