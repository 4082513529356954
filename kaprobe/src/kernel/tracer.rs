//! Attaches the programs of a trace, and yields the events that they send.

use std::os::fd::AsFd;
use std::time::{self, Duration};

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
use crate::kernel::owner_watch::OwnerWatch;
use crate::kernel::ring::Ring;
use crate::kernel::switches::SwitchWatch;
use crate::model::event::Event;
use crate::model::time::Instant;
use crate::model::values::Hook;
use crate::stderr;
use crate::stop::Stop;

/// Maximum number of events in a batch. An event takes some 250 bytes there; the ring buffer
/// stores it in less memory.
const BATCH: usize = 256;
/// How long events may gather in the ring buffer for each MiB of it, ms, before they are read,
/// unless a batch was full. Waking up costs more than reading what has come, and interrupts what
/// runs on that CPU. At the highest rate that was seen on two CPUs (a burst in docs/cost.md), a
/// MiB takes at least 12 ms to fill.
const GATHER_MS: u32 = 10;
/// The shortest and the longest time to gather, ms. A person does not notice the longest.
const GATHER_BOUNDS_MS: (u32, u32) = (40, 100);
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
    owner_watch: Option<OwnerWatch>,
    stall_look: Option<StallLook>,
    attached: Vec<Attached>,
    without: Vec<String>,
    started: Instant,
    stop: Stop,
    logger: Option<EbpfLogger<DebugLog>>,
    /// How long events may gather in the ring buffer.
    gather: Duration,
    /// When the events in the ring buffer are to be read, if there are some.
    due: Option<time::Instant>,
    ended: bool,
}

/// What a trace has for the thread that shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Events, in the order in which they happened. None after a second in which nothing
    /// happened.
    Events,
    /// What was waited for beside the events.
    Mail,
    /// No more events follow.
    End,
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
        // Without them, owners are checked by the clock alone: see kaprobe doctor.
        let sees_owners = match object.attach_owner_hooks() {
            Err(why) if exit::exhausted(&why).is_some() => return Err(why),
            hooks => hooks.is_ok(),
        };
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

        let owner_watch = sees_owners.then(|| OwnerWatch::open(&mut ebpf));
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
            owner_watch: owner_watch.transpose()?,
            stall_look,
            attached,
            without,
            started,
            stop,
            logger,
            gather: gather(config.limits.buffer_bytes),
            due: None,
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

    /// Takes the reports of what may give a socket another owner, if the kernel has them.
    pub fn take_owner_watch(&mut self) -> Option<OwnerWatch> {
        self.owner_watch.take()
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

    /// Waits until there are events, until `mail` is readable, or until it is time to look for
    /// losses. Replaces the contents of `batch` with the events.
    ///
    /// # Errors
    /// When the ring buffer can't be read, or a record in it is not an event.
    pub fn next(&mut self, mail: &impl AsFd, batch: &mut Vec<Event>) -> Result<Arrival> {
        batch.clear();
        if self.ended {
            self.drain(batch)?;
            return Ok(if batch.is_empty() {
                Arrival::End
            } else {
                Arrival::Events
            });
        }
        if let Arrival::Mail = self.wait(mail)? {
            return Ok(Arrival::Mail);
        }
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        self.drain(batch)?;
        // Read last, so that none is missed, but reported first: a loss may lie before any
        // of these events.
        let losses = self.new_losses();
        batch.splice(0..0, losses);
        Ok(Arrival::Events)
    }

    /// What was lost since it was last reported.
    pub fn new_losses(&mut self) -> impl Iterator<Item = Event> {
        let mut losses = self.counters.new_losses();
        losses.extend(self.switches.new_losses());
        losses.into_iter().map(Event::Lost)
    }

    /// Waits until events have gathered, for a stop, for mail, or for the next look for losses.
    fn wait(&mut self, mail: &impl AsFd) -> Result<Arrival> {
        loop {
            let left = self
                .due
                .map(|due| due.saturating_duration_since(time::Instant::now()));
            let pause = left.map_or(Ok(LOOK_FOR_LOSSES), Timespec::try_from)?;
            let watched = [self.stop.as_fd(), mail.as_fd(), self.ring.as_fd()];
            let mut fds = watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            // While events gather, more of them change nothing.
            let of_interest = if left.is_some() {
                &mut fds[..2]
            } else {
                &mut fds[..]
            };
            match poll(of_interest, Some(&pause)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(why) => return Err(why).context("cannot wait for the ring buffer"),
            }
            let [stop, mail, ring] = fds.map(|fd| !fd.revents().is_empty());
            if stop {
                // From here on the programs send nothing. Events in the buffer still follow,
                // then the losses.
                object::set_state(&mut self.ebpf, State::EMPTY)?;
                self.ended = true;
                return Ok(Arrival::Events);
            }
            // Mail that comes without a pause does not hold up events.
            if mail && left.is_none_or(|left| !left.is_zero()) {
                return Ok(Arrival::Mail);
            }
            if !ring {
                return Ok(Arrival::Events);
            }
            self.due = Some(time::Instant::now() + self.gather);
        }
    }

    /// Moves events from the ring buffer into `batch`, until that is full.
    fn drain(&mut self, batch: &mut Vec<Event>) -> Result<()> {
        self.decoder.clock_offset_ns = clock::offset_ns();
        while batch.len() < BATCH {
            let next = self.ring.next().context("cannot read the ring buffer")?;
            let Some(record) = next else {
                break;
            };
            let event = self.decoder.decode(record)?;
            batch.push(event);
        }
        // After a full batch, more events may wait.
        self.due = (batch.len() == BATCH).then(time::Instant::now);
        Ok(())
    }
}

/// How long events may gather in a ring buffer of this size.
fn gather(buffer_bytes: u32) -> Duration {
    let (least, most) = GATHER_BOUNDS_MS;
    let ms = (buffer_bytes >> 20) * GATHER_MS;
    Duration::from_millis(ms.clamp(least, most).into())
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
