//! `kaprobe demo` explains its connections.

use std::process::Command;

use anyhow::{Result, ensure};
use kaprobe_testkit::command::{kaprobe, run_as};
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::netns;

/// The output explains how each connection ends, with its verdict.
pub fn explains_every_connection() -> Result<()> {
    netns::enter_new()?;
    let _alone = OwnCpu::take()?;
    explains_its_connections(kaprobe()?)
}

/// The output of this kaprobe's demo explains how each connection ends, with its verdict.
pub fn explains_its_connections(kaprobe: Command) -> Result<()> {
    let (code, stdout, stderr) = run_as(kaprobe, &["demo", "--color", "never"])?;
    ensure!(code == Some(0), "{code:?} {stdout}{stderr}");
    for words in [
        "  A  answered",
        "  B  peer_unreachable (",
        "  C  user_timeout (",
        "  D  the far side answers with a reset",
        "  D  stray_segment (",
        "  D  receives a reset",
        "  D  probe_reset (",
        "  E  sends no probe: 1 segment is unacknowledged",
        "  F  sends no probe: it heard the peer",
        "  G  has retransmitted 1 byte 3 times",
        "  G  silent_drop (",
        "  H  is closed by the program at the other side, after ",
        "  H  idle_close (",
        "           seen  3 probes unanswered, silent for ",
        "           do    to allow all 9 probes, set it to ",
    ] {
        ensure!(stdout.contains(words), "no {words:?} in\n{stdout}");
    }
    Ok(())
}
