//! Finds the names of containers and pods in what the node keeps on disk, and remembers them.
//!
//! The log folders of the kubelet are asked first: they need no file to be read. The runtime
//! is asked for what they lack. If the two contradict each other, the pod whose uid is in the
//! path of the cgroup counts: the kernel gives that path.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::containers::cgroup_path::{CgroupPath, Container, Runtime};
use crate::containers::found_names::Names;
use crate::containers::kubelet::LogFolders;
use crate::containers::node::Node;
use crate::containers::runtimes;
use crate::lru::LruMap;
use crate::model::socket::Process;
use crate::text::escape::Escaped;

/// Most containers that are remembered.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// Time until a container without a name is looked for again: its log is made after it
/// starts. Doubles each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Longest time until a container without a name is looked for again.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// The names of containers and pods.
#[derive(Debug)]
pub struct ContainerNames {
    /// `None` if names are not to be found.
    node: Option<Node>,
    logs: LogFolders,
    known: LruMap<Key, Known>,
}

/// The uid of a pod, and the id of a container.
type Key = [Option<String>; 2];

#[derive(Debug)]
struct Known {
    names: Names,
    /// When to look again, and how long to wait then. `None` once the container has a name.
    retry: Option<(Instant, Duration)>,
}

impl ContainerNames {
    /// Reads names below the root directory of the host. `None` for that of process 1.
    ///
    /// # Errors
    /// When the directory can't be opened.
    pub fn open(host_root: Option<&Path>) -> io::Result<Self> {
        Ok(Self::of(Some(Node::open(host_root)?)))
    }

    /// Finds no names. What the path of a cgroup tells remains.
    #[must_use]
    pub fn none() -> Self {
        Self::of(None)
    }

    fn of(node: Option<Node>) -> Self {
        Self {
            node,
            logs: LogFolders::default(),
            known: LruMap::with_capacity(CAPACITY),
        }
    }

    /// Fills in what a process belongs to. `path` is that of its cgroup.
    pub fn fill(&mut self, process: &mut Process, path: &CgroupPath) {
        process.unit = path.unit.as_deref().map(Escaped::from);
        if let Some(container) = &path.container {
            process.container = Some(Escaped::from(container.short_name()));
        }
        if let Some(Container::Id { id, .. }) = &path.container {
            process.container_id = Some(Escaped::from(id.as_str()));
        }
        if path.is_of_user {
            return;
        }
        let names = self.names(path);
        process.pod = names.pod;
        process.pod_namespace = names.pod_namespace;
        process.pod_uid = names.pod_uid;
        process.container = names.container.or(process.container.take());
    }

    /// The names of a container and its pod, as far as they are known.
    fn names(&mut self, path: &CgroupPath) -> Names {
        let of_path = Names {
            pod_uid: path.pod_uid.as_deref().map(Escaped::from),
            ..Names::default()
        };
        let id = match &path.container {
            Some(Container::Id { id, .. }) => Some(id.clone()),
            Some(Container::Name(_)) | None => None,
        };
        let key = [path.pod_uid.clone(), id];
        if key == [None, None] {
            return of_path;
        }
        let now = Instant::now();
        let known = self.known.get_mut(&key);
        let is_due = |known: &Known| known.retry.is_some_and(|(at, _)| at <= now);
        if let Some(known) = known.as_deref().filter(|it| !is_due(it)) {
            return known.names.clone();
        }
        let wait = known.and_then(|it| it.retry).map(|(_, wait)| wait);
        let wait = wait.unwrap_or(FIRST_RETRY);
        let names = self.find(of_path, path);
        let is_complete = names.container.is_some() || key[1].is_none() && names.pod.is_some();
        let retry = (!is_complete).then(|| (now + wait, LAST_RETRY.min(wait * 2)));
        let known = Known {
            names: names.clone(),
            retry,
        };
        self.known.push(key, known);
        names
    }

    /// Looks for the names on disk.
    fn find(&mut self, mut names: Names, path: &CgroupPath) -> Names {
        let Some(node) = &self.node else {
            return names;
        };
        let pod = path.pod_uid.as_deref();
        if let Some(found) = pod.and_then(|uid| self.logs.pod(node, uid)) {
            names.complete(found.clone());
        }
        let Some(Container::Id { id, runtime }) = &path.container else {
            return names;
        };
        let may_be_of_pod = pod.is_some() || !matches!(runtime, Runtime::Docker | Runtime::Podman);
        if may_be_of_pod && let Some(found) = self.logs.container(node, id) {
            names.complete(found.clone());
        }
        if names.container.is_none()
            && let Some(found) = runtimes::names(node, id, *runtime)
        {
            names.complete(found);
        }
        names
    }
}
