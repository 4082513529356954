//! `kaprobe demo` shows what it promises.

use anyhow::{Result, ensure};
use kaprobe_testkit::command::run;
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::netns;

/// Each end of a connection that a newcomer shall see is told, with its verdict.
pub fn shows_every_end() -> Result<()> {
    netns::enter_new()?;
    let _alone = OwnCpu::take()?;
    let output = run(&["demo", "--color", "never"])?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{output:?}");
    for words in [
        "  A  answered",
        "  B  peer_unreachable: ",
        "  C  user_timeout: ",
        "  D  the far side answers with a reset",
        "  D  stray_segment: ",
        "  D  hears a reset",
        "  D  probe_reset: ",
        "  E  asks nothing: 1 segment is unacknowledged",
        "  F  asks nothing: the peer was heard",
    ] {
        ensure!(told.contains(words), "no {words:?} in\n{told}");
    }
    Ok(())
}
