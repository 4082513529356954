//! Plays scenarios, and does not wait for ever.

use std::time::Instant;

use anyhow::{Result, ensure};
use kaprobe::traffic::script::{self, Actor};

use crate::support::kaprobe::HANG;

/// Plays every script to its end.
pub fn play_out(actors: &mut [Actor]) -> Result<()> {
    let start = Instant::now();
    let ended = script::play(actors, || start.elapsed() < HANG)?;
    let stuck: Vec<_> = actors.iter().filter_map(Actor::waits_for).collect();
    ensure!(ended, "scripts that do not end: {stuck:?}");
    Ok(())
}
