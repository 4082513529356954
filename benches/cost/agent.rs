//! Measures what the agent takes with 10,000 idle connections that probe once a minute, while it
//! is scraped each second.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kaprobe_testkit::agent::Agent;
use rustix::process::Pid;

use crate::Plan;
use crate::load::Holders;
use crate::output_folder::OutputFolder;
use crate::sample::{Measure, mib};
use crate::usage::Usage;

const CONNECTIONS: u32 = 10_000;

/// The time between firings of a connection's timer, s.
const SECONDS: u32 = 60;

/// How long the agent is watched: each timer fires.
const WATCHED: Duration = Duration::from_secs(SECONDS as u64);

/// Measures once: the load takes minutes.
pub fn measure(_: Plan) -> Result<()> {
    let _load = Holders::start(CONNECTIONS, SECONDS)?;
    let folder = OutputFolder::new()?;
    let kept = folder.path("kept")?;
    let agent = Agent::start(&["--dir", &kept, "--netns", "/proc/self/ns/net"])?;
    let pid = Pid::from_raw(i32::try_from(agent.pid())?).context("no pid")?;
    while agent.get("/readyz")?.status != 200 {
        thread::sleep(Duration::from_millis(100));
    }
    let (before, began) = (Usage::of(pid)?, Instant::now());
    let counted = agent
        .metrics()?
        .metric("kaprobe_reader_cpu_seconds_total", "")?;
    let mut scraped = agent.metrics()?;
    while began.elapsed() < WATCHED {
        thread::sleep(Duration::from_secs(1));
        scraped = agent.metrics()?;
    }
    let used = Usage::of(pid)?.since(&before);
    let per_second = |ns: u64| ns as f64 / 1e6 / began.elapsed().as_secs_f64();
    let reader = scraped.metric("kaprobe_reader_cpu_seconds_total", "")? - counted;
    let memory = scraped.metric("kaprobe_reader_resident_memory_bytes", "")?;
    for (name, unit, value) in [
        ("agent.cpu", "ms per s", per_second(used.cpu_ns)),
        ("agent.memory", "MiB", mib(used.peak_bytes)),
        ("agent.count", "ms", reader * 1e3),
        ("agent.count.memory", "MiB", memory / f64::from(1 << 20)),
        ("agent.scrape", "kB", scraped.body.len() as f64 / 1e3),
        (
            "agent.lost",
            "events",
            scraped
                .metric("kaprobe_events_lost_total", "")
                .unwrap_or(0.0),
        ),
    ] {
        Measure { name, unit }.print("kaprobe agent", Ok(value))?;
    }
    Ok(())
}
