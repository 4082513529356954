//! Waits for what tells nobody.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Past this, something hangs: an emulated machine may be twenty times slower.
pub const HANG: Duration = Duration::from_secs(180);

/// How often to look.
const TICK: Duration = Duration::from_millis(10);

/// Waits until something is so; an error says what was waited for in vain.
pub fn wait_until(what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !so()? {
        ensure!(start.elapsed() < HANG, "waited in vain until {what}");
        thread::sleep(TICK);
    }
    Ok(())
}
