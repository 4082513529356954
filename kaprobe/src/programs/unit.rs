//! Names the systemd unit or the container of a process, from its cgroup. Pure.

use crate::text::escape::Escaped;

/// Number of digits that container tools show of an id.
const SHORT_ID: usize = 12;

/// Scopes of container runtimes: what comes before the id, and the runtime.
const CONTAINER_SCOPES: [(&str, &str); 5] = [
    ("docker-", "docker"),
    ("libpod-", "podman"),
    ("crio-", "cri-o"),
    ("cri-containerd-", "containerd"),
    ("machine-", "machine"),
];

/// The unit or container of a process. `cgroup` is the content of /proc/PID/cgroup.
/// `None` for a process of a login session, and of the root.
#[must_use]
pub fn unit(cgroup: &[u8]) -> Option<Escaped> {
    let text = String::from_utf8_lossy(cgroup);
    let path = path(&text)?;
    let mut container = None;
    let mut unit = None;
    for (parent, name) in [""].into_iter().chain(path.split('/')).zip(path.split('/')) {
        if let Some(found) = of_container(parent, name) {
            (container, unit) = (Some(found), None);
        } else if is_unit(name) {
            unit = Some(unescape(name));
        }
    }
    let text = match (container, unit) {
        (Some(container), Some(unit)) => format!("{unit} in {container}"),
        (Some(name), None) | (None, Some(name)) => name,
        (None, None) => return None,
    };
    Some(Escaped::from(text.as_str()))
}

/// The path in the unified hierarchy or, where systemd uses the old ones, in its own
/// (`proc_cgroup_show`, kernel/cgroup/cgroup.c).
fn path(text: &str) -> Option<&str> {
    let of = |prefix: &'static str| {
        let mut lines = text.lines();
        lines.find_map(move |line| line.split_once(prefix).filter(|(id, _)| is_number(id)))
    };
    let found = [of("::"), of(":name=systemd:")];
    let mut paths = found.into_iter().flatten().map(|(_, path)| path);
    paths.find(|path| path.len() > 1)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The container that a cgroup belongs to.
fn of_container(parent: &str, name: &str) -> Option<String> {
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return Some(format!("lxc {name}"));
    }
    if is_id(name) {
        let runtime = if parent == "docker" {
            "docker"
        } else {
            "container"
        };
        return Some(format!("{runtime} {}", &name[..SHORT_ID]));
    }
    let scope = name.strip_suffix(".scope")?;
    CONTAINER_SCOPES.iter().find_map(|(prefix, runtime)| {
        let name = scope.strip_prefix(prefix)?;
        match *runtime {
            "machine" => Some(format!("machine {}", unescape(name))),
            _ => is_id(name).then(|| format!("{runtime} {}", &name[..SHORT_ID])),
        }
    })
}

/// Whether a name is the id of a container: 64 hexadecimal digits.
fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a cgroup is a unit that is restarted as a whole. A login session is not.
fn is_unit(name: &str) -> bool {
    let is_scope =
        name.ends_with(".scope") && !name.starts_with("session-") && name != "init.scope";
    is_scope || name.ends_with(".service") || name.ends_with(".socket")
}

/// Undoes systemd's escapes, `\x2d` for `-` (systemd-escape(1)).
fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = rest.strip_prefix(b"\\x").and_then(|it| it.get(..2));
        let digits = digits.and_then(|it| std::str::from_utf8(it).ok());
        let escaped = digits.and_then(|it| u8::from_str_radix(it, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = escaped.map_or(after, |_| &rest[4..]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_containers_are_named() {
        let id = "0123456789abcdef".repeat(4);
        for (path, expected) in [
            ("/system.slice/nginx.service", Some("nginx.service")),
            (
                "/system.slice/system-postgresql.slice/postgresql@17-main.service",
                Some("postgresql@17-main.service"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/mq.service",
                Some("mq.service"),
            ),
            ("/user.slice/user-1000.slice/session-3.scope", None),
            ("/init.scope", None),
            ("/", None),
            ("/system.slice/docker-ID.scope", Some("docker 0123456789ab")),
            ("/docker/ID", Some("docker 0123456789ab")),
            (
                "/machine.slice/libpod-ID.scope/container",
                Some("podman 0123456789ab"),
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-ID.scope",
                Some("containerd 0123456789ab"),
            ),
            (
                "/kubepods/burstable/pod1/ID",
                Some("container 0123456789ab"),
            ),
            (
                "/system.slice/docker-ID.scope/system.slice/nginx.service",
                Some("nginx.service in docker 0123456789ab"),
            ),
            (
                "/system.slice/containerd.service/docker/ID",
                Some("docker 0123456789ab"),
            ),
            (
                "/lxc.payload.web/system.slice/sshd.service",
                Some("sshd.service in lxc web"),
            ),
            (
                "/machine.slice/machine-a\\x2db.scope/payload",
                Some("machine a-b"),
            ),
            ("/system.slice/a\\x2db.service", Some("a-b.service")),
            (
                "/system.slice/x\u{1b}[2J.service",
                Some("x\\u{1b}[2J.service"),
            ),
            ("/system.slice/run-r1.scope", Some("run-r1.scope")),
        ] {
            let path = path.replace("ID", &id);
            let v2 = format!("0::{path}\n");
            let v1 = format!("4:memory:/x.service\n1:name=systemd:{path}\n0::/\n");
            for text in [v2, v1] {
                let found = unit(text.as_bytes()).map(|it| it.to_string());
                assert_eq!(found.as_deref(), expected, "{text}");
            }
        }
        for text in ["", "0::", "x", "\\x", "0::/\\x.service"] {
            // Must not panic.
            let _ = unit(text.as_bytes());
        }
    }
}
