//! Makes the logs of many hosts as recorders would have written them, for tests of databases.
//!
//! What happens on the network is made up, from a seed. All else is kaprobe's own: its
//! correlator, judge and condenser make the records, and its JSON writer the lines.

mod connection;
mod host;
mod recorder;
mod truth;
mod world;

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use kaprobe::model::record::Record;

use crate::fleet::world::World;

pub use crate::fleet::truth::{Story, Truth};
pub use crate::fleet::world::{START, Size};

/// Writes the logs of a fleet: a folder for each host, with segments. Passes on each record,
/// with the name of its host. Returns what happened.
///
/// # Errors
/// If a file can't be written.
pub fn write(size: Size, to: &Path, observe: &(impl Fn(&str, &Record) + Sync)) -> Result<Truth> {
    let world = World::new(size);
    let next = AtomicU32::new(0);
    let work = || -> Result<Truth> {
        let mut truth = Truth::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= size.hosts {
                return Ok(truth);
            }
            let name = world::host_name(number);
            let folder = to.join(&name);
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            host::write(&world, number, &folder, &mut truth, &|it| {
                observe(&name, it)
            })?;
        }
    };
    let at_once = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        let mut truth = world.truth();
        for it in threads {
            let part = it
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            truth.append(part?);
        }
        Ok(truth)
    })
}
