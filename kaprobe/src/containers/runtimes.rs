//! Reads the names of containers from what their runtimes keep on disk.

use std::collections::HashMap;

use serde::Deserialize;

use crate::containers::cgroup_path::Runtime;
use crate::containers::found_names::{Names, to_name};
use crate::containers::node::Node;
use crate::text::escape::Escaped;

/// Where containerd keeps the bundles of running containers: `state`, and the plugin that
/// runs them (core/runtime/v2/bundle.go). k3s, RKE2 and MicroK8s have a containerd of their
/// own.
const CONTAINERD: [&str; 3] = [
    "run/containerd",
    "run/k3s/containerd",
    "var/snap/microk8s/common/run/containerd",
];

/// Where CRI-O and podman keep the folders of containers: `runroot` and `graphroot` of
/// containers-storage.conf(5).
const STORAGE: [&str; 2] = ["run/containers/storage", "var/lib/containers/storage"];

/// The names of a container by its id.
pub(super) fn names(node: &Node, id: &str, runtime: Runtime) -> Option<Names> {
    match runtime {
        Runtime::Containerd => containerd(node, id),
        Runtime::CriO => cri_o(node, id),
        Runtime::Docker => docker(node, id),
        Runtime::Podman => podman(node, id),
        Runtime::Unknown => containerd(node, id)
            .or_else(|| cri_o(node, id))
            .or_else(|| docker(node, id)),
    }
}

/// What is read of the configuration of a container that an OCI runtime runs (config.md of
/// the OCI runtime specification).
#[derive(Default, Deserialize)]
#[serde(default)]
struct OciConfig {
    annotations: HashMap<String, String>,
}

impl OciConfig {
    fn name(&self, annotation: &str) -> Option<Escaped> {
        to_name(self.annotations.get(annotation)?)
    }
}

/// containerd, with the annotations of its CRI plugin (pkg/cri/annotations/annotations.go).
fn containerd(node: &Node, id: &str) -> Option<Names> {
    let of = |state: &&str| {
        let path = format!("{state}/io.containerd.runtime.v2.task/k8s.io/{id}/config.json");
        node.json::<OciConfig>(&path)
    };
    let config = CONTAINERD.iter().find_map(of)?;
    Some(Names {
        container: config.name("io.kubernetes.cri.container-name"),
        pod: config.name("io.kubernetes.cri.sandbox-name"),
        pod_namespace: config.name("io.kubernetes.cri.sandbox-namespace"),
        pod_uid: config.name("io.kubernetes.cri.sandbox-uid"),
    })
}

/// CRI-O, with the labels of the kubelet as annotations (pkg/kubelet/types/labels.go of
/// Kubernetes; server/container_create_linux.go of CRI-O).
fn cri_o(node: &Node, id: &str) -> Option<Names> {
    let of = |storage: &&str| {
        let path = format!("{storage}/overlay-containers/{id}/userdata/config.json");
        node.json::<OciConfig>(&path)
    };
    let config = STORAGE.iter().find_map(of)?;
    Some(Names {
        container: config.name("io.kubernetes.container.name"),
        pod: config.name("io.kubernetes.pod.name"),
        pod_namespace: config.name("io.kubernetes.pod.namespace"),
        pod_uid: config.name("io.kubernetes.pod.uid"),
    })
}

/// What is read of config.v2.json (`Container`, daemon/container/container.go of Moby).
#[derive(Deserialize)]
struct DockerContainer {
    /// With a slash before it.
    #[serde(rename = "Name")]
    name: String,
}

fn docker(node: &Node, id: &str) -> Option<Names> {
    let path = format!("var/lib/docker/containers/{id}/config.v2.json");
    let container: DockerContainer = node.json(&path)?;
    Some(Names::of_container(container.name.strip_prefix('/')?))
}

/// A container in containers.json (`Container`, containers.go of containers/storage).
#[derive(Deserialize)]
struct StoredContainer {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
}

/// podman. The containers that `--rm` removes stand in a file of their own.
fn podman(node: &Node, id: &str) -> Option<Names> {
    let files = ["containers.json", "volatile-containers.json"];
    let paths = STORAGE
        .iter()
        .flat_map(|storage| files.map(|it| format!("{storage}/overlay-containers/{it}")));
    let mut lists = paths.filter_map(|path| node.json::<Vec<StoredContainer>>(&path));
    let found = lists.find_map(|list| list.into_iter().find(|it| it.id == id))?;
    Some(Names::of_container(found.names?.first()?))
}
