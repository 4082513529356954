//! Attaches the programs of a trace, and yields the events that they send.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya_log::EbpfLogger;
use kaprobe_ebpf::config::State;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::exit;
use crate::kernel::attach::Attached;
use crate::kernel::clock;
use crate::kernel::config::TracerConfig;
use crate::kernel::counters::Counters;
use crate::kernel::decode::Decoder;
use crate::kernel::descriptors::DescriptorIterator;
use crate::kernel::look::StallLook;
use crate::kernel::object::{self, LoadedObject};
use crate::kernel::ring::Ring;
use crate::kernel::switches::SwitchWatch;
use crate::model::event::Event;
use crate::model::time::Instant;
use crate::model::values::Hook;
use crate::stderr;
use crate::stop::Stop;

/// Maximum number of events in a batch. Several batches wait if writing can't keep up, and
/// an event takes some 250 bytes there. The ring buffer stores more events in less memory.
const BATCH: usize = 256;
/// How long events may gather in the ring buffer before they are read, unless a batch was
/// full. Waking up costs more than reading what has come, and interrupts what runs on that
/// CPU. The default buffer takes at least 50 ms to fill, at the highest rate that was seen
/// on two CPUs (a burst in docs/cost.md). A person does not notice the delay.
const GATHER: Duration = Duration::from_millis(40);
/// Time between two looks for losses while no event comes.
const LOOK_FOR_LOSSES: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// What a trace lacks if the kernel can't be asked to look at a socket.
const UNLOOKED: &str = "the end of a stall before the next event of its connection";

/// The attached programs of a trace. Dropping this detaches them and frees their maps.
pub struct Tracer {
    ebpf: Ebpf,
    ring: Ring,
    counters: Counters,
    switches: SwitchWatch,
    decoder: Decoder,
    descriptors: Option<DescriptorIterator>,
    stall_look: Option<StallLook>,
    attached: Vec<Attached>,
    without: Vec<String>,
    started: Instant,
    stop: Stop,
    logger: Option<EbpfLogger<DebugLog>>,
    /// The last batch was full, so more events may wait.
    more: bool,
    ended: bool,
}

impl Tracer {
    /// Loads and attaches what `config` asks for. Events count from the return of this.
    ///
    /// # Errors
    /// When the kernel lacks what kaprobe needs, or refuses it.
    pub fn start(config: &TracerConfig) -> Result<Self> {
        let mut object = LoadedObject::load(config)?;
        let mut attached = vec![object.attach(Hook::DestroySock)?];
        let calibration = object.calibrate()?;
        attached.push(object.attach(Hook::KeepaliveTimer)?);
        let mut without = Vec::new();
        let rtt = config.rtt.then_some(Hook::Probe);
        let optional = [
            Hook::SendActiveReset,
            Hook::SendReset,
            Hook::ReceiveReset,
            Hook::Reset,
            Hook::SetState,
            Hook::Retransmit,
        ];
        for hook in optional.into_iter().chain(rtt) {
            match object.attach(hook) {
                Ok(hooked) => attached.push(hooked),
                Err(why) if exit::exhausted(&why).is_some() => return Err(why),
                Err(_) if hook == Hook::Reset => {
                    without.push("the TTL of received resets: see kaprobe doctor".to_owned());
                }
                Err(why) => without.push(format!("{why:#}")),
            }
        }
        let decoder = object.decoder(calibration.hz);
        without.extend(
            object
                .untested
                .take()
                .map(|why| format!("a self-test: {why}")),
        );
        let descriptors = DescriptorIterator::load(&mut object).ok();
        let wakeups_seen = object.sees_wakeups.into();
        // Before the ring buffer is mapped, which is as large.
        let mut ebpf = object.into_ebpf();
        let stall_look = if attached.iter().any(|it| it.hook == Hook::Retransmit) {
            let look = StallLook::load(&mut ebpf);
            look.map_err(|why| without.push(format!("{UNLOOKED}: {why:#}")))
                .ok()
        } else {
            None
        };

        let logger = config
            .debug
            .then(|| EbpfLogger::init_with_logger(&mut ebpf, DebugLog))
            .transpose()
            .context("cannot read the programs' log")?;
        let ring = Ring::new(object::take_map(&mut ebpf, "EVENTS")?);
        let ring = ring.context("cannot read the ring buffer")?;
        let counters = Counters::new(&mut ebpf, &attached)?;
        let stop = Stop::new()?;
        let started = clock::now();
        let state = State {
            armed_ns: started.mono_ns,
            timer_function: calibration.timer_function,
            hz: calibration.hz,
            resets_seen: attached
                .iter()
                .any(|a| a.hook == Hook::SendActiveReset)
                .into(),
            wakeups_seen,
            ..State::EMPTY
        };
        object::set_state(&mut ebpf, state)?;
        Ok(Self {
            ring,
            counters,
            switches: SwitchWatch::new(attached.iter().map(|it| (it.hook, it.mode))),
            decoder,
            descriptors,
            stall_look,
            attached,
            without,
            started,
            stop,
            logger,
            more: false,
            ended: false,
            ebpf,
        })
    }

    /// The attached hooks, and how each was attached.
    #[must_use]
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// The hooks that could not be attached, and why. The trace runs without them.
    #[must_use]
    pub fn without(&self) -> &[String] {
        &self.without
    }

    /// Timer ticks a second.
    #[must_use]
    pub const fn hz(&self) -> u32 {
        self.decoder.hz
    }

    /// CLOCK_REALTIME less CLOCK_MONOTONIC, ns.
    #[must_use]
    pub const fn clock_offset_ns(&self) -> i64 {
        self.decoder.clock_offset_ns
    }

    /// The time from which events count.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// Takes the iterator over descriptors, if the kernel has it.
    pub fn take_descriptors(&mut self) -> Option<DescriptorIterator> {
        self.descriptors.take()
    }

    /// Takes the program that looks again at sockets whose data has stalled, if the kernel runs
    /// it.
    pub fn take_stall_look(&mut self) -> Option<StallLook> {
        self.stall_look.take()
    }

    /// How many events came from sockets that could not be followed.
    #[must_use]
    pub fn untracked(&self) -> u64 {
        self.counters.untracked()
    }

    /// Stops the trace from any thread.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Replaces the contents of `batch` with the next events, in the order in which they
    /// happened. Waits until there are any, or until it is time to look for losses; `false`
    /// at the end.
    ///
    /// # Errors
    /// When the ring buffer can't be read, or a record in it is not an event.
    pub fn next_batch(&mut self, batch: &mut Vec<Event>) -> Result<bool> {
        batch.clear();
        if self.ended {
            self.drain(batch)?;
            if batch.is_empty() {
                return Ok(false);
            }
            return Ok(true);
        }
        let pause = if self.more {
            Duration::ZERO
        } else {
            self.wait()?;
            GATHER
        };
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        if self.stop.wait(pause)? {
            // From here on the programs send nothing. Events in the buffer still follow,
            // then the losses.
            object::set_state(&mut self.ebpf, State::EMPTY)?;
            self.ended = true;
        }
        self.drain(batch)?;
        // Read last, so that none is missed, but reported first: a loss may lie before any
        // of these events.
        let losses = self.new_losses();
        batch.splice(0..0, losses);
        Ok(true)
    }

    /// What was lost since it was last reported.
    pub fn new_losses(&mut self) -> impl Iterator<Item = Event> {
        let mut losses = self.counters.new_losses();
        losses.extend(self.switches.new_losses());
        losses.into_iter().map(Event::Lost)
    }

    /// Waits for an event, a stop, or the next look for losses.
    fn wait(&self) -> Result<()> {
        let mut fds = [
            PollFd::new(&self.ring, PollFlags::IN),
            PollFd::new(&self.stop, PollFlags::IN),
        ];
        match poll(&mut fds, Some(&LOOK_FOR_LOSSES)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(why) => Err(why).context("cannot wait for the ring buffer"),
        }
    }

    /// Moves events from the ring buffer into `batch`, until that is full.
    fn drain(&mut self, batch: &mut Vec<Event>) -> Result<()> {
        self.decoder.clock_offset_ns = clock::offset_ns();
        while batch.len() < BATCH {
            let Some(record) = self.ring.next() else {
                break;
            };
            let event = self.decoder.decode(record)?;
            batch.push(event);
        }
        self.more = batch.len() == BATCH;
        Ok(())
    }
}

/// Writes the programs' log to stderr.
struct DebugLog;

impl log::Log for DebugLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        stderr::line(format_args!("debug: {}", record.args()));
    }

    fn flush(&self) {}
}
