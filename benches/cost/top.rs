//! Measures a refresh of `top` with many sockets beside one snapshot of `sockets`, and how soon
//! a key is answered meanwhile.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::child::Killed;
use kaprobe_testkit::{command, streams};
use procfs::process::Process;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::Plan;
use crate::load::Holders;
use crate::run;
use crate::sample::Measure;

/// The number of connections, with two sockets each.
const CONNECTIONS: u32 = 25_000;
/// The seconds between firings of a timer.
const SECONDS: u32 = 60;
/// The number of refreshes whose mean is taken.
const REFRESHES: u32 = 10;
/// The number of keys.
const KEYS: usize = 40;
/// The pause before a key. It is no multiple of the interval.
const PAUSE: Duration = Duration::from_millis(130);
/// The time for which the process that draws is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// What is asked for: no group is shown open.
const REQUEST: &[u8] = b"{\"Worst\":{\"open\":null}}\n";

/// Measures each subject once per round.
pub fn measure(plan: Plan) -> Result<()> {
    let _load = Holders::start(CONNECTIONS, SECONDS)?;
    for _ in 0..plan.rounds {
        let measure = Measure {
            name: "top.cpu",
            unit: "ms",
        };
        let mut sockets = command::kaprobe()?;
        sockets.arg("sockets");
        let used = run::until_exit(sockets).map(|it| it.cpu.as_secs_f64() * 1e3);
        measure.print("kaprobe sockets", used)?;
        measure.print("kaprobe top, a refresh", refresh())?;
        keys()?;
    }
    Ok(())
}

/// The CPU time of a refresh, ms: what the process that takes the snapshots uses. The other
/// only draws what it sums up.
fn refresh() -> Result<f64> {
    let mut child = command::kaprobe()?
        .args([
            "top",
            "--reader",
            "--netns",
            "self",
            "--idle-timeout",
            "350s",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map(Killed)?;
    let mut requests = child.stdin.take().context("no stdin")?;
    let mut answers = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut ask = || -> Result<Duration> {
        requests.write_all(REQUEST)?;
        let mut line = String::new();
        ensure!(answers.read_line(&mut line)? > 0, "no snapshot");
        cpu(child.id())
    };
    // The first loads the programs too.
    let before = ask()?;
    let mut after = before;
    for _ in 0..REFRESHES {
        after = ask()?;
    }
    Ok((after - before).as_secs_f64() * 1e3 / f64::from(REFRESHES))
}

/// Presses keys while snapshots are taken, and prints the time from a key to the first byte
/// that is drawn for it: the median and the longest. Then the CPU time of the process that
/// draws.
fn keys() -> Result<()> {
    let (master, terminal) = streams::sized_terminal(80, 24)?;
    let mut command = command::kaprobe()?;
    command.args(["top", "--netns", "self", "--interval", "100ms"]);
    command.env("TERM", "xterm");
    let mut child = on(&mut command, &terminal)?.spawn().map(Killed)?;
    let mut screen = File::from(master);
    let mut drawn = Vec::new();
    // Until the first snapshot is drawn: the processes of the load have this name.
    while !String::from_utf8_lossy(&drawn).contains("load") {
        let more = read(&screen, Duration::from_secs(60))?;
        ensure!(!more.is_empty(), "nothing is drawn");
        drawn.extend(more);
    }
    let mut answers = Vec::new();
    for _ in 0..KEYS {
        thread::sleep(PAUSE);
        while !read(&screen, Duration::ZERO)?.is_empty() {}
        let pressed = Instant::now();
        // Help, and back: the whole screen changes.
        screen.write_all(b"?")?;
        ensure!(
            !read(&screen, Duration::from_secs(10))?.is_empty(),
            "no answer"
        );
        answers.push(pressed.elapsed().as_secs_f64() * 1e3);
    }
    let (before, began) = (cpu(child.id())?, Instant::now());
    while began.elapsed() < WATCHED {
        read(&screen, Duration::from_millis(100))?;
    }
    let drawing = (cpu(child.id())? - before).as_secs_f64() / began.elapsed().as_secs_f64();
    child.kill()?;
    child.wait()?;
    let measure = Measure {
        name: "top.drawing",
        unit: "ms per s",
    };
    measure.print("kaprobe top", Ok(drawing * 1e3))?;
    answers.sort_by(f64::total_cmp);
    let print = |name, value| Measure { name, unit: "ms" }.print("kaprobe top", Ok(value));
    print("top.key", answers[answers.len() / 2])?;
    print("top.key.longest", answers[answers.len() - 1])
}

/// The CPU time that a process has used, its ended threads included.
fn cpu(pid: u32) -> Result<Duration> {
    let stat = Process::new(i32::try_from(pid)?)?.stat()?;
    let ticks = (stat.utime + stat.stime) as f64;
    let seconds = ticks / procfs::ticks_per_second() as f64;
    Ok(Duration::from_secs_f64(seconds))
}

/// Gives a command a terminal.
fn on<'a>(command: &'a mut Command, terminal: &OwnedFd) -> Result<&'a mut Command> {
    Ok(command
        .stdin(terminal.try_clone()?)
        .stdout(terminal.try_clone()?)
        .stderr(terminal.try_clone()?))
}

/// What is drawn next on a screen; nothing if that takes longer.
fn read(screen: &File, most: Duration) -> Result<Vec<u8>> {
    let mut fd = [PollFd::new(screen, PollFlags::IN)];
    if poll(&mut fd, Some(&Timespec::try_from(most)?))? == 0 {
        return Ok(Vec::new());
    }
    let mut drawn = vec![0; 1 << 16];
    let mut screen = screen;
    let length = screen.read(&mut drawn)?;
    drawn.truncate(length);
    Ok(drawn)
}
