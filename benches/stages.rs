//! Times each stage between the ring buffer and the output, per event or record.
//!
//! Needs no root: `cargo bench -p kaprobe`. Divan because it is small and runs in
//! seconds. `cargo xtask bench` measures the effect of a change on the whole program.

use std::io;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use kaprobe::containers::names::ContainerNames;
use kaprobe::correlate::Correlator;
use kaprobe::model::event::Event;
use kaprobe::model::host_timeout::HostTimeouts;
use kaprobe::model::limits::MAX_SOCKETS;
use kaprobe::model::record::Record;
use kaprobe::owners::cache::{CAPACITY, OwnerCache};
use kaprobe::sink;
use kaprobe::sink::options::Format;
use kaprobe::verdict::judge::Judge;
use kaprobe::verdict::pipeline::Pipeline;
use kaprobe_ebpf::wire;
use kaprobe_testkit::fixtures::{NARROW, bytes, decoder, every_event, first_probe};
use kaprobe_testkit::traffic::load::allow_open_files;

/// Timer firings per pass.
const FIRINGS: u32 = 10_000;
/// Numbers of sockets that the firings are spread over.
const SOCKETS: [u32; 2] = [1_000, 10_000];
/// Events that are read from the ring buffer together.
const BATCH: usize = 256;

fn main() {
    divan::main();
}

/// Decodes wire events.
#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    let (decoder, wire) = (decoder(), wire_events(1_000));
    bencher.counter(items(&wire)).bench_local(|| {
        for raw in &wire {
            // The other benches report a failure.
            let _ = black_box(decoder.decode(bytes(raw)));
        }
    });
}

/// Finds the owners of sockets, once a walk has found them. The clock stands still: no owner is
/// checked again.
#[divan::bench(args = SOCKETS)]
fn own(bencher: Bencher<'_, '_>, sockets: u32) {
    // A connection takes two descriptors, and such a socket one.
    let connections = u64::from(sockets / 2);
    allow_open_files(connections).expect("the limit of open files can be raised");
    let open = || UnixDatagram::unbound().expect("a socket can be made");
    let held: Vec<_> = (0..sockets).map(|_| open()).collect();
    let inode = |socket| {
        rustix::fs::fstat(socket)
            .expect("a socket has an inode")
            .st_ino
    };
    let inodes: Vec<_> = held.iter().map(inode).collect();
    let mut events = events(sockets);
    for (event, inode) in events.iter_mut().zip(inodes.into_iter().cycle()) {
        if let Event::Socket(socket) = event {
            socket.identity.inode = Some(inode);
        }
    }
    let names = ContainerNames::none();
    let mut owners = OwnerCache::new(CAPACITY, None, None, names).expect("/proc can be read");
    let now = Instant::now();
    bencher.counter(items(&events)).bench_local(|| {
        for batch in events.chunks_mut(BATCH) {
            owners.begin(now);
            batch.iter_mut().for_each(|event| owners.fill(event, None));
        }
    });
}

/// Correlates events into records.
#[divan::bench(args = SOCKETS)]
fn correlate(bencher: Bencher<'_, '_>, sockets: u32) {
    let events = events(sockets);
    bencher.counter(items(&events)).bench_local(|| {
        let mut correlator = Correlator::new(MAX_SOCKETS);
        for event in &events {
            correlator.push(event, &mut |record| {
                black_box(record);
            });
        }
    });
}

/// Judges records. These records lead to no verdict.
#[divan::bench(args = SOCKETS)]
fn judge(bencher: Bencher<'_, '_>, sockets: u32) {
    let records = records(sockets);
    let bench = bencher.counter(items(&records));
    bench
        .with_inputs(|| records.clone())
        .bench_local_refs(|records| {
            let mut pipeline = Pipeline::new(
                every_event(),
                Judge::new(MAX_SOCKETS, &HostTimeouts::default()),
            );
            for record in records {
                pipeline.push(0, record, |record| {
                    black_box(record);
                });
            }
        });
}

/// Writes records in each format.
#[divan::bench(args = [Format::Text, Format::Json, Format::Csv])]
fn write(bencher: Bencher<'_, '_>, format: Format) {
    let records = records(1_000);
    bencher.counter(items(&records)).bench_local(|| {
        let mut sink = sink::to(io::sink(), format, NARROW, false);
        for record in &records {
            // Writing to `io::sink` cannot fail.
            let _ = sink.record(black_box(record));
        }
    });
}

/// All stages in turn, from wire events to lines, as in a trace without owners.
#[divan::bench(args = [Format::Text, Format::Json, Format::Csv])]
fn all(bencher: Bencher<'_, '_>, format: Format) {
    let (decoder, wire) = (decoder(), wire_events(1_000));
    let mut correlator = Correlator::new(MAX_SOCKETS);
    let judge = Judge::new(MAX_SOCKETS, &HostTimeouts::default());
    let mut pipeline = Pipeline::new(every_event(), judge);
    let mut sink = sink::to(io::sink(), format, NARROW, false);
    bencher.counter(items(&wire)).bench_local(|| {
        for raw in &wire {
            let Ok(event) = decoder.decode(bytes(raw)) else {
                continue;
            };
            correlator.push(&event, &mut |record| {
                pipeline.push(0, record, |record| {
                    // Writing to `io::sink` cannot fail.
                    let _ = sink.record(black_box(record));
                });
            });
        }
    });
}

fn items<T>(items: &[T]) -> ItemsCount {
    ItemsCount::new(items.len())
}

/// Answered probes of `sockets` sockets in turn; each socket sends one a second.
fn wire_events(sockets: u32) -> Vec<wire::Event> {
    (0..FIRINGS)
        .map(|n| probe(n % sockets, n / sockets))
        .collect()
}

fn probe(socket: u32, round: u32) -> wire::Event {
    let now = 250_000 + 250 * round;
    let mut raw = wire::Event {
        mono_ns: 1_000_000_000 * u64::from(round + 1) + 100_000 * u64::from(socket),
        born_ns: u64::from(socket) + 1,
        inode: u64::from(socket) + 20_000,
        cgroup: 77,
        jiffies: now,
        jiffies_after: now,
        expires: now,
        expires_after: now + 250,
        rcv_tstamp: now - 249,
        keepalive_time: 250,
        ..first_probe()
    };
    raw.socket.sk = 0xffff_8880_0000_0000 + 4096 * u64::from(socket);
    raw.socket.laddr[..4].copy_from_slice(&[10, 0, 0, 1]);
    raw.socket.raddr[..4].copy_from_slice(&[10, 0, (socket >> 8) as u8, socket as u8]);
    raw.socket.lport = 5672;
    raw.socket.rport = 40_000;
    raw.socket.netns = 4_026_531_840;
    raw
}

/// [`wire_events`], decoded. No event has an owner: owners come from /proc.
fn events(sockets: u32) -> Vec<Event> {
    let (decoder, wire) = (decoder(), wire_events(sockets));
    let events = wire.iter().map(|raw| decoder.decode(bytes(raw)));
    events.collect::<Result<_, _>>().expect("valid wire events")
}

/// [`events`], correlated and numbered: probes and their answers.
fn records(sockets: u32) -> Vec<Record> {
    let mut correlator = Correlator::new(NonZeroUsize::MIN.max(MAX_SOCKETS));
    let mut filter = every_event();
    let mut records = Vec::new();
    for event in events(sockets) {
        correlator.push(&event, &mut |record| {
            if filter.pass(record) {
                records.push(record.clone());
            }
        });
    }
    records
}
