//! Every filter, alone and combined, passes all records that match and no others.

use anyhow::{Context as _, Result, bail, ensure};
use kaprobe::traffic::pair::Path;
use kaprobe::traffic::script::ScriptedConnection;
use kaprobe_testkit::cgroup::TestCgroup;
use kaprobe_testkit::log::{ConnectionId, Record, TraceLog};
use kaprobe_testkit::netns;
use kaprobe_testkit::process::{Process, Task};
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::{play, scenarios};
use rustix::process::Signal;

/// A set of flags, and a predicate for the records that pass them.
struct FilterCase {
    flags: Vec<String>,
    passes: Box<dyn Fn(&Record) -> bool>,
}

fn row(flags: &str, passes: impl Fn(&Record) -> bool + 'static) -> FilterCase {
    FilterCase {
        flags: flags.split_whitespace().map(Into::into).collect(),
        passes: Box::new(passes),
    }
}

/// Two processes with the same traffic, in different network namespaces and cgroups.
struct TwoProcesses {
    here: Process,
    there: Process,
    cgroup: TestCgroup,
}

/// Filters by local, remote or either port.
pub fn by_port() -> Result<()> {
    check_all("ports", |processes| {
        let [(a, _), (b, _), .., (_, c)] = processes.ports()[..] else {
            bail!("too few connections");
        };
        let (low, high) = (a.min(b), a.max(b));
        let within = move |port| (low..=high).contains(&port);
        Ok(vec![
            row(&format!("-L {a}"), move |r| lport(r) == a),
            row(&format!("-D {c}"), move |r| rport(r) == c),
            row(&format!("-L {low}-{high}"), move |r| within(lport(r))),
            row(&format!("-P {a},{c}"), move |r| {
                [a, c].contains(&lport(r)) || [a, c].contains(&rport(r))
            }),
        ])
    })
}

/// Filters by address and family.
pub fn by_address() -> Result<()> {
    check_all("addresses", |_| {
        Ok(vec![
            row("-4", is_v4),
            row("-6", |r| !is_v4(r)),
            row("--addr ::1", |r| r.text("laddr") == Some("::1")),
            // Also matches IPv4 traffic of IPv6 sockets.
            row("--addr 127.0.0.0/8", |r| {
                r.text("laddr").is_some_and(|a| a.ends_with("127.0.0.1"))
            }),
        ])
    })
}

/// Filters by process, network namespace, cgroup and event.
pub fn by_process_netns_cgroup_and_event() -> Result<()> {
    check_all("places", |processes| {
        let (pid, here, there) = (
            processes.here.pid(),
            processes.here.netns,
            processes.there.netns,
        );
        let cgroup = processes.cgroup.path.display();
        Ok(vec![
            row(&format!("-p {pid}"), move |r| is_of(r, pid)),
            row("--comm there", |r| r.text("comm") == Some("there")),
            row(&format!("--netns {there}"), move |r| is_in(r, there)),
            row(&format!("--cgroup {cgroup}"), move |r| is_in(r, here)),
            row("-e timeout -e rst_sent", |r| {
                ["timeout", "rst_sent"].contains(&r.event())
            }),
        ])
    })
}

/// Different filters mean AND.
pub fn combined() -> Result<()> {
    check_all("combined", |processes| {
        let [(a, d), (b, _), .., (_, c)] = processes.ports()[..] else {
            bail!("too few connections");
        };
        let (pid, here, there) = (
            processes.here.pid(),
            processes.here.netns,
            processes.there.netns,
        );
        let cgroup = processes.cgroup.path.display();
        Ok(vec![
            row(&format!("-4 -L {a} -L {b} -D {c},{d}"), move |r| {
                is_v4(r) && lport(r) == a && rport(r) == d
            }),
            row(
                &format!("-6 --netns {there} --comm there -e probe"),
                move |r| !is_v4(r) && is_in(r, there) && r.event() == "probe",
            ),
            row(
                &format!("-e timeout --cgroup {cgroup} --addr 127.0.0.1 -4"),
                move |r| is_v4(r) && is_in(r, here) && r.event() == "timeout",
            ),
            row(&format!("-p {pid} -e probe,answered -6 -D {c}"), move |r| {
                is_of(r, pid)
                    && !is_v4(r)
                    && rport(r) == c
                    && ["probe", "answered"].contains(&r.event())
            }),
        ])
    })
}

/// The BPF programs apply all filters but the ones that need user space: kaprobe does not
/// see any socket that they exclude.
pub fn in_the_kernel() -> Result<()> {
    netns::enter_new()?;
    let cgroup = TestCgroup::new("filters")?;
    let cgroup = cgroup.path.to_str().context("the path is not UTF-8")?;
    let mut scripted = [ScriptedConnection::new(scenarios::SILENT, Path::V4)?];
    let port = scripted[0].local.port().to_string();
    // The main thread is still in the original namespace.
    let elsewhere = format!("pid:{}", std::process::id());
    let rows: [(&[&str], bool); 9] = [
        (&["-L", "1"], false),
        (&["-D", "1"], false),
        (&["-P", "1"], false),
        (&["--addr", "10.0.0.0/8"], false),
        (&["-6"], false),
        (&["--netns", &elsewhere, "-P", &port], false),
        (&["--cgroup", cgroup], false),
        (&["-e", "fin_wait2"], false),
        (&["-p", "1"], true),
    ];
    let starting: Vec<_> = rows
        .iter()
        .map(|(flags, _)| {
            let here: &[&str] = if flags.contains(&"--netns") {
                &[]
            } else {
                &["--netns", "/proc/self/ns/net"]
            };
            Kaprobe::trace(&[here, *flags].concat())
        })
        .collect::<Result<_>>()?;
    let kaprobes: Vec<_> = starting
        .into_iter()
        .map(Kaprobe::ready)
        .collect::<Result<_>>()?;
    play::play_out(&mut scripted)?;
    for ((flags, sees), kaprobe) in rows.iter().zip(kaprobes) {
        kaprobe.signal(Signal::INT)?;
        let stderr = kaprobe.finish()?.stderr;
        ensure!(
            stderr.contains("kaprobe: 0 sockets seen") != *sees,
            "{flags:?}:\n{stderr}"
        );
    }
    Ok(())
}

fn lport(record: &Record) -> u64 {
    record.number("lport").unwrap_or_default()
}

fn rport(record: &Record) -> u64 {
    record.number("rport").unwrap_or_default()
}

fn is_v4(record: &Record) -> bool {
    record.text("family") == Some("inet")
}

fn is_of(record: &Record, pid: u32) -> bool {
    record.number("pid") == Some(pid.into())
}

fn is_in(record: &Record, netns: u64) -> bool {
    record.number("netns") == Some(netns)
}

impl TwoProcesses {
    fn start(name: &str) -> Result<Self> {
        netns::enter_new()?;
        let cgroup = TestCgroup::new(name)?;
        let plays = [scenarios::ANSWERED, scenarios::SILENT, scenarios::ACCEPTED];
        let here = Task {
            cgroup: Some(cgroup.path.clone()),
            ..Task::new("here", &plays)
        };
        let there = Task {
            own_namespaces: true,
            ..Task::new("there", &plays)
        };
        Ok(Self {
            here: Process::start(here)?,
            there: Process::start(there)?,
            cgroup,
        })
    }

    /// The local and remote ports of the connections of `here`.
    fn ports(&self) -> Vec<(u64, u64)> {
        let connections = self.here.connections.iter();
        connections
            .map(|(_, (_, local, remote))| (local.port().into(), remote.port().into()))
            .collect()
    }

    fn play(mut self) -> Result<()> {
        for process in [&mut self.here, &mut self.there] {
            process.go()?;
        }
        for process in [&mut self.here, &mut self.there] {
            process.wait_played()?;
        }
        self.here.dismiss()?;
        self.there.dismiss()
    }
}

/// Runs one kaprobe per row and one without filters on the same traffic, and compares.
fn check_all(name: &str, rows: impl Fn(&TwoProcesses) -> Result<Vec<FilterCase>>) -> Result<()> {
    FilterRun::play(name, rows)?.check()
}

/// The logs of one run.
struct FilterRun {
    unfiltered: TraceLog,
    filtered: Vec<(FilterCase, TraceLog)>,
    /// The network namespaces of the traffic.
    namespaces: [u64; 2],
}

impl FilterRun {
    fn play(name: &str, rows: impl Fn(&TwoProcesses) -> Result<Vec<FilterCase>>) -> Result<Self> {
        let processes = TwoProcesses::start(name)?;
        let rows = rows(&processes)?;
        let starting = rows
            .iter()
            .map(|row| Kaprobe::trace(&row.flags.iter().map(String::as_str).collect::<Vec<_>>()));
        let starting = starting.collect::<Result<Vec<_>>>()?;
        let unfiltered = Kaprobe::trace(&[])?.ready()?;
        let kaprobes = starting.into_iter().map(Kaprobe::ready);
        let kaprobes = kaprobes.collect::<Result<Vec<_>>>()?;

        let namespaces = [processes.here.netns, processes.there.netns];
        processes.play()?;
        let unfiltered = unfiltered.stop()?;
        let logs = kaprobes.into_iter().map(Kaprobe::stop);
        let logs = logs.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            unfiltered,
            filtered: rows.into_iter().zip(logs).collect(),
            namespaces,
        })
    }

    fn check(&self) -> Result<()> {
        let filtered = self.filtered.iter().map(|(_, log)| log);
        for log in filtered.chain([&self.unfiltered]) {
            log.nothing_was_skipped(None)?;
        }
        ensure!(self.unfiltered.count(&["lost"]) == 0, "events were lost");
        for (row, log) in &self.filtered {
            check(row, &self.unfiltered, log, &self.namespaces)?;
        }
        Ok(())
    }
}

/// Checks that no record passed that the filter excludes, and that every matching record
/// of this test's namespaces passed. In other namespaces there may be traffic that only
/// one of the two kaprobes has seen.
fn check(
    row: &FilterCase,
    unfiltered: &TraceLog,
    filtered: &TraceLog,
    namespaces: &[u64],
) -> Result<()> {
    let stray = filtered.records.iter().find(|record| !(row.passes)(record));
    ensure!(stray.is_none(), "{:?} passed {stray:?}", row.flags);
    let ours = |log: &TraceLog| {
        let mut seen: Vec<(ConnectionId, String)> = log
            .records
            .iter()
            .filter(|r| r.number("netns").is_some_and(|n| namespaces.contains(&n)))
            .filter(|record| (row.passes)(record))
            .map(|record| Ok((record.connection()?, record.label())))
            .collect::<Result<_>>()?;
        seen.sort();
        Ok::<_, anyhow::Error>(seen)
    };
    let (expected, seen) = (ours(unfiltered)?, ours(filtered)?);
    ensure!(
        !expected.is_empty(),
        "{:?} matches nothing: the row shows nothing",
        row.flags
    );
    ensure!(
        expected == seen,
        "{:?}\npassed: {seen:#?}\nexpected: {expected:#?}",
        row.flags
    );
    Ok(())
}
