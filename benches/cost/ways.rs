//! The ways to attach that this kernel has.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::tracer;

/// All of them, as doctor tells them, the cheapest first.
pub fn all() -> Result<Vec<String>> {
    let output = tracer::kaprobe()?.args(["doctor", "--json"]).output()?;
    let told: Value = serde_json::from_slice(&output.stdout).context("doctor says no JSON")?;
    let hooks = told["hooks"].as_array().context("doctor: no hooks")?;
    let timer = hooks.iter().find(|h| h["hook"] == "tcp_keepalive_timer");
    let tried = timer.and_then(|hook| hook["tried"].as_array());
    let works = tried.into_iter().flatten().filter(|w| w["works"] == true);
    Ok(works
        .filter_map(|way| way["way"].as_str().map(Into::into))
        .collect())
}

/// The one that kaprobe takes.
pub fn best() -> Result<String> {
    let first = all()?.into_iter().next();
    first.context("the keepalive timer cannot be traced here")
}
