//! What `kaprobe doctor` says of this kernel.

use std::env;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::kaprobe;

/// The ways to attach that this kernel has, by name. In a virtual machine of the
/// matrix it must have all of them: otherwise a test that compares them shows nothing.
pub fn ways() -> Result<Vec<String>> {
    let output = kaprobe::run(&["doctor", "--json"])?;
    let told: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "doctor says no JSON: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    let hooks = told["hooks"].as_array().context("doctor: no hooks")?;
    let timer = hooks
        .iter()
        .find(|hook| hook["hook"] == "tcp_keepalive_timer")
        .context("doctor: no tcp_keepalive_timer")?;
    let ways: Vec<String> = timer["tried"]
        .as_array()
        .context("doctor: nothing tried")?
        .iter()
        .filter(|way| way["works"] == true)
        .filter_map(|way| way["way"].as_str().map(Into::into))
        .collect();
    let all_must_do = env::var_os("KAPROBE_IN_VM").is_some();
    ensure!(!ways.is_empty(), "doctor knows no way to attach");
    ensure!(
        !all_must_do || ways.len() == 3,
        "only {ways:?} on a kernel of the matrix"
    );
    Ok(ways)
}
