//! Processes are shown with their unit, their container and their pod, by name.
//!
//! The cgroups have the names that the runtimes give them, and a folder has what a node keeps
//! on disk. `kaprobe/src/containers/` has the sources of both.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Error, Result, ensure};
use kaprobe_testkit::cgroup::TestCgroup;
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::log::{Record, TraceLog};
use kaprobe_testkit::process::{Held, Process, Task};
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::scenarios;
use kaprobe_testkit::{command, mounts, netns, schema, snapshot};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

/// The uid of the pod `orders/broker-0`.
const UID: &str = "5d2f3a0e-7c41-4b8e-9f6d-0a1b2c3d4e5f";

/// The fields of an owner that are compared.
const FIELDS: [&str; 6] = [
    "unit",
    "container",
    "container_id",
    "pod",
    "pod_namespace",
    "pod_uid",
];

/// The id of the container with this number.
fn id(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

/// A process in a cgroup, and what is to be said of it.
struct Case {
    comm: &'static str,
    cgroup: String,
    expected: Value,
}

fn cases() -> Vec<Case> {
    let slice = format!(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
        UID.replace('-', "_")
    );
    let case = |comm, cgroup, expected| Case {
        comm,
        cgroup,
        expected,
    };
    vec![
        case(
            "containerd",
            format!("{slice}/cri-containerd-{}.scope", id(1)),
            json!({
                "container": "broker", "container_id": id(1),
                "pod": "broker-0", "pod_namespace": "orders", "pod_uid": UID,
            }),
        ),
        // Its log is not there yet: the runtime knows the name.
        case(
            "k3s",
            format!("kubepods/besteffort/pod{}/{}", id(2).split_at(32).0, id(2)),
            json!({
                "container": "app", "container_id": id(2),
                "pod": "web-7d4b", "pod_namespace": "shop", "pod_uid": id(2).split_at(32).0,
            }),
        ),
        case(
            "cri-o",
            format!("{slice}/crio-{}.scope/container", id(3)),
            json!({
                "container": "proxy", "container_id": id(3),
                "pod": "broker-0", "pod_namespace": "orders", "pod_uid": UID,
            }),
        ),
        case(
            "docker",
            format!("system.slice/docker-{}.scope", id(4)),
            json!({ "container": "web", "container_id": id(4) }),
        ),
        case(
            "podman",
            format!("system.slice/cache.service/libpod-payload-{}", id(5)),
            json!({ "unit": "cache.service", "container": "cache", "container_id": id(5) }),
        ),
        // Nothing on disk names it.
        case(
            "unnamed",
            format!("docker/{}", id(6)),
            json!({ "container": "060606060606", "container_id": id(6) }),
        ),
        case(
            "systemd",
            "system.slice/a\\x2db.service".to_owned(),
            json!({ "unit": "a-b.service" }),
        ),
        case(
            "lxc",
            "lxc.payload.\u{1b}[2J\u{202e}".to_owned(),
            json!({ "container": "\\u{1b}[2J\\u{202e}" }),
        ),
        // A container that would pass for another one.
        case(
            "hostile",
            format!("docker/{}/{slice}/cri-containerd-{}.scope", id(6), id(1)),
            json!({ "container": "060606060606", "container_id": id(6) }),
        ),
    ]
}

/// What a node keeps on disk.
fn node() -> Result<tempfile::TempDir> {
    let root = tempfile::tempdir()?;
    let write = |path: String, text: Value| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        Ok::<_, Error>(fs::write(path, text.to_string())?)
    };
    let logs = root.path().join("var/log");
    fs::create_dir_all(logs.join(format!("pods/orders_broker-0_{UID}/broker")))?;
    fs::create_dir_all(logs.join("containers"))?;
    // The link leads to a file that must not be read: only its name counts.
    let link = format!("containers/broker-0_orders_broker-{}.log", id(1));
    symlink("/proc/kmsg", logs.join(link))?;
    write(
        format!(
            "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json",
            id(2)
        ),
        json!({ "annotations": {
            "io.kubernetes.cri.container-name": "app",
            "io.kubernetes.cri.sandbox-name": "web-7d4b",
            "io.kubernetes.cri.sandbox-namespace": "shop",
            "io.kubernetes.cri.sandbox-uid": id(2).split_at(32).0,
        }}),
    )?;
    write(
        format!(
            "run/containers/storage/overlay-containers/{}/userdata/config.json",
            id(3)
        ),
        json!({ "annotations": {
            "io.kubernetes.container.name": "proxy",
            "io.kubernetes.pod.name": "broker-0",
            "io.kubernetes.pod.namespace": "orders",
            "io.kubernetes.pod.uid": UID,
        }}),
    )?;
    write(
        format!("var/lib/docker/containers/{}/config.v2.json", id(4)),
        json!({ "Name": "/web", "ID": id(4) }),
    )?;
    write(
        "var/lib/containers/storage/overlay-containers/containers.json".to_owned(),
        json!([{ "id": id(9), "names": ["other"] }, { "id": id(5), "names": ["cache"] }]),
    )?;
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755))?;
    Ok(root)
}

/// Processes in cgroups below a folder. Their cgroups are removed with the test.
struct Node {
    processes: Vec<(Case, Process)>,
    cgroups: Vec<PathBuf>,
    _above: Option<TestCgroup>,
}

impl Node {
    fn start(above: &Path, cases: Vec<Case>, kept: Option<TestCgroup>) -> Result<Self> {
        let mut node = Self {
            processes: Vec::new(),
            cgroups: Vec::new(),
            _above: kept,
        };
        for case in cases {
            let mut path = above.to_owned();
            for name in Path::new(&case.cgroup) {
                path.push(name);
                if !path.exists() {
                    fs::create_dir(&path).with_context(|| format!("make {path:?}"))?;
                    node.cgroups.push(path.clone());
                }
            }
            let process = Process::start(Task {
                cgroup: Some(path),
                holds: Some(Held {
                    address: [127, 0, 0, 1].into(),
                    count: 1,
                    seconds: None,
                }),
                ..Task::new(case.comm, &[scenarios::SILENT])
            })?;
            node.processes.push((case, process));
        }
        Ok(node)
    }

    /// Plays the traffic of all processes.
    fn play(&mut self) -> Result<()> {
        let mut processes = self.processes.iter_mut().map(|(_, process)| process);
        processes.try_for_each(Process::go)?;
        let mut processes = self.processes.iter_mut().map(|(_, process)| process);
        processes.try_for_each(Process::wait_played)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for (_, process) in self.processes.drain(..) {
            // One that failed has ended.
            let _ended = process.dismiss();
        }
        for path in self.cgroups.iter().rev() {
            // One that is still in use stays. It is empty then.
            let _ = fs::remove_dir(path);
        }
    }
}

/// What is said of an owner.
fn said(value: impl Fn(&str) -> Option<Value>) -> Value {
    let fields = FIELDS.iter();
    fields
        .filter_map(|&name| Some((name.to_owned(), value(name)?)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn said_of(row: &Value) -> Value {
    said(|name| row.get(name).cloned())
}

/// Records, rows of `sockets` and of `audit` name the workload of each process, and the
/// filters select by these names.
pub fn workloads_are_named() -> Result<()> {
    netns::enter_new()?;
    let root = node()?;
    let root = root.path().to_str().context("not UTF-8")?;
    let above = TestCgroup::new("containers")?;
    let path = above.path.clone();
    let mut node = Node::start(&path, cases(), Some(above))?;
    let here = ["--netns", "self", "--host-root", root];
    let trace = |filter: &[&str]| Kaprobe::trace(&[&here[..], filter].concat());
    let unfiltered = trace(&[])?.ready()?;
    let of_pod = trace(&["--pod", "orders/broker-0"])?.ready()?;
    let of_unit = trace(&["--unit", "cache.service,a-b.service"])?.ready()?;
    node.play()?;

    check_trace(&node, &unfiltered.stop()?)?;
    for (log, expected) in [
        (of_pod.stop()?, &["containerd", "cri-o"]),
        (of_unit.stop()?, &["podman", "systemd"]),
    ] {
        ensure!(comms(&log) == *expected, "{:?}", comms(&log));
    }
    check_sockets(&node, &here)?;
    check_filters(&here)?;
    check_audit(&node, &here)
}

fn check_trace(node: &Node, log: &TraceLog) -> Result<()> {
    for (case, process) in &node.processes {
        let of_process = |it: &&Record| it.number("pid") == Some(process.pid().into());
        let mut probes = 0;
        for record in log.records.iter().filter(of_process) {
            let said = said(|name| record.text(name).map(Value::from));
            ensure!(said == case.expected, "{}: {record:?}", case.comm);
            probes += u32::from(record.event() == "probe");
        }
        ensure!(probes > 0, "no probe of {}", case.comm);
    }
    Ok(())
}

/// The commands in a log, each once.
fn comms(log: &TraceLog) -> Vec<&str> {
    let mut comms: Vec<_> = log
        .records
        .iter()
        .filter_map(|it| it.text("comm"))
        .collect();
    comms.sort_unstable();
    comms.dedup();
    comms
}

fn check_sockets(node: &Node, here: &[&str]) -> Result<()> {
    let rows = snapshot::take(here)?;
    for (case, process) in &node.processes {
        let mut count = 0;
        for row in rows.iter().filter(|row| row["pid"] == process.pid()) {
            ensure!(said_of(row) == case.expected, "{}: {row}", case.comm);
            count += 1;
        }
        ensure!(count > 0, "no socket of {}", case.comm);
    }
    let text = command::run(&[&["sockets", "-w"], here].concat())?;
    let text = String::from_utf8(text.stdout)?;
    ensure!(text.contains("orders/broker-0"), "{text}");
    ensure!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    Ok(())
}

fn check_filters(here: &[&str]) -> Result<()> {
    let short = &id(6)[..12];
    for (filter, expected) in [
        ("--pod=broker-0", vec!["containerd", "cri-o"]),
        (
            "--pod=orders/broker-0,shop/broker-0",
            vec!["containerd", "cri-o"],
        ),
        ("--pod=shop/broker-0", vec![]),
        ("--pod=broker", vec![]),
        (
            "--pod-namespace=shop,orders",
            vec!["containerd", "cri-o", "k3s"],
        ),
        ("--container=web,broker", vec!["containerd", "docker"]),
        (&format!("--container={short}"), vec!["hostile", "unnamed"]),
        (&format!("--container={}", id(4)), vec!["docker"]),
        ("--unit=cache.service", vec!["podman"]),
        ("--unit=a-b.service", vec!["systemd"]),
    ] {
        let rows = snapshot::take(&[here, &[filter]].concat())?;
        let mut comms: Vec<_> = rows.iter().filter_map(|row| row["comm"].as_str()).collect();
        comms.sort_unstable();
        comms.dedup();
        ensure!(comms == expected, "{filter}: {comms:?}");
    }
    Ok(())
}

fn check_audit(node: &Node, here: &[&str]) -> Result<()> {
    let arguments = ["audit", "--json", "--loopback", "--idle-timeout", "350s"];
    let audit = command::run(&[&arguments[..], here].concat())?;
    let validator = schema::validator(include_str!("../../schema/kaprobe-audit.schema.json"));
    let validator = validator.map_err(Error::msg)?;
    let mut count = 0;
    for line in String::from_utf8(audit.stdout)?.lines() {
        let row = schema::check(&validator, line).map_err(Error::msg)?;
        let of_row = |(_, process): &&(Case, Process)| row["pid"] == process.pid();
        if let Some((case, _)) = node.processes.iter().find(of_row) {
            ensure!(said_of(&row) == case.expected, "{}: {row}", case.comm);
            count += 1;
        }
    }
    ensure!(count >= node.processes.len(), "{count} connections");
    Ok(())
}

/// Containers in a hierarchy of cgroup v1 are named.
pub fn old_hierarchies_are_read() -> Result<()> {
    netns::enter_new()?;
    mounts::enter_new()?;
    let folder = tempfile::tempdir()?;
    let flags = MountFlags::empty();
    let options = c"none,name=kaprobe-test";
    if let Err(why) = mount("none", folder.path(), "cgroup", flags, options) {
        return Err(Skip(format!("no hierarchy of cgroup v1 can be made: {why}")).into());
    }
    let checked = check_old_hierarchy(folder.path());
    unmount(folder.path(), UnmountFlags::empty())?;
    checked
}

fn check_old_hierarchy(above: &Path) -> Result<()> {
    let root = node()?;
    let root = root.path().to_str().context("not UTF-8")?;
    let case = Case {
        comm: "old",
        cgroup: format!("docker/{}", id(4)),
        expected: json!({ "container": "web", "container_id": id(4) }),
    };
    let mut node = Node::start(above, vec![case], None)?;
    node.play()?;
    check_sockets_of(&node, root)
}

fn check_sockets_of(node: &Node, root: &str) -> Result<()> {
    let rows = snapshot::take(&["--netns", "self", "--host-root", root, "--container", "web"])?;
    for (case, process) in &node.processes {
        ensure!(!rows.is_empty(), "no socket of {}", case.comm);
        for row in &rows {
            ensure!(row["pid"] == process.pid(), "{row}");
            // The unit is that of this test.
            for name in ["container", "container_id"] {
                ensure!(row[name] == case.expected[name], "{row}");
            }
        }
    }
    Ok(())
}
