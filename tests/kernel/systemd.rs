//! systemd starts the unit of `contrib/`: it does what `docs/operate.md` says, is confined as
//! that page says, and needs each capability that the unit leaves it.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use kaprobe_testkit::child::Killed;
use kaprobe_testkit::command::run;
use kaprobe_testkit::http::HttpResponse;
use kaprobe_testkit::ipvs::{self, ipvsadm};
use kaprobe_testkit::log::TraceLog;
use kaprobe_testkit::netns;
use kaprobe_testkit::process::sleeper;
use kaprobe_testkit::systemd::{NAME, RECORDS, Service, setting, systemctl};
use kaprobe_testkit::unprivileged::NOBODY;
use kaprobe_testkit::wait::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use socket2::{SockRef, TcpKeepalive};

use crate::manners::wait_until_freed;

/// A connection over loopback.
struct Connection {
    listener: TcpListener,
    client: TcpStream,
    _server: TcpStream,
}

impl Connection {
    fn open() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok(Self {
            _server: listener.accept()?.0,
            listener,
            client,
        })
    }

    /// The client probes each second.
    fn probing(self) -> Result<Self> {
        let probes = TcpKeepalive::new()
            .with_time(Duration::from_secs(1))
            .with_interval(Duration::from_secs(1));
        SockRef::from(&self.client).set_tcp_keepalive(&probes)?;
        Ok(self)
    }

    fn remote(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Hands the client's end to a process of this user.
    fn held_by(self, user: u32) -> Result<HeldConnection> {
        let mut sleep = Command::new("sleep");
        sleep.uid(user).gid(user);
        Ok(HeldConnection {
            remote: self.remote()?,
            _listener: self.listener,
            _server: self._server,
            _holder: sleeper(sleep, OwnedFd::from(self.client))?,
        })
    }
}

/// Probes that were sent.
const PROBES: &str = "kaprobe_probes_sent_total";

/// A connection whose client's end a `sleep` holds.
struct HeldConnection {
    remote: SocketAddr,
    _listener: TcpListener,
    _server: TcpStream,
    _holder: Killed,
}

impl HeldConnection {
    /// Labels of its series: those of its program, if any, and its remote end.
    fn labels(&self, program: &str) -> String {
        format!("{program}remote=\"{}\"", self.remote)
    }
}

/// The unit becomes active once the agent says so, the agent records and serves, tells systemd
/// that it lives, and ends soon without a trace.
pub fn the_unit_runs() -> Result<()> {
    // systemd calls a service that takes longer failed. The agent takes a second at most, and an
    // emulated kernel a second to detach its programs.
    let service = Service::install(&["TimeoutStopSec=3"])?;
    ensure!(service.show("Type")? == "notify");
    service.start()?;
    ensure!(service.show("ActiveState")? == "active");
    let status = service.show("StatusText")?;
    ensure!(status.starts_with("metrics at http://"), "{status}");

    let connection = Connection::open()?.probing()?;
    let remote = connection.remote()?;
    wait_until("probes are counted", || {
        let sent = service.get("/metrics")?.metric(PROBES, &remote.to_string());
        Ok(sent.is_ok_and(|it| it >= 2.0))
    })?;

    let pid = service.pid()?;
    is_confined_to_a_user(pid)?;
    let held = kaprobe_testkit::bpf::held_objects(pid)?;
    let group = Path::new("/sys/fs/cgroup").join(service.show("ControlGroup")?.trim_matches('/'));
    ensure!(group.join("cgroup.procs").exists(), "{}", group.display());
    systemctl(&["stop", NAME])?;
    let ended = ["ActiveState", "Result", "ExecMainStatus"].map(|it| service.show(it));
    let [state, result, code] = ended;
    let ended = (state?, result?, code?);
    let expected = ("inactive", "success", "0");
    ensure!(
        (&*ended.0, &*ended.1, &*ended.2) == expected,
        "{ended:?}: {}",
        service.said()?
    );

    ensure!(!group.exists(), "its cgroup is left");
    ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "it is left");
    ensure!(service.get("/healthz").is_err(), "its port is open");
    wait_until_freed("stop", &held)?;
    ensure!(
        fs::read_dir("/sys/fs/bpf")?.next().is_none(),
        "something is pinned"
    );
    let replayed = String::from_utf8(run(&["replay", RECORDS, "--json"])?.stdout)?;
    let log = TraceLog::parse(&replayed.lines().collect::<Vec<_>>())?;
    let port = Some(u64::from(remote.port()));
    let mut own = log.records.iter().filter(|it| it.number("rport") == port);
    let probe = own.find(|it| it.event() == "probe");
    let probe = probe.with_context(|| format!("no probe: {:?}", log.records))?;
    // The agent knows the host's namespace from one with a host name of its own.
    ensure!(probe.text("netns_name").is_none(), "{probe:?}");
    Ok(())
}

/// The service runs as a user of its own, with the unit's capabilities, and only root and that
/// user can read what it records.
fn is_confined_to_a_user(pid: u32) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;

    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |name: &str| {
        let line = status.lines().find_map(|it| it.strip_prefix(name));
        let words = line.map(|it| it.split_whitespace().collect::<Vec<_>>());
        words.with_context(|| format!("no {name} in {status}"))
    };
    let user = of("Uid:")?[0].parse::<u32>()?;
    ensure!(user != 0 && of("Uid:")?.iter().all(|it| *it == user.to_string()));
    ensure!(of("CapEff:")? == of("CapBnd:")?, "{status}");
    let folder = fs::metadata(RECORDS)?;
    ensure!((folder.uid(), folder.mode() & 0o7777) == (user, 0o700));
    let above = fs::metadata("/var/log/private")?;
    ensure!((above.uid(), above.mode() & 0o7777) == (0, 0o700));
    Ok(())
}

/// The agent tells systemd that it lives; systemd starts it anew if it no longer does.
pub fn the_watchdog_restarts_it() -> Result<()> {
    let service = Service::install(&["WatchdogSec=8"])?;
    service.start()?;
    let told = || service.show("WatchdogTimestampMonotonic");
    let first = told()?;
    wait_until("a message of the watchdog arrives", || Ok(told()? != first))?;
    ensure!(service.show("NRestarts")? == "0");

    let pid = service.pid()?;
    let process = Pid::from_raw(pid.try_into()?).context("no process")?;
    kill_process(process, Signal::STOP)?;
    wait_until("systemd ends a stopped agent", || {
        Ok(!Path::new(&format!("/proc/{pid}")).exists())
    })?;
    service.wait_ready()?;
    ensure!(service.show("NRestarts")? == "1" && service.pid()? != pid);
    Ok(())
}

/// `systemctl reload` has the agent read the file of `--config` again, as the unit has it in a
/// comment.
pub fn reload_reads_the_settings() -> Result<()> {
    let with_settings = setting("#ExecStart")?;
    let mut words = with_settings.split(' ').skip_while(|it| *it != "--config");
    let file = words.nth(1).context("no file in the unit's comment")?;
    fs::write(file, "idle-timeout = '350s'\n")?;
    let service = Service::install(&["ExecStart=", &format!("ExecStart={with_settings}")])?;
    service.start()?;
    let pid = service.pid()?;
    for (settings, is_good) in [
        ("interval = 'soon'\n", 0.0),
        ("idle-timeout = '60s'\n", 1.0),
    ] {
        fs::write(file, settings)?;
        systemctl(&["reload", NAME])?;
        // The signal is sent, not yet received, when the command ends.
        wait_until("the settings are read", || {
            let metrics = service.get("/metrics")?;
            Ok(metrics.metric("kaprobe_config_last_reload_successful", "")? == is_good)
        })?;
    }
    ensure!(service.pid()? == pid && service.show("ActiveState")? == "active");
    Ok(())
}

/// The most that `systemd-analyze security` may find, in tenths: what is left is that the
/// service sees the host's network and processes, and has these capabilities.
const EXPOSURE: &str = "29";

/// systemd has nothing to say against the unit, and finds it well confined.
pub fn the_unit_is_confined() -> Result<()> {
    let _service = Service::install(&[])?;
    for arguments in [
        ["verify", "--man=no", NAME].as_slice(),
        &["security", "--no-pager", "--threshold", EXPOSURE, NAME],
    ] {
        let output = Command::new("systemd-analyze").args(arguments).output()?;
        let found = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {found}{said}");
        ensure!(arguments[0] == "security" || said.is_empty(), "{said}");
    }
    Ok(())
}

/// What the agent can do, as far as capabilities decide about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Able {
    /// It names programs of root.
    NameRoots,
    /// It names programs of other users.
    NameOthers,
    /// It names programs of other users in what it traces.
    NameTraced,
    /// It counts the connections of other network namespaces.
    Namespaces,
    /// It knows the idle timeout of IPVS.
    Ipvs,
    /// It tests its hooks.
    SelfTest,
}

impl Able {
    const ALL: [Self; 6] = [
        Self::NameRoots,
        Self::NameOthers,
        Self::NameTraced,
        Self::Namespaces,
        Self::Ipvs,
        Self::SelfTest,
    ];
}

/// Connections and a balancer that tell what the agent can do.
struct World {
    /// Connections of root and of another user, and one in another network namespace.
    held: [HeldConnection; 3],
}

impl World {
    fn build() -> Result<Self> {
        ipvs::usable()?;
        ipvsadm(&["-A", "-t", "192.0.2.1:80", "-s", "rr"])?;
        ipvsadm(&["--set", "50", "0", "0"])?;
        // The process that holds it keeps the namespace.
        let elsewhere = thread::spawn(|| {
            netns::enter_new()?;
            Connection::open()?.held_by(0)
        });
        let elsewhere = elsewhere.join().map_err(|_| anyhow!("it panicked"))??;
        Ok(Self {
            held: [
                Connection::open()?.held_by(0)?,
                Connection::open()?.probing()?.held_by(NOBODY)?,
                elsewhere,
            ],
        })
    }

    /// The metrics of a service that has read the connections, has traced some probes, and has
    /// said what it can't do.
    fn counted_by(&self, service: &Service) -> Result<HttpResponse> {
        let [_, other, _] = &self.held;
        let mut metrics = None;
        wait_until("the connections are counted", || {
            let found = service.get("/metrics")?;
            let is_over = |name, part: &str, least| {
                let found = found.metric(name, part);
                found.is_ok_and(|it| it > least)
            };
            let is_counted = is_over("kaprobe_snapshot_timestamp_seconds", "", 0.0)
                && is_over(PROBES, &other.labels(""), 7.0);
            metrics = is_counted.then_some(found);
            Ok(is_counted && service.said()?.contains("kaprobe: snapshot: "))
        })?;
        metrics.context("no metrics")
    }

    /// What a running service can do.
    fn able(&self, metrics: &HttpResponse, said: &str) -> Vec<Able> {
        let [root, other, elsewhere] = &self.held;
        // Some of them are of the first moment.
        let probes = |part: &str| {
            let found = metrics.metric(PROBES, part);
            found.unwrap_or_default()
        };
        let named_probes = probes(&other.labels(NAMED));
        // A connection counts as one whatever its keepalive.
        let counted = |held: &HeldConnection, program: &str| {
            let found = metrics.metric("kaprobe_connections", &held.labels(program));
            found.is_ok_and(|it| it > 0.0)
        };
        let is = |able: &Able| match able {
            Able::NameRoots => counted(root, NAMED),
            Able::NameOthers => counted(other, NAMED),
            Able::NameTraced => 2.0 * named_probes > probes(&other.labels("")),
            Able::Namespaces => counted(elsewhere, ""),
            Able::Ipvs => metrics
                .metric("kaprobe_fates_judged", "")
                .is_ok_and(|it| it > 0.0),
            Able::SelfTest => !said.contains("without a self-test"),
        };
        Able::ALL.into_iter().filter(is).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The guest ends soon. An error changes nothing.
        let _ = ipvsadm(&["-C"]);
    }
}

/// The labels of a series whose program is known.
const NAMED: &str = "{program=\"sleep\",unit=\"guest.service\",";

/// Capabilities that are left out, and what the agent then can't do: `docs/operate.md` has it in
/// words.
const LOST: &[(&[&str], &[Able])] = &[
    (&[], &[]),
    // CAP_SYS_ADMIN includes both (`bpf_capable` and `perfmon_capable`,
    // include/linux/capability.h).
    (&["CAP_BPF", "CAP_PERFMON"], &[]),
    (
        &["CAP_SYS_PTRACE"],
        &[
            Able::NameRoots,
            Able::NameOthers,
            Able::NameTraced,
            Able::Namespaces,
        ],
    ),
    (&["CAP_DAC_READ_SEARCH"], &[]),
    (&["CAP_SYS_ADMIN"], &[Able::Namespaces, Able::SelfTest]),
    (&["CAP_NET_ADMIN"], &[Able::Ipvs, Able::SelfTest]),
];

/// Without one of the unit's capabilities, the agent lacks what the documentation says, and
/// nothing else.
pub fn each_capability_is_needed() -> Result<()> {
    let service = Service::install(&[])?;
    let all: Vec<_> = setting("CapabilityBoundingSet")?.split(' ').collect();
    for name in &all {
        let is_tried = LOST.iter().any(|(left_out, _)| left_out.contains(name));
        ensure!(is_tried, "{name} is not tried");
    }
    let world = World::build()?;
    let mut wrong = String::new();
    for (left_out, lost) in LOST {
        service.change(&[&without(left_out)])?;
        service.start()?;
        let able = world.able(&world.counted_by(&service)?, &service.said()?);
        systemctl(&["stop", NAME])?;
        let expected = Able::ALL.into_iter().filter(|it| !lost.contains(it));
        if !able.iter().copied().eq(expected) {
            let said = service.said()?;
            write!(wrong, "\nwithout {left_out:?}: only {able:?}\n{said}")?;
        }
    }
    ensure!(wrong.is_empty(), "{wrong}");

    // Without CAP_SYS_ADMIN, both are needed. systemd does not try again.
    for needed in ["CAP_BPF", "CAP_PERFMON"] {
        service.change(&[&without(&["CAP_SYS_ADMIN", needed])])?;
        ensure!(
            systemctl(&["start", NAME]).is_err(),
            "{needed} is not needed"
        );
        let said = service.said()?;
        ensure!(
            said.contains(&format!("tracing needs {needed}: ")),
            "{said}"
        );
        let ended = [
            service.show("ActiveState")?,
            service.show("ExecMainStatus")?,
        ];
        ensure!(ended == ["failed", "3"], "{ended:?}");
    }
    Ok(())
}

/// A line that takes capabilities from the unit.
fn without(capabilities: &[&str]) -> String {
    match capabilities {
        // An empty list would be that of all.
        [] => String::new(),
        some => {
            let some = some.join(" ");
            format!("CapabilityBoundingSet=~{some}\nAmbientCapabilities=~{some}")
        }
    }
}
