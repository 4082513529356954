//! `kaprobe top` in a real terminal: tmux.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use kaprobe::traffic::pair::{Keepalive, Path, Planned, Side};
use kaprobe_testkit::tmux::{PROMPT, Tmux};
use kaprobe_testkit::traffic::load::{Load, LoadMember};
use kaprobe_testkit::traffic::lock::LockHeld;
use kaprobe_testkit::unprivileged::{NOBODY, PublicCopy};
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, netns, package};
use rustix::process::{Pid, Signal, kill_process};

/// What the shell says before `top` runs.
const BEFORE: &str = "said before";

/// The command line of `top` for the connections of this namespace.
fn top(arguments: &str) -> Result<String> {
    let binary = command::binary()?;
    let binary = binary.display();
    Ok(format!(
        "{binary} top --netns self --loopback --interval 200ms {arguments}; echo exit code $?"
    ))
}

/// A terminal in which `top` runs.
fn start(line: &str) -> Result<Tmux> {
    // tmux has no place in a guest.
    package::on_host_only()?;
    let tmux = Tmux::open(80, 24)?;
    tmux.type_line(&format!("echo {BEFORE}"))?;
    tmux.wait_for("the shell has said something", |it| {
        it.lines().any(|line| line == BEFORE)
    })?;
    tmux.type_line(line)?;
    tmux.wait_for("top has drawn its first screen", |it| {
        it.starts_with("kaprobe top ") && it.contains("PROGRAM")
    })?;
    Ok(tmux)
}

/// Two connections: the peer of the first answers, that of the second does not.
fn connections() -> Result<Load> {
    // So many that none is given up during a test.
    let keepalive = Keepalive::new(1, 1, 100);
    let members = [true, false].map(|answered| LoadMember {
        keepalive,
        answered,
    });
    Ok(Load::open(Path::V4, Path::V4.loopback(), members)?)
}

/// Waits until `top` has ended with this exit code, and the screen is as before.
fn wait_for_end(tmux: &Tmux, code: i32) -> Result<()> {
    let ended = format!("exit code {code}");
    let screen = tmux.wait_for("the screen is as before", |it| {
        it.lines().any(|line| line == ended)
    })?;
    ensure!(screen.lines().any(|line| line == BEFORE), "{screen}");
    ensure!(!screen.contains("sorted by"), "{screen}");
    // The terminal is as before too: what is typed is shown, and a line is a line.
    tmux.type_line("echo and $((6 * 7))")?;
    let screen = tmux.wait_for("the shell answers", |it| {
        it.lines().any(|line| line == "and 42")
    })?;
    ensure!(screen.contains("echo and $((6"), "{screen}");
    Ok(())
}

/// The process ID of `top` in a terminal: the process whose parent is a shell there.
fn pid_of_top(load: &Load) -> Result<u32> {
    let port = load.pairs()[0].remote.port().to_string();
    let mut found = None;
    wait_until("top runs", || {
        for entry in fs::read_dir("/proc")?.flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|&byte| byte == 0).collect();
            let is_top = words.get(1) == Some(&&b"top"[..]) && words.contains(&port.as_bytes());
            if is_top && !words.contains(&&b"--reader"[..]) {
                found = entry.file_name().to_string_lossy().parse().ok();
            }
        }
        Ok(found.is_some())
    })?;
    found.context("no top")
}

/// The group of the connections is shown and counts their probes; keys open it and the
/// timeline of a connection; the end leaves the screen as it was.
pub fn shows_connections_and_their_timelines() -> Result<()> {
    netns::enter_new()?;
    let load = connections()?;
    let remote = load.pairs()[0].remote;
    let tmux = start(&top("--idle-timeout 350s --sort connections")?)?;
    let row = format!(" {remote} ");
    tmux.wait_for(
        "the connections are in one group, and one is not answered",
        |it| {
            let mut rows = it.lines().filter(|line| line.contains(&row));
            rows.any(|line| line.contains("  2 1s/1s/100 "))
                && it.contains("1 connection without an answer now")
        },
    )?;
    tmux.press(&["/"])?;
    tmux.type_line(&remote.port().to_string())?;
    tmux.wait_for("the filter is shown", |it| it.contains("filter: "))?;
    tmux.press(&["s", "s", "s", "s", "s"])?;
    tmux.wait_for("the order is shown", |it| it.contains("sorted by trouble"))?;
    // Of the servers' ends, the group of the port; of the clients', that of the address.
    let first = tmux.wait_for("the group is the first row", |it| {
        it.lines().nth(4).is_some_and(|line| line.contains(&row))
    })?;
    tmux.press(&["Enter"])?;
    let [answering, silent] = [0, 1].map(|n| load.pairs()[n].local.to_string());
    let screen = tmux.wait_for("its connections are shown", |it| {
        it.contains(&answering) && it.contains(&silent)
    });
    screen.with_context(|| first.clone())?;
    tmux.wait_for("the one without an answer comes first", |it| {
        let row = it.lines().nth(4).unwrap_or_default();
        row.starts_with(&silent)
    })?;
    tmux.press(&["Enter"])?;
    tmux.wait_for("the timeline has its unanswered probes", |it| {
        // On a slow machine the first ones are no longer kept.
        let is_probe = |line: &&str| line.contains("  probe ") && line.contains("/100 idle ");
        it.contains("timeline") && it.lines().filter(is_probe).count() > 1
    })?;
    tmux.press(&["Escape"])?;
    tmux.wait_for("back in the group", |it| it.contains("DEAD-IN"))?;
    tmux.press(&["End", "Enter"])?;
    tmux.wait_for("the timeline has the answered probes in one line", |it| {
        let mut lines = it.lines().filter(|line| line.contains("probe answered"));
        lines.next().is_some_and(|line| line.contains(" times")) && lines.next().is_none()
    })?;
    tmux.press(&["p"])?;
    tmux.wait_for("it is paused", |it| it.contains("PAUSED"))?;
    tmux.resize(40, 10)?;
    tmux.wait_for("the small screen is drawn", |it| {
        it.lines().count() <= 10 && it.contains("Esc back")
    })?;
    tmux.resize(120, 30)?;
    tmux.press(&["p", "?"])?;
    tmux.wait_for("the help is shown", |it| it.contains("reverse the order"))?;
    tmux.press(&["q"])?;
    wait_for_end(&tmux, 0)?;
    Ok(load.end()?)
}

/// A signal, Ctrl-C, a stop by Ctrl-Z, and the end of the process that reads the sockets.
/// Without a terminal `top` ends, too.
pub fn restores_the_terminal_however_it_ends() -> Result<()> {
    netns::enter_new()?;
    let load = connections()?;
    let port = load.pairs()[0].remote.port().to_string();
    let line = top(&format!("-P {port}"))?;
    let kill = |pid: u32, signal| -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
        Ok(kill_process(pid, signal)?)
    };
    let tmux = start(&line)?;
    kill(pid_of_top(&load)?, Signal::TERM)?;
    wait_for_end(&tmux, 0)?;
    drop(tmux);

    // The shell goes on with what follows a command that is stopped, so nothing does.
    let alone = line.split(';').next().unwrap_or_default();
    let tmux = start(alone)?;
    tmux.press(&["C-z"])?;
    tmux.wait_for("the shell has stopped top", |it| {
        it.trim_end().ends_with(PROMPT) && it.contains(BEFORE)
    })?;
    tmux.type_line("fg")?;
    tmux.wait_for("top is back", |it| {
        it.starts_with("kaprobe top ") && it.contains("q quit")
    })?;
    tmux.press(&["C-c"])?;
    tmux.wait_for("top has ended", |it| it.trim_end().ends_with(PROMPT))?;
    tmux.type_line("echo exit code $?")?;
    wait_for_end(&tmux, 0)?;
    drop(tmux);

    let tmux = start(&line)?;
    let pid = pid_of_top(&load)?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    for child in children.split_whitespace() {
        kill(child.parse()?, Signal::KILL)?;
    }
    tmux.wait_for("it says that there are no more snapshots", |it| {
        it.contains("no more snapshots: the process that reads the sockets has ended")
    })?;
    tmux.close()?;
    wait_until("top has ended with its terminal", || {
        Ok(!fs::exists(format!("/proc/{pid}/fd/0"))?)
    })?;
    Ok(load.end()?)
}

/// Without NO_COLOR there are colors, with it none, and `--color` overrules it.
pub fn colors_follow_no_color() -> Result<()> {
    netns::enter_new()?;
    let load = connections()?;
    for (before, flag, expected) in [
        ("", "", true),
        ("NO_COLOR=1 ", "", false),
        ("NO_COLOR=1 ", "--color always", true),
        ("", "--color never", false),
    ] {
        let flags = format!("--idle-timeout 350s {flag}");
        let tmux = start(&format!("{before}{}", top(&flags)?))?;
        tmux.wait_for("a connection is not answered", |it| {
            it.contains("without an answer now")
        })?;
        // Red and yellow, as one of eight colors or of 256.
        let screen = tmux.colored_screen()?;
        let is_colored = ["[31m", "[33m", "38;5;"]
            .iter()
            .any(|it| screen.contains(it));
        ensure!(is_colored == expected, "{before}{flag}: {screen:?}");
        tmux.press(&["q"])?;
        wait_for_end(&tmux, 0)?;
    }
    Ok(load.end()?)
}

/// Without privilege `top` shows snapshots, and says what it can't.
pub fn without_privilege_there_are_snapshots() -> Result<()> {
    netns::enter_new()?;
    let load = connections()?;
    let copy = PublicCopy::make()?;
    let line = format!(
        "setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups {} top --netns self; \
         echo exit code $?",
        copy.path().display()
    );
    let tmux = start(&line)?;
    tmux.wait_for("it shows the connections, and says what is missing", |it| {
        it.contains("no events, only snapshots: ") && it.contains("4 connections")
    })?;
    tmux.press(&["q"])?;
    wait_for_end(&tmux, 0)?;
    Ok(load.end()?)
}

/// While a snapshot waits for the lock of a socket, keys are answered, and the end comes.
pub fn a_blocked_snapshot_holds_up_nothing() -> Result<()> {
    netns::enter_new()?;
    let locked = Planned::bind(Path::V4)?.connect(Side::Client, Keepalive::new(1, 1, 9))?;
    let tmux = start(&top("")?)?;
    tmux.wait_for("it shows the connection", |it| it.contains("2 connections"))?;
    let lock = LockHeld::take(locked.near()?)?;
    tmux.wait_for("it says that the snapshot takes long", |it| {
        it.contains("the snapshot takes ")
    })?;
    tmux.press(&["?"])?;
    tmux.wait_for("the help is shown", |it| it.contains("reverse the order"))?;
    tmux.press(&["q"])?;
    wait_for_end(&tmux, 0)?;
    Ok(lock.release()?)
}
