//! Programs that attach and see nothing are noticed: at the start, and during a trace.

use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::traffic::load::Load;
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, doctor, mounts};
use rustix::mount::{MountFlags, mount};

/// Lets ftrace call what was attached to functions.
const FTRACE: &str = "/proc/sys/kernel/ftrace_enabled";
/// Lets kprobes run.
const KPROBES: &str = "/sys/kernel/debug/kprobes/enabled";

/// Whether nothing but the tests runs on this kernel.
fn is_own_kernel() -> bool {
    env::var_os("KAPROBE_IN_VM").is_some()
}

/// Skips the test unless nothing else runs on this kernel.
fn needs_own_kernel() -> Result<()> {
    match is_own_kernel() {
        true => Ok(()),
        false => Err(Skip("switches off tracing for all: only in a virtual machine".into()).into()),
    }
}

/// A switch of the whole kernel that is off until this is dropped.
struct SwitchedOff(&'static str);

impl SwitchedOff {
    /// `None` if this kernel does not allow it: 7.3 refuses to switch ftrace off, and 5.10
    /// does while a function is hooked (`ftrace_enable_sysctl`, kernel/trace/ftrace.c).
    fn new(path: &'static str) -> Result<Option<Self>> {
        match fs::write(path, "0") {
            Ok(()) => Ok(Some(Self(path))),
            Err(e) => match e.raw_os_error() {
                Some(libc::EOPNOTSUPP | libc::EBUSY) => Ok(None),
                _ => Err(e).context(path),
            },
        }
    }
}

impl Drop for SwitchedOff {
    fn drop(&mut self) {
        // Drop cannot return an error; the tests that follow would fail.
        let _ = fs::write(self.0, "1");
    }
}

/// With ftrace or kprobes switched off, `doctor` names the switch, a trace falls back to a
/// way that sees everything, and a way that sees nothing is refused.
pub fn what_sees_nothing_is_not_used() -> Result<()> {
    const KERNEL: i32 = 4;
    needs_own_kernel()?;
    netns::enter_new()?;
    mounts::enter_new()?;
    let debug = Path::new("/sys/kernel/debug");
    if !debug.join("kprobes").exists() {
        mount("none", debug, "debugfs", MountFlags::empty(), None)?;
    }
    for (switch, blind) in [
        (FTRACE, &["fentry", "kprobe"][..]),
        (KPROBES, &["kprobe"][..]),
    ] {
        let Some(off) = SwitchedOff::new(switch)? else {
            continue;
        };
        let report = doctor::report(command::kaprobe()?)?;
        let timer = &report["hooks"][0];
        let tried = timer["tried"].as_array().context("nothing tried")?;
        for way in tried {
            let name = way["way"].as_str().context("no name")?;
            let works = !blind.contains(&name);
            ensure!(way["works"] == works, "{switch} is 0: {way}");
            let why = way["why"].as_str().unwrap_or_default();
            ensure!(works || why.contains(switch), "{switch} is 0: {way}");
        }
        for way in blind {
            let output = command::run(&["trace", "--attach", way, "--duration", "1s"])?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            let refused = output.status.code() == Some(KERNEL) && stderr.contains(switch);
            ensure!(refused, "{switch} is 0: {way}: {output:?}");
        }
        trace_everything().context(switch)?;
        drop(off);
    }
    Ok(())
}

/// Traces in the way that kaprobe chooses, and compares with the kernel's counter.
fn trace_everything() -> Result<()> {
    let kaprobe = Kaprobe::trace(&["--netns", "self"])?.ready()?;
    let before = KernelCounters::read()?.keepalive;
    let load = Load::each_second(5, true)?;
    wait_until("probes were sent", || {
        Ok(KernelCounters::read()?.keepalive >= before + 10)
    })?;
    load.end()?;
    let counted = KernelCounters::read()?.keepalive - before;
    let told = kaprobe.stop()?.count(&["probe"]);
    ensure!(told == counted, "{told} told; the kernel counted {counted}");
    Ok(())
}

/// If tracing of functions is switched off during a trace, standard error and the log say
/// from when, and until when.
pub fn a_switch_is_noticed_during_a_trace() -> Result<()> {
    needs_own_kernel()?;
    netns::enter_new()?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("log.jsonl");
    let file = path.to_str().context("a path that is not UTF-8")?;
    let kaprobe =
        Kaprobe::trace(&["--netns", "self", "--attach", "fentry", "-o", file])?.ready()?;
    let noticed = |count| {
        wait_until("the switch was noticed", || {
            let log = fs::read_to_string(&path)?;
            Ok(log.matches("switched_off").count() >= count)
        })
    };
    let Some(off) = SwitchedOff::new(FTRACE)? else {
        return Err(Skip("this kernel does not let ftrace be switched off".into()).into());
    };
    noticed(1)?;
    drop(off);
    // The header says which hooks are attached to functions.
    let log = fs::read_to_string(&path)?;
    let header = log.lines().next().unwrap_or_default();
    let hooks = header.matches("\"fentry\"").count();
    ensure!(hooks >= 3, "hooks: {header}");
    noticed(2 * hooks)?;
    kaprobe.signal(rustix::process::Signal::INT)?;
    let finished = kaprobe.finish()?;
    for text in [
        "tcp_keepalive_timer by fentry sees nothing from now on: /proc/sys/kernel/ftrace_enabled is 0",
        "tcp_keepalive_timer by fentry sees events again",
        "tcp_keepalive_timer was switched off for some time",
    ] {
        ensure!(
            finished.stderr.contains(text),
            "no {text}: {}",
            finished.stderr
        );
    }
    let log = finished.clean()?;
    let lost = usize::try_from(log.count(&["lost"]))?;
    ensure!(lost == 2 * hooks, "{:?}", log.records);
    Ok(())
}

/// What a kaprobe does to test its hooks is shown by no other kaprobe.
pub fn self_tests_are_not_shown() -> Result<()> {
    let kaprobe = Kaprobe::trace(&["-e", "all"])?.ready()?;
    let report = doctor::report(command::kaprobe()?)?;
    ensure!(report["untested"].is_null(), "{report}");
    let log = kaprobe.stop()?;
    let own: Vec<_> = log
        .records
        .iter()
        .filter(|it| is_own_kernel() || it.text("by_comm") == Some(TESTBED_THREAD))
        .collect();
    ensure!(own.is_empty(), "{own:?}");
    Ok(())
}

/// The thread that makes what the hooks are to see.
const TESTBED_THREAD: &str = "self-test";
