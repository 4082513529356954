//! Waits for a condition by polling.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// The longest time to wait before a test fails. An emulated machine may be twenty times
/// slower.
pub const HANG: Duration = Duration::from_secs(180);

/// The polling interval.
const TICK: Duration = Duration::from_millis(10);

/// Waits until a condition is true. After [`HANG`], the error names the condition.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        ensure!(start.elapsed() < HANG, "waited in vain until {what}");
        thread::sleep(TICK);
    }
    Ok(())
}
