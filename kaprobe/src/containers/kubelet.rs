//! Reads the names of pods and containers from the log folders of the kubelet.
//!
//! Only the names of the entries are read: `/var/log/pods/NAMESPACE_POD_UID`
//! (`BuildPodLogsDirectory`, pkg/kubelet/kuberuntime/helpers.go of Kubernetes) and
//! `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` (`logSymlink`, legacy.go there). No
//! link is followed. A name of Kubernetes has no `_`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::containers::found_names::{Names, to_name};
use crate::containers::node::{Node, NodeFolder};

/// A folder is listed again after this time, or once its time has changed.
const LISTED_FOR: Duration = Duration::from_secs(1);

/// The names in the log folders of the kubelet.
#[derive(Debug)]
pub(super) struct LogFolders {
    pods: Listing,
    containers: Listing,
}

impl Default for LogFolders {
    fn default() -> Self {
        Self {
            pods: Listing::new("var/log/pods", pod),
            containers: Listing::new("var/log/containers", container),
        }
    }
}

impl LogFolders {
    /// The names of a pod.
    pub(super) fn pod(&mut self, node: &Node, uid: &str) -> Option<&Names> {
        self.pods.find(node, uid)
    }

    /// The names of a container and its pod.
    pub(super) fn container(&mut self, node: &Node, id: &str) -> Option<&Names> {
        self.containers.find(node, id)
    }
}

/// Reads the key and the names from the name of an entry.
type Parse = fn(&str) -> Option<(&str, Names)>;

/// The names in a folder, by the uid of the pod or the id of the container.
#[derive(Debug)]
struct Listing {
    path: &'static str,
    parse: Parse,
    names: HashMap<String, Names>,
    listed: Option<(Instant, (i64, u64))>,
}

impl Listing {
    fn new(path: &'static str, parse: Parse) -> Self {
        Self {
            path,
            parse,
            names: HashMap::new(),
            listed: None,
        }
    }

    fn find(&mut self, node: &Node, key: &str) -> Option<&Names> {
        if !self.names.contains_key(key) {
            self.list(node);
        }
        self.names.get(key)
    }

    fn list(&mut self, node: &Node) {
        let Ok(folder) = node.folder(self.path) else {
            self.names.clear();
            return;
        };
        let now = Instant::now();
        let is_new = |(at, modified): (Instant, _)| {
            modified == folder.modified && now.duration_since(at) < LISTED_FOR
        };
        if self.listed.is_some_and(is_new) {
            return;
        }
        self.listed = Some((now, folder.modified));
        self.names = names_in(&folder, self.parse);
    }
}

fn names_in(folder: &NodeFolder, parse: Parse) -> HashMap<String, Names> {
    let mut names = HashMap::new();
    folder.each_name(|name| {
        if let Some((key, found)) = parse(name) {
            names.insert(key.to_owned(), found);
        }
    });
    names
}

/// Reads `NAMESPACE_POD_UID`.
fn pod(name: &str) -> Option<(&str, Names)> {
    let (namespace, rest) = name.split_once('_')?;
    let (pod, uid) = rest.split_once('_')?;
    let names = Names {
        container: None,
        pod: Some(to_name(pod)?),
        pod_namespace: Some(to_name(namespace)?),
        pod_uid: Some(to_name(uid)?),
    };
    Some((uid, names))
}

/// Reads `POD_NAMESPACE_CONTAINER-ID.log`.
fn container(name: &str) -> Option<(&str, Names)> {
    let (pod, rest) = name.strip_suffix(".log")?.split_once('_')?;
    let (namespace, rest) = rest.split_once('_')?;
    let (container, id) = rest.rsplit_once('-')?;
    let names = Names {
        container: Some(to_name(container)?),
        pod: Some(to_name(pod)?),
        pod_namespace: Some(to_name(namespace)?),
        pod_uid: None,
    };
    Some((id, names))
}
