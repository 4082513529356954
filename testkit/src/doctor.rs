//! What `kaprobe doctor` says of this kernel.

use std::env;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command;

/// The ways to attach that this kernel has, by name, the cheapest first. In a virtual machine of the
/// matrix it must have all of them: otherwise a test that compares them shows nothing.
pub fn ways() -> Result<Vec<String>> {
    let ways = ways_to("tcp_keepalive_timer", |way| way["works"] == true)?;
    let all_must_do = env::var_os("KAPROBE_IN_VM").is_some();
    ensure!(!ways.is_empty(), "doctor knows no way to attach");
    ensure!(
        !all_must_do || ways.len() == 3,
        "only {ways:?} on a kernel of the matrix"
    );
    Ok(ways)
}

/// The way to attach that kaprobe takes.
pub fn best_way() -> Result<String> {
    let first = ways()?.into_iter().next();
    first.context("the keepalive timer cannot be traced here")
}

/// The ways to a hook that work, but do not show everything on this kernel.
pub fn ways_that_miss(hook: &str) -> Result<Vec<String>> {
    ways_to(hook, |way| {
        way["works"] == true && way["misses"].is_string()
    })
}

/// All that it says, run by this command.
pub fn told(by: Command) -> Result<Value> {
    let (_, stdout, stderr) = command::run_as(by, &["doctor", "--json"])?;
    serde_json::from_str(&stdout).with_context(|| format!("doctor says no JSON: {stderr}"))
}

/// The ways to a hook of which something is so, by name.
fn ways_to(hook: &str, so: impl Fn(&Value) -> bool) -> Result<Vec<String>> {
    let told = told(command::kaprobe()?)?;
    let hooks = told["hooks"].as_array().context("doctor: no hooks")?;
    let told = hooks
        .iter()
        .find(|it| it["hook"] == hook)
        .with_context(|| format!("doctor: no {hook}"))?;
    let tried = told["tried"].as_array().context("doctor: nothing tried")?;
    let ways = tried.iter().filter(|way| so(way));
    Ok(ways
        .filter_map(|way| way["way"].as_str().map(Into::into))
        .collect())
}
