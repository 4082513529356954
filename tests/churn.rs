//! What is kept of a trace, with every live byte of the heap counted: it stays flat while 2,000
//! connections a second come and go, and what a socket takes does not grow with their number.
//!
//! It has a binary of its own, and its tests run in turn: nothing else allocates meanwhile.

use std::alloc::System;
use std::env;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use cap::Cap;
use kaprobe::condense::Condenser;
use kaprobe::correlate::Correlator;
use kaprobe::metrics::aggregator::Aggregator;
use kaprobe::metrics::exposition::{self, Exposition};
use kaprobe::metrics::snapshot::MetricsSnapshot;
use kaprobe::model::event::{Event, Kind, SocketEvent, SocketId};
use kaprobe::model::host_timeout::HostTimeouts;
use kaprobe::model::limits::{MAX_SOCKETS, SOCKET_BYTES};
use kaprobe::model::record::{EventName, Record};
use kaprobe::model::socket::{Endpoints, Process};
use kaprobe::model::time::Instant;
use kaprobe::model::values::Cause;
use kaprobe::text::escape::Escaped;
use kaprobe::verdict::judge::Judge;
use kaprobe::verdict::pipeline::Pipeline;
use kaprobe_testkit::fixtures::{bytes, decoder, every_event, first_probe};

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// New connections in a second.
const RATE: u64 = 2_000;

/// Connections of a test run. The variable KAPROBE_CHURN sets another number: an hour has
/// 7,200,000.
const SHORT: u64 = 60_000;

/// Sockets of a test run, at once. The variable KAPROBE_SOCKETS sets another number, a power of
/// two: 1,048,576 is the most that kaprobe remembers.
const FEW: u32 = 1 << 16;

/// One test at a time has the heap to itself.
static ALONE: Mutex<()> = Mutex::new(());

/// Series of the metrics.
const SERIES: usize = 200;

/// Pause between the ends of the sums, in seconds.
const SUMS: u64 = 5;

/// The program whose connections are lost again and again, beside the churn.
const SERVICE: &str = "curl";

/// What the agent keeps of a trace, but for the names of processes.
struct Agent {
    correlator: Correlator,
    pipeline: Pipeline,
    condenser: Condenser,
    aggregator: Aggregator,
    /// What was served last.
    served: Arc<MetricsSnapshot>,
    /// Records that a recorder would write.
    written: u64,
}

impl Agent {
    fn new(sockets: NonZeroUsize) -> Self {
        let judge = Judge::new(sockets, &HostTimeouts::default());
        let series = NonZeroUsize::new(SERIES).unwrap_or(NonZeroUsize::MIN);
        Self {
            correlator: Correlator::new(sockets),
            pipeline: Pipeline::new(every_event(), judge),
            condenser: Condenser::new(sockets),
            aggregator: Aggregator::new(series),
            served: Arc::default(),
            written: 0,
        }
    }

    fn push(&mut self, event: SocketEvent) {
        let Self {
            correlator,
            pipeline,
            condenser,
            aggregator,
            written,
            ..
        } = self;
        correlator.push(&Event::Socket(event), &mut |record| {
            pipeline.push(0, record, |record| {
                aggregator.push(record);
                condenser.push(record, &mut |_: &mut Record| *written += 1);
            });
        });
    }

    /// What is done once a second.
    fn tick(&mut self, now: Instant, second: u64) {
        self.aggregator.tick(now.mono_ns);
        if second.is_multiple_of(SUMS) {
            let written = &mut self.written;
            self.condenser
                .end_sums(now, &mut |_: &mut Record| *written += 1);
        }
        if let Some(judge) = self.pipeline.judge(0) {
            self.served = Arc::new(self.aggregator.snapshot(judge.estimator()));
        }
    }

    fn page(&self) -> String {
        let exposition = Exposition {
            counted: Arc::clone(&self.served),
            ..Exposition::default()
        };
        exposition::encode(exposition).unwrap_or_default()
    }
}

/// The time of a connection.
fn at(n: u64) -> Instant {
    let ns = n * (1_000_000_000 / RATE);
    Instant {
        mono_ns: 1_000_000_000_000 + ns,
        wall_ns: 1_714_979_289_000_000_000_i64.saturating_add_unsigned(ns),
    }
}

/// A probe as the kernel reports it. Other events differ from it.
fn probe() -> Result<SocketEvent, String> {
    match decoder().decode(bytes(&first_probe())) {
        Ok(Event::Socket(probe)) => Ok(probe),
        other => Err(format!("no probe: {other:?}")),
    }
}

/// The first event of a connection of this program, to a server of its own.
fn first(probe: &SocketEvent, n: u64, program: &[u8], server: u32) -> SocketEvent {
    let local = (Ipv4Addr::new(10, 0, 0, 1).into(), 40_000);
    let process = Process {
        pid: Some(7),
        comm: Some(Escaped::from_bytes(program)),
        ..Process::default()
    };
    SocketEvent {
        at: at(n),
        id: SocketId {
            sk: 0xffff_8880_0000_0000 + 4096 * n,
            born_ns: n + 1,
        },
        owner: process.into(),
        endpoints: Endpoints::new(local, (Ipv4Addr::from(server).into(), 443), 1),
        ..probe.clone()
    }
}

/// The life of a connection: a probe that is answered, or not, or draws a reset, and its end,
/// which is not always seen.
fn life(probe: &SocketEvent, n: u64) -> Vec<SocketEvent> {
    let server = u32::try_from(n.wrapping_mul(0x9e37_79b9) & 0xffff_ffff).unwrap_or_default();
    let program = [b'"', b'\n', (n % 251) as u8, (n % 127) as u8];
    let first = first(probe, n, &program, server);
    let then = match n % 4 {
        0 => Some(SocketEvent {
            probes_out: 1,
            ..with(&first, Kind::Answered)
        }),
        1 => Some(SocketEvent {
            probes_out: 9,
            probes_out_after: 9,
            state_after: 7,
            ..with(&first, Kind::Timeout(Cause::ProbeCount))
        }),
        2 => Some(lost(&first)),
        _ => None,
    };
    let closed = (n % 8 != 3).then(|| with(&first, Kind::Closed));
    [first].into_iter().chain(then).chain(closed).collect()
}

fn with(first: &SocketEvent, kind: Kind) -> SocketEvent {
    SocketEvent {
        kind,
        ..first.clone()
    }
}

/// A reset that answers data after 400 s of silence.
fn lost(first: &SocketEvent) -> SocketEvent {
    SocketEvent {
        unacked: 1,
        probes_out_after: 0,
        lastrcv_ms: 400_007,
        lastack_ms: 400_000,
        lastsnd_ms: 3,
        ..with(first, Kind::RstReceived)
    }
}

/// Live bytes of the heap at each simulated second.
fn churn(agent: &mut Agent, connections: u64) -> Result<Vec<usize>, String> {
    let probe = probe()?;
    let seconds = connections / RATE;
    let mut live = Vec::with_capacity(usize::try_from(seconds).unwrap_or_default());
    for second in 0..seconds {
        let (begins, ends) = (second * RATE, (second + 1) * RATE);
        // An identity of its own: sockets of the churn have others.
        let id = SocketId {
            sk: second,
            born_ns: 0,
        };
        let service = first(&probe, begins, SERVICE.as_bytes(), 0x0a00_0005);
        let service = SocketEvent { id, ..service };
        agent.push(lost(&service));
        agent.push(with(&service, Kind::Closed));
        for n in begins..ends {
            life(&probe, n).into_iter().for_each(|it| agent.push(it));
        }
        agent.tick(at(ends), second);
        live.push(HEAP.allocated());
    }
    Ok(live)
}

/// A simulated churn is counted exactly, and once all tables are full, the heap does not grow.
#[test]
fn churn_is_exact_and_memory_is_flat() -> Result<(), String> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = env::var("KAPROBE_CHURN").ok();
    let connections = wanted.and_then(|it| it.parse().ok()).unwrap_or(SHORT);
    // In a short run so few that every table is full in its first third.
    let sockets = NonZeroUsize::new(1_024).filter(|_| connections <= SHORT);
    let mut agent = Agent::new(sockets.unwrap_or(MAX_SOCKETS));
    let live = churn(&mut agent, connections)?;
    let third = live.len() / 3;
    let largest = |part: &[usize]| part.iter().max().copied().unwrap_or_default();
    let (before, after) = (
        largest(&live[third..2 * third]),
        largest(&live[2 * third..]),
    );
    println!("{before} bytes of heap in the second third, {after} in the last");
    // Names differ in length.
    let same = before + before / 1_000;
    assert!(after <= same, "{before} bytes, then {after}: {live:?}");

    let page = agent.page();
    assert!(page.len() < 1 << 20, "{} bytes", page.len());
    let served = &agent.served;
    assert!(served.series.len() <= SERIES);
    let of = |event| served.host.records[event as usize];
    assert_eq!(of(EventName::Probe), connections);
    // One connection in four, and one of the service each second.
    let seconds = live.len() as u64;
    assert_eq!(of(EventName::RstReceived), connections / 4 + seconds);
    assert_eq!(of(EventName::Verdict), connections / 2 + seconds);
    assert!(agent.written >= connections, "{}", agent.written);
    // The service had room all the time.
    let own = format!("kaprobe_verdicts_total{{program=\"{SERVICE}\",remote=\"10.0.0.5:443\"");
    let own = page.lines().filter(|it| it.starts_with(&own));
    let counts = own.filter_map(|it| it.rsplit_once(' ')?.1.parse::<u64>().ok());
    assert_eq!(counts.sum::<u64>(), seconds);
    Ok(())
}

/// The number of sockets that live at once.
fn most_sockets() -> u32 {
    let wanted = env::var("KAPROBE_SOCKETS").ok();
    wanted.and_then(|it| it.parse().ok()).unwrap_or(FEW)
}

/// Sockets come until all tables are full, and then some more. Each probes its peer, without an
/// answer. The second half takes no more memory for each than the quarter before, and what is
/// evicted is counted. Tables with a bound of their own are full after the first quarter.
#[test]
fn a_socket_takes_no_more_among_many() -> Result<(), String> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let most = most_sockets();
    let max = NonZeroUsize::new(most as usize).ok_or("no sockets")?;
    let probe = probe()?;
    let mut agent = Agent::new(max);
    // A server of its own each, so that no two share an entry.
    let come = |agent: &mut Agent, sockets: Range<u32>| {
        for n in sockets {
            agent.push(first(&probe, n.into(), SERVICE.as_bytes(), 0x0b00_0000 + n));
        }
        HEAP.allocated() as u64
    };
    let quarter = come(&mut agent, 0..most / 4);
    let half = come(&mut agent, most / 4..most / 2);
    let full = come(&mut agent, most / 2..most);
    let (earlier, later) = (
        (half - quarter) / u64::from(most / 4),
        (full - half) / u64::from(most / 2),
    );
    println!(
        "{earlier} bytes for a socket of {}, {later} of {most}",
        most / 2
    );
    assert!(
        later <= earlier + earlier / 20,
        "{earlier} bytes, then {later}"
    );
    assert!(later <= SOCKET_BYTES, "{later}");
    assert_eq!(agent.correlator.evicted(), 0);

    let beyond = most / 8;
    let after = come(&mut agent, most..most + beyond);
    assert_eq!(agent.correlator.evicted(), u64::from(beyond));
    assert_eq!(agent.correlator.sockets(), u64::from(most + beyond));
    // A full table takes its final size when it first evicts.
    assert!(after <= full + full / 8, "{full} bytes, then {after}");
    Ok(())
}
