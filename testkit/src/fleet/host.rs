//! What happens on one host, and its log.

use std::net::SocketAddr;

use anyhow::Result;
use fastrand::Rng;
use kaprobe::model::event::{Event, Kind, Lost};
use kaprobe::model::owner::Owner;
use kaprobe::model::record::Record;
use kaprobe::model::socket::Process;
use kaprobe::model::time::Instant;
use kaprobe::model::values::{Hook, LostWhy, Origin};
use kaprobe::text::escape::Escaped;

use crate::fleet::connection::{Connection, DEFAULT, Keepalive, Timed};
use crate::fleet::recorder::{Clocks, Recorder};
use crate::fleet::truth::Truth;
use crate::fleet::world::{
    END_NS, Forgotten, Path, SECOND, START_NS, World, host_address, host_name,
};

/// The initial network namespace.
const NETNS: u32 = 4_026_531_840;

/// The programs of a host: command name, what it runs, unit or pod.
const PROGRAMS: [(&str, Option<&str>, Place); 5] = [
    (
        "java",
        Some("java -jar orders.jar"),
        Place::Unit("orders.service"),
    ),
    ("python3", Some("python3 worker.py"), Place::Pod("worker")),
    ("pgbouncer", None, Place::Unit("pgbouncer.service")),
    ("envoy", None, Place::Pod("gateway")),
    (
        "beam.smp",
        Some("beam.smp -s rabbit"),
        Place::Unit("rabbitmq-server.service"),
    ),
];

/// Where a program runs.
#[derive(Clone, Copy)]
enum Place {
    Unit(&'static str),
    Pod(&'static str),
}

/// Each so many hosts, one loses events; another's recorder is killed and starts again; and
/// another is silent after half of the time.
const LOSSY: (u32, u32) = (15, 4);
const KILLED: (u32, u32) = (12, 7);
const SILENT: (u32, u32) = (20, 18);

/// A host, and what happens on it.
struct Host<'a> {
    world: &'a World,
    number: u32,
    rng: Rng,
    owners: Vec<Owner>,
    /// Sockets so far.
    sockets: u64,
    events: Vec<Timed>,
    /// The log ends then, ns after the logs begin.
    end_ns: u64,
}

/// Writes the log of a host, and adds to the truth what it should show.
///
/// # Errors
/// If a file can't be written.
pub(super) fn write(
    world: &World,
    number: u32,
    folder: &std::path::Path,
    truth: &mut Truth,
    observe: &dyn Fn(&Record),
) -> Result<()> {
    let mut host = Host::new(world, number);
    let name = host_name(number);
    for _ in 0..world.size.connections {
        host.connect(truth);
    }
    for forgotten in &world.forgotten {
        host.forget(forgotten, truth);
    }
    host.lose(truth);
    if host.end_ns < END_NS {
        truth.silent.insert(name.clone());
    }
    let clocks = host.clocks();
    let Host {
        mut events, end_ns, ..
    } = host;
    events.retain(|it| it.0 < end_ns);
    events.sort_by_key(|it| it.0);
    let mut recorder = Recorder::start(&name, folder, clocks, 0, observe)?;
    // Between two probes of anybody, and not at a time that hosts have in common.
    let killed_ns = is_one(number, KILLED).then(|| END_NS / 3 + u64::from(number) * SECOND);
    let mut is_killed = false;
    for (at, event) in events {
        if killed_ns.is_some_and(|killed_ns| killed_ns <= at && !is_killed) {
            is_killed = true;
            truth.killed.insert(name.clone());
            recorder = recorder.restart(killed_ns.unwrap_or(at))?;
        }
        recorder.event(at, event)?;
    }
    recorder.end(end_ns, truth)
}

fn is_one(number: u32, (of, which): (u32, u32)) -> bool {
    number % of == which
}

/// The process of a program on a host.
fn owner(program: usize, host: u32) -> Owner {
    let (comm, cmdline, place) = PROGRAMS[program];
    let process = Process {
        pid: u32::try_from(1_000 + program).ok(),
        comm: Some(Escaped::from(comm)),
        cmdline: cmdline.map(Escaped::from),
        ..Process::default()
    };
    Owner::from(match place {
        Place::Unit(unit) => Process {
            unit: Some(Escaped::from(unit)),
            ..process
        },
        Place::Pod(container) => Process {
            container: Some(Escaped::from(container)),
            container_id: Some(Escaped::from(format!("{host:032x}{program:032x}").as_str())),
            pod: Some(Escaped::from(format!("{container}-{host}").as_str())),
            pod_namespace: Some(Escaped::from("shop")),
            pod_uid: Some(Escaped::from(
                format!("{host:08x}-0000-4000-8000-{program:012x}").as_str(),
            )),
            ..process
        },
    })
}

impl<'a> Host<'a> {
    fn new(world: &'a World, number: u32) -> Self {
        let is_part_of = |it: &Forgotten| it.client == number || it.servers.contains(&number);
        let is_silent = is_one(number, SILENT) && !world.forgotten.iter().any(is_part_of);
        Self {
            world,
            number,
            rng: Rng::with_seed(world.size.seed ^ (u64::from(number) + 1) << 32),
            owners: (0..PROGRAMS.len()).map(|it| owner(it, number)).collect(),
            sockets: 0,
            events: Vec::new(),
            end_ns: if is_silent { END_NS / 2 } else { END_NS },
        }
    }

    /// The clocks of hosts differ by some milliseconds.
    fn clocks(&mut self) -> Clocks {
        let skew_ns = self.rng.i64(-40_000_000..40_000_000);
        Clocks {
            mono_ns: self.rng.u64(3_600..30 * 86_400) * SECOND,
            wall_ns: START_NS.cast_signed() + skew_ns,
        }
    }

    /// A connection between these ends, heard last at a time.
    fn connection(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        keepalive: Keepalive,
        heard_ns: u64,
    ) -> Connection {
        self.sockets += 1;
        let program = self.rng.usize(..self.owners.len());
        Connection {
            sk: 0xffff_8880_0000_0000 + 4_096 * self.sockets,
            owner: self.owners[program].clone(),
            local,
            remote,
            // Java opens AF_INET6 sockets for IPv4 too.
            is_mapped: program == 0,
            netns: NETNS,
            keepalive,
            received_ns: heard_ns,
            acked_ns: heard_ns,
            sent_ns: heard_ns,
        }
    }

    /// Connects to a service, with what follows.
    fn connect(&mut self, truth: &mut Truth) {
        let service = &self.world.services[self.rng.usize(..self.world.services.len())];
        let port = 32_768 + self.sockets as u16;
        let local = SocketAddr::new(host_address(self.number, service.address.ip()), port);
        let heard_ns = self.rng.u64(SECOND..600 * SECOND);
        let keepalive = self.keepalive(service.path);
        let connection = self.connection(local, service.address, keepalive, heard_ns);
        match service.path {
            Path::Timeout(seconds) | Path::Drop(seconds) if keepalive.time > seconds => {
                self.idle_too_long(connection, service.path, seconds, truth);
            }
            Path::Restart(at) => self.restart(connection, at),
            _ if keepalive.is_on => self.keep(connection, END_NS),
            _ => {}
        }
    }

    /// The settings of the program that connects: many were made with the path in mind.
    fn keepalive(&mut self, path: Path) -> Keepalive {
        let off = Keepalive {
            is_on: false,
            ..DEFAULT
        };
        let late = Keepalive {
            is_on: true,
            from: Origin::Sysctl,
            ..DEFAULT
        };
        match (path, self.rng.u8(..10)) {
            (Path::Timeout(seconds) | Path::Drop(seconds), 0..5) => Keepalive::after(seconds / 4),
            (Path::Timeout(seconds) | Path::Drop(seconds), 5) => Keepalive::after(seconds * 4 / 5),
            (Path::Timeout(_) | Path::Drop(_), 6) => late,
            (Path::Plain | Path::Restart(_) | Path::Balancer { .. }, 0..7) => {
                Keepalive::after([60, 120, 300][self.rng.usize(..3)])
            }
            _ => off,
        }
    }

    /// The peer answers every probe until then.
    fn keep(&mut self, mut connection: Connection, until_ns: u64) {
        connection.probes(until_ns, &mut self.events);
    }

    /// The program may use the connection after a silence that a box does not keep it for.
    fn idle_too_long(
        &mut self,
        mut connection: Connection,
        path: Path,
        timeout_s: u64,
        truth: &mut Truth,
    ) {
        if self.rng.u8(..3) > 0 {
            return;
        }
        let used_ns = self.rng.u64(600 * SECOND..END_NS - 2 * 3_600 * SECOND);
        let gap_ns = self
            .rng
            .u64(timeout_s * SECOND + SECOND..timeout_s * SECOND * 8 / 5);
        (connection.received_ns, connection.acked_ns) = (used_ns, used_ns);
        connection.sent_ns = used_ns;
        let mut end_ns = used_ns + gap_ns;
        if matches!(path, Path::Drop(_)) {
            end_ns = connection.drop_after_silence(end_ns, &mut self.events);
        } else {
            connection.reset_after_silence(end_ns, &mut self.events);
        }
        if end_ns + 2 * SECOND < self.end_ns {
            evicted(truth, self.number, &connection);
        }
    }

    /// The server restarts: what is sent after that is answered with a reset.
    fn restart(&mut self, mut connection: Connection, restart_ns: u64) {
        if connection.keepalive.is_on {
            connection.probes(restart_ns, &mut self.events);
            let next = connection.acked_ns + connection.keepalive.time * SECOND;
            connection.reset_of_probe(next, &mut self.events);
            return;
        }
        let before = self.rng.u64(60 * SECOND..3_600 * SECOND);
        let used_ns = restart_ns - before;
        (connection.received_ns, connection.acked_ns) = (used_ns, used_ns);
        connection.sent_ns = used_ns;
        let at = restart_ns + self.rng.u64(SECOND..1_800 * SECOND);
        connection.reset_after_silence(at, &mut self.events);
    }

    /// The part of this host in a connection that a balancer forgets.
    fn forget(&mut self, it: &Forgotten, truth: &mut Truth) {
        let vip = self.world.services[it.service].address;
        let client = SocketAddr::new(host_address(it.client, vip.ip()), it.port);
        let off = Keepalive {
            is_on: false,
            ..DEFAULT
        };
        let held = Keepalive::after(1_200);
        if self.number == it.client {
            let mut connection = self.connection(client, vip, off, it.quiet_ns);
            connection.reset_after_silence(it.sent_ns, &mut self.events);
            evicted(truth, self.number, &connection);
            // The server's probes meet nothing here, and the answers go elsewhere.
            let server = self.connection(vip, client, held, it.quiet_ns);
            for at in server.give_up(&mut Vec::new()) {
                self.events.push(connection.met_nothing(at + 100_000, 0));
            }
        } else if self.number == it.servers[1] {
            let stray = self.connection(vip, client, off, it.quiet_ns);
            self.events
                .push(stray.met_nothing(it.sent_ns + 300_000, 37));
        } else if self.number == it.servers[0] {
            let connection = self.connection(vip, client, held, it.quiet_ns);
            connection.give_up(&mut self.events);
        }
    }

    /// Some hosts lose events.
    fn lose(&mut self, truth: &mut Truth) {
        if !is_one(self.number, LOSSY) {
            return;
        }
        let at = self.rng.u64(..self.end_ns);
        let lost = Lost {
            at: Instant {
                mono_ns: at,
                wall_ns: 0,
            },
            hook: Hook::KeepaliveTimer,
            kind: Some(Kind::Probe),
            why: LostWhy::RingBuffer,
            count: self.rng.u64(1..1_000),
        };
        truth.lost.insert(host_name(self.number), lost.count);
        self.events.push((at, Event::Lost(lost)));
    }
}

/// A connection died by an idle timeout.
fn evicted(truth: &mut Truth, number: u32, connection: &Connection) {
    let endpoint = connection.remote.to_string();
    *truth.evicted.entry(endpoint.clone()).or_default() += 1;
    let comm = connection.owner.comm.as_ref();
    let program = comm.map_or("", Escaped::as_str).to_owned();
    truth
        .unprotected
        .insert((host_name(number), program, endpoint));
}
