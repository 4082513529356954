//! Runs the service of an installed package as its unit does, and reads what it tells.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::chroot;
use crate::dist::trial::Trial;
use crate::process::CommandExt as _;

/// How long it may take before it counts as stuck, seconds.
const PATIENCE: &str = "600";

/// Starts the agent in a root, has the demo make traffic, scrapes and replays.
pub fn check(root: &Path, trial: &Trial) -> Result<()> {
    let unit = root.join("usr/lib/systemd/system/kaprobe.service");
    let unit = fs::read_to_string(unit).context("there is no unit")?;
    let start = unit.lines().find_map(|it| it.strip_prefix("ExecStart="));
    let start = start.context("the unit starts nothing")?;
    let script = include_str!("serve.sh");
    let words = ["timeout", PATIENCE, "bash", "-c", script, "bash", start];
    let told = chroot::command(root, &words)?.read()?;
    let (metrics, records) = told.split_once("== records\n").context("it told nothing")?;
    for expected in [
        format!("kaprobe_build_info{{version=\"{}\",", trial.version),
        "kaprobe_probes_sent_total{".to_owned(),
        "kaprobe_verdicts_total{".to_owned(),
        "# EOF".to_owned(),
    ] {
        ensure!(metrics.contains(&expected), "no {expected} in {metrics}");
    }
    for event in ["timeout", "verdict"] {
        let event = format!("\"event\":\"{event}\"");
        ensure!(records.contains(&event), "no {event} in {records}");
    }
    Ok(())
}
