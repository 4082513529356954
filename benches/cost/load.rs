//! The load: processes that hold connections whose keepalive timers fire each second.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use kaprobe_testkit::process::{Act, Held, Process, Task};

/// Connections of one process: two descriptors each, and 20,000 is a common limit.
const EACH: u32 = 8_000;

/// How many parts a load is made in whose timers fire all the time. Timers of a second
/// fire in batches 32 ms apart at HZ = 250 (the wheel's second level, kernel/time/timer.c).
const PARTS: u32 = 25;

/// Processes that hold connections until this is dropped.
pub struct Holders(Vec<Process>);

impl Holders {
    /// Starts as many processes as `connections` take; returns once all are open. Each
    /// has a timer that fires so many seconds apart, and probes that are answered.
    pub fn start(connections: u32, seconds: u32) -> Result<Self> {
        let hold = |(n, first)| {
            let held = Held {
                address: Ipv4Addr::new(127, 0, n, 1).into(),
                count: EACH.min(connections - first),
                seconds: Some(seconds),
            };
            let mut process = Process::start(Task {
                comm: "load".into(),
                holds: Some(held),
                ..Task::default()
            })?;
            process.go()?;
            process.wait_played()?;
            Ok(process)
        };
        let parts = (1..).zip((0..connections).step_by(EACH as usize));
        Ok(Self(parts.map(hold).collect::<Result<_>>()?))
    }

    /// The same, and the timers fire all through these seconds, as those of a host do: of
    /// connections that are opened at once they fire at once.
    pub fn spread(connections: u32, seconds: u32) -> Result<Vec<Self>> {
        let before = |part| connections * part / PARTS;
        let part = |n| {
            let part = Self::start(before(n + 1) - before(n), seconds);
            thread::sleep(Duration::from_secs(seconds.into()) / PARTS);
            part
        };
        (0..PARTS).map(part).collect()
    }

    /// Has each process do something; returns once all have.
    pub fn act(&mut self, act: Act) -> Result<()> {
        self.0
            .iter_mut()
            .try_for_each(|process| process.start_act(act))?;
        self.0.iter_mut().try_for_each(Process::wait_done)
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Process::request_exit);
        for process in self.0.drain(..) {
            // It is gone either way.
            let _ = process.dismiss();
        }
    }
}
