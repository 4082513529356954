//! `kaprobe demo` explains its connections.

use anyhow::{Result, ensure};
use kaprobe_testkit::command::run;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::netns;

/// The output explains how each connection ends, with its verdict.
pub fn explains_every_connection() -> Result<()> {
    netns::enter_new()?;
    let _alone = OwnCpu::take()?;
    let output = run(&["demo", "--color", "never"])?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{output:?}");
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
        "  H  is closed by the program at the other side, after 3.",
        "  H  idle_close (",
        "           seen  3 probes unanswered, silent for ",
        "           do    to allow all 9 probes, set it to ",
    ] {
        ensure!(stdout.contains(words), "no {words:?} in\n{stdout}");
    }
    Ok(())
}
