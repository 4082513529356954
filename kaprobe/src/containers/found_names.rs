//! The names of a container and of its pod, as something on disk gives them. Pure.

use crate::text::escape::Escaped;

/// The longest name, bytes: that of a pod is a DNS subdomain (RFC 1123).
const MAX_NAME: usize = 253;

/// Names of a container and of its pod. A container outside of Kubernetes has no pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) container: Option<Escaped>,
    pub(super) pod: Option<Escaped>,
    pub(super) pod_namespace: Option<Escaped>,
    pub(super) pod_uid: Option<Escaped>,
}

impl Names {
    /// The name of a container without a pod.
    pub(super) fn of_container(name: &str) -> Self {
        Self {
            container: to_name(name),
            ..Self::default()
        }
    }

    /// Fills in what is missing from names of the same pod. Names of another pod are left.
    pub(super) fn complete(&mut self, other: Self) {
        let is_same = |own: &Option<Escaped>, other: &Option<Escaped>| {
            own.is_none() || other.is_none() || own == other
        };
        if is_same(&self.pod_uid, &other.pod_uid)
            && is_same(&self.pod, &other.pod)
            && is_same(&self.pod_namespace, &other.pod_namespace)
        {
            self.container = self.container.take().or(other.container);
            self.pod = self.pod.take().or(other.pod);
            self.pod_namespace = self.pod_namespace.take().or(other.pod_namespace);
            self.pod_uid = self.pod_uid.take().or(other.pod_uid);
        }
    }
}

/// A name that a person has given: letters, digits, and `-`, `_`, `.` as Kubernetes, Docker
/// and podman allow. `None` for any other text.
pub(super) fn to_name(text: &str) -> Option<Escaped> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(is_allowed);
    is_name.then(|| Escaped::from(text))
}
