//! Runs `kaprobe doctor` and reads its report about this kernel.

use std::env;
use std::process::Command;

use anyhow::{Context, Error, Result, ensure};
use serde_json::Value;

use crate::{command, schema};

const SCHEMA: &str = include_str!("../../schema/kaprobe-doctor.schema.json");

/// The names of the ways to attach that work here, the cheapest first.
///
/// In a virtual machine of the matrix all of them must work: a test that compares them
/// would show nothing otherwise. Only aarch64 has kernels without fentry there: 6.1.
pub fn ways() -> Result<Vec<String>> {
    let ways = ways_to("tcp_keepalive_timer", |way| way["works"] == true)?;
    let all_must_work = env::var_os("KAPROBE_IN_VM").is_some();
    ensure!(!ways.is_empty(), "doctor found no way to attach");
    ensure!(
        !all_must_work || ways.len() >= if cfg!(target_arch = "aarch64") { 2 } else { 3 },
        "only {ways:?} on a kernel of the matrix"
    );
    Ok(ways)
}

/// The way to attach that kaprobe uses by default.
pub fn best_way() -> Result<String> {
    let first = ways()?.into_iter().next();
    first.context("the keepalive timer cannot be traced here")
}

/// The ways to attach to a hook that work on this kernel, but miss events.
pub fn ways_that_miss(hook: &str) -> Result<Vec<String>> {
    ways_to(hook, |way| {
        way["works"] == true && way["misses"].is_string()
    })
}

/// The JSON report of `kaprobe doctor`, run with this command.
pub fn report(by: Command) -> Result<Value> {
    let (_, stdout, stderr) = command::run_as(by, &["doctor", "--json"])?;
    let validator = schema::validator(SCHEMA).map_err(Error::msg)?;
    let checked = schema::check(&validator, &stdout).map_err(Error::msg);
    checked.with_context(|| format!("doctor printed no JSON: {stderr}"))
}

/// The names of the ways to attach to a hook that pass a filter.
fn ways_to(hook: &str, filter: impl Fn(&Value) -> bool) -> Result<Vec<String>> {
    let report = report(command::kaprobe()?)?;
    let hooks = report["hooks"].as_array().context("doctor: no hooks")?;
    let hook = hooks
        .iter()
        .find(|it| it["hook"] == hook)
        .with_context(|| format!("doctor: no {hook}"))?;
    let tried = hook["tried"].as_array().context("doctor: nothing tried")?;
    let ways = tried.iter().filter(|way| filter(way));
    Ok(ways
        .filter_map(|way| way["way"].as_str().map(Into::into))
        .collect())
}
