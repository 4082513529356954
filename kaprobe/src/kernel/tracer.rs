//! Loads the programs, attaches them, and yields what they see.

use crate::stop::Stop;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, LpmTrie, Map};
use aya::{Ebpf, Pod};
use aya_log::EbpfLogger;
use ipnet::IpNet;
use kaprobe_ebpf::config::{Config, Learned, MAX_CGROUPS, MAX_NETNS, State, filter, key};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::filter::kernel::KernelFilter;
use crate::filter::ports::PortSet;
use crate::host::cgroup::Cgroup;
use crate::kernel::attach::{self, Attached, Attacher};
use crate::kernel::btf::KernelTypes;
use crate::kernel::counters::{self, Counters};
use crate::kernel::decode::Decoder;
use crate::kernel::descriptors::DescriptorIterator;
use crate::kernel::ring::Ring;
use crate::kernel::{calibrate, clock, kfunc, loader};
use crate::model::attach_mode::AttachMode;
use crate::model::event::Event;
use crate::model::time::Instant;
use crate::model::values::Family;
use crate::model::values::Hook;

/// The compiled programs, kept in the repository beside the digest of their sources.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/kaprobe.bpf.o");

/// How many events one batch holds at most. Several batches wait to be written where that
/// can't keep up, some 250 bytes for each event; the ring buffer has room for more of them
/// in less.
const BATCH: usize = 256;
/// How long events may gather in the ring buffer before they are read, while a batch is all
/// there is. Each waking costs more than reading what has come, and whoever runs there has
/// to make way for it. The default buffer fills no faster than in 50 ms, at the most that
/// two processors were seen to make (a burst in docs/cost.md); a person sees nothing of it.
const GATHER: Duration = Duration::from_millis(40);
/// How often losses are looked for while nothing happens.
const LOOK_FOR_LOSSES: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// What to trace, resolved to what the kernel knows.
#[derive(Clone, Default)]
pub struct Wanted {
    /// What to keep; its names of network namespaces and cgroups are resolved below.
    pub filter: KernelFilter,
    /// Network namespaces to keep, by inode number; empty for all. At most
    /// [`MAX_NETNS`].
    pub netns: Vec<u32>,
    /// cgroups to keep, with all below them; empty for all. At most [`MAX_CGROUPS`].
    pub cgroups: Vec<Cgroup>,
    /// The way to attach; `None` for the cheapest that works.
    pub attach: Option<AttachMode>,
    /// Hook the segments that answer probes.
    pub rtt: bool,
    /// Size of the ring buffer, bytes: a power of two, a page at least.
    pub buffer_bytes: u32,
    /// Log what only the programs can say.
    pub debug: bool,
}

impl Wanted {
    /// The ways to try for a hook, in turn. One that there is only one way to is not
    /// a matter of choice.
    fn ways(&self, hook: Hook) -> Vec<AttachMode> {
        let ways: Vec<_> = attach::ways(hook).collect();
        match self.attach {
            Some(way) if ways.len() > 1 => vec![way],
            _ => ways,
        }
    }
}

/// The programs at work. Dropping it detaches them and frees their maps.
pub struct Tracer {
    ebpf: Ebpf,
    ring: Ring,
    counters: Counters,
    decoder: Decoder,
    descriptors: Option<DescriptorIterator>,
    attached: Vec<Attached>,
    without: Vec<String>,
    started: Instant,
    stop: Stop,
    logger: Option<EbpfLogger<DebugLog>>,
    /// The last batch was full: more may wait.
    more: bool,
    ended: bool,
}

impl Tracer {
    /// Loads and attaches what `wanted` asks for. Events count from its return.
    ///
    /// # Errors
    /// When the kernel lacks what is needed, or refuses it.
    pub fn start(wanted: &Wanted) -> Result<Self> {
        let types = KernelTypes::read()?;
        let config = config(&types, wanted)?;
        let mut ebpf = load(&config, wanted)?;
        let mut attacher = Attacher::new(&mut ebpf, &types);
        let mut attached =
            vec![attacher.attach(Hook::DestroySock, wanted.ways(Hook::DestroySock))?];
        let mut state = learn(attacher.ebpf())?;
        attached.push(attacher.attach(Hook::KeepaliveTimer, wanted.ways(Hook::KeepaliveTimer))?);
        let mut without = Vec::new();
        let rtt = wanted.rtt.then_some(Hook::Probe);
        let resets = [Hook::SendActiveReset, Hook::SendReset, Hook::ReceiveReset];
        for hook in resets.into_iter().chain(rtt) {
            match attacher.attach(hook, wanted.ways(hook)) {
                Ok(hooked) => attached.push(hooked),
                Err(why) => without.push(format!("{why:#}")),
            }
        }
        let resets_seen = attached.iter().any(|a| a.hook == Hook::SendActiveReset);
        state.resets_seen = u32::from(resets_seen);
        state.key = key_for(&attached);
        let reset_reasons = types.reset_reasons();
        let offsets = &config.offsets.descriptors;
        let descriptors = DescriptorIterator::load(&mut ebpf, &types, offsets).ok();
        // They are as large as the ring buffer, which is mapped next.
        drop(types);

        let logger = wanted
            .debug
            .then(|| EbpfLogger::init_with_logger(&mut ebpf, DebugLog));
        let mut tracer = Self {
            ring: Ring::new(take(&mut ebpf, "EVENTS")?).context("cannot read the ring buffer")?,
            counters: Counters::new(&mut ebpf, &attached)?,
            decoder: Decoder {
                hz: state.hz,
                reset_reasons,
                clock_offset_ns: clock::offset_ns(),
            },
            descriptors,
            attached,
            without,
            started: clock::now(),
            stop: Stop::new()?,
            logger: logger
                .transpose()
                .context("cannot read the programs' log")?,
            more: false,
            ended: false,
            ebpf,
        };
        state.armed_ns = tracer.started.mono_ns;
        set_state(&mut tracer.ebpf, state)?;
        Ok(tracer)
    }

    /// How each hook was attached.
    #[must_use]
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// The hooks that could not be attached and are done without, and why.
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

    /// Since when events count.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// The iterator over descriptors, where the kernel has it, to be owned.
    pub fn take_descriptors(&mut self) -> Option<DescriptorIterator> {
        self.descriptors.take()
    }

    /// How many events came from sockets that could not be followed.
    #[must_use]
    pub fn untracked(&self) -> u64 {
        self.counters.untracked()
    }

    /// What ends the stream.
    #[must_use]
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Replaces the contents of `batch` with the next events, in the order in which they
    /// happened. Waits until there are any, or until it is time to look for losses; `false`
    /// at the end.
    ///
    /// # Errors
    /// When the ring buffer can't be read, or holds what is not an event.
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
            // No event after this one; those in the buffer follow, then the losses.
            set_state(&mut self.ebpf, State::EMPTY)?;
            self.ended = true;
        }
        self.drain(batch)?;
        // Looked for last, so that none is missed, and told first: it may lie before
        // any of these.
        let losses = self.counters.new_losses();
        batch.splice(0..0, losses.into_iter().map(Event::Lost));
        Ok(true)
    }

    /// Waits until there is something to read, a stop, or a second has passed.
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

    /// Moves what the ring buffer holds into `batch`, until that is full.
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

/// The configuration that the programs are loaded with.
pub(super) fn config(types: &KernelTypes, wanted: &Wanted) -> Result<Config> {
    let mut config = Config::EMPTY;
    config.offsets = types.offsets()?;
    config.types = kfunc::types(types);
    config.event_mask = wanted.filter.event_mask;
    config.family = wanted.filter.sockets.family.map_or(0, Family::number);
    config.debug = u32::from(wanted.debug);
    // `UTS_VERSION` names the preemption model (init/Makefile).
    let version = rustix::system::uname().version().to_bytes().to_owned();
    config.preempt_rt = u32::from(
        version
            .split(|&b| b == b' ')
            .any(|word| word == b"PREEMPT_RT"),
    );
    if let Some(position) = types.parameter("tcp_send_active_reset", "reason") {
        let slot = config.reset_reason_at.get_mut(position);
        *slot.context("tcp_send_active_reset takes its reason where kaprobe does not look")? = 1;
    }
    // (sk, skb) until 6.10, then (sk, skb, reason).
    let passive = types.parameter("tcp_v4_send_reset", "reason");
    config.passive_with_reason = u32::from(passive == Some(2));
    let traced = types.tracepoint_arguments("tcp_send_reset");
    config.reset_traced_with_reason = u32::from(traced.is_some_and(|n| n > 2));
    for (set, bit) in [
        (
            !wanted.filter.sockets.local_ports.is_empty(),
            filter::LOCAL_PORT,
        ),
        (
            !wanted.filter.sockets.remote_ports.is_empty(),
            filter::REMOTE_PORT,
        ),
        (!wanted.filter.sockets.ports.is_empty(), filter::EITHER_PORT),
        (!wanted.filter.sockets.networks.is_empty(), filter::ADDRESS),
    ] {
        config.filters |= if set { bit } else { 0 };
    }
    config.netns_count = u32::try_from(wanted.netns.len().min(MAX_NETNS))?;
    for (slot, &inum) in config.netns.iter_mut().zip(&wanted.netns) {
        *slot = inum;
    }
    config.cgroup_count = u32::try_from(wanted.cgroups.len().min(MAX_CGROUPS))?;
    for (slot, cgroup) in config.cgroups.iter_mut().zip(&wanted.cgroups) {
        slot.id = cgroup.id;
        slot.level = cgroup.level;
    }
    Ok(config)
}

/// Loads the object and fills the filter maps; no program is in the kernel yet.
pub(super) fn load(config: &Config, wanted: &Wanted) -> Result<Ebpf> {
    let object = kfunc::put_calls(OBJECT, &config.types);
    let cpus = u32::try_from(counters::cpus()?)?;
    // One more for each softirq that preempts another. One whose exit was missed keeps
    // its place until its timer fires again, so there is room for some of those too.
    let preempted = if config.preempt_rt == 0 {
        1
    } else {
        cpus.saturating_mul(8).max(256)
    };
    let config = Plain(*config);
    let mut ebpf = loader::without_types()
        .override_global("CONFIG", &config, true)
        .map_max_entries("EVENTS", wanted.buffer_bytes)
        .map_max_entries("FIRINGS", cpus)
        .map_max_entries("FIRINGS_PREEMPTED", preempted)
        .map_max_entries("COUNTERS", counters::entries()?)
        .load(&object)
        .context("cannot create kaprobe's BPF maps")?;
    for (map, ports) in [
        ("LOCAL_PORTS", &wanted.filter.sockets.local_ports),
        ("REMOTE_PORTS", &wanted.filter.sockets.remote_ports),
        ("EITHER_PORTS", &wanted.filter.sockets.ports),
    ] {
        if !ports.is_empty() {
            fill_ports(&mut ebpf, map, ports)?;
        }
    }
    fill_networks(&mut ebpf, &wanted.filter.sockets.networks)?;
    Ok(ebpf)
}

fn fill_ports(ebpf: &mut Ebpf, name: &str, ports: &PortSet) -> Result<()> {
    let mut map: Array<_, u64> = Array::try_from(map_mut(ebpf, name)?)?;
    for (index, word) in (0..).zip(ports.bitmap()) {
        if word != 0 {
            map.set(index, word, 0)?;
        }
    }
    Ok(())
}

fn fill_networks(ebpf: &mut Ebpf, networks: &[IpNet]) -> Result<()> {
    let mut map: LpmTrie<_, [u8; 16], u8> = LpmTrie::try_from(map_mut(ebpf, "ADDRESSES")?)?;
    for network in networks {
        let (prefix, bytes) = match network {
            // The programs look IPv4 up as ::ffff:0:0/96.
            IpNet::V4(v4) => (96 + v4.prefix_len(), v4.network().to_ipv6_mapped().octets()),
            IpNet::V6(v6) => (v6.prefix_len(), v6.network().octets()),
        };
        map.insert(&Key::new(u32::from(prefix), bytes), 1, 0)?;
    }
    Ok(())
}

/// What the kernel tells only through a socket: HZ, and which function its timers
/// call.
pub(super) fn learn(ebpf: &mut Ebpf) -> Result<State> {
    calibrate::end_a_socket(|cookie| {
        let state = State {
            learn_cookie: cookie,
            ..State::EMPTY
        };
        set_state(ebpf, state)
    })?;
    let learned = Array::<_, Plain<Learned>>::try_from(map_mut(ebpf, "LEARNED")?)?;
    let Plain(learned) = learned.get(&0, 0)?;
    let facts = calibrate::facts(learned)?;
    Ok(State {
        hz: facts.hz,
        timer_function: facts.timer_function,
        ..State::EMPTY
    })
}

fn set_state(ebpf: &mut Ebpf, state: State) -> Result<()> {
    Array::<_, Plain<State>>::try_from(map_mut(ebpf, ".bss")?)?
        .set(0, Plain(state), 0)
        .context("cannot set the programs' state")
}

/// A kretprobe knows no argument: entry and exit then meet by CPU and task.
fn key_for(attached: &[Attached]) -> u32 {
    let by_kprobe = |a: &Attached| a.hook == Hook::KeepaliveTimer && a.way == AttachMode::Kprobe;
    if attached.iter().any(by_kprobe) {
        key::TASK
    } else {
        key::TIMER
    }
}

fn map_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map> {
    ebpf.map_mut(name)
        .with_context(|| format!("the BPF object has no map {name}"))
}

/// A map to own. Only once all programs are loaded: they refer to maps by descriptor.
fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name)
        .with_context(|| format!("the BPF object has no map {name}"))
}

/// A type of the wire contract, as aya may copy it to and from the kernel.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Plain<T>(T);

// SAFETY: integers only, without padding.
unsafe impl Pod for Plain<Config> {}
// SAFETY: integers only, without padding.
unsafe impl Pod for Plain<State> {}
// SAFETY: integers only, without padding.
unsafe impl Pod for Plain<Learned> {}

/// Writes what the programs log to stderr.
struct DebugLog;

impl log::Log for DebugLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("kaprobe: debug: {}", record.args());
    }

    fn flush(&self) {}
}
