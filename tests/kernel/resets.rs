//! Every reset has a record, and every record is of a reset: what kaprobe tells equals
//! what the kernel counts, and each cause has its verdict.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kaprobe::traffic::pair::{Path, deafen};
use kaprobe::traffic::script::{CLOSE, Scenario, ScriptedConnection};
use kaprobe::traffic::sockopt::{set_repair, tcp_info};
use kaprobe_testkit::cpu::OwnCpu;
use kaprobe_testkit::doctor;
use kaprobe_testkit::log::{Log, Record};
use kaprobe_testkit::netns::{self, Counters};
use kaprobe_testkit::tracer::one_per_way;
use kaprobe_testkit::traffic::ends::set_linger2;
use kaprobe_testkit::traffic::play;
use kaprobe_testkit::traffic::scenarios as is;
use kaprobe_testkit::traffic::steps::{CLOSE_WAIT, FIN_WAIT2};
use kaprobe_testkit::wait::wait_until;
use socket2::{Domain, Socket, Type};

/// Something that ends a connection, and what is told of it.
struct Row {
    name: &'static str,
    act: fn(Path) -> Result<Ends>,
    /// What is told of the near end, the one that does it; then of the far one. The
    /// events in their order, a space after each.
    near: &'static str,
    far: &'static str,
    /// How the kernel's reason for an active reset ends, where it gives one.
    reason: &'static str,
    /// A part of the advice on the near end, with a reason and without.
    advice: [&'static str; 2],
    /// What the kernel counts.
    out_rsts: u64,
    estab_resets: u64,
    /// How many of `estab_resets` have no record: a far end that forgets.
    forgets: u64,
    /// How many active resets left a state that EstabResets does not count.
    elsewhere: u64,
}

/// The addresses of the two ends.
type Ends = (SocketAddr, SocketAddr);

const NOTHING: Row = Row {
    name: "",
    act: closes_first,
    near: "",
    far: "",
    reason: "",
    advice: [""; 2],
    out_rsts: 0,
    estab_resets: 0,
    forgets: 0,
    elsewhere: 0,
};

/// What is told of an end that sends a reset of its own accord.
const ABORTS: &str = "active verdict/aborted_locally closed ";
/// What is told of an open connection that is reset.
const RESET: &str = "rst_received/ESTABLISHED verdict/aborted_by_peer closed ";
/// Of one whose other side had closed.
const RESET_LATE: &str = "rst_received/CLOSE_WAIT verdict/aborted_by_peer closed ";

const ACTIVE: Row = Row {
    near: ABORTS,
    far: RESET,
    out_rsts: 1,
    estab_resets: 2,
    ..NOTHING
};

const ROWS: &[Row] = &[
    Row {
        name: "a program closes first",
        ..NOTHING
    },
    Row {
        name: "the peer closes first",
        act: closes_last,
        ..NOTHING
    },
    Row {
        name: "a disconnect before there is a connection",
        act: gives_up_connecting,
        ..NOTHING
    },
    Row {
        name: "a closed port",
        act: connects_to_closed_port,
        near: "rst_received/SYN_SENT closed ",
        far: "passive/nothing ",
        out_rsts: 1,
        ..NOTHING
    },
    Row {
        name: "a segment for what is not here",
        act: |path| stray(path, false),
        near: RESET,
        far: "passive/nothing verdict/stray_segment ",
        out_rsts: 1,
        estab_resets: 2,
        forgets: 1,
        ..NOTHING
    },
    Row {
        name: "a segment in mid-stream for a listener",
        act: |path| stray(path, true),
        near: RESET,
        far: "passive/socket verdict/stray_segment ",
        out_rsts: 1,
        estab_resets: 2,
        forgets: 1,
        ..NOTHING
    },
    Row {
        name: "data for TIME_WAIT",
        act: data_for_time_wait,
        near: "passive/time_wait verdict/aborted_locally ",
        far: RESET_LATE,
        advice: ["1 bytes came after"; 2],
        out_rsts: 1,
        estab_resets: 1,
        ..NOTHING
    },
    Row {
        name: "data for an orphan",
        act: data_for_orphan,
        near: "rst_received/FIN_WAIT2 closed passive/socket verdict/aborted_locally ",
        far: RESET_LATE,
        advice: ["1 bytes came after"; 2],
        out_rsts: 1,
        estab_resets: 1,
        ..NOTHING
    },
    Row {
        name: "TCP_LINGER2 below 0, the FIN not acknowledged yet",
        act: no_fin_wait2,
        near: "passive/socket verdict/aborted_locally ",
        far: RESET_LATE,
        advice: ["TCP_LINGER2 below 0"; 2],
        out_rsts: 1,
        estab_resets: 1,
        ..NOTHING
    },
    Row {
        name: "TCP_LINGER2 below 0",
        act: |path| from_fin_wait2(path, |near| set_linger2(near, -1)),
        far: RESET_LATE,
        reason: "ABORT_ON_LINGER",
        advice: ["TCP_LINGER2 below 0"; 2],
        estab_resets: 1,
        elsewhere: 1,
        ..ACTIVE
    },
    Row {
        name: "SO_LINGER 0 after a shutdown",
        act: |path| from_fin_wait2(path, linger_0),
        far: RESET_LATE,
        reason: "TCP_STATE",
        advice: ["SO_LINGER 0"; 2],
        estab_resets: 1,
        elsewhere: 1,
        ..ACTIVE
    },
    Row {
        name: "SO_LINGER 0",
        act: lingers_0,
        reason: "TCP_STATE",
        advice: ["SO_LINGER 0"; 2],
        ..ACTIVE
    },
    Row {
        name: "data unread at close",
        act: leaves_unread,
        reason: "ABORT_ON_CLOSE",
        advice: ["data unread: read", "data unread"],
        ..ACTIVE
    },
    Row {
        name: "a disconnect",
        act: disconnects,
        reason: "TCP_STATE",
        advice: ["disconnected it"; 2],
        ..ACTIVE
    },
    Row {
        name: "a disconnect with data unsent",
        act: disconnects_with_data,
        far: "rst_received/FIN_WAIT2 verdict/aborted_by_peer closed ",
        reason: "DISCONNECT_WITH_DATA",
        advice: ["data unsent", "disconnected it"],
        estab_resets: 0,
        elsewhere: 1,
        ..ACTIVE
    },
    Row {
        name: "never accepted",
        act: never_accepts,
        reason: "TCP_STATE",
        advice: ["before a program accepted it"; 2],
        ..ACTIVE
    },
];

/// Those that take a timer, and how many of `estab_resets` have no record.
const TIMED: &[(Scenario, u64)] = &[
    (is::SILENT, 0),
    (is::USER_TIMEOUT, 0),
    (is::VANISHED, 1),
    (is::FIN_WAIT2_RESET, 0),
];

/// By every way to attach: `rst_sent` records equal the growth of OutRsts, each unit
/// of EstabResets has a record, each end its verdict, and normal ends none. What
/// `doctor` says that a way misses is exactly what is missing.
pub fn have_records_and_verdicts() -> Result<()> {
    netns::enter_new()?;
    let silent = doctor::ways_that_miss("tcp_v4_send_reset")?;
    let mut scripted = TIMED
        .iter()
        .flat_map(|(scenario, _)| Path::ALL.map(|path| ScriptedConnection::new(*scenario, path)))
        .collect::<io::Result<Vec<_>>>()?;
    let kaprobes = one_per_way(&["--netns", "/proc/self/ns/net"])?;
    let alone = OwnCpu::take()?;
    let before = Counters::read()?;
    // First those that a process does: no keepalive timer is armed yet. Before 6.7 a
    // kprobe that hits inside another one's handler is skipped, and nothing counts it.
    let acted = act_all()?;
    play::play_out(&mut scripted)?;
    drop(scripted);
    drop(alone);
    let after = Counters::read()?;
    let (rsts, resets) = (
        after.out_rsts - before.out_rsts,
        after.estab_resets - before.estab_resets,
    );
    let mut wrong = Vec::new();
    for (way, kaprobe) in kaprobes {
        let log = kaprobe.stop()?;
        let is_silent = silent.contains(&way);
        let unseen = if is_silent { unseen() } else { 0 };
        let told = (
            log.count(&["rst_sent"]) + unseen,
            estab_resets(&log),
            log.count(&["lost"]),
        );
        if told != (rsts, resets, 0) {
            wrong.push(format!(
                "{way}: (OutRsts, EstabResets, lost) is {told:?} with {unseen} unseen; the kernel \
                 counted {rsts}, {resets}"
            ));
        }
        let ends = by_end(&log)?;
        for act in &acted {
            wrong.extend(
                act.compare(&ends, is_silent)
                    .map(|it| format!("{way}: {it}")),
            );
        }
    }
    ensure!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}

/// A row that was acted, between these ends.
struct Acted {
    row: &'static Row,
    path: Path,
    ends: Ends,
}

/// Acts every row over every kind of address, one after the other, and compares with
/// what the kernel counts.
fn act_all() -> Result<Vec<Acted>> {
    let mut acted = Vec::new();
    for row in ROWS {
        for path in Path::ALL {
            let before = Counters::read()?;
            let (near, far) = (row.act)(path).with_context(|| format!("{} {path:?}", row.name))?;
            let after = Counters::read()?;
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
    /// What is told otherwise than the row has it.
    fn compare(&self, log: &ByEnd<'_>, is_silent: bool) -> Option<String> {
        let Self { row, path, ends } = self;
        let of = |ends: &Ends| log.get(ends).map_or(&[][..], Vec::as_slice);
        let (near, far) = (of(ends), of(&(ends.1, ends.0)));
        let told = (story(near), story(far));
        let expected = (seen(row.near, is_silent), seen(row.far, is_silent));
        let active = near
            .iter()
            .find(|it| it.text("direction") == Some("active"));
        let reason = active.and_then(|it| it.text("reason"));
        let advice = near.iter().find_map(|it| it.text("advice"));
        let [with, without] = row.advice;
        let words = if reason.is_some() { with } else { without };
        let same = told.0 == expected.0
            && told.1 == expected.1
            && reason.is_none_or(|it| it.ends_with(row.reason))
            && (told.0.is_empty() || advice.unwrap_or_default().contains(words));
        (!same).then(|| format!("{} {path:?}: {told:?}, {reason:?}, {advice:?}", row.name))
    }
}

/// What is left of a story where nothing is told of segments that meet no full socket.
fn seen(story: &'static str, is_silent: bool) -> &'static str {
    if is_silent && is_unseen(story) {
        ""
    } else {
        story
    }
}

fn is_unseen(story: &str) -> bool {
    story.starts_with("passive/nothing") || story.starts_with("passive/time_wait")
}

/// How many resets such a way does not tell of: those of the rows, and the answer to
/// each probe that meets nothing.
fn unseen() -> u64 {
    let stories = ROWS.iter().flat_map(|row| [row.near, row.far]);
    let vanished = TIMED.iter().map(|(_, forgets)| forgets).sum::<u64>();
    let rows = stories.filter(|story| is_unseen(story)).count() as u64;
    (rows + vanished) * Path::ALL.len() as u64
}

/// How many steps from ESTABLISHED or CLOSE_WAIT to CLOSE are told. A reset of a
/// process's own is told from CLOSE: where it came from is the row's to know.
fn estab_resets(log: &Log) -> u64 {
    let received = log.records.iter().filter(|it| {
        let counts = matches!(it.text("state"), Some("ESTABLISHED" | "CLOSE_WAIT"));
        it.event() == "rst_received" && counts
    });
    let own = log.records.iter().filter(|it| {
        let is_part_of_firing = it.number("firing_ns").is_some();
        it.text("direction") == Some("active") && !is_part_of_firing
    });
    let told = received.count() as u64 + own.count() as u64 + log.count(&["timeout"]);
    let of_rows = |of: fn(&Row) -> u64| ROWS.iter().map(of).sum::<u64>();
    let forgets = of_rows(|row| row.forgets) + TIMED.iter().map(|(_, n)| n).sum::<u64>();
    let paths = Path::ALL.len() as u64;
    (told + forgets * paths).saturating_sub(of_rows(|row| row.elsewhere) * paths)
}

/// The records of each end, by its address and the other's.
type ByEnd<'a> = BTreeMap<Ends, Vec<&'a Record>>;

fn by_end(log: &Log) -> Result<ByEnd<'_>> {
    let mut ends = ByEnd::new();
    for record in log.records.iter().filter(|it| it.event() != "lost") {
        let (_, local, remote) = record.connection()?;
        let ends = ends.entry((canonical(local), canonical(remote)));
        ends.or_default().push(record);
    }
    Ok(ends)
}

/// IPv4 as itself: a segment does not know that its socket is of AF_INET6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The events in their order, and what tells a reset from others.
fn story(records: &[&Record]) -> String {
    let told = |record: &&Record| match (record.event(), record.text("direction")) {
        ("rst_sent", Some("passive")) => {
            format!("passive/{} ", record.text("met").unwrap_or_default())
        }
        ("rst_sent", _) => "active ".to_owned(),
        ("rst_received", _) => {
            format!("rst_received/{} ", record.text("state").unwrap_or_default())
        }
        _ => record.label() + " ",
    };
    records.iter().map(told).collect()
}

/// Two ends of a connection, and the listener that the far one was accepted from.
struct Connection {
    near: Socket,
    far: Socket,
    listener: Socket,
    ends: Ends,
}

impl Connection {
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

    /// With the near end shut down, and its FIN acknowledged.
    fn shut_down(path: Path) -> Result<Self> {
        let it = Self::open(path)?;
        it.near.shutdown(std::net::Shutdown::Write)?;
        wait_for(&it.near, FIN_WAIT2)?;
        Ok(it)
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
    wait_until("a socket is in a state", || {
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

/// Ends the connection but not the socket (`tcp_disconnect`, net/ipv4/tcp.c).
fn disconnect(socket: &Socket) -> Result<()> {
    // SAFETY: integers: all zeros is a value, of family AF_UNSPEC.
    let nobody: libc::sockaddr = unsafe { mem::zeroed() };
    let len = size_of_val(&nobody) as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `nobody`.
    let done = unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, len) };
    ensure!(done == 0, "disconnect: {}", io::Error::last_os_error());
    Ok(())
}

fn closes_first(path: Path) -> Result<Ends> {
    let Connection {
        near, far, ends, ..
    } = Connection::shut_down(path)?;
    drop(near);
    drop(far);
    Ok(ends)
}

fn closes_last(path: Path) -> Result<Ends> {
    let Connection {
        near, far, ends, ..
    } = Connection::open(path)?;
    drop(far);
    wait_for(&near, CLOSE_WAIT)?;
    drop(near);
    Ok(ends)
}

fn gives_up_connecting(path: Path) -> Result<Ends> {
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

fn connects_to_closed_port(path: Path) -> Result<Ends> {
    let (near, far) = (bound(path)?, bound(path)?);
    // Bound, so that no other socket gets the port; not listening.
    let ends = (address(&near)?, address(&far)?);
    let refused = near.connect(&ends.1.into()).err();
    let refused = refused.map(|e| e.kind());
    ensure!(
        refused == Some(io::ErrorKind::ConnectionRefused),
        "{refused:?}"
    );
    Ok(ends)
}

/// The far end forgets the connection; a segment then meets nothing, or the listener.
fn stray(path: Path, listening: bool) -> Result<Ends> {
    let Connection {
        near,
        far,
        listener,
        ends,
    } = Connection::open(path)?;
    let listener = Some(listener).filter(|_| listening);
    set_repair(&far)?;
    drop(far);
    send_byte(&near)?;
    wait_for(&near, CLOSE)?;
    drop(listener);
    Ok(ends)
}

fn data_for_time_wait(path: Path) -> Result<Ends> {
    let Connection {
        near, far, ends, ..
    } = Connection::shut_down(path)?;
    drop(near);
    send_byte(&far)?;
    wait_for(&far, CLOSE)?;
    Ok(ends)
}

fn data_for_orphan(path: Path) -> Result<Ends> {
    let Connection {
        near, far, ends, ..
    } = Connection::shut_down(path)?;
    // Beyond TIME_WAIT's 60 s it stays a socket (`__tcp_close`).
    set_linger2(&near, 120)?;
    drop(near);
    send_byte(&far)?;
    wait_for(&far, CLOSE)?;
    Ok(ends)
}

/// The near end is closed with an option set that makes the close a reset.
fn closes_with(connection: Connection, set: fn(&Socket) -> io::Result<()>) -> Result<Ends> {
    let Connection {
        near, far, ends, ..
    } = connection;
    set(&near)?;
    drop(near);
    wait_for(&far, CLOSE)?;
    Ok(ends)
}

fn no_fin_wait2(path: Path) -> Result<Ends> {
    closes_with(Connection::open(path)?, |near| set_linger2(near, -1))
}

fn from_fin_wait2(path: Path, set: fn(&Socket) -> io::Result<()>) -> Result<Ends> {
    closes_with(Connection::shut_down(path)?, set)
}

fn lingers_0(path: Path) -> Result<Ends> {
    closes_with(Connection::open(path)?, linger_0)
}

fn leaves_unread(path: Path) -> Result<Ends> {
    let Connection {
        near, far, ends, ..
    } = Connection::open(path)?;
    send_byte(&far)?;
    near.peek(&mut [mem::MaybeUninit::uninit()])?;
    drop(near);
    wait_for(&far, CLOSE)?;
    Ok(ends)
}

fn disconnects(path: Path) -> Result<Ends> {
    let Connection {
        near, far, ends, ..
    } = Connection::open(path)?;
    disconnect(&near)?;
    wait_for(&far, CLOSE)?;
    Ok(ends)
}

/// The peer has closed its side and reads nothing: what fills the window is not sent,
/// and the FIN waits behind it.
fn disconnects_with_data(path: Path) -> Result<Ends> {
    let Connection {
        near, far, ends, ..
    } = Connection::open(path)?;
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

fn never_accepts(path: Path) -> Result<Ends> {
    let (listener, far) = (bound(path)?, bound(path)?);
    listener.listen(1)?;
    let ends = (address(&listener)?, address(&far)?);
    far.connect(&ends.0.into())?;
    drop(listener);
    wait_for(&far, CLOSE)?;
    Ok(ends)
}
