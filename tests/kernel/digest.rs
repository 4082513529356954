//! What `kaprobe trace` shows on a terminal.

use std::num::NonZeroU16;

use anyhow::{Context as _, Result, ensure};
use kaprobe::traffic::pair::Path;
use kaprobe::traffic::scenarios::SILENT;
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::process::{Process, Task};
use kaprobe_testkit::terminal::Terminal;
use kaprobe_testkit::tmux::{PROMPT, Tmux};
use kaprobe_testkit::traffic::load::Load;
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, package};
use rustix::process::Signal;

const WIDTH: NonZeroU16 = NonZeroU16::new(80).expect("it is not zero");

/// A narrow terminal.
const NARROW: NonZeroU16 = NonZeroU16::new(40).expect("it is not zero");

/// A wide terminal.
const WIDE: NonZeroU16 = NonZeroU16::new(160).expect("it is not zero");

/// Enough lines for all that is shown.
const HEIGHT: NonZeroU16 = NonZeroU16::new(100).expect("it is not zero");

/// Connections to the program that dies.
const DEAD: u32 = 6;

/// Connections of another program that die, one of each address family.
const PLAYED: u64 = Path::ALL.len() as u64;

/// A name that clears a screen, rings, and turns text around.
const HOSTILE: &str = "\u{1b}[2J\u{7}\u{202e}x";

fn trace(arguments: &[&str], width: NonZeroU16) -> Result<Terminal> {
    let mut command = command::kaprobe()?;
    let own = ["trace", "--netns", "/proc/self/ns/net"];
    command.args(own).args(arguments);
    Terminal::start(command, width, HEIGHT)
}

/// A dead program with several connections is told once and counted; a hostile name is
/// escaped; the status line is redrawn in place, follows the width, and leaves nothing behind.
pub fn problems_are_told_once_on_a_terminal() -> Result<()> {
    netns::enter_new()?;
    let healthy = Load::each_second(3, true)?;
    let mut terminal = trace(&["-4"], WIDTH)?;
    // Both ends of each are connections.
    terminal.wait_for("watching 6 connections of ")?;
    ensure!(
        terminal
            .screen()
            .iter()
            .any(|it| it.starts_with("kaprobe: problems only")),
        "{:?}",
        terminal.screen()
    );

    let before = KernelCounters::read()?;
    let dead = Load::each_second(DEAD, false)?;
    let mut hostile = Process::start(Task::new(HOSTILE, &[SILENT]))?;
    hostile.go()?;
    terminal.wait_for(" answered | next timer in ")?;
    terminal.wait_for(" peer_unreachable (high)  \\u{1b}[2J\\u{7}\\u{202e}x[")?;
    let to = dead.pairs()[0].remote.to_string();
    let verdict = format!("→ {to}");
    terminal.wait_for(&verdict)?;
    wait_until("the kernel has given up on all", || {
        Ok(KernelCounters::read()?.abort_on_timeout
            >= before.abort_on_timeout + u64::from(DEAD) + PLAYED)
    })?;

    terminal.set_width(NARROW)?;
    wait_until("the status line has another width", || {
        let last = terminal.screen().pop().unwrap_or_default();
        Ok(last.contains("connection") && last.chars().count() < 40)
    })?;
    terminal.set_width(WIDTH)?;
    terminal.wait_for(" answered | next timer in ")?;

    terminal.signal(Signal::INT)?;
    let status = terminal.finish()?;
    let screen = terminal.screen();
    let text = screen.join("\n");
    ensure!(status.success(), "{status}\n{text}");
    ensure!(!terminal.is_wrapped(), "{text}");
    ensure!(
        !text.contains("next timer in"),
        "a status line is left:\n{text}"
    );
    let blocks = |name: &str| {
        let is_first = |it: &&String| it.contains(&format!(" {name} ")) && !it.contains("\\u{1b}");
        screen.iter().filter(is_first).count()
    };
    // A block, and its count; on a busy machine one count before.
    for name in ["peer_unreachable", "unanswered"] {
        ensure!((2..=3).contains(&blocks(name)), "{name}:\n{text}");
    }
    ensure!(
        text.contains(&format!(" peer_unreachable ×{DEAD}  ")),
        "{text}"
    );
    ensure!(!text.contains(" timeout "), "a block of its own:\n{text}");
    let last = screen.last().context("an empty screen")?;
    ensure!(
        last.starts_with("kaprobe: ") && last.ends_with(" verdicts"),
        "{text}"
    );
    hostile.dismiss()?;
    healthy.end()?;
    Ok(dead.end()?)
}

/// With `-v`, a terminal gets every event. A filter that matches nothing says so at once.
pub fn every_event_is_shown_on_request() -> Result<()> {
    netns::enter_new()?;
    let healthy = Load::each_second(3, true)?;
    let mut nothing = trace(&["-P", "1"], WIDTH)?;
    nothing.wait_for("no existing connection matches the filters: waiting for new ones")?;
    let mut every = trace(&["-v"], WIDE)?;
    every.wait_for("kaprobe: snapshot: ")?;
    every.wait_for(" probe 1/3 idle ")?;
    every.wait_for(" answered 1 in <")?;
    for mut terminal in [nothing, every] {
        terminal.signal(Signal::INT)?;
        let status = terminal.finish()?;
        ensure!(status.success(), "{status}: {:?}", terminal.screen());
    }
    Ok(healthy.end()?)
}

/// A part of each status line in these tests.
const STATUS: &str = " connections | ";

/// A terminal that is made narrower, and a stop by Ctrl-Z, leave nothing of the status line
/// behind. Without its summary a trace tells nothing of itself.
pub fn nothing_of_the_status_line_is_left() -> Result<()> {
    // tmux has no place in a guest.
    package::on_host_only()?;
    netns::enter_new()?;
    let healthy = Load::each_second(3, true)?;
    let tmux = Tmux::open(100, 24)?;
    let binary = command::binary()?;
    tmux.type_line(&format!("{} trace -q --netns self -4", binary.display()))?;
    let is_status = |line: &&str| line.contains(STATUS) || line.contains("next timer in");
    let status = |screen: &str| screen.lines().filter(is_status).count();
    tmux.wait_for("the whole status line is drawn", |it| {
        it.contains(" answered | next timer in ")
    })?;
    tmux.resize(50, 24)?;
    let screen = tmux.wait_for("its first parts are drawn, once", |it| {
        status(it) == 1 && it.contains(STATUS) && !it.contains("next timer in")
    })?;
    ensure!(!screen.contains("watching"), "{screen}");
    tmux.press(&["C-z"])?;
    tmux.wait_for("the shell has stopped it, and the line is gone", |it| {
        it.trim_end().ends_with(PROMPT) && status(it) == 0
    })?;
    tmux.type_line("fg")?;
    tmux.wait_for("the line is drawn again", |it| status(it) == 1)?;
    tmux.press(&["C-c"])?;
    tmux.wait_for("it has ended, and the line is gone", |it| {
        it.trim_end().ends_with(PROMPT) && status(it) == 0
    })?;
    Ok(healthy.end()?)
}
