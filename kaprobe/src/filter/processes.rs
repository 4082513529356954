//! Filters of sockets by the process that holds them, and by what it belongs to.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::str::FromStr;

use crate::model::socket::Process;
use crate::text::escape::Escaped;

/// The fewest digits of a container's id that select it: as many as are shown.
const SHORT_ID: usize = 12;

/// Filters of processes. A process must pass every filter; an empty one passes all. Names
/// are exact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFilter {
    /// Process IDs to keep.
    pub pids: BTreeSet<u32>,
    /// Command names to keep, at most 15 bytes, escaped.
    pub comms: BTreeSet<Escaped>,
    /// systemd units to keep.
    pub units: BTreeSet<Escaped>,
    /// Containers to keep: names, ids, or the first digits of ids.
    pub containers: BTreeSet<Escaped>,
    /// Pods to keep.
    pub pods: BTreeSet<PodName>,
    /// Kubernetes namespaces to keep.
    pub pod_namespaces: BTreeSet<Escaped>,
}

impl ProcessFilter {
    /// Whether a process passes every filter.
    #[must_use]
    pub fn keeps(&self, process: &Process) -> bool {
        passes(&self.pids, process.pid.as_ref())
            && passes(&self.comms, process.comm.as_ref())
            && self.keeps_workload(process)
    }

    /// Whether one of several owners passes the filters of processes.
    #[must_use]
    pub fn keeps_owner(&self, pid: u32, comm: &Escaped) -> bool {
        passes(&self.pids, Some(&pid)) && passes(&self.comms, Some(comm))
    }

    /// Whether no filter of processes is set.
    #[must_use]
    pub fn keeps_any_owner(&self) -> bool {
        self.pids.is_empty() && self.comms.is_empty()
    }

    /// Whether what a process belongs to passes the filters.
    #[must_use]
    pub fn keeps_workload(&self, process: &Process) -> bool {
        passes(&self.units, process.unit.as_ref())
            && self.keeps_container(process)
            && (self.pods.is_empty() || self.pods.iter().any(|it| it.is_of(process)))
            && passes(&self.pod_namespaces, process.pod_namespace.as_ref())
    }

    fn keeps_container(&self, process: &Process) -> bool {
        let begins_id = |wanted: &Escaped| {
            let id = process.container_id.as_ref();
            let wanted = wanted.as_str();
            wanted.len() >= SHORT_ID && id.is_some_and(|id| id.as_str().starts_with(wanted))
        };
        passes(&self.containers, process.container.as_ref())
            || self.containers.iter().any(begins_id)
    }
}

/// Whether a value passes: it is in the set, or the set is empty.
pub(super) fn passes<T: Ord>(wanted: &BTreeSet<T>, value: Option<&T>) -> bool {
    wanted.is_empty() || value.is_some_and(|value| wanted.contains(value))
}

/// The name of a pod, with its Kubernetes namespace or without; or its uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    /// The namespace; `None` means any.
    pub namespace: Option<Escaped>,
    /// The name. Without a namespace, it may be the uid: a pod whose name is not known has only
    /// that.
    pub name: Escaped,
}

impl PodName {
    fn is_of(&self, process: &Process) -> bool {
        let is_named = process.pod.as_ref() == Some(&self.name);
        match &self.namespace {
            Some(_) => is_named && self.namespace == process.pod_namespace,
            None => is_named || process.pod_uid.as_ref() == Some(&self.name),
        }
    }
}

impl FromStr for PodName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if name.is_empty() || name.contains('/') || namespace == Some("") {
            return Err("neither NAME nor NAMESPACE/NAME");
        }
        Ok(Self {
            namespace: namespace.map(Escaped::from),
            name: Escaped::from(name),
        })
    }
}

impl Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        self.name.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker() -> Process {
        let text = |it: &str| Some(Escaped::from(it));
        Process {
            pid: Some(7),
            comm: text("java"),
            unit: text("a.service"),
            container: text("broker"),
            container_id: text(&"0123456789abcdef".repeat(4)),
            pod: text("broker-0"),
            pod_namespace: text("orders"),
            pod_uid: text("5d2f3a0e-7c41-4b8e-9f6d-0a1b2c3d4e5f"),
            cmdline: None,
        }
    }

    #[test]
    fn names_are_exact_and_filters_mean_and() {
        let of = |unit: &str, container: &str, pod: &str, namespace: &str| {
            let set = |text: &str| {
                text.split(',')
                    .filter(|it| !it.is_empty())
                    .map(Escaped::from)
                    .collect()
            };
            let pods = pod.split(',').filter(|it| !it.is_empty()).map(str::parse);
            Ok::<_, &str>(ProcessFilter {
                units: set(unit),
                containers: set(container),
                pods: pods.collect::<Result<_, _>>()?,
                pod_namespaces: set(namespace),
                ..ProcessFilter::default()
            })
        };
        for ((unit, container, pod, namespace), kept) in [
            (("", "", "", ""), true),
            (("a.service", "", "", ""), true),
            (("a", "", "", ""), false),
            (("b.service,a.service", "", "", ""), true),
            (("", "broker", "", ""), true),
            (("", "brok", "", ""), false),
            (("", "0123456789ab", "", ""), true),
            (("", "0123456789abcdef", "", ""), true),
            (("", "0123456789a", "", ""), false),
            (("", "0123456789ac", "", ""), false),
            (("", "", "broker-0", ""), true),
            (("", "", "orders/broker-0", ""), true),
            (("", "", "shop/broker-0", ""), false),
            (("", "", "shop/broker-0,broker-0", ""), true),
            (("", "", "broker", ""), false),
            (("", "", "5d2f3a0e-7c41-4b8e-9f6d-0a1b2c3d4e5f", ""), true),
            (("", "", "5d2f3a0e-7c41-4b8e-9f6d", ""), false),
            (
                ("", "", "orders/5d2f3a0e-7c41-4b8e-9f6d-0a1b2c3d4e5f", ""),
                false,
            ),
            (("", "", "", "orders"), true),
            (("", "", "", "order"), false),
            (("a.service", "broker", "broker-0", "orders"), true),
            (("a.service", "broker", "broker-0", "shop"), false),
        ] {
            let filter = of(unit, container, pod, namespace);
            let keeps = filter.map(|filter| {
                let unknown = filter == ProcessFilter::default();
                assert_eq!(filter.keeps(&Process::UNKNOWN), unknown, "{filter:?}");
                filter.keeps(&broker())
            });
            assert_eq!(keeps, Ok(kept), "{unit} {container} {pod} {namespace}");
        }
    }

    #[test]
    fn pods_have_a_name_and_perhaps_a_namespace() {
        for (text, shown) in [
            ("web", Some("web")),
            ("shop/web", Some("shop/web")),
            ("x\u{1b}/y", Some("x\\u{1b}/y")),
            ("", None),
            ("/", None),
            ("/web", None),
            ("shop/", None),
            ("a/b/c", None),
        ] {
            let pod = text.parse::<PodName>().map(|it| it.to_string());
            assert_eq!(pod.ok().as_deref(), shown, "{text}");
        }
    }
}
