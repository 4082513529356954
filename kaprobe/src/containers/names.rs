//! Finds the names of containers and pods in what the node keeps on disk, and remembers them.
//!
//! The log folders of the kubelet are asked first: they need no file to be read. The runtime
//! is asked for what they lack. If the two contradict each other, the pod whose uid is in the
//! path of the cgroup counts: the kernel gives that path.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

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
    /// Reads names below the root directory of the host. `None` for that of process 1: if that
    /// can't be opened, no name is found.
    ///
    /// # Errors
    /// When the given directory can't be opened.
    pub fn open(host_root: Option<&Path>) -> Result<Self> {
        let Some(root) = host_root else {
            return Ok(Self::of(Node::of_process_1().ok()));
        };
        let node = Node::open(root);
        let node = node.with_context(|| format!("cannot open --host-root {root:?}"))?;
        Ok(Self::of(Some(node)))
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
        process.unit = path.unit.clone();
        if let Some(container) = &path.container {
            process.container = Some(container.short_name());
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

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "5d2f3a0e-7c41-4b8e-9f6d-0a1b2c3d4e5f";
    const BUNDLE: &str = "run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json";
    const OF_CRI: &str = r#"{"annotations":{"io.kubernetes.cri.container-name":"app",
        "io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"shop"}}"#;
    const OF_DOCKER: &str = "var/lib/docker/containers/ID/config.v2.json";

    /// A node in a folder of its own.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Result<Self> {
            Ok(Self(tempfile::tempdir()?))
        }

        fn path(&self, path: &str) -> Result<std::path::PathBuf> {
            let path = self
                .0
                .path()
                .join(path.replace("UID", UID).replace("ID", ID));
            fs::create_dir_all(path.parent().context("no folder")?)?;
            Ok(path)
        }

        fn write(self, path: &str, text: &str) -> Result<Self> {
            fs::write(self.path(path)?, text.replace("UID", UID).replace("ID", ID))?;
            Ok(self)
        }

        fn folder(self, path: &str) -> Result<Self> {
            fs::create_dir(self.path(path)?)?;
            Ok(self)
        }

        fn link(self, path: &str, to: &str) -> Result<Self> {
            symlink(to, self.path(path)?)?;
            Ok(self)
        }

        fn mode(self, path: &str, mode: u32) -> Result<Self> {
            fs::set_permissions(self.path(path)?, Permissions::from_mode(mode))?;
            Ok(self)
        }

        fn names(&self) -> Result<ContainerNames> {
            ContainerNames::open(Some(self.0.path()))
        }

        /// What is said of a process in this cgroup: `CONTAINER NAMESPACE/POD`.
        fn told(&self, cgroup: &str) -> Result<String> {
            Ok(told(&mut self.names()?, cgroup))
        }
    }

    fn told(names: &mut ContainerNames, cgroup: &str) -> String {
        let cgroup = cgroup.replace("UID", UID).replace("ID", ID);
        let mut process = Process::UNKNOWN;
        names.fill(
            &mut process,
            &CgroupPath::read(format!("0::{cgroup}").as_bytes()),
        );
        let text = |it: &Option<Escaped>| it.as_ref().map_or("-".to_owned(), ToString::to_string);
        let pod = format!("{}/{}", text(&process.pod_namespace), text(&process.pod));
        format!("{} {pod}", text(&process.container))
    }

    #[test]
    fn the_log_folders_of_the_kubelet_name_pods_and_containers() -> Result<()> {
        let tree = Tree::new()?
            .folder("var/log/pods/shop_web-0_UID")?
            .folder("var/log/pods/not a pod")?
            // Nobody reads what it leads to.
            .link("var/log/containers/web-0_shop_app-ID.log", "/proc/kmsg")?;
        let of_pod = "/kubepods/burstable/podUID";
        for (cgroup, expected) in [
            (of_pod.to_owned(), "- shop/web-0"),
            (format!("{of_pod}/ID"), "app shop/web-0"),
            (
                format!("{of_pod}/{}", ID.replace('0', "1")),
                "1123456789ab shop/web-0",
            ),
            // Known by the container alone, as kaprobe in a container sees it.
            ("/../cri-containerd-ID.scope".to_owned(), "app shop/web-0"),
            // A user's own cgroup, and one in another container.
            (format!("/user@7.service{of_pod}/ID"), "0123456789ab -/-"),
            (
                format!("/docker/{}{of_pod}/ID", ID.replace('0', "2")),
                "2123456789ab -/-",
            ),
        ] {
            assert_eq!(tree.told(&cgroup)?, expected, "{cgroup}");
        }
        Ok(())
    }

    #[test]
    fn runtimes_name_containers() -> Result<()> {
        let cri_o = r#"{"annotations":{"io.kubernetes.container.name":"app",
            "io.kubernetes.pod.name":"web-0","io.kubernetes.pod.namespace":"shop",
            "io.kubernetes.pod.uid":"UID"}}"#;
        let stored = r#"[{"id":"1","names":["x"]},{"id":"ID","names":["cache","y"]}]"#;
        let storage = "storage/overlay-containers";
        let of_pod = "/kubepods.slice/kubepods-podUID.slice";
        for (path, text, cgroup, expected) in [
            (
                BUNDLE.to_owned(),
                OF_CRI,
                format!("{of_pod}/cri-containerd-ID.scope"),
                "app shop/web-0",
            ),
            (
                BUNDLE.replace("run/", "run/k3s/"),
                OF_CRI,
                "/kubepods/podUID/ID".to_owned(),
                "app shop/web-0",
            ),
            (
                format!("run/containers/{storage}/ID/userdata/config.json"),
                cri_o,
                format!("{of_pod}/crio-ID.scope"),
                "app shop/web-0",
            ),
            (
                format!("var/lib/containers/{storage}/ID/userdata/config.json"),
                cri_o,
                "/kubepods/podUID/ID".to_owned(),
                "app shop/web-0",
            ),
            (
                OF_DOCKER.to_owned(),
                r#"{"ID":"ID","Name":"/web"}"#,
                "/docker/ID".to_owned(),
                "web -/-",
            ),
            (
                OF_DOCKER.to_owned(),
                r#"{"ID":"ID","Name":"/web"}"#,
                "/ecs/task/ID".to_owned(),
                "web -/-",
            ),
            (
                format!("var/lib/containers/{storage}/containers.json"),
                stored,
                "/machine.slice/libpod-ID.scope".to_owned(),
                "cache -/-",
            ),
            (
                format!("var/lib/containers/{storage}/volatile-containers.json"),
                stored,
                "/a.service/libpod-payload-ID".to_owned(),
                "cache -/-",
            ),
        ] {
            let tree = Tree::new()?.write(&path, text)?;
            assert_eq!(tree.told(&cgroup)?, expected, "{path}");
        }
        Ok(())
    }

    #[test]
    fn names_that_contradict_the_cgroup_are_left() -> Result<()> {
        let of_pod = "/kubepods/podUID/ID";
        let other_pod = Tree::new()?
            .folder("var/log/pods/shop_web-0_UID")?
            .link("var/log/containers/bank_money_app-ID.log", "x")?;
        assert_eq!(other_pod.told(of_pod)?, "0123456789ab shop/web-0");
        let other_uid = r#"{"annotations":{"io.kubernetes.cri.container-name":"app",
            "io.kubernetes.cri.sandbox-name":"bank","io.kubernetes.cri.sandbox-namespace":"money",
            "io.kubernetes.cri.sandbox-uid":"00000000-7c41-4b8e-9f6d-0a1b2c3d4e5f"}}"#;
        let tree = Tree::new()?.write(BUNDLE, other_uid)?;
        assert_eq!(tree.told(of_pod)?, "0123456789ab -/-");
        Ok(())
    }

    #[test]
    fn what_another_user_may_have_prepared_is_not_read() -> Result<()> {
        let name = r#"{"Name":"/web"}"#;
        let read = |tree: Tree| tree.told("/docker/ID");
        let unnamed = "0123456789ab -/-";
        assert_eq!(read(Tree::new()?.write(OF_DOCKER, name)?)?, "web -/-");
        // Others may write to it.
        for mode in [0o666, 0o620, 0o602] {
            let tree = Tree::new()?.write(OF_DOCKER, name)?.mode(OF_DOCKER, mode)?;
            assert_eq!(read(tree)?, unnamed, "{mode:o}");
        }
        // A link in its place, even to a file that may be read.
        let tree = Tree::new()?.write("web.json", name)?;
        assert_eq!(read(tree.link(OF_DOCKER, "/web.json")?)?, unnamed);
        // A link on the way leads to a place below the root.
        let tree = Tree::new()?.write("data/containers/ID/config.v2.json", name)?;
        assert_eq!(read(tree.link("var/lib/docker", "/data")?)?, "web -/-");
        let tree = Tree::new()?.write("data/containers/ID/config.v2.json", name)?;
        let outside = tree.0.path().join("data");
        let tree = Tree::new()?.link("var/lib/docker", &outside.to_string_lossy())?;
        assert_eq!(read(tree)?, unnamed);
        // A FIFO would hold kaprobe up.
        let tree = Tree::new()?;
        mknodat(CWD, tree.path(OF_DOCKER)?, FileType::Fifo, Mode::RUSR, 0)?;
        assert_eq!(read(tree)?, unnamed);
        // Too long, no JSON, no name.
        let long = format!("{}{name}", " ".repeat(4 << 20));
        for text in [
            long.as_str(),
            "",
            "{",
            "[]",
            r#"{"Name":"web"}"#,
            r#"{"Name":"/a/../b"}"#,
            "{\"Name\":\"/\\u001b[2J\"}",
        ] {
            assert_eq!(read(Tree::new()?.write(OF_DOCKER, text)?)?, unnamed);
        }
        let tree = Tree::new()?.folder("var/log/pods/shop_web-0_UID")?;
        let tree = tree.mode("var/log/pods", 0o777)?;
        assert_eq!(tree.told("/kubepods/podUID")?, "- -/-");
        Ok(())
    }

    #[test]
    fn a_container_without_a_name_is_looked_for_again() -> Result<()> {
        let tree = Tree::new()?.folder("var/log/containers/x")?;
        let mut names = tree.names()?;
        let cgroup = "/docker/ID";
        assert_eq!(told(&mut names, cgroup), "0123456789ab -/-");
        let tree = tree.write(OF_DOCKER, r#"{"Name":"/web"}"#)?;
        assert_eq!(told(&mut names, cgroup), "0123456789ab -/-", "too soon");
        let waits: Vec<_> = names.known.iter().filter_map(|(_, it)| it.retry).collect();
        assert_eq!(waits.first().map(|(_, then)| *then), Some(FIRST_RETRY * 2));
        for (_, known) in names.known.iter_mut() {
            known.retry = Some((Instant::now(), FIRST_RETRY));
        }
        assert_eq!(told(&mut names, cgroup), "web -/-");
        // It is not read again.
        fs::remove_file(tree.path(OF_DOCKER)?)?;
        assert_eq!(told(&mut names, cgroup), "web -/-");
        assert!(names.known.iter().all(|(_, it)| it.retry.is_none()));
        Ok(())
    }
}
