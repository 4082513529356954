//! Every end of a connection has its record: give-ups of every timer, aborts, closes.

use std::io::Read as _;
use std::net::{Shutdown, SocketAddr};
use std::process;
use std::thread;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};
use kaprobe::model::time::TICK_MS;
use kaprobe::traffic::pair::{Path, deafen};
use kaprobe::traffic::script::{CLOSE, CLOSE_WAIT};
use kaprobe::traffic::sockopt::{set, set_repair, tcp_info};
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::doctor;
use kaprobe_testkit::holder::Holder;
use kaprobe_testkit::ipvs::settle;
use kaprobe_testkit::log::{Record, TraceLog};
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::tracer::{Kaprobe, one_per_way};
use kaprobe_testkit::traffic::ends::is_window_shut;
use kaprobe_testkit::traffic::steps::FIN_WAIT2;
use kaprobe_testkit::wait::wait_until;
use socket2::Socket;

/// A way for a connection to end, and the expected record of the near end.
struct EndCase {
    name: &'static str,
    /// Makes a connection that ends so. What it returns is held until all have ended.
    make: fn(Path) -> Result<Ending>,
    /// The event with its detail, the state before it, and the error.
    record: (&'static str, &'static str, Option<&'static str>),
    /// Whether this process did it.
    by_us: bool,
}

/// A connection that ends.
pub struct Ending {
    /// The near end's address.
    pub local: SocketAddr,
    /// The far end's address.
    pub remote: SocketAddr,
    /// The sockets to keep open. The first is watched until it is in CLOSE.
    pub sockets: Vec<Socket>,
    is_watched: bool,
}

const TIMED_OUT: Option<&str> = Some("ETIMEDOUT");

const CASES: &[EndCase] = &[
    EndCase {
        name: "data is retransmitted without an answer",
        make: |path| unanswered(path, 0),
        record: ("timeout/retransmission", "ESTABLISHED", TIMED_OUT),
        by_us: false,
    },
    EndCase {
        name: "TCP_USER_TIMEOUT with data in flight",
        make: |path| unanswered(path, 1_000),
        record: ("timeout/user_timeout", "ESTABLISHED", TIMED_OUT),
        by_us: false,
    },
    EndCase {
        name: "the window stays shut",
        make: |path| shut_window(path, 0),
        record: ("timeout/zero_window", "ESTABLISHED", TIMED_OUT),
        by_us: false,
    },
    EndCase {
        name: "TCP_USER_TIMEOUT with a window that stays shut",
        make: |path| shut_window(path, 1_000),
        record: ("timeout/user_timeout", "ESTABLISHED", TIMED_OUT),
        by_us: false,
    },
    EndCase {
        name: "a SYN is retransmitted without an answer",
        make: |path| unheard(path, 0),
        record: ("timeout/retransmission", "SYN_SENT", TIMED_OUT),
        by_us: false,
    },
    EndCase {
        name: "TCP_USER_TIMEOUT with a SYN in flight",
        make: |path| unheard(path, 1_000),
        record: ("timeout/user_timeout", "SYN_SENT", TIMED_OUT),
        by_us: false,
    },
    EndCase {
        name: "data after the peer's FIN is retransmitted without an answer",
        make: |path| {
            let pair = half_closed(path)?;
            deafen(&pair.far)?;
            send_byte(&pair.near)?;
            Ok(pair.watched())
        },
        record: ("timeout/retransmission", "CLOSE_WAIT", TIMED_OUT),
        by_us: false,
    },
    EndCase {
        name: "an orphan's data and FIN are retransmitted without an answer",
        make: unanswered_orphan,
        record: ("timeout/retransmission", "FIN_WAIT1", TIMED_OUT),
        by_us: false,
    },
    EndCase {
        name: "an orphan's last FIN is retransmitted without an answer",
        make: |path| {
            let pair = half_closed(path)?;
            deafen(&pair.far)?;
            Ok(pair.closed())
        },
        record: ("timeout/retransmission", "LAST_ACK", TIMED_OUT),
        by_us: false,
    },
    EndCase {
        name: "an orphan's window stays shut",
        make: shut_window_of_orphan,
        record: ("timeout/zero_window", "FIN_WAIT1", TIMED_OUT),
        by_us: false,
    },
    EndCase {
        name: "TCP_REPAIR",
        make: |path| {
            let pair = Ends::open(path)?;
            set_repair(&pair.near)?;
            Ok(pair.closed())
        },
        record: ("aborted", "ESTABLISHED", None),
        by_us: true,
    },
    EndCase {
        name: "a disconnect after the last FIN, all of it sent",
        make: |path| {
            let pair = half_closed(path)?;
            deafen(&pair.far)?;
            pair.near.shutdown(Shutdown::Write)?;
            pair.near.set_linger(Some(Duration::ZERO))?;
            Ok(pair.closed())
        },
        record: ("aborted", "LAST_ACK", None),
        by_us: true,
    },
    EndCase {
        name: "a segment for a connection that ended without a word",
        make: |path| {
            let pair = Ends::open(path)?;
            set_repair(&pair.near)?;
            let ending = pair.closed();
            let far = ending.sockets.first().context("no far end")?;
            send_byte(far)?;
            wait_for(far, CLOSE)?;
            Ok(ending)
        },
        record: ("aborted", "ESTABLISHED", None),
        by_us: true,
    },
    EndCase {
        name: "SO_LINGER 0",
        make: |path| {
            let pair = Ends::open(path)?;
            pair.near.set_linger(Some(Duration::ZERO))?;
            Ok(pair.closed())
        },
        record: ("rst_sent", "ESTABLISHED", None),
        by_us: true,
    },
    EndCase {
        name: "SO_LINGER 0 after the peer's FIN",
        make: |path| {
            let pair = half_closed(path)?;
            pair.near.set_linger(Some(Duration::ZERO))?;
            Ok(pair.closed())
        },
        record: ("rst_sent", "CLOSE_WAIT", None),
        by_us: true,
    },
];

/// For every way to attach: each end has the record of its cause, and the records equal the
/// growth of TCPAbortOnTimeout, TCPTimeouts, EstabResets and OutRsts. A way that does not see
/// resets without a socket says so, and has no record of them.
pub fn every_end_has_a_record() -> Result<()> {
    netns::enter_new()?;
    give_up_soon()?;
    let silent = doctor::ways_that_miss("tcp_v4_send_reset")?;
    let kaprobes = one_per_way(&["--netns", "/proc/self/ns/net"])?;
    let alone = OwnCpu::take()?;
    let before = KernelCounters::read()?;
    let mut made = Vec::new();
    for case in CASES {
        for path in Path::ALL {
            let ending = (case.make)(path).with_context(|| format!("{} {path:?}", case.name))?;
            made.push((case, path, ending));
        }
    }
    for (case, path, ending) in &made {
        ending
            .wait()
            .with_context(|| format!("{} {path:?}", case.name))?;
    }
    let expected = made.len() as u64 - count_of("rst_sent") - count_of("aborted");
    wait_until("every timer has given up", || {
        let given_up = KernelCounters::read()?.abort_on_timeout - before.abort_on_timeout;
        Ok(given_up >= expected)
    })?;
    let after = KernelCounters::read()?;
    drop(alone);
    let mut differences = Vec::new();
    for (way, kaprobe) in kaprobes {
        let log = kaprobe.stop()?;
        log.nothing_was_skipped(None)?;
        let sees_all_resets = !silent.contains(&way);
        let reported = [
            log.count(&["timeout"]),
            log.retransmission_timers(),
            log.ended_open_connections(),
            log.count(&["rst_sent"]),
            log.count(&["lost"]),
        ];
        let mut counted = [
            after.abort_on_timeout - before.abort_on_timeout,
            after.timeouts - before.timeouts,
            after.estab_resets - before.estab_resets,
            after.out_rsts - before.out_rsts,
            0,
        ];
        if !sees_all_resets {
            counted[3] = count_of("rst_sent");
        }
        if reported != counted {
            differences.push(format!(
                "{way}: [TCPAbortOnTimeout, TCPTimeouts, EstabResets, OutRsts, lost] is \
                 {reported:?}; the kernel counted {counted:?}"
            ));
        }
        for (case, path, ending) in &made {
            differences.extend(
                case.compare(&log, ending)
                    .map(|it| format!("{way}: {} {path:?}: {it}", case.name)),
            );
        }
    }
    ensure!(differences.is_empty(), "\n{}", differences.join("\n"));
    Ok(())
}

/// The connections that end with this event.
fn count_of(event: &str) -> u64 {
    let cases = CASES.iter().filter(|case| case.record.0 == event).count();
    (cases * Path::ALL.len()) as u64
}

impl EndCase {
    /// The difference between the near end's record and the expected one.
    fn compare(&self, log: &TraceLog, ending: &Ending) -> Option<String> {
        let ends = ["timeout", "aborted", "rst_sent", "rst_received"];
        let records: Vec<_> = log
            .records
            .iter()
            .filter(|it| ends.contains(&it.event()) && ending.is_of(it))
            .collect();
        let by = by(records.first()?);
        let seen: Vec<_> = records
            .iter()
            .map(|it| {
                let state = it.text("state_before").or_else(|| it.text("state"));
                let state = state.unwrap_or_default();
                (it.label(), state.to_owned(), it.text("err"))
            })
            .collect();
        let (label, state, err) = self.record;
        // After a disconnect, the error of a reset depends on the kernel.
        let is_it = |(seen_label, seen_state, seen_err): &(String, String, Option<&str>)| {
            (seen_label, seen_state) == (&label.to_owned(), &state.to_owned())
                && (*seen_err == err || label == "rst_sent")
        };
        let expected_by = self.by_us.then(|| (u64::from(process::id()), false));
        let same = matches!(&seen[..], [only] if is_it(only)) && by == expected_by;
        (!same).then(|| format!("{seen:?} by {by:?}"))
    }
}

/// The process that did what a record reports, and whether it was exiting.
fn by(record: &Record) -> Option<(u64, bool)> {
    Some((record.number("by_pid")?, record.flag("by_exiting")?))
}

impl Ending {
    /// Whether a record is of the near end.
    pub fn is_of(&self, record: &Record) -> bool {
        // The IPv4-mapped address of a socket is as it is in the socket.
        record.connection().is_ok_and(|(_, local, remote)| {
            (local, remote) == (self.local, self.remote) && record.number("sock").is_some()
        })
    }

    /// Waits until the watched socket is in CLOSE.
    fn wait(&self) -> Result<()> {
        let Some(near) = self.sockets.first().filter(|_| self.is_watched) else {
            return Ok(());
        };
        wait_until("the connection has ended", || {
            Ok(tcp_info(near)?.state == CLOSE)
        })
    }
}

/// Makes the timers of new connections give up soon.
fn give_up_soon() -> Result<()> {
    for (name, value) in [
        ("tcp_retries2", 2),
        ("tcp_orphan_retries", 2),
        ("tcp_syn_retries", 1),
    ] {
        netns::set_ipv4_sysctl(name, value)?;
    }
    // Since 6.5, several SYNs are sent before those that are counted.
    if fs::exists("/proc/sys/net/ipv4/tcp_syn_linear_timeouts")? {
        netns::set_ipv4_sysctl("tcp_syn_linear_timeouts", 0)?;
    }
    Ok(())
}

/// Both ends of a connection.
pub struct Ends {
    /// The end that is tested.
    pub near: Socket,
    /// The other end.
    pub far: Socket,
    /// The near end's address.
    pub local: SocketAddr,
    /// The far end's address.
    pub remote: SocketAddr,
}

impl Ends {
    /// Opens a connection.
    pub fn open(path: Path) -> Result<Self> {
        Self::open_with(path, |_| Ok(()))
    }

    /// Opens a connection. `prepare` sets options of both ends before.
    fn open_with(path: Path, prepare: fn(&Socket) -> io::Result<()>) -> Result<Self> {
        let (near, listener) = (bound(path)?, bound(path)?);
        prepare(&near)?;
        prepare(&listener)?;
        listener.listen(1)?;
        near.connect(&listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        Ok(Self {
            local: address(&near.local_addr()?)?,
            remote: address(&far.local_addr()?)?,
            near,
            far,
        })
    }

    /// Opens a connection whose far end drops, from now on, what the near end sends.
    pub fn unanswered(path: Path) -> Result<Self> {
        let pair = Self::open(path)?;
        settle(&pair.near, &pair.far)?;
        deafen(&pair.far)?;
        Ok(pair)
    }

    /// The near end stays open until it is in CLOSE.
    fn watched(self) -> Ending {
        Ending {
            local: self.local,
            remote: self.remote,
            sockets: vec![self.near, self.far],
            is_watched: true,
        }
    }

    /// The near end is closed now.
    pub fn closed(self) -> Ending {
        drop(self.near);
        Ending {
            local: self.local,
            remote: self.remote,
            sockets: vec![self.far],
            is_watched: false,
        }
    }
}

fn bound(path: Path) -> Result<Socket> {
    let socket = path.socket()?;
    socket.bind(&SocketAddr::new(path.loopback(), 0).into())?;
    Ok(socket)
}

fn address(address: &socket2::SockAddr) -> Result<SocketAddr> {
    address.as_socket().context("not an internet address")
}

pub fn send_byte(socket: &Socket) -> Result<()> {
    ensure!(socket.send(b"!")? == 1, "nothing was sent");
    Ok(())
}

fn set_user_timeout(socket: &Socket, ms: u64) -> io::Result<()> {
    let timeout = (ms != 0).then(|| Duration::from_millis(ms));
    socket.set_tcp_user_timeout(timeout)
}

/// Makes an orphan whose data and FIN nobody acknowledges.
pub fn unanswered_orphan(path: Path) -> Result<Ending> {
    let pair = Ends::unanswered(path)?;
    send_byte(&pair.near)?;
    Ok(pair.closed())
}

/// The far end drops what the near end sends.
pub fn unanswered(path: Path, user_timeout_ms: u64) -> Result<Ending> {
    let pair = Ends::unanswered(path)?;
    set_user_timeout(&pair.near, user_timeout_ms)?;
    send_byte(&pair.near)?;
    Ok(pair.watched())
}

/// The far end reads nothing until its window is shut, and then drops the window probes.
pub fn shut_window(path: Path, user_timeout_ms: u64) -> Result<Ending> {
    let pair = Ends::open_with(path, |socket| {
        socket.set_recv_buffer_size(4_096)?;
        socket.set_send_buffer_size(4_096)
    })?;
    set_user_timeout(&pair.near, user_timeout_ms)?;
    pair.near.set_nonblocking(true)?;
    while pair.near.send(&[0; 65_536]).is_ok() {}
    // Probes of the window are sent once nothing is in flight. What waits does not change.
    wait_until("the window is shut", || Ok(is_window_shut(&pair.near)?))?;
    deafen(&pair.far)?;
    Ok(pair.watched())
}

/// A connection that is never answered.
fn unheard(path: Path, user_timeout_ms: u64) -> Result<Ending> {
    let (near, listener) = (bound(path)?, bound(path)?);
    listener.listen(1)?;
    deafen(&listener)?;
    if user_timeout_ms != 0 {
        set_user_timeout(&near, user_timeout_ms)?;
        set(&near, libc::IPPROTO_TCP, libc::TCP_SYNCNT, 9)?;
    }
    near.set_nonblocking(true)?;
    let refused = near.connect(&listener.local_addr()?).err();
    let refused = refused.and_then(|e| e.raw_os_error());
    ensure!(refused == Some(libc::EINPROGRESS), "connect: {refused:?}");
    Ok(Ending {
        local: address(&near.local_addr()?)?,
        remote: address(&listener.local_addr()?)?,
        sockets: vec![near, listener],
        is_watched: true,
    })
}

/// The near end of a shut window is closed: its FIN waits behind the data.
pub fn shut_window_of_orphan(path: Path) -> Result<Ending> {
    let Ending {
        local,
        remote,
        mut sockets,
        ..
    } = shut_window(path, 0)?;
    drop(sockets.remove(0));
    Ok(Ending {
        local,
        remote,
        sockets,
        is_watched: false,
    })
}

/// The far end has closed its half.
fn half_closed(path: Path) -> Result<Ends> {
    let pair = Ends::open(path)?;
    pair.far.shutdown(Shutdown::Write)?;
    wait_for(&pair.near, CLOSE_WAIT)?;
    wait_for(&pair.far, FIN_WAIT2)?;
    Ok(pair)
}

fn wait_for(socket: &Socket, state: u8) -> Result<()> {
    wait_until(&format!("a socket is in state {state}"), || {
        Ok(tcp_info(socket)?.state == state)
    })
}

/// The time without data after which a connection counts as idle, ms.
const IDLE_MS: u64 = 1_000;

/// A close of an idle connection has a record on both ends, which names who did it. Other
/// closes have none.
pub fn idle_closes_are_reported() -> Result<()> {
    netns::enter_new()?;
    let kaprobe = Kaprobe::trace(&["--netns", "/proc/self/ns/net"])?.ready()?;
    let mut idle = Vec::new();
    for path in Path::ALL {
        idle.push(Ends::open(path)?);
    }
    // At least so long: the machine may take longer.
    thread::sleep(Duration::from_millis(IDLE_MS + 50));
    let mut closed = Vec::new();
    for Ends {
        near,
        mut far,
        local,
        remote,
    } in idle
    {
        drop(near);
        ensure!(far.read(&mut [0])? == 0, "not closed");
        drop(far);
        closed.push((local, remote));
    }
    for path in Path::ALL {
        let pair = Ends::open(path)?;
        send_byte(&pair.near)?;
    }
    let log = kaprobe.stop()?;
    let fins = |event| log.records.iter().filter(move |it| it.event() == event);
    for record in fins("fin_sent").chain(fins("fin_received")) {
        let quiet = record.number("lastrcv_ms").min(record.number("lastsnd_ms"));
        ensure!(quiet >= Some(IDLE_MS), "not idle: {record:?}");
    }
    let own = Some((u64::from(process::id()), false));
    for (local, remote) in closed {
        let of = |event, from, to, state| {
            let mut all = fins(event).filter(|it| {
                it.connection()
                    .is_ok_and(|(_, local, remote)| (local, remote) == (from, to))
                    && it.text("state") == Some(state)
            });
            all.next().filter(|_| all.next().is_none())
        };
        let seen = [
            of("fin_sent", local, remote, "ESTABLISHED").map(by),
            of("fin_received", remote, local, "ESTABLISHED").map(by),
            of("fin_sent", remote, local, "CLOSE_WAIT").map(by),
        ];
        ensure!(
            seen == [Some(own), Some(None), Some(own)],
            "{local}: {seen:?}"
        );
    }
    Ok(())
}

/// A process that is killed closes its sockets: the records say so.
pub fn killed_processes_are_named() -> Result<()> {
    netns::enter_new()?;
    let kaprobes = one_per_way(&["--netns", "/proc/self/ns/net"])?;
    let mut killed = Vec::new();
    for path in Path::ALL {
        let mut holder = Holder::start()?;
        let pair = Ends::open(path)?;
        ensure!(pair.far.send(b"!")? == 1, "nothing was sent");
        wait_until("the byte has arrived", || {
            Ok(pair.near.peek(&mut [std::mem::MaybeUninit::uninit()])? == 1)
        })?;
        holder.pass(&pair.near)?;
        let pid = holder.pid();
        let ending = pair.closed();
        drop(holder);
        let far = ending.sockets.first().context("no far end")?;
        wait_for(far, CLOSE)?;
        killed.push((pid, ending));
    }
    for (way, kaprobe) in kaprobes {
        let log = kaprobe.stop()?;
        for (pid, ending) in &killed {
            let is_it = |it: &&Record| it.event() == "rst_sent" && ending.is_of(it);
            let reset = log.records.iter().find(is_it).map(by);
            let expected = Some(Some((u64::from(*pid), true)));
            ensure!(reset == expected, "{way}: {reset:?}, not {expected:?}");
        }
    }
    Ok(())
}

/// Makes a connection that stalls.
type MakeStall = fn(Path) -> Result<Ending>;

/// The stalls, and the cause by which each ends.
const STALLS: &[(&str, MakeStall, &str)] = &[
    ("data", |path| unanswered(path, 0), "retransmission"),
    (
        "TCP_USER_TIMEOUT",
        |path| unanswered(path, 4_000),
        "user_timeout",
    ),
    ("an orphan", unanswered_orphan, "retransmission"),
];

/// A connection that has stalled has one record, which says when the kernel gives up; and
/// the kernel gives up then.
pub fn stalls_are_reported_once_and_end_as_predicted() -> Result<()> {
    netns::enter_new()?;
    give_up_soon()?;
    netns::set_ipv4_sysctl("tcp_retries2", 4)?;
    netns::set_ipv4_sysctl("tcp_orphan_retries", 3)?;
    let kaprobe = Kaprobe::trace(&["--netns", "/proc/self/ns/net"])?.ready()?;
    let before = KernelCounters::read()?.abort_on_timeout;
    let mut made = Vec::new();
    for (name, make, cause) in STALLS {
        for path in Path::ALL {
            made.push((name, path, cause, make(path)?));
        }
    }
    let answered = Ends::open(Path::V4)?;
    send_byte(&answered.near)?;
    let expected = made.len() as u64;
    wait_until("every timer has given up", || {
        Ok(KernelCounters::read()?.abort_on_timeout - before >= expected)
    })?;
    let log = kaprobe.stop()?;
    ensure!(
        log.count(&["stalled"]) == expected,
        "{} stalls",
        log.count(&["stalled"])
    );
    for (name, path, cause, ending) in &made {
        let of = |event| {
            let is_it = move |it: &&Record| it.event() == event && ending.is_of(it);
            log.records.iter().find(is_it).context(event)
        };
        let (stalled, gave_up) = (of("stalled")?, of("timeout")?);
        let dead_in_ms = stalled.number("dead_in_ms").context("no prediction")?;
        let took_ms = gave_up.number("mono_ns").zip(stalled.number("mono_ns"));
        let took_ms = took_ms
            .map(|(end, start)| (end - start) / 1_000_000)
            .unwrap_or_default();
        let latest_ms = dead_in_ms + LATE_MS;
        ensure!(
            stalled.text("dead_by") == Some(*cause)
                && gave_up.text("cause") == Some(*cause)
                && stalled.number("retransmits") == Some(3)
                && (dead_in_ms.saturating_sub(5 * TICK_MS)..=latest_ms).contains(&took_ms),
            "{name} {path:?}: gave up after {took_ms} ms, not {dead_in_ms}: {stalled:?} {gave_up:?}"
        );
    }
    Ok(())
}

/// By how much the timers of a busy machine may be late in all, ms.
const LATE_MS: u64 = 1_000;
