//! Plays scenarios, with a deadline.

use std::time::Instant;

use anyhow::{Result, ensure};
use kaprobe::traffic::script::{self, ScriptedConnection};

use crate::wait::HANG;

/// Plays every script to its end. An error if a script hangs.
pub fn play_out(connections: &mut [ScriptedConnection]) -> Result<()> {
    let start = Instant::now();
    let ended = script::play(connections, || start.elapsed() < HANG)?;
    let stuck: Vec<_> = connections
        .iter()
        .filter_map(ScriptedConnection::waits_for)
        .collect();
    ensure!(ended, "scripts that did not end: {stuck:?}");
    Ok(())
}
