//! Runs `kaprobe doctor` and reads its report about this kernel.

use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Error, Result, ensure};
use serde_json::Value;

use crate::{command, schema};

const SCHEMA: &str = include_str!("../../schema/kaprobe-doctor.schema.json");

/// The names of the ways to attach that work here, the cheapest first.
///
/// In a virtual machine all that its kernel has must work, and no other: a test that compares
/// them would show nothing otherwise.
pub fn ways() -> Result<Vec<String>> {
    let ways = ways_to("tcp_keepalive_timer", |way| way["works"] == true)?;
    ensure!(!ways.is_empty(), "doctor found no way to attach");
    if env::var_os("KAPROBE_IN_VM").is_some() {
        let built_in = ways_of_kernel()?;
        ensure!(
            ways == built_in,
            "{ways:?} work, and the kernel has {built_in:?}"
        );
    }
    Ok(ways)
}

/// The ways to attach to a function that this kernel was built with, the cheapest first.
fn ways_of_kernel() -> Result<Vec<&'static str>> {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    let has = |symbol: &str| {
        let mut names = symbols.lines().filter_map(|line| line.split(' ').nth(2));
        names.any(|it| it == symbol)
    };
    // fentry needs ftrace to call a program directly; only a kernel with
    // CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS has this function (kernel/trace/ftrace.c). 6.1
    // lacks it on aarch64.
    let ways = [
        ("fentry", has("register_ftrace_direct")),
        ("kprobe", has("register_kprobe")),
        ("tracepoint", true),
    ];
    Ok(ways
        .into_iter()
        .filter_map(|(way, is_there)| is_there.then_some(way))
        .collect())
}

/// The way to attach that kaprobe uses by default.
pub fn best_way() -> Result<String> {
    let first = ways()?.into_iter().next();
    first.context("the keepalive timer cannot be traced here")
}

/// How kaprobe notices changes of owners.
pub fn owner_changes() -> Result<String> {
    let report = report(command::kaprobe()?)?;
    let source = report["owner_changes"]["source"].as_str();
    Ok(source.context("doctor: no owner_changes")?.to_owned())
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
