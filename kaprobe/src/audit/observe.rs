//! Observes the connections: samples the ages of their traffic for a time.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::audit::observation::{MAX_CONNECTIONS, Observation};
use crate::audit::plan::AuditPlan;
use crate::shutdown::{self, StopWhen};
use crate::sockets::snapshot::Snapshots;
use crate::stderr;
use crate::stop::Stop;
use crate::text::units::Ms;

/// The pause between samples is this part of the time, within [`SHORTEST`] and
/// [`LONGEST`].
const PARTS: u32 = 60;

/// The shortest pause between samples.
const SHORTEST: Duration = Duration::from_millis(250);

/// The longest pause between samples. A silence is known to within a pause.
const LONGEST: Duration = Duration::from_secs(5);

/// The pause is at least so many times as long as a sample took: sampling takes a tenth of
/// one CPU at most.
const REST: u32 = 9;

/// Samples the connections for this time, or until a signal.
///
/// # Errors
/// If the sockets can't be read, or signals can't be watched.
pub(super) fn observe(
    plan: &AuditPlan,
    snapshots: &mut Snapshots<'_>,
    time: Duration,
) -> Result<Observation> {
    let stop = Stop::new()?;
    shutdown::watch(
        stop.clone(),
        StopWhen {
            duration: Some(time),
            ..StopWhen::default()
        },
    )?;
    let pause = (time / PARTS).clamp(SHORTEST, LONGEST);
    let mut observation = Observation::new(MAX_CONNECTIONS);
    loop {
        let began = Instant::now();
        let connections = sample(plan, snapshots, &mut observation)?;
        if observation.samples() == 1 {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            stderr::line(format_args!(
                "observing connections for {}, {connections} now: a signal ends it early",
                Ms(ms)
            ));
        }
        if stop.wait(pause.max(began.elapsed() * REST))? {
            return Ok(observation);
        }
    }
}

/// Takes a sample. Returns the number of connections in it.
fn sample(
    plan: &AuditPlan,
    snapshots: &mut Snapshots<'_>,
    observation: &mut Observation,
) -> Result<u64> {
    observation.begin_sample();
    let mut connections = 0;
    snapshots.take_without_owners(&mut |rows| {
        for row in rows.iter().filter(|row| plan.observes(row)) {
            connections += 1;
            observation.add(row);
        }
        Ok(())
    })?;
    Ok(connections)
}
