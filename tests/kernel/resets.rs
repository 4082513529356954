//! The records of resets equal the kernel's counters, and each cause has its verdict.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;
use std::{io, mem};

use anyhow::{Context as _, Result, ensure};
use kaprobe::traffic::pair::{Path, deafen};
use kaprobe::traffic::script::{CLOSE, CLOSE_WAIT, Scenario, ScriptedConnection};
use kaprobe::traffic::sockopt::{set_repair, tcp_info};
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::doctor;
use kaprobe_testkit::log::{Record, TraceLog};
use kaprobe_testkit::netns::{self, KernelCounters};
use kaprobe_testkit::tracer::one_per_way;
use kaprobe_testkit::traffic::ends::set_linger2;
use kaprobe_testkit::traffic::steps::FIN_WAIT2;
use kaprobe_testkit::traffic::{play, scenarios};
use kaprobe_testkit::wait::wait_until;
use socket2::{Domain, Socket, Type};

/// An action that ends a connection, with the expected records and counters.
struct ResetCase {
    name: &'static str,
    act: fn(Path) -> Result<EndAddresses>,
    /// The events of the near end, which acts, and of the far end. In order, each
    /// followed by a space.
    near: &'static str,
    far: &'static str,
    /// The end of the kernel's reason for an active reset, if the kernel has reasons.
    reason: &'static str,
    /// A part of the advice on the near end, with and without a reason.
    advice: [&'static str; 2],
    /// The growth of the kernel's counters.
    out_rsts: u64,
    estab_resets: u64,
}

/// The addresses of the near and the far end.
type EndAddresses = (SocketAddr, SocketAddr);

const NOTHING: ResetCase = ResetCase {
    name: "",
    act: closes_first,
    near: "",
    far: "",
    reason: "",
    advice: [""; 2],
    out_rsts: 0,
    estab_resets: 0,
};

/// The events of an end that sends an active reset.
const ABORTS: &str = "active verdict/aborted_locally closed ";
/// The events of an open connection that is reset.
const RESET: &str = "rst_received/ESTABLISHED verdict/aborted_by_peer closed ";
/// The events of a connection that is reset after its other end has closed.
const RESET_LATE: &str = "rst_received/CLOSE_WAIT verdict/aborted_by_peer closed ";

const ACTIVE: ResetCase = ResetCase {
    near: ABORTS,
    far: RESET,
    out_rsts: 1,
    estab_resets: 2,
    ..NOTHING
};

const ROWS: &[ResetCase] = &[
    ResetCase {
        name: "a program closes first",
        ..NOTHING
    },
    ResetCase {
        name: "the peer closes first",
        act: closes_last,
        ..NOTHING
    },
    ResetCase {
        name: "a disconnect before there is a connection",
        act: gives_up_connecting,
        ..NOTHING
    },
    ResetCase {
        name: "a closed port",
        act: connects_to_closed_port,
        near: "rst_received/SYN_SENT closed ",
        far: "passive/nothing ",
        out_rsts: 1,
        ..NOTHING
    },
    ResetCase {
        name: "a segment for what is not here",
        act: |path| stray(path, false),
        near: RESET,
        far: "aborted/ESTABLISHED closed passive/nothing verdict/stray_segment ",
        out_rsts: 1,
        estab_resets: 2,
        ..NOTHING
    },
    ResetCase {
        name: "a segment in mid-stream for a listener",
        act: |path| stray(path, true),
        near: RESET,
        far: "aborted/ESTABLISHED closed passive/socket verdict/stray_segment ",
        out_rsts: 1,
        estab_resets: 2,
        ..NOTHING
    },
    ResetCase {
        name: "data for TIME_WAIT",
        act: data_for_time_wait,
        near: "passive/time_wait verdict/aborted_locally ",
        far: RESET_LATE,
        advice: ["1 bytes came after"; 2],
        out_rsts: 1,
        estab_resets: 1,
        ..NOTHING
    },
    ResetCase {
        name: "data for an orphan",
        act: data_for_orphan,
        near: "closed passive/socket verdict/aborted_locally ",
        far: RESET_LATE,
        advice: ["1 bytes came after"; 2],
        out_rsts: 1,
        estab_resets: 1,
        ..NOTHING
    },
    ResetCase {
        name: "TCP_LINGER2 below 0, the FIN not acknowledged yet",
        act: no_fin_wait2,
        near: "passive/socket verdict/aborted_locally ",
        far: RESET_LATE,
        advice: ["TCP_LINGER2 below 0"; 2],
        out_rsts: 1,
        estab_resets: 1,
        ..NOTHING
    },
    ResetCase {
        name: "TCP_LINGER2 below 0",
        act: |path| from_fin_wait2(path, |near| set_linger2(near, -1)),
        far: RESET_LATE,
        reason: "ABORT_ON_LINGER",
        advice: ["TCP_LINGER2 below 0"; 2],
        estab_resets: 1,
        ..ACTIVE
    },
    ResetCase {
        name: "SO_LINGER 0 after a shutdown",
        act: |path| from_fin_wait2(path, linger_0),
        far: RESET_LATE,
        reason: "TCP_STATE",
        advice: ["SO_LINGER 0"; 2],
        estab_resets: 1,
        ..ACTIVE
    },
    ResetCase {
        name: "SO_LINGER 0",
        act: lingers_0,
        reason: "TCP_STATE",
        advice: ["SO_LINGER 0"; 2],
        ..ACTIVE
    },
    ResetCase {
        name: "data unread at close",
        act: leaves_unread,
        reason: "ABORT_ON_CLOSE",
        advice: ["closed it with data unread; a program", "data unread"],
        ..ACTIVE
    },
    ResetCase {
        name: "a disconnect",
        act: disconnects,
        reason: "TCP_STATE",
        advice: ["disconnected it"; 2],
        ..ACTIVE
    },
    ResetCase {
        name: "a disconnect with data unsent",
        act: disconnects_with_data,
        far: "rst_received/FIN_WAIT2 verdict/aborted_by_peer closed ",
        reason: "DISCONNECT_WITH_DATA",
        advice: ["data unsent", "disconnected it"],
        estab_resets: 0,
        ..ACTIVE
    },
    ResetCase {
        name: "never accepted",
        act: never_accepts,
        reason: "TCP_STATE",
        advice: ["before a program accepted it"; 2],
        ..ACTIVE
    },
];

/// Scenarios that need a timer.
const TIMED: &[Scenario] = &[
    scenarios::SILENT,
    scenarios::USER_TIMEOUT,
    scenarios::VANISHED,
    scenarios::FIN_WAIT2_RESET,
];

/// The probes that meet no socket: [`scenarios::VANISHED`] has one.
const PROBES_TO_NOTHING: u64 = 1;

/// For every way to attach: `rst_sent` records equal the growth of OutRsts, each count of
/// EstabResets has a record, each reset end has a verdict, and normal ends have none. A
/// way misses exactly what `doctor` says.
pub fn every_reset_has_a_record_and_a_verdict() -> Result<()> {
    netns::enter_new()?;
    let silent = doctor::ways_that_miss("tcp_v4_send_reset")?;
    let mut scripted = TIMED
        .iter()
        .flat_map(|scenario| Path::ALL.map(|path| ScriptedConnection::new(*scenario, path)))
        .collect::<io::Result<Vec<_>>>()?;
    let kaprobes = one_per_way(&["--netns", "/proc/self/ns/net"])?;
    let alone = OwnCpu::take()?;
    let before = KernelCounters::read()?;
    // Resets by a process come first, when no keepalive timer is armed yet. Before 6.7 a
    // kprobe that hits inside another one's handler is skipped, and nothing counts it.
    let acted = act_all()?;
    play::play_out(&mut scripted)?;
    drop(scripted);
    drop(alone);
    let after = KernelCounters::read()?;
    let (rsts, resets) = (
        after.out_rsts - before.out_rsts,
        after.estab_resets - before.estab_resets,
    );
    let mut differences = Vec::new();
    for (way, kaprobe) in kaprobes {
        let log = kaprobe.stop()?;
        log.nothing_was_skipped(None)?;
        let is_silent = silent.contains(&way);
        let unseen = if is_silent { unseen() } else { 0 };
        let reported = (
            log.count(&["rst_sent"]) + unseen,
            log.ended_open_connections(),
            log.count(&["lost"]),
        );
        if reported != (rsts, resets, 0) {
            differences.push(format!(
                "{way}: (OutRsts, EstabResets, lost) is {reported:?} with {unseen} unseen; the \
                 kernel counted {rsts}, {resets}"
            ));
        }
        let ends = by_end(&log)?;
        for act in &acted {
            differences.extend(
                act.compare(&ends, is_silent)
                    .map(|it| format!("{way}: {it}")),
            );
        }
    }
    ensure!(differences.is_empty(), "\n{}", differences.join("\n"));
    Ok(())
}

/// A row whose action is done, and the ends of its connection.
struct Acted {
    row: &'static ResetCase,
    path: Path,
    ends: EndAddresses,
}

/// Runs every row over every kind of address, one after another, and compares with the
/// kernel's counters.
fn act_all() -> Result<Vec<Acted>> {
    let mut acted = Vec::new();
    for row in ROWS {
        for path in Path::ALL {
            let before = KernelCounters::read()?;
            let (near, far) = (row.act)(path).with_context(|| format!("{} {path:?}", row.name))?;
            let after = KernelCounters::read()?;
            let counted = (
                after.out_rsts - before.out_rsts,
                after.estab_resets - before.estab_resets,
            );
            ensure!(
                counted == (row.out_rsts, row.estab_resets),
                "{} {path:?}: (OutRsts, EstabResets) is {counted:?}",
                row.name
            );
            let ends = (canonical(near), canonical(far));
            acted.push(Acted { row, path, ends });
        }
    }
    Ok(acted)
}

impl Acted {
    /// The difference between the records and the row.
    fn compare(&self, log: &ByEnd<'_>, is_silent: bool) -> Option<String> {
        let Self { row, path, ends } = self;
        let records = |ends: &EndAddresses| log.get(ends).map_or(&[][..], Vec::as_slice);
        let (near, far) = (records(ends), records(&(ends.1, ends.0)));
        let reported = (events(near), events(far));
        let expected = (seen(row.near, is_silent), seen(row.far, is_silent));
        let active = near
            .iter()
            .find(|it| it.text("direction") == Some("active"));
        let reason = active.and_then(|it| it.text("reason"));
        let advice = near.iter().find_map(|it| it.text("advice"));
        let [with, without] = row.advice;
        let words = if reason.is_some() { with } else { without };
        let same = reported.0 == expected.0
            && reported.1 == expected.1
            && reason.is_none_or(|it| it.ends_with(row.reason))
            && (reported.0.is_empty() || advice.unwrap_or_default().contains(words));
        (!same).then(|| {
            format!(
                "{} {path:?}: {reported:?}, {reason:?}, {advice:?}",
                row.name
            )
        })
    }
}

/// The events that are reported. A silent way misses resets that answer a segment without
/// a full socket.
fn seen(events: &'static str, is_silent: bool) -> &'static str {
    let unseen = UNSEEN.iter().filter_map(|it| events.find(it)).min();
    match unseen.filter(|_| is_silent) {
        Some(at) => &events[..at],
        None => events,
    }
}

const UNSEEN: [&str; 2] = ["passive/nothing", "passive/time_wait"];

fn is_unseen(events: &str) -> bool {
    UNSEEN.iter().any(|it| events.contains(it))
}

/// The number of resets that a silent way misses: resets of the rows, and one for each
/// probe to a vanished connection.
fn unseen() -> u64 {
    let all_events = ROWS.iter().flat_map(|row| [row.near, row.far]);
    let rows = all_events.filter(|events| is_unseen(events)).count() as u64;
    (rows + PROBES_TO_NOTHING) * Path::ALL.len() as u64
}

/// The records of each end, by its own and the other end's address.
type ByEnd<'a> = BTreeMap<EndAddresses, Vec<&'a Record>>;

fn by_end(log: &TraceLog) -> Result<ByEnd<'_>> {
    let mut ends = ByEnd::new();
    // Whether a connection was idle for long enough to have its FIN reported depends on how
    // fast the machine is.
    let left_out = ["lost", "fin_received", "fin_sent"];
    for record in log
        .records
        .iter()
        .filter(|it| !left_out.contains(&it.event()))
    {
        let (_, local, remote) = record.connection()?;
        let ends = ends.entry((canonical(local), canonical(remote)));
        ends.or_default().push(record);
    }
    Ok(ends)
}

/// Converts IPv4-mapped addresses to IPv4: a segment does not know that its socket is
/// AF_INET6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The events in order, with the details of resets.
fn events(records: &[&Record]) -> String {
    let label = |record: &&Record| match (record.event(), record.text("direction")) {
        ("rst_sent", Some("passive")) => {
            format!("passive/{} ", record.text("met").unwrap_or_default())
        }
        ("rst_sent", _) => "active ".to_owned(),
        (event @ ("rst_received" | "aborted"), _) => {
            format!("{event}/{} ", record.text("state").unwrap_or_default())
        }
        _ => record.label() + " ",
    };
    records.iter().map(label).collect()
}

/// Both ends of a connection, and the listener of the far end.
struct ResetConnection {
    near: Socket,
    far: Socket,
    listener: Socket,
    ends: EndAddresses,
}

impl ResetConnection {
    fn open(path: Path) -> Result<Self> {
        let (near, listener) = (bound(path)?, bound(path)?);
        listener.listen(1)?;
        near.connect(&listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        let ends = (address(&near)?, address(&far)?);
        Ok(Self {
            near,
            far,
            listener,
            ends,
        })
    }

    /// Opens a connection and shuts the near end down, until its FIN is acknowledged.
    fn shut_down(path: Path) -> Result<Self> {
        let connection = Self::open(path)?;
        connection.near.shutdown(std::net::Shutdown::Write)?;
        wait_for(&connection.near, FIN_WAIT2)?;
        Ok(connection)
    }
}

/// A socket on a free port of the loopback address.
fn bound(path: Path) -> Result<Socket> {
    let address = path.loopback();
    let domain = if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(address, 0).into())?;
    Ok(socket)
}

fn address(socket: &Socket) -> Result<SocketAddr> {
    socket.local_addr()?.as_socket().context("no address")
}

fn wait_for(socket: &Socket, state: u8) -> Result<()> {
    wait_until(&format!("a socket is in state {state}"), || {
        Ok(tcp_info(socket)?.state == state)
    })
}

fn linger_0(socket: &Socket) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))
}

fn send_byte(socket: &Socket) -> Result<()> {
    ensure!(socket.send(b"!")? == 1, "nothing was sent");
    Ok(())
}

/// EndAddresses the connection but not the socket (`tcp_disconnect`, net/ipv4/tcp.c).
fn disconnect(socket: &Socket) -> Result<()> {
    // SAFETY: integers: all zeros is a value, of family AF_UNSPEC.
    let unspecified: libc::sockaddr = unsafe { mem::zeroed() };
    let len = size_of_val(&unspecified) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `unspecified`.
    let done = unsafe { libc::connect(socket.as_raw_fd(), &raw const unspecified, len) };
    ensure!(done == 0, "disconnect: {}", io::Error::last_os_error());
    Ok(())
}

fn closes_first(path: Path) -> Result<EndAddresses> {
    let ResetConnection {
        near, far, ends, ..
    } = ResetConnection::shut_down(path)?;
    drop(near);
    drop(far);
    Ok(ends)
}

fn closes_last(path: Path) -> Result<EndAddresses> {
    let ResetConnection {
        near, far, ends, ..
    } = ResetConnection::open(path)?;
    drop(far);
    wait_for(&near, CLOSE_WAIT)?;
    drop(near);
    Ok(ends)
}

fn gives_up_connecting(path: Path) -> Result<EndAddresses> {
    let (near, listener) = (bound(path)?, bound(path)?);
    listener.listen(1)?;
    deafen(&listener)?;
    let ends = (address(&near)?, address(&listener)?);
    near.set_nonblocking(true)?;
    let refused = near.connect(&ends.1.into()).err();
    let refused = refused.and_then(|e| e.raw_os_error());
    ensure!(refused == Some(libc::EINPROGRESS), "connect: {refused:?}");
    disconnect(&near)?;
    Ok(ends)
}

fn connects_to_closed_port(path: Path) -> Result<EndAddresses> {
    let (near, far) = (bound(path)?, bound(path)?);
    // The far socket is bound, so that no other socket gets the port, but does not
    // listen.
    let ends = (address(&near)?, address(&far)?);
    let refused = near.connect(&ends.1.into()).err();
    let refused = refused.map(|e| e.kind());
    ensure!(
        refused == Some(io::ErrorKind::ConnectionRefused),
        "{refused:?}"
    );
    Ok(ends)
}

/// The far end forgets the connection. The next segment finds no socket, or the listener.
fn stray(path: Path, listening: bool) -> Result<EndAddresses> {
    let ResetConnection {
        near,
        far,
        listener,
        ends,
    } = ResetConnection::open(path)?;
    let listener = Some(listener).filter(|_| listening);
    set_repair(&far)?;
    drop(far);
    send_byte(&near)?;
    wait_for(&near, CLOSE)?;
    drop(listener);
    Ok(ends)
}

fn data_for_time_wait(path: Path) -> Result<EndAddresses> {
    let ResetConnection {
        near, far, ends, ..
    } = ResetConnection::shut_down(path)?;
    drop(near);
    send_byte(&far)?;
    wait_for(&far, CLOSE)?;
    Ok(ends)
}

fn data_for_orphan(path: Path) -> Result<EndAddresses> {
    let ResetConnection {
        near, far, ends, ..
    } = ResetConnection::shut_down(path)?;
    // Above TIME_WAIT's 60 s, it stays a full socket (`__tcp_close`).
    set_linger2(&near, 120)?;
    drop(near);
    send_byte(&far)?;
    wait_for(&far, CLOSE)?;
    Ok(ends)
}

/// Sets an option on the near end that makes its close a reset, and closes it.
fn closes_with(
    connection: ResetConnection,
    set: fn(&Socket) -> io::Result<()>,
) -> Result<EndAddresses> {
    let ResetConnection {
        near, far, ends, ..
    } = connection;
    set(&near)?;
    drop(near);
    wait_for(&far, CLOSE)?;
    Ok(ends)
}

fn no_fin_wait2(path: Path) -> Result<EndAddresses> {
    closes_with(ResetConnection::open(path)?, |near| set_linger2(near, -1))
}

fn from_fin_wait2(path: Path, set: fn(&Socket) -> io::Result<()>) -> Result<EndAddresses> {
    closes_with(ResetConnection::shut_down(path)?, set)
}

fn lingers_0(path: Path) -> Result<EndAddresses> {
    closes_with(ResetConnection::open(path)?, linger_0)
}

fn leaves_unread(path: Path) -> Result<EndAddresses> {
    let ResetConnection {
        near, far, ends, ..
    } = ResetConnection::open(path)?;
    send_byte(&far)?;
    near.peek(&mut [mem::MaybeUninit::uninit()])?;
    drop(near);
    wait_for(&far, CLOSE)?;
    Ok(ends)
}

fn disconnects(path: Path) -> Result<EndAddresses> {
    let ResetConnection {
        near, far, ends, ..
    } = ResetConnection::open(path)?;
    disconnect(&near)?;
    wait_for(&far, CLOSE)?;
    Ok(ends)
}

/// The peer has shut down its side and reads nothing. Its window is full: data stays
/// unsent, and the FIN waits behind it.
fn disconnects_with_data(path: Path) -> Result<EndAddresses> {
    let ResetConnection {
        near, far, ends, ..
    } = ResetConnection::open(path)?;
    near.set_nonblocking(true)?;
    while near.send(&[0; 65_536]).is_ok() {}
    far.shutdown(std::net::Shutdown::Write)?;
    wait_for(&near, CLOSE_WAIT)?;
    wait_for(&far, FIN_WAIT2)?;
    near.shutdown(std::net::Shutdown::Write)?;
    disconnect(&near)?;
    wait_for(&far, CLOSE)?;
    Ok(ends)
}

fn never_accepts(path: Path) -> Result<EndAddresses> {
    let (listener, far) = (bound(path)?, bound(path)?);
    listener.listen(1)?;
    let ends = (address(&listener)?, address(&far)?);
    far.connect(&ends.0.into())?;
    drop(listener);
    wait_for(&far, CLOSE)?;
    Ok(ends)
}
