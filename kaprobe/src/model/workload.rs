//! What a process belongs to: a systemd unit, a container, a Kubernetes pod.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::text::escape::Escaped;

/// The unit, the container and the pod that a process belongs to, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// systemd unit; in a container, that of the systemd which runs there.
    pub unit: Option<Escaped>,
    /// Name of the container, or the first digits of its id.
    pub container: Option<Escaped>,
    /// Name of the pod.
    pub pod: Option<Escaped>,
    /// Kubernetes namespace of the pod.
    pub pod_namespace: Option<Escaped>,
}

impl Workload {
    /// The shortest name that tells it apart: `NAMESPACE/POD`, else the container, else the
    /// unit. `None` if nothing is known.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        self.pod_name()
            .or_else(|| self.container.as_ref().map(ToString::to_string))
            .or_else(|| self.unit.as_ref().map(ToString::to_string))
    }

    /// A text after the name of a program, with a space before it: ` of UNIT`, ` in pod
    /// NAMESPACE/POD`. Empty if nothing is known.
    #[must_use]
    pub const fn suffix(&self) -> Suffix<'_> {
        Suffix(self)
    }

    /// Whether one of the names contains a text, which is in lower case.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        let names = [&self.unit, &self.container, &self.pod, &self.pod_namespace];
        let mut names = names.into_iter().flatten().map(Escaped::as_str);
        names.any(|name| name.to_lowercase().contains(text))
    }

    fn pod_name(&self) -> Option<String> {
        let pod = self.pod.as_ref()?;
        Some(match &self.pod_namespace {
            Some(namespace) => format!("{namespace}/{pod}"),
            None => pod.to_string(),
        })
    }
}

/// A workload as a text after the name of a program.
#[derive(Clone, Copy, Debug)]
pub struct Suffix<'a>(&'a Workload);

impl Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(unit) = &self.0.unit {
            write!(f, " of {unit}")?;
        }
        match (self.0.pod_name(), &self.0.container) {
            (Some(pod), _) => write!(f, " in pod {pod}"),
            (None, Some(container)) => write!(f, " in container {container}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_told_after_a_program() {
        let text = |it: &str| (!it.is_empty()).then(|| Escaped::from(it));
        for ([unit, container, pod, namespace], name, suffix) in [
            (["", "", "", ""], None, ""),
            (
                ["a.service", "", "", ""],
                Some("a.service"),
                " of a.service",
            ),
            (["", "web", "", ""], Some("web"), " in container web"),
            (
                ["a.service", "web", "", ""],
                Some("web"),
                " of a.service in container web",
            ),
            (
                ["", "broker", "broker-0", "orders"],
                Some("orders/broker-0"),
                " in pod orders/broker-0",
            ),
            (["", "", "b", ""], Some("b"), " in pod b"),
        ] {
            let workload = Workload {
                unit: text(unit),
                container: text(container),
                pod: text(pod),
                pod_namespace: text(namespace),
            };
            assert_eq!(workload.name().as_deref(), name);
            assert_eq!(workload.suffix().to_string(), suffix);
            assert_eq!(workload.contains("broker-"), pod == "broker-0");
        }
    }
}
