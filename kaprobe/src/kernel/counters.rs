//! What could not be delivered, hook by hook, as the programs and the kernel count it.

use std::io;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use kaprobe_ebpf::wire::{counter, kind};

use super::{
    attach::{self, Attached},
    clock,
    missed::Watched,
};
use crate::event::{Cause, Hook, Kind, Lost, LostWhy};

/// Reads the counters, and tells what is new in them.
pub struct Counters {
    map: PerCpuArray<MapData, u64>,
    watched: Vec<(Hook, Vec<Watched>)>,
    /// The totals that have been told already, in the order of [`Counters::totals`].
    told: Vec<u64>,
}

/// One thing that is counted.
struct Total {
    hook: Hook,
    kind: Option<Kind>,
    why: LostWhy,
    count: u64,
}

impl Counters {
    /// Counts for these hooks, which are attached.
    ///
    /// # Errors
    /// When the map or a program's descriptor is not to be had.
    pub fn new(ebpf: &mut Ebpf, attached: &[Attached]) -> Result<Self> {
        let watch = |attached: &Attached| {
            let programs = attach::programs(ebpf, attached.hook, attached.way);
            let watched: io::Result<Vec<_>> = programs.map(Watched::new).collect();
            Ok((attached.hook, watched?))
        };
        let watched: io::Result<Vec<_>> = attached.iter().map(watch).collect();
        let watched = watched.context("cannot watch the programs for what they miss")?;
        let map = ebpf
            .take_map("COUNTERS")
            .context("the BPF object has no map COUNTERS")?;
        Ok(Self {
            map: PerCpuArray::try_from(map)?,
            watched,
            told: Vec::new(),
        })
    }

    /// What was lost since the last call. It is stamped once it has been read: all of
    /// it lies before.
    ///
    /// # Errors
    /// When the kernel does not hand the counters out.
    pub fn new_losses(&mut self) -> Result<Vec<Lost>> {
        let totals = self.totals()?;
        let at = clock::now();
        self.told.resize(totals.len(), 0);
        let mut losses = Vec::new();
        for (total, told) in totals.into_iter().zip(&mut self.told) {
            let count = total.count.saturating_sub(*told);
            *told = total.count;
            if count > 0 {
                losses.push(Lost {
                    at,
                    hook: total.hook,
                    kind: total.kind,
                    why: total.why,
                    count,
                });
            }
        }
        Ok(losses)
    }

    /// How many events came from sockets that the full table could not follow.
    ///
    /// # Errors
    /// When the kernel does not hand the counter out.
    pub fn untracked(&self) -> Result<u64> {
        self.sum(counter::SOCKET_UNTRACKED)
    }

    fn totals(&self) -> Result<Vec<Total>> {
        let mut totals = Vec::new();
        for (index, (hook, kind)) in (0..).zip(COUNTED) {
            totals.push(Total {
                hook,
                kind: Some(kind),
                why: LostWhy::RingBuffer,
                count: self.sum(index)?,
            });
        }
        totals.push(Total {
            hook: Hook::KeepaliveTimer,
            kind: None,
            why: LostWhy::FiringTable,
            count: self.sum(counter::FIRING_UNTRACKED)?,
        });
        let unpaired = self.sum(counter::EXIT_MISSED)? + self.sum(counter::ENTRY_MISSED)?;
        for (hook, programs) in &self.watched {
            let skipped: u64 = programs.iter().map(Watched::missed).sum();
            // A firing whose one end was skipped is found by its other end as well.
            let count = if *hook == Hook::KeepaliveTimer {
                skipped.max(unpaired)
            } else {
                skipped
            };
            totals.push(Total {
                hook: *hook,
                kind: None,
                why: LostWhy::Missed,
                count,
            });
        }
        Ok(totals)
    }

    fn sum(&self, index: u32) -> Result<u64> {
        let values = self
            .map
            .get(&index, 0)
            .context("cannot read the counters of lost events")?;
        Ok(values.iter().sum())
    }
}

/// What the counters count, as [`kind`] numbers them. A timeout that was lost has lost
/// its cause too: it is counted under the first.
const COUNTED: [(Hook, Kind); kind::COUNT as usize] = [
    (Hook::KeepaliveTimer, Kind::Probe),
    (Hook::KeepaliveTimer, Kind::ProbeCongested),
    (Hook::KeepaliveTimer, Kind::Early),
    (Hook::KeepaliveTimer, Kind::DataPending),
    (Hook::KeepaliveTimer, Kind::Busy),
    (Hook::KeepaliveTimer, Kind::Timeout(Cause::ProbeCount)),
    (Hook::KeepaliveTimer, Kind::FinWait2(None)),
    (Hook::KeepaliveTimer, Kind::NotRearmed),
    (Hook::KeepaliveTimer, Kind::Unclassified),
    (Hook::SendActiveReset, Kind::RstSent),
    (Hook::DestroySock, Kind::Closed),
    (Hook::ReceiveReset, Kind::RstReceived),
    (Hook::SendReset, Kind::RstSent),
];
