//! The load: processes that hold connections with periodic keepalive timers.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use kaprobe_testkit::process::{Act, Held, Process, Task};

/// The connections per process. Each takes two descriptors; a common limit is 20,000.
const EACH: u32 = 8_000;

/// The number of parts that a spread load is opened in. Timers of one second fire in
/// batches 32 ms apart at HZ = 250 (the wheel's second level, kernel/time/timer.c).
const PARTS: u32 = 25;

/// Processes that hold connections. They exit when dropped.
pub struct Holders(Vec<Process>);

impl Holders {
    /// Opens connections in as many processes as needed, and returns once all are open.
    /// Their timers fire every `seconds`, many at once: what is more than
    /// net.core.netdev_max_backlog is dropped, and those probes get no answer.
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

    /// Like [`Self::start`], but spreads the firings evenly over `seconds`, as on a real
    /// host. Timers of connections that are opened together fire together.
    pub fn spread(connections: u32, seconds: u32) -> Result<Vec<Self>> {
        let before = |part| connections * part / PARTS;
        let part = |n| {
            let part = Self::start(before(n + 1) - before(n), seconds);
            thread::sleep(Duration::from_secs(seconds.into()) / PARTS);
            part
        };
        (0..PARTS).map(part).collect()
    }

    /// Runs an action in every process, and waits until all are done.
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
            // The process is gone even if it failed.
            let _ = process.dismiss();
        }
    }
}
