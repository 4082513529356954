//! What a trace reports of stalls and closes can be asked for earlier, and then comes so.

use anyhow::{Context as _, Result, ensure};
use kaprobe::traffic::pair::Path;
use kaprobe_testkit::log::{LogFile, Record};
use kaprobe_testkit::netns;
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::wait::wait_until;

use crate::endings::{Ends, send_byte};

/// A stall is told at the first retransmission, and the FIN of a connection that was not idle.
/// Beside it, a trace with the default settings tells the stall at the third, and no FIN.
pub fn thresholds_are_as_asked_for() -> Result<()> {
    netns::enter_new()?;
    let (early, usual) = (LogFile::new()?, LogFile::new()?);
    let common = ["--netns", "self", "-e", "stalled,fin_sent,fin_received"];
    let flags = [
        "--stalled-after",
        "1",
        "--fin-idle",
        "1ms",
        "-o",
        &early.path,
    ];
    let asked = Kaprobe::trace(&[&common[..], &flags].concat())?.ready()?;
    let default = Kaprobe::trace(&[&common[..], &["-o", &usual.path]].concat())?.ready()?;
    let closed = Ends::open(Path::V4)?;
    send_byte(&closed.near)?;
    let closed_port = closed.local.port();
    drop(closed);
    let stalled = Ends::unanswered(Path::V4)?;
    send_byte(&stalled.near)?;
    wait_until("the default threshold is reached", || {
        Ok(usual.log()?.count(&["stalled"]) > 0)
    })?;
    let (asked, default) = (asked.stop()?, default.stop()?);
    for (log, retransmits, has_fin) in [(&asked, 1, true), (&default, 3, false)] {
        let of = |port: u16, event: &str| -> Vec<&Record> {
            let own = |it: &&Record| it.number("lport") == Some(port.into());
            let records = log.records.iter().filter(own);
            records.filter(|it| it.event() == event).collect()
        };
        let stalls = of(stalled.local.port(), "stalled");
        let stall = stalls.first().context("no stall")?;
        ensure!(
            stalls.len() == 1 && stall.number("retransmits") == Some(retransmits),
            "{stalls:?}"
        );
        let fins = of(closed_port, "fin_sent");
        ensure!(fins.is_empty() != has_fin, "{fins:?}");
    }
    Ok(())
}
