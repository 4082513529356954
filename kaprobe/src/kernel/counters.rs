//! Counts the events that could not be delivered, for each hook. The programs count some,
//! and the kernel the others.

use std::io;
use std::mem::size_of;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::maps::Map;
use kaprobe_ebpf::wire::{counter, kind};
use rustix::mm::ProtFlags;
use rustix::param::page_size;

use crate::kernel::attach::Attached;
use crate::kernel::mapping::Mapping;
use crate::kernel::missed::Watched;
use crate::kernel::{clock, object, programs};
use crate::model::event::{Kind, Lost};
use crate::model::values::{Cause, Hook, LostWhy};

/// Reads the counters, and reports what is new in them.
pub struct Counters {
    shared: SharedCounters,
    watched: Vec<(Hook, Vec<Watched>)>,
    /// Totals that are reported already, in the order of [`Counters::totals`].
    reported: Vec<u64>,
}

/// One counter.
struct Total {
    hook: Hook,
    kind: Option<Kind>,
    why: LostWhy,
    count: u64,
}

impl Counters {
    /// Counts the losses of these hooks, which are attached.
    ///
    /// # Errors
    /// When the map or a program's descriptor is not available.
    pub fn new(ebpf: &mut Ebpf, attached: &[Attached]) -> Result<Self> {
        let watch = |attached: &Attached| {
            let programs = programs::loaded(ebpf, attached.hook, attached.mode);
            let watched: io::Result<Vec<_>> = programs.map(Watched::new).collect();
            Ok((attached.hook, watched?))
        };
        // Without its segment, a reset still has its event.
        let attached = attached.iter().filter(|it| it.hook != Hook::Reset);
        let watched: io::Result<Vec<_>> = attached.map(watch).collect();
        let watched = watched.context("cannot watch the programs for what they miss")?;
        let shared = SharedCounters::new(ebpf).context("cannot map the counters of lost events")?;
        Ok(Self {
            shared,
            watched,
            reported: Vec::new(),
        })
    }

    /// Losses since the last call. Their time is taken after the counters are read, so all of
    /// them happened before it.
    pub fn new_losses(&mut self) -> Vec<Lost> {
        let totals = self.totals();
        let at = clock::now();
        self.reported.resize(totals.len(), 0);
        let mut losses = Vec::new();
        for (total, reported) in totals.into_iter().zip(&mut self.reported) {
            let count = total.count.saturating_sub(*reported);
            *reported = total.count;
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
        losses
    }

    /// How many events came from sockets that had no room in the table of known sockets.
    #[must_use]
    pub fn untracked(&self) -> u64 {
        self.shared.get(counter::SOCKET_UNTRACKED)
    }

    fn totals(&self) -> Vec<Total> {
        let mut totals = Vec::new();
        for (index, (hook, kind)) in (0..).zip(COUNTED) {
            totals.push(Total {
                hook,
                kind: Some(kind),
                why: LostWhy::RingBuffer,
                count: self.shared.get(index),
            });
        }
        totals.push(Total {
            hook: Hook::KeepaliveTimer,
            kind: None,
            why: LostWhy::FiringTable,
            count: self.shared.get(counter::FIRING_UNTRACKED),
        });
        let unpaired =
            self.shared.get(counter::EXIT_MISSED) + self.shared.get(counter::ENTRY_MISSED);
        for (hook, programs) in &self.watched {
            let skipped: u64 = programs.iter().map(Watched::missed).sum();
            // The programs themselves also count a firing whose entry or exit was skipped.
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
        totals
    }
}

/// Hook and kind of each counter, in the order of [`kind`]. A lost timeout's cause is lost
/// too: it is counted as the first cause.
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
    (Hook::KeepaliveTimer, Kind::ChangedMeanwhile),
    (Hook::SendActiveReset, Kind::RstSent),
    (Hook::DestroySock, Kind::Closed),
    (Hook::ReceiveReset, Kind::RstReceived),
    (Hook::SendReset, Kind::RstSent),
    (Hook::Probe, Kind::Answered),
    (Hook::SetState, Kind::FinReceived),
    (Hook::SetState, Kind::FinSent),
    (Hook::SetState, Kind::Timeout(Cause::Retransmission)),
    (Hook::SetState, Kind::Aborted),
    (Hook::Retransmit, Kind::Stalled),
    // Never lost: it is looked for again.
    (Hook::Retransmit, Kind::Resumed),
];

/// The counters of each CPU, in memory that the programs share. Reading them takes no system
/// call, which could keep a kprobe program from running.
pub(super) struct SharedCounters {
    memory: Mapping,
    cpus: usize,
}

impl SharedCounters {
    /// Maps the counters.
    ///
    /// # Errors
    /// When the map is not available.
    pub fn new(ebpf: &Ebpf) -> Result<Self> {
        let Some(Map::Array(map)) = ebpf.map("COUNTERS") else {
            bail!("the BPF object has no array COUNTERS");
        };
        let cpus = object::cpus()?;
        let counters = counter::COUNT as usize * cpus;
        let bytes = (counters * size_of::<u64>()).next_multiple_of(page_size());
        let memory = Mapping::new(map.fd().as_fd(), 0, bytes, ProtFlags::READ)?;
        Ok(Self { memory, cpus })
    }

    /// Sum of a counter over all CPUs.
    pub fn get(&self, counter: u32) -> u64 {
        let of = |cpu| {
            let slot = cpu * counter::COUNT as usize + counter as usize;
            self.memory.load_u64(slot * size_of::<u64>())
        };
        (0..self.cpus).map(of).sum()
    }
}
