//! What `doctor` says of this kernel is what a trace does on it.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::log::LogFile;
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, doctor};
use serde_json::Value;

/// The hooks of a report, and the first way to each that works.
fn promised(report: &Value) -> Result<BTreeMap<String, String>> {
    let hooks = report["hooks"].as_array().context("no hooks")?;
    let way = |hook: &Value| -> Option<(String, String)> {
        let tried = hook["tried"].as_array()?;
        let works = tried.iter().find(|it| it["works"] == true)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some((text(&hook["hook"])?, text(&works["way"])?))
    };
    Ok(hooks.iter().filter_map(way).collect())
}

/// A trace with every event attaches to the hooks that `doctor` promises, by the same ways, and
/// to no other.
pub fn a_trace_attaches_as_doctor_says() -> Result<()> {
    let promised = promised(&doctor::report(command::kaprobe()?)?)?;
    let file = LogFile::new()?;
    let kaprobe = Kaprobe::trace(&["--rtt", "-e", "all", "-o", &file.path])?.ready()?;
    // Another thread writes it.
    wait_until("the header is written", || Ok(file.text()?.contains('\n')))?;
    let text = file.text()?;
    let header: Value = serde_json::from_str(text.lines().next().context("no header")?)?;
    kaprobe.stop()?;
    let attached: BTreeMap<String, String> =
        serde_json::from_value(header["header"]["hooks"].clone())?;
    ensure!(attached == promised, "{attached:?}, not {promised:?}");
    Ok(())
}

/// Under lockdown=confidentiality, what does not work is refused for that reason, in one line.
pub fn lockdown_is_named() -> Result<()> {
    let parameters = fs::read_to_string("/proc/cmdline")?;
    if !parameters.contains("lockdown=confidentiality") {
        return Err(Skip("this kernel was not booted with lockdown=confidentiality".into()).into());
    }
    let report = doctor::report(command::kaprobe()?)?;
    let hooks = report["hooks"].as_array().context("no hooks")?;
    let tried = hooks.iter().filter_map(|it| it["tried"].as_array());
    let refusals: Vec<_> = tried
        .flatten()
        .filter(|it| it["works"] == false)
        .filter_map(|it| it["why"].as_str())
        .collect();
    let is_plain = |why: &&str| {
        why.contains("locked down (confidentiality)") || why.contains("Operation not permitted")
    };
    ensure!(!refusals.is_empty(), "{report}");
    ensure!(refusals.iter().all(is_plain), "{refusals:#?}");
    Ok(())
}
