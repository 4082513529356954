//! Reads the unit, the container and the pod of a process from the path of its cgroup. Pure.
//!
//! A container may make cgroups below its own, and a user below the service `user@UID`, under
//! any name. So the outermost container counts, which this host's runtime made, and a user's
//! cgroups are marked. Otherwise a container could pass for another.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::str::FromStr;

use crate::text::escape::Escaped;

/// Number of digits that container tools show of an id.
const SHORT_ID: usize = 12;

/// What the path of a cgroup tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupPath {
    /// The innermost systemd unit, other than the scope of a container. `None` for a login
    /// session.
    pub unit: Option<Escaped>,
    /// The outermost container.
    pub container: Option<Container>,
    /// uid of the Kubernetes pod.
    pub pod_uid: Option<String>,
    /// A user could have made this cgroup: it is below the service `user@UID`.
    pub is_of_user: bool,
}

/// A container, as its cgroup names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    /// By its id.
    Id {
        /// The id.
        id: String,
        /// The runtime, by the name of the cgroup.
        runtime: Runtime,
    },
    /// By its name.
    Name(Escaped),
}

impl Container {
    /// The name, or the first digits of the id.
    #[must_use]
    pub fn short_name(&self) -> Escaped {
        match self {
            Self::Id { id, .. } => Escaped::from(id.get(..SHORT_ID).unwrap_or(id)),
            Self::Name(name) => name.clone(),
        }
    }
}

/// A container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// containerd, for Kubernetes.
    Containerd,
    /// CRI-O.
    CriO,
    /// Docker.
    Docker,
    /// podman.
    Podman,
    /// The name of the cgroup does not tell.
    Unknown,
}

/// What comes before the id in the name of a container's cgroup.
///
/// runc and crun join a prefix and the id: `cri-containerd` (`getCgroupsPath`,
/// internal/cri/server/helpers.go of containerd), `crio` (internal/config/cgmgr of CRI-O),
/// `docker` (daemon/oci_linux.go of Moby), `libpod` (libpod/container_internal_linux.go of
/// podman), and there `libpod-payload` in the service that `--cgroups=split` splits.
const PREFIXES: [(&str, Runtime); 5] = [
    ("cri-containerd-", Runtime::Containerd),
    ("crio-", Runtime::CriO),
    ("docker-", Runtime::Docker),
    ("libpod-payload-", Runtime::Podman),
    ("libpod-", Runtime::Podman),
];

impl CgroupPath {
    /// Reads the content of /proc/PID/cgroup: `HIERARCHY:CONTROLLERS:PATH` (cgroups(7)).
    ///
    /// The unified hierarchy counts, then that of systemd, then the others. But if one names
    /// a container, it counts: containers are often in the old hierarchies alone.
    #[must_use]
    pub fn read(cgroup: &[u8]) -> Self {
        let text = as_systemd_writes(cgroup);
        let mut lines: Vec<_> = text.lines().filter_map(controllers_and_path).collect();
        lines.sort_by_key(|(controllers, _)| match *controllers {
            "" => 0,
            "name=systemd" => 1,
            _ => 2,
        });
        let found = lines
            .iter()
            .map(|&(controllers, path)| (controllers, Self::of(path)));
        let found: Vec<_> = found.collect();
        let all = || found.iter();
        // Only systemd's own hierarchies tell the unit.
        let mut of_units = all().filter(|(it, _)| matches!(*it, "" | "name=systemd"));
        let best = all()
            .find(|(_, it)| it.container.is_some())
            .or_else(|| all().find(|(_, it)| it.pod_uid.is_some()))
            .or_else(|| of_units.find(|(_, it)| it.unit.is_some()));
        best.map(|(_, it)| it.clone()).unwrap_or_default()
    }

    fn of(path: &str) -> Self {
        let mut found = Self::default();
        let mut parents = Parents::default();
        // A path outside of kaprobe's cgroup namespace begins with `/..`
        // (`cgroup_path_ns`, kernel/cgroup/cgroup.c).
        for name in path.split('/').filter(|it| !matches!(*it, "" | "..")) {
            found.step(name, &parents);
            parents.push(name);
        }
        found
    }

    /// Takes the next step into the tree.
    fn step(&mut self, name: &str, parents: &Parents<'_>) {
        let is_outermost = self.container.is_none();
        if is_outermost && !self.is_of_user {
            self.pod_uid = of_pod(name).or(self.pod_uid.take());
            self.is_of_user = is_user_manager(name);
        }
        if let Some(container) = of_container(name, parents) {
            if is_outermost {
                self.container = Some(container);
            }
            // `systemd-nspawn@NAME.service` is both.
            if !name.ends_with(".service") {
                return;
            }
        }
        if is_unit(name) {
            self.unit = Some(unescape(name.strip_prefix('_').unwrap_or(name)));
        }
    }
}

/// The names of the cgroups above one.
#[derive(Default)]
struct Parents<'a> {
    /// The name of the first.
    first: &'a str,
    /// The name of the last.
    last: &'a str,
}

impl<'a> Parents<'a> {
    fn push(&mut self, name: &'a str) {
        if self.first.is_empty() {
            self.first = name;
        }
        self.last = name;
    }
}

/// The controllers and the path in a line of /proc/PID/cgroup.
fn controllers_and_path(line: &str) -> Option<(&str, &str)> {
    let (number, rest) = line.split_once(':')?;
    u32::from_str(number).ok()?;
    // A path may have colons; a hierarchy's name may not be found in it.
    let colon = rest.find(":/")?;
    Some((&rest[..colon], &rest[colon + 1..]))
}

/// The container that a cgroup belongs to.
fn of_container(name: &str, parents: &Parents<'_>) -> Option<Container> {
    let by_name = |name: &str| (!name.is_empty()).then(|| Container::Name(unescape(name)));
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return by_name(name);
    }
    if parents.last == "lxc" {
        return by_name(name);
    }
    if let Some(machine) = machine(name, parents) {
        return by_name(machine);
    }
    let (id, runtime) = id_of(name, parents)?;
    Some(Container::Id {
        id: id.to_owned(),
        runtime,
    })
}

/// The name of a container that systemd-nspawn or libvirt runs.
///
/// systemd-machined makes `machine-NAME.scope` (`machine_start_scope`, src/machine/machine.c of
/// systemd). Without it, systemd-nspawn makes `NAME.scope` in machine.slice (`allocate_scope`,
/// src/nspawn/nspawn-register.c); the container is in `payload` below that
/// (`create_subcgroup`, src/nspawn/nspawn-cgroup.c).
fn machine<'a>(name: &'a str, parents: &Parents<'a>) -> Option<&'a str> {
    let service = name.strip_suffix(".service");
    let template = service.and_then(|it| it.strip_prefix("systemd-nspawn@"));
    let scope = name.strip_suffix(".scope");
    let scope = scope.and_then(|it| it.strip_prefix("machine-"));
    let is_payload = name == "payload" && parents.first == "machine.slice";
    let unregistered = parents.last.strip_suffix(".scope").filter(|_| is_payload);
    template
        .or(scope.filter(|it| !is_virtual_machine(it)))
        .or(unregistered)
}

/// Whether a machine is one of libvirt's virtual machines, and no container: `qemu-ID-NAME` or,
/// of Cloud Hypervisor, `ch-ID-NAME` (`virDomainDriverGenerateMachineName`,
/// src/hypervisor/domain_driver.c of libvirt), and `qemu-NAME` before that
/// (`virSystemdMakeScopeName`, src/util/virsystemd.c). Containers are `lxc-ID-NAME`.
fn is_virtual_machine(machine: &str) -> bool {
    let of_cloud_hypervisor = machine.strip_prefix("ch\\x2d");
    let begins_with_id = |rest: &str| rest.starts_with(|it: char| it.is_ascii_digit());
    machine.starts_with("qemu\\x2d") || of_cloud_hypervisor.is_some_and(begins_with_id)
}

/// The id of a container, and its runtime.
fn id_of<'a>(name: &'a str, parents: &Parents<'_>) -> Option<(&'a str, Runtime)> {
    // containerd with the cgroupfs driver below a kubelet with that of systemd:
    // `kubepods-pod1.slice:cri-containerd:ID`.
    if let Some((_, rest)) = name.split_once(".slice:") {
        let (runtime, id) = rest.split_once(':')?;
        let known = PREFIXES
            .iter()
            .find(|(prefix, _)| prefix.strip_suffix('-') == Some(runtime));
        let runtime = known.map_or(Runtime::Unknown, |(_, runtime)| *runtime);
        return is_id(id).then_some((id, runtime));
    }
    let bare = name.strip_suffix(".scope").unwrap_or(name);
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = bare.strip_prefix(prefix).filter(|it| is_id(it)) {
            return Some((id, runtime));
        }
    }
    if is_id(name) {
        let runtime = match parents.last {
            "docker" => Runtime::Docker,
            _ => Runtime::Unknown,
        };
        return Some((name, runtime));
    }
    let is_of_ecs = parents.first == "ecs" && is_fargate_id(name);
    is_of_ecs.then_some((name, Runtime::Unknown))
}

/// Whether a text is the id of a container: 64 hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && is_lower_hex(text)
}

/// Whether a text is the id of a container of AWS Fargate: that of its task, and a number.
fn is_fargate_id(text: &str) -> bool {
    let parts = text.split_once('-');
    parts.is_some_and(|(task, number)| {
        task.len() == 32 && is_lower_hex(task) && u64::from_str(number).is_ok()
    })
}

fn is_lower_hex(text: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    !text.is_empty() && text.bytes().all(is_digit)
}

/// The uid of the pod that a cgroup is of: `podUID` or, with systemd,
/// `kubepods-burstable-podUID.slice` with `_` for `-` (`getPodContainerName`,
/// pkg/kubelet/cm/pod_container_manager_linux.go of Kubernetes, and `escapeSystemdCgroupName`,
/// cgroup_manager_linux.go there).
fn of_pod(name: &str) -> Option<String> {
    let slice = name.split_once(".slice").map(|(slice, _)| slice);
    let uid = match slice {
        Some(slice) => {
            let (parent, uid) = slice.rsplit_once("-pod")?;
            let parents = ["kubepods", "besteffort", "burstable"];
            let is_of_kubelet = parents.iter().any(|it| parent.ends_with(it));
            is_of_kubelet.then(|| uid.replace('_', "-"))?
        }
        None => name.strip_prefix("pod")?.to_owned(),
    };
    is_pod_uid(&uid).then_some(uid)
}

/// Whether a text is the uid of a pod: a UUID or, of a static pod, the 32 digits of a hash
/// (`applyDefaults`, pkg/kubelet/config/common.go of Kubernetes).
fn is_pod_uid(text: &str) -> bool {
    let digits = text.replace('-', "");
    digits.len() == 32 && is_lower_hex(&digits) && matches!(text.len(), 32 | 36)
}

/// Whether a cgroup is a user's own: systemd delegates it to the user (user@.service(5)).
fn is_user_manager(name: &str) -> bool {
    name.starts_with("user@") && name.ends_with(".service")
}

/// Whether a cgroup is a unit that is restarted as a whole. A login session is not, nor are
/// the services that run all programs of a user.
fn is_unit(name: &str) -> bool {
    let is_scope =
        name.ends_with(".scope") && !name.starts_with("session-") && name != "init.scope";
    is_scope || name.ends_with(".service") || name.ends_with(".socket")
}

/// The text with each byte that is not UTF-8 as systemd writes it in names: `\xff`
/// (systemd-escape(1)). [`unescape`] gives the byte back.
fn as_systemd_writes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes) {
        return text.into();
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.into()
}

/// Undoes systemd's escapes, `\x2d` for `-` (systemd-escape(1)).
fn unescape(name: &str) -> Escaped {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = rest.strip_prefix(b"\\x").and_then(|it| it.get(..2));
        let digits = digits.and_then(|it| std::str::from_utf8(it).ok());
        let escaped = digits.and_then(|it| u8::from_str_radix(it, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = escaped.map_or(after, |_| &rest[4..]);
    }
    Escaped::from_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 64 digits of a container.
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
    const UID: &str = "5d2f3a0e-7c41-4b8e-9f6d-0a1b2c3d4e5f";
    /// The uid of a static pod.
    const HASH: &str = "33d556edd3ae8ef21980288cef77ae8b";

    /// What a path tells, in one line: `UNIT | CONTAINER (RUNTIME) | POD`, and `user`.
    fn told(found: &CgroupPath) -> String {
        let unit = found.unit.as_ref().map_or("-", Escaped::as_str);
        let container = match &found.container {
            Some(Container::Id { id, runtime }) => {
                format!(
                    "{} ({runtime:?})",
                    id.replace(ID, "ID").replace(OTHER, "OTHER")
                )
            }
            Some(Container::Name(name)) => name.to_string(),
            None => "-".to_owned(),
        };
        let unit = unit.replace(ID, "ID");
        let pod = found.pod_uid.as_deref().unwrap_or("-");
        let pod = pod.replace(UID, "UID").replace(HASH, "HASH");
        let user = if found.is_of_user { " | user" } else { "" };
        format!("{unit} | {container} | {pod}{user}")
    }

    fn check(rows: &[(&str, &str)]) {
        for (path, expected) in rows {
            let uid = UID.replace('-', "_");
            let path = path
                .replace("OTHER", OTHER)
                .replace("_UID", &uid)
                .replace("UID", UID)
                .replace("HASH", HASH)
                .replace("ID", ID);
            let v2 = format!("0::{path}\n");
            let v1 = format!("4:memory:/x.service\n1:name=systemd:{path}\n0::/\n");
            for text in [v2, v1] {
                let found = CgroupPath::read(text.as_bytes());
                assert_eq!(told(&found), *expected, "{text}");
            }
        }
    }

    /// systemd: `unit_default_cgroup_path` (src/core/cgroup.c), systemd.slice(5), and
    /// systemd.special(7).
    #[test]
    fn units_of_systemd_are_named() {
        check(&[
            ("/system.slice/nginx.service", "nginx.service | - | -"),
            (
                "/system.slice/system-postgresql.slice/postgresql@17-main.service",
                "postgresql@17-main.service | - | -",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/mq.service",
                "mq.service | - | - | user",
            ),
            (
                "/a.slice/a-b.slice/a-b-c.slice/x.service",
                "x.service | - | -",
            ),
            ("/system.slice/a\\x2db.service", "a-b.service | - | -"),
            // `cg_escape` (src/basic/cgroup-util.c) puts a _ before a name that begins with one.
            ("/system.slice/__x.service", "_x.service | - | -"),
            ("/system.slice/run-r1.scope", "run-r1.scope | - | -"),
            ("/system.slice/cups.socket", "cups.socket | - | -"),
            ("/user.slice/user-1000.slice/session-3.scope", "- | - | -"),
            ("/init.scope", "- | - | -"),
            (
                "/system.slice/x\u{1b}[2J.service",
                "x\\u{1b}[2J.service | - | -",
            ),
        ]);
    }

    #[test]
    fn pods_of_kubernetes_are_named() {
        check(&[
            // The driver cgroupfs: `GetPodContainerName`, pkg/kubelet/cm of Kubernetes.
            ("/kubepods/burstable/podUID/ID", "- | ID (Unknown) | UID"),
            ("/kubepods/besteffort/podUID/ID", "- | ID (Unknown) | UID"),
            ("/kubepods/podUID/ID", "- | ID (Unknown) | UID"),
            ("/kubepods/podHASH/ID", "- | ID (Unknown) | HASH"),
            ("/kubepods/burstable/podUID", "- | - | UID"),
            // CRI-O with it: internal/config/cgmgr/cgroupfs_linux.go.
            ("/kubepods/burstable/podUID/crio-ID", "- | ID (CriO) | UID"),
            ("/kubepods/burstable/podUID/crio-conmon-ID", "- | - | UID"),
            // The driver systemd: `ToSystemd`, pkg/kubelet/cm/cgroup_manager_linux.go.
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod_UID.slice/cri-containerd-ID.scope",
                "- | ID (Containerd) | UID",
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod_UID.slice/cri-containerd-ID.scope",
                "- | ID (Containerd) | UID",
            ),
            (
                "/kubepods.slice/kubepods-pod_UID.slice/cri-containerd-ID.scope",
                "- | ID (Containerd) | UID",
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podHASH.slice/cri-containerd-ID.scope",
                "- | ID (Containerd) | HASH",
            ),
            (
                "/kubepods.slice/kubepods-pod_UID.slice/docker-ID.scope",
                "- | ID (Docker) | UID",
            ),
            // internal/config/cgmgr/systemd_linux.go of CRI-O; crun makes a cgroup below.
            (
                "/kubepods.slice/kubepods-pod_UID.slice/crio-ID.scope",
                "- | ID (CriO) | UID",
            ),
            (
                "/kubepods.slice/kubepods-pod_UID.slice/crio-ID.scope/container",
                "- | ID (CriO) | UID",
            ),
            (
                "/kubepods.slice/kubepods-pod_UID.slice/crio-conmon-ID.scope",
                "crio-conmon-ID.scope | - | UID",
            ),
            (
                "/system.slice/crio-conmon-ID.scope",
                "crio-conmon-ID.scope | - | -",
            ),
            // containerd with cgroupfs below a kubelet with systemd: `getCgroupsPath` of
            // containerd joins the three parts that runc would split.
            (
                "/system.slice/containerd.service/kubepods-burstable-pod_UID.slice:cri-containerd:ID",
                "containerd.service | ID (Containerd) | UID",
            ),
            // kubelet --cgroup-root and kind: kubepods below other groups.
            (
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod_UID.slice/cri-containerd-ID.scope",
                "- | ID (Containerd) | UID",
            ),
            (
                "/custom/kubepods/burstable/podUID/ID",
                "- | ID (Unknown) | UID",
            ),
            // k3s and kubelet themselves.
            ("/system.slice/k3s.service", "k3s.service | - | -"),
            ("/system.slice/kubelet.service", "kubelet.service | - | -"),
            ("/podium/x", "- | - | -"),
            (
                "/system.slice/app-pod1.slice/x.service",
                "x.service | - | -",
            ),
        ]);
    }

    #[test]
    fn containers_without_kubernetes_are_named() {
        check(&[
            // daemon/oci_linux.go of Moby: `WithCgroups`.
            ("/system.slice/docker-ID.scope", "- | ID (Docker) | -"),
            ("/docker/ID", "- | ID (Docker) | -"),
            (
                "/system.slice/docker-ID.scope/system.slice/nginx.service",
                "nginx.service | ID (Docker) | -",
            ),
            (
                "/system.slice/containerd.service/docker/ID",
                "containerd.service | ID (Docker) | -",
            ),
            // `getOCICgroupPath` and `setupConmon...`, libpod/container_internal_linux.go and
            // oci_conmon_linux.go of podman.
            (
                "/machine.slice/libpod-ID.scope/container",
                "- | ID (Podman) | -",
            ),
            (
                "/machine.slice/libpod-conmon-ID.scope",
                "libpod-conmon-ID.scope | - | -",
            ),
            (
                "/machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope",
                "- | ID (Podman) | -",
            ),
            ("/libpod_parent/libpod-ID", "- | ID (Podman) | -"),
            ("/libpod_parent/libpod-ID/ctr", "- | ID (Podman) | -"),
            ("/libpod_parent/conmon", "- | - | -"),
            (
                "/system.slice/web.service/libpod-payload-ID",
                "web.service | ID (Podman) | -",
            ),
            ("/system.slice/web.service/runtime", "web.service | - | -"),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
                "user@1000.service | ID (Podman) | - | user",
            ),
            // lxc_cgroup.payload in lxc.container.conf(5); `lxc/NAME` before LXC 4.
            (
                "/lxc.payload.web/system.slice/sshd.service",
                "sshd.service | web | -",
            ),
            ("/lxc.monitor.web", "- | - | -"),
            ("/lxc/web", "- | web | -"),
            // `machine_start_scope` and `allocate_scope` of systemd, and systemd-nspawn@.service.
            (
                "/machine.slice/machine-a\\x2db.scope/payload",
                "- | a-b | -",
            ),
            (
                "/machine.slice/systemd-nspawn@web.service/payload",
                "systemd-nspawn@web.service | web | -",
            ),
            (
                "/machine.slice/web.scope/payload/system.slice/nginx.service",
                "nginx.service | web | -",
            ),
            ("/machine.slice/web.scope", "web.scope | - | -"),
            ("/a.slice/web.scope/payload", "web.scope | - | -"),
            // `virDomainDriverGenerateMachineName` of libvirt: a container of its driver lxc, and
            // virtual machines.
            (
                "/machine.slice/machine-lxc\\x2d7\\x2dweb.scope/libvirt",
                "- | lxc-7-web | -",
            ),
            (
                "/machine.slice/machine-ch\\x2d1\\x2dvm.scope/libvirt/emulator",
                "machine-ch-1-vm.scope | - | -",
            ),
            ("/machine.slice/machine-ch\\x2dx.scope", "- | ch-x | -"),
            (
                "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator",
                "machine-qemu-1-vm.scope | - | -",
            ),
            // `BuildCgroupRoot`, agent/api/task/task_linux.go of the ECS agent; Fargate, whose agent
            // is not public, names a task and a number.
            ("/ecs/HASH/ID", "- | ID (Unknown) | -"),
            (
                "/ecs/HASH/HASH-1234567890",
                "- | 33d556edd3ae8ef21980288cef77ae8b-1234567890 (Unknown) | -",
            ),
            ("/ecs/cluster/HASH/ID", "- | ID (Unknown) | -"),
            (
                "/ecstasks.slice/ecstasks-HASH.slice/docker-ID.scope",
                "- | ID (Docker) | -",
            ),
            // Not the 64 digits of an id.
            ("/docker/0123", "- | - | -"),
            ("/docker/../docker/0123", "- | - | -"),
        ]);
    }

    /// A container may make any cgroup below its own, and a user below the user's service.
    #[test]
    fn the_outermost_container_counts_and_a_user_is_marked() {
        check(&[
            // kind: a node is a container of Docker, with pods.
            (
                "/docker/ID/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod_UID.slice/cri-containerd-OTHER.scope",
                "- | ID (Docker) | -",
            ),
            (
                "/docker/ID/system.slice/kubelet.service",
                "kubelet.service | ID (Docker) | -",
            ),
            // Docker in Docker.
            ("/docker/ID/docker/OTHER", "- | ID (Docker) | -"),
            (
                "/system.slice/docker-ID.scope/docker/OTHER",
                "- | ID (Docker) | -",
            ),
            ("/lxc.payload.web/docker/OTHER", "- | web | -"),
            // A pod that would pass for another.
            (
                "/kubepods/podUID/ID/kubepods/podHASH/OTHER",
                "- | ID (Unknown) | UID",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/kubepods/podUID/ID",
                "user@1000.service | ID (Unknown) | - | user",
            ),
            // kaprobe in a container, with a cgroup namespace of its own.
            ("/", "- | - | -"),
            ("/..", "- | - | -"),
            ("/../cri-containerd-ID.scope", "- | ID (Containerd) | -"),
            (
                "/../../kubepods-besteffort.slice/kubepods-besteffort-pod_UID.slice/cri-containerd-ID.scope",
                "- | ID (Containerd) | UID",
            ),
            ("/../../podUID/ID", "- | ID (Unknown) | UID"),
            (
                "/../../../system.slice/sshd.service",
                "sshd.service | - | -",
            ),
        ]);
    }

    #[test]
    fn the_hierarchy_that_names_a_container_counts() {
        for (text, expected) in [
            // Docker with v1 and cgroupfs: systemd's hierarchy and v2 have the service.
            (
                "5:memory:/docker/ID\n1:name=systemd:/system.slice/docker.service\n0::/system.slice/docker.service",
                "- | ID (Docker) | -",
            ),
            (
                "9:name=systemd:/docker/ID\n4:memory:/docker/ID\n0::/system.slice/containerd.service",
                "- | ID (Docker) | -",
            ),
            // No systemd.
            (
                "3:cpu,cpuacct:/docker/ID\n2:pids:/docker/ID",
                "- | ID (Docker) | -",
            ),
            ("2:pids:/kubepods/podUID\n1:cpu:/", "- | - | UID"),
            (
                "1:name=systemd:/system.slice/a.service\n0::/system.slice/b.service",
                "b.service | - | -",
            ),
            // A name with a colon, and lines that are none.
            ("0::/system.slice/a:/b.service", "b.service | - | -"),
            (
                "x:/docker/ID\n0::/system.slice/b.service\n\n7",
                "b.service | - | -",
            ),
            ("", "- | - | -"),
            ("0::", "- | - | -"),
            (
                "\\x\n0::/\\x.service\n0::/\\x2.scope",
                "\\\\x.service | - | -",
            ),
        ] {
            let text = text.replace("UID", UID).replace("ID", ID);
            let found = CgroupPath::read(text.as_bytes());
            assert_eq!(told(&found), expected, "{text}");
        }
        // A name that is not UTF-8 stays the name that it is: filters compare the bytes.
        let lxc = CgroupPath::read(b"0::/lxc.payload.\xff\xc3\xa9");
        let name = Escaped::from_bytes(b"\xff\xc3\xa9");
        assert_eq!(lxc.container, Some(Container::Name(name)));
        assert_eq!(
            CgroupPath::read(b"0::/\xff\xfe.service").unit,
            Some(Escaped::from_bytes(b"\xff\xfe.service"))
        );
    }
}
