//! How kaprobe starts and ends: a refusal is one line and leaves no files, and a stopped
//! trace leaves nothing in the kernel.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use kaprobe_testkit::bpf::{self, Object};
use kaprobe_testkit::command::{binary, copy_binary, run};
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::log::TraceLog;
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::load::Load;
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{doctor, mounts, streams};
use rustix::process::Signal;

/// Opens connections that each send one probe per second.
fn wait_for_probes(more: u64) -> Result<()> {
    let before = KernelCounters::read()?;
    wait_until("probes were sent", || {
        Ok(KernelCounters::read()?.keepalive >= before.keepalive + more)
    })
}

/// However a trace is stopped, it exits with 0, its output is complete, and nothing of it
/// stays in the kernel.
pub fn stops_cleanly() -> Result<()> {
    type Stop = fn(&Kaprobe) -> Result<()>;
    let waits: Stop = |_| Ok(());
    let stops: [(&str, &[&str], Stop); 4] = [
        ("Ctrl-C", &[], |kaprobe| kaprobe.signal(Signal::INT)),
        ("SIGTERM", &[], |kaprobe| kaprobe.signal(Signal::TERM)),
        ("-c", &["-c", "30"], waits),
        ("--duration", &["--duration", "20s"], waits),
    ];
    netns::enter_new()?;
    let start = |(_, arguments, _): &(&str, &[&str], Stop)| {
        Kaprobe::trace(&[&["--netns", "/proc/self/ns/net"], *arguments].concat())
    };
    let (timed, others) = stops.split_last().context("there is no way to stop")?;
    let others: Vec<_> = others.iter().map(start).collect::<Result<_>>()?;
    let kaprobes = others.into_iter().map(Kaprobe::ready);
    let mut kaprobes: Vec<_> = kaprobes.collect::<Result<_>>()?;
    // One ends after some records, and is ready before they come; one ends after some time,
    // and starts when they come.
    let held_by = |kaprobe: &Kaprobe| bpf::held_objects(kaprobe.pid());
    let mut held: Vec<_> = kaprobes.iter().map(held_by).collect::<Result<_>>()?;
    let load = Load::each_second(20, true)?;
    let timed = start(timed)?.ready()?;
    held.push(held_by(&timed)?);
    kaprobes.push(timed);
    wait_for_probes(60)?;
    for ((name, _, stop), (kaprobe, held)) in stops.iter().zip(kaprobes.into_iter().zip(held)) {
        stop(&kaprobe)?;
        let log = kaprobe.finish()?.clean().context(*name)?;
        ensure!(log.count(&["probe"]) > 0, "{name}: no probe was reported");
        ensure!(
            *name != "-c" || log.records.len() == 30,
            "-c 30: {}",
            log.records.len()
        );
        wait_until_freed(name, &held)?;
    }
    Ok(load.end()?)
}

/// When the reader of its output closes the pipe, kaprobe ends with a summary and no
/// error. With a log it goes on: the log is whole, and has every probe.
pub fn ends_when_stdout_is_closed() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("log.jsonl");
    let output = file.to_str().context("the path is not UTF-8")?;
    let netns = ["--netns", "/proc/self/ns/net"];
    let mut alone = Kaprobe::trace_unread(&netns)?.ready()?;
    let mut logging = Kaprobe::trace_unread(&[&netns[..], &["-o", output]].concat())?.ready()?;
    let held = bpf::held_objects(alone.pid())?;
    let before = KernelCounters::read()?;
    let own_cpu = OwnCpu::take()?;
    let load = Load::each_second(20, true)?;
    wait_for_probes(20)?;
    alone.close_stdout();
    logging.close_stdout();
    let finished = alone.finish()?;
    ensure!(finished.status.success(), "{finished:?}");
    ensure!(
        finished.stderr.contains(" seen\n"),
        "no summary: {finished:?}"
    );
    wait_until_freed("closed pipe", &held)?;
    wait_for_probes(40)?;
    load.end()?;
    drop(own_cpu);
    let probes = KernelCounters::read()?.keepalive - before.keepalive;
    logging.signal(Signal::INT)?;
    let finished = logging.finish()?;
    ensure!(finished.status.success(), "{finished:?}");
    let text = fs::read_to_string(&file)?;
    let log = TraceLog::parse(&text.lines().collect::<Vec<_>>())?;
    ensure!(
        log.count(&["probe", "probe_congested"]) == probes,
        "the log does not have {probes} probes: {finished:?}"
    );
    Ok(())
}

/// With standard output or error closed or full, each command ends with its normal exit
/// code, or reports that the device is full.
pub fn exit_codes_with_failing_streams() -> Result<()> {
    const NOT_SAFE: i32 = 5;
    netns::enter_new()?;
    // A connection without keepalive is not safe.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connected = TcpStream::connect(listener.local_addr()?)?;
    let rows: &[(&[&str], i32)] = &[
        (&["trace", "--duration", "1s"], 0),
        (&["trace", "--duration", "1s", "--json", "--quiet"], 0),
        (&["sockets"], 0),
        (&["sockets", "--json", "--all-netns"], 0),
        (&["audit", "--idle-timeout", "350s"], 0),
        (&["audit", "--idle-timeout", "350s", "--loopback"], NOT_SAFE),
        (&["doctor"], 0),
        (&["demo"], 0),
    ];
    let binary = binary()?;
    for &(arguments, code) in rows {
        let command = || {
            let mut command = Command::new(&binary);
            command.args(arguments);
            command
        };
        streams::check(command, code, true)?;
    }
    drop(connected);
    Ok(())
}

/// Waits until the kernel has freed the BPF objects that a trace has held.
pub fn wait_until_freed(name: &str, held: &[Object]) -> Result<()> {
    let holds = |kind: fn(&Object) -> bool| held.iter().any(kind);
    ensure!(
        holds(|o| matches!(o, Object::Program(_))) && holds(|o| matches!(o, Object::Map(_))),
        "{name}: kaprobe held only {held:?} while it traced: the test shows nothing"
    );
    // The kernel frees a program once no CPU can be running it.
    wait_until(&format!("{held:?} are freed after {name}"), || {
        let left = held.iter().map(|object| object.exists());
        Ok(!left.collect::<Result<Vec<_>>>()?.contains(&true))
    })
}

/// After SIGKILL during an export, every complete line of the file is a record.
pub fn log_has_whole_lines_after_sigkill() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("log.jsonl");
    let output = file.to_str().context("the path is not UTF-8")?;
    let kaprobe = Kaprobe::trace(&["--netns", "/proc/self/ns/net", "-o", output])?.ready()?;
    let held = bpf::held_objects(kaprobe.pid())?;
    let load = Load::each_second(20, true)?;
    wait_until("the export has more than 50 lines", || {
        Ok(fs::read(&file).is_ok_and(|text| text.iter().filter(|b| **b == b'\n').count() > 50))
    })?;
    kaprobe.signal(Signal::KILL)?;
    kaprobe.finish()?;
    load.end()?;
    let text = fs::read_to_string(&file)?;
    let (complete, _cut_off) = text.rsplit_once('\n').context("no line")?;
    let log = TraceLog::parse(&complete.lines().collect::<Vec<_>>())?;
    ensure!(
        log.records.len() >= 50,
        "only {} records",
        log.records.len()
    );
    wait_until_freed("SIGKILL", &held)
}

/// Arguments that name missing or existing files are refused: one line on stderr that
/// names the file, an exit code, nothing on stdout, and no new file.
pub fn refuses_impossible_arguments() -> Result<()> {
    const FAILURE: i32 = 1;
    let dir = tempfile::tempdir()?;
    let existing = dir.path().join("existing.jsonl");
    fs::write(&existing, "precious")?;
    let existing = existing.to_str().context("the path is not UTF-8")?;
    let nowhere = dir.path().join("no/such/directory/log.jsonl");
    let nowhere = nowhere.to_str().context("the path is not UTF-8")?;
    // The arguments, the exit code, and a text on stderr.
    let rows: &[(&[&str], i32, &str)] = &[
        (&["-o", existing], FAILURE, existing),
        (&["-o", nowhere], FAILURE, nowhere),
        (&["--netns", "/no/such/netns"], FAILURE, "/no/such/netns"),
        (&["--netns", "1"], FAILURE, "inode number 1"),
        (&["--cgroup", "/no/such/cgroup"], FAILURE, "/no/such/cgroup"),
    ];
    for &(arguments, code, names) in rows {
        let output = run(&[&["trace", "--duration", "1s"], arguments].concat())?;
        expect_refusal(&format!("{arguments:?}"), &output, code, names)?;
    }
    ensure!(
        fs::read_to_string(existing)? == "precious",
        "an existing file was touched"
    );
    let files = fs::read_dir(dir.path())?.count();
    ensure!(files == 1, "{files} files, expected 1");
    Ok(())
}

fn expect_refusal(what: &str, output: &Output, code: i32, names: &str) -> Result<()> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let run = format!("{what}: {}\n{stderr}", output.status);
    ensure!(
        output.status.code() == Some(code),
        "not exit code {code}: {run}"
    );
    ensure!(output.stdout.is_empty(), "kaprobe wrote to stdout: {run}");
    ensure!(stderr.contains(names), "no {names} on stderr: {run}");
    ensure!(!stderr.contains("panicked"), "{run}");
    let lines = stderr.trim_end().lines().count();
    ensure!(lines == 1, "not one line: {run}");
    Ok(())
}

/// A way to attach that this kernel lacks is refused, with its own exit code.
pub fn refuses_an_unsupported_way() -> Result<()> {
    let ways = doctor::ways()?;
    let all = ["fentry", "kprobe", "tracepoint"];
    let Some(lacking) = all.into_iter().find(|way| !ways.iter().any(|w| w == way)) else {
        return Err(Skip("this kernel has every way to attach".into()).into());
    };
    let output = run(&["trace", "--duration", "1s", "--attach", lacking])?;
    expect_refusal(lacking, &output, 4, lacking)
}

/// Missing or invalid BTF of the kernel is refused.
pub fn refuses_unreadable_btf() -> Result<()> {
    const KERNEL: i32 = 4;
    let types = Path::new("/sys/kernel/btf");
    mounts::enter_new()?;
    mounts::cover(types)?;
    for (what, content) in [
        ("none", None),
        ("cut off", Some(&b"\x9f\xeb\x01\0\x18\0\0\0"[..])),
        (
            "nonsense",
            Some(b"nonsense, and more of it than a header takes".as_slice()),
        ),
    ] {
        if let Some(content) = content {
            fs::write(types.join("vmlinux"), content)?;
        }
        let output = run(&["trace", "--duration", "1s"])?;
        expect_refusal(what, &output, KERNEL, "/sys/kernel/btf/vmlinux")?;
    }
    Ok(())
}

/// A trace without privileges is refused, with its own exit code.
pub fn refuses_to_run_without_privilege() -> Result<()> {
    const NOBODY: u32 = 65534;
    const PRIVILEGE: i32 = 3;
    let dir = tempfile::tempdir()?;
    let kaprobe = public_copy(dir.path())?;
    let log = dir.path().join("log.jsonl");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
    let output = Command::new(kaprobe)
        .args(["trace", "--json", "-o"])
        .arg(&log)
        .stdin(Stdio::null())
        .gid(NOBODY)
        .uid(NOBODY)
        .output()?;
    expect_refusal("as nobody", &output, PRIVILEGE, "CAP_")?;
    ensure!(!log.exists(), "kaprobe made a file");
    Ok(())
}

/// Makes a copy of the binary that every user can execute.
pub fn public_copy(dir: &Path) -> Result<std::path::PathBuf> {
    let copy = dir.join("kaprobe");
    copy_binary(&copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}
