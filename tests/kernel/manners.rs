//! How kaprobe starts and ends: it refuses with one line and leaves nothing, it stops
//! when told to, and takes everything with it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path as FilePath;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use kaprobe::traffic::pair::{Keepalive, Path};
use kaprobe_testkit::bpf::{self, Object};
use kaprobe_testkit::command::{binary, run};
use kaprobe_testkit::doctor;
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::log::Log;
use kaprobe_testkit::mounts;
use kaprobe_testkit::netns::{self, Counters};
use kaprobe_testkit::streams;
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::load::{Load, LoadMember};
use kaprobe_testkit::wait::wait_until;
use rustix::process::Signal;

/// Some connections with a probe a second each.
fn some_probes() -> Result<Load> {
    let member = LoadMember {
        keepalive: Keepalive::new(1, 1, 3),
        answered: true,
    };
    Ok(Load::open(Path::V4, Path::V4.loopback(), [member; 20])?)
}

fn wait_for_probes(more: u64) -> Result<()> {
    let before = Counters::read()?;
    wait_until("probes were sent", || {
        Ok(Counters::read()?.keepalive >= before.keepalive + more)
    })
}

/// However it is made to end: it exits with 0, its output is complete, and nothing of
/// it stays in the kernel.
pub fn stops_cleanly() -> Result<()> {
    type End = fn(&Kaprobe) -> Result<()>;
    let waits: End = |_| Ok(());
    let ends: [(&str, &[&str], End); 4] = [
        ("Ctrl-C", &[], |kaprobe| kaprobe.signal(Signal::INT)),
        ("SIGTERM", &[], |kaprobe| kaprobe.signal(Signal::TERM)),
        ("-c", &["-c", "30"], waits),
        ("--duration", &["--duration", "20s"], waits),
    ];
    netns::enter_new()?;
    let kaprobes: Vec<_> = ends
        .iter()
        .map(|(_, arguments, _)| {
            Kaprobe::trace(&[&["--netns", "/proc/self/ns/net"], *arguments].concat())
        })
        .collect::<Result<_>>()?;
    let kaprobes: Vec<_> = kaprobes
        .into_iter()
        .map(Kaprobe::ready)
        .collect::<Result<_>>()?;
    let held = kaprobes
        .iter()
        .map(|kaprobe| bpf::held_by(kaprobe.pid()))
        .collect::<Result<Vec<_>>>()?;
    let load = some_probes()?;
    wait_for_probes(60)?;
    for ((name, _, end), (kaprobe, held)) in ends.iter().zip(kaprobes.into_iter().zip(held)) {
        end(&kaprobe)?;
        let log = kaprobe.finish()?.clean().context(*name)?;
        ensure!(log.count(&["probe"]) > 0, "{name}: it saw nothing");
        ensure!(
            *name != "-c" || log.records.len() == 30,
            "-c 30: {}",
            log.records.len()
        );
        gone(name, &held)?;
    }
    Ok(load.end()?)
}

/// Nobody reads its output any more: it ends quietly, with a summary and a whole log.
pub fn ends_quietly_with_its_reader() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("log.jsonl");
    let output = file.to_str().context("a strange path")?;
    let arguments = ["--netns", "/proc/self/ns/net", "-o", output];
    let mut kaprobe = Kaprobe::trace_unread(&arguments)?.ready()?;
    let held = bpf::held_by(kaprobe.pid())?;
    let load = some_probes()?;
    wait_for_probes(20)?;
    kaprobe.close_stdout();
    let finished = kaprobe.finish()?;
    ensure!(finished.status.success(), "{finished:?}");
    ensure!(
        finished.stderr.contains(" seen\n"),
        "no summary: {finished:?}"
    );
    let text = fs::read_to_string(&file)?;
    let log = Log::parse(&text.lines().collect::<Vec<_>>())?;
    ensure!(text.ends_with('\n'), "its log breaks off in a line");
    ensure!(log.count(&["probe"]) > 0, "its log has no records");
    gone("closed pipe", &held)?;
    Ok(load.end()?)
}

/// With standard output or error closed or full, each command ends as it would have
/// ended, or says that there is no room.
pub fn ends_well_with_streams_that_fail() -> Result<()> {
    const NOT_SAFE: i32 = 5;
    netns::enter_new()?;
    // Without keepalive: not safe.
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

fn gone(name: &str, held: &[Object]) -> Result<()> {
    let of = |kind: fn(&Object) -> bool| held.iter().any(kind);
    ensure!(
        of(|o| matches!(o, Object::Program(_))) && of(|o| matches!(o, Object::Map(_))),
        "{name}: it held {held:?} while it traced: this test sees nothing"
    );
    // The kernel frees them once no CPU can be running them.
    wait_until(&format!("{held:?} are gone after {name}"), || {
        let left = held.iter().map(|object| object.exists());
        Ok(!left.collect::<Result<Vec<_>>>()?.contains(&true))
    })
}

/// Killed in the middle of an export: every complete line of the file is a record.
pub fn leaves_whole_lines_when_killed() -> Result<()> {
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("log.jsonl");
    let output = file.to_str().context("a strange path")?;
    let kaprobe = Kaprobe::trace(&["--netns", "/proc/self/ns/net", "-o", output])?.ready()?;
    let held = bpf::held_by(kaprobe.pid())?;
    let load = some_probes()?;
    wait_until("the export has some lines", || {
        Ok(fs::read(&file).is_ok_and(|text| text.iter().filter(|b| **b == b'\n').count() > 50))
    })?;
    kaprobe.signal(Signal::KILL)?;
    kaprobe.finish()?;
    load.end()?;
    let text = fs::read_to_string(&file)?;
    let (complete, _cut_off) = text.rsplit_once('\n').context("no line")?;
    let log = Log::parse(&complete.lines().collect::<Vec<_>>())?;
    ensure!(
        log.records.len() >= 50,
        "only {} records",
        log.records.len()
    );
    gone("SIGKILL", &held)
}

/// What is not there, or may not be touched, it refuses: one line on stderr that names
/// the trouble, an exit code for its kind, nothing on stdout and no file.
pub fn refuses_what_it_cannot_do() -> Result<()> {
    const FAILURE: i32 = 1;
    let dir = tempfile::tempdir()?;
    let existing = dir.path().join("existing.jsonl");
    fs::write(&existing, "precious")?;
    let existing = existing.to_str().context("a strange path")?;
    let nowhere = dir.path().join("no/such/directory/log.jsonl");
    let nowhere = nowhere.to_str().context("a strange path")?;
    // The arguments, the exit code, and what the line on stderr has to name.
    let rows: &[(&[&str], i32, &str)] = &[
        (&["-o", existing], FAILURE, existing),
        (&["-o", nowhere], FAILURE, nowhere),
        (&["--netns", "/no/such/netns"], FAILURE, "/no/such/netns"),
        (&["--netns", "1"], FAILURE, "inode number 1"),
        (&["--cgroup", "/no/such/cgroup"], FAILURE, "/no/such/cgroup"),
    ];
    for &(arguments, code, names) in rows {
        let output = run(&[&["trace", "--duration", "1s"], arguments].concat())?;
        refused(&format!("{arguments:?}"), &output, code, names)?;
    }
    ensure!(
        fs::read_to_string(existing)? == "precious",
        "an existing file was touched"
    );
    let files = fs::read_dir(dir.path())?.count();
    ensure!(files == 1, "{files} files where there was one");
    Ok(())
}

fn refused(what: &str, output: &Output, code: i32, names: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    let told = format!("{what}: {}\n{said}", output.status);
    ensure!(
        output.status.code() == Some(code),
        "not exit code {code}: {told}"
    );
    ensure!(output.stdout.is_empty(), "it wrote to stdout: {told}");
    ensure!(said.contains(names), "not named, {names}: {told}");
    ensure!(!said.contains("panicked"), "{told}");
    ensure!(said.trim_end().lines().count() == 1, "not one line: {told}");
    Ok(())
}

/// A way to attach that this kernel does not have is refused, with a code of its own.
pub fn refuses_a_way_this_kernel_lacks() -> Result<()> {
    let ways = doctor::ways()?;
    let all = ["fentry", "kprobe", "tracepoint"];
    let Some(lacking) = all.into_iter().find(|way| !ways.iter().any(|w| w == way)) else {
        return Err(Skip("this kernel has every way to attach".into()).into());
    };
    let output = run(&["trace", "--duration", "1s", "--attach", lacking])?;
    refused(lacking, &output, 4, lacking)
}

/// Where the kernel publishes no types, or publishes what are none: refused.
pub fn refuses_types_it_cannot_read() -> Result<()> {
    const KERNEL: i32 = 4;
    let types = FilePath::new("/sys/kernel/btf");
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
        refused(what, &output, KERNEL, "/sys/kernel/btf/vmlinux")?;
    }
    Ok(())
}

/// Run by nobody: refused for want of privilege, with a code of its own.
pub fn refuses_to_run_without_privilege() -> Result<()> {
    const NOBODY: u32 = 65534;
    const PRIVILEGE: i32 = 3;
    let dir = tempfile::tempdir()?;
    let kaprobe = reachable(dir.path())?;
    let log = dir.path().join("log.jsonl");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
    let output = Command::new(kaprobe)
        .args(["trace", "--json", "-o"])
        .arg(&log)
        .stdin(Stdio::null())
        .gid(NOBODY)
        .uid(NOBODY)
        .output()?;
    refused("as nobody", &output, PRIVILEGE, "CAP_")?;
    ensure!(!log.exists(), "it made a file");
    Ok(())
}

/// A copy of the binary where everybody may run it.
pub fn reachable(dir: &FilePath) -> Result<std::path::PathBuf> {
    let copy = dir.join("kaprobe");
    fs::copy(binary()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}
