//! `kaprobe sockets` and `audit` for people: on a terminal, by groups, and with what a program
//! forgot.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, ensure};
use kaprobe_testkit::process::{Held, Process, Task};
use kaprobe_testkit::snapshot::{by_inode, inode};
use kaprobe_testkit::traffic::ends::connect_to;
use kaprobe_testkit::{command, netns, schema, snapshot, streams};
use serde_json::{Value, json};
use socket2::{SockRef, TcpKeepalive};

const AUDIT: &str = include_str!("../../schema/kaprobe-audit.schema.json");
const GROUPS: &str = include_str!("../../schema/kaprobe-socket-groups.schema.json");

/// TCP_KEEPIDLE without SO_KEEPALIVE is shown, and is a finding; so is where a connection
/// inherits it. TCP_USER_TIMEOUT without SO_KEEPALIVE is shown. The advice is followed.
pub fn forgotten_switch_is_a_finding() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    set_without_switch(&listener)?;
    let (near, inherits) = connect_to(&listener)?;
    let own = SockRef::from(&near);
    own.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
    own.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;

    let rows = by_inode(snapshot::here()?)?;
    let row = rows.get(&inode(&inherits)?).context("no row")?;
    ensure!(row["keepalive"] == false, "{row}");
    ensure!(row["keepalive_time_ms"] == 60_000, "{row}");
    ensure!(row["keepalive_time_from"] == "socket", "{row}");
    let text = text(&["sockets", "--state", "established"])?;
    for cell in [" off 60s*/75s/7* ", " 60s*/75s/9 ut 30s "] {
        ensure!(text.contains(cell), "no {cell:?} in {text}");
    }
    own.set_keepalive(false)?;
    let text = self::text(&["sockets", "--state", "established"])?;
    ensure!(text.contains(" off 60s*/75s/9 ut 30s "), "{text}");

    let found = audited(&["--idle-timeout", "350s"])?;
    ensure!(found.len() == 2, "{found:?}");
    for (socket, options) in [
        (&near, "TCP_KEEPIDLE=60"),
        (&inherits, "TCP_KEEPIDLE=60 TCP_KEEPCNT=7"),
    ] {
        let inode = inode(socket)?;
        let it = found.iter().find(|it| it["inode"] == inode);
        let it = it.context("not audited")?;
        ensure!(it["unused_options"] == options, "{it}");
        ensure!(it["set"] == "SO_KEEPALIVE=1", "{it}");
        ensure!(it["set_in"] == "program", "{it}");
    }
    let text = self::text(&["audit", "--loopback", "--idle-timeout", "350s"])?;
    for words in [
        "TCP_KEEPIDLE=60 is set, but SO_KEEPALIVE is off",
        "TCP_KEEPIDLE=60 TCP_KEEPCNT=7 are set, but SO_KEEPALIVE is off",
        "TCP_USER_TIMEOUT of 30s ends a connection whose data is not acknowledged",
        "2 with keepalive options set and SO_KEEPALIVE off",
    ] {
        ensure!(text.contains(words), "no {words:?} in {text}");
    }

    for socket in [&near, &inherits] {
        SockRef::from(socket).set_keepalive(true)?;
    }
    let found = audited(&["--idle-timeout", "350s"])?;
    for it in &found {
        ensure!(it["fate"] == "safe", "{it}");
        ensure!(it.get("unused_options").is_none(), "{it}");
    }
    Ok(())
}

/// Sets TCP_KEEPIDLE and TCP_KEEPCNT, and leaves SO_KEEPALIVE off.
fn set_without_switch(listener: &TcpListener) -> Result<()> {
    let socket = SockRef::from(listener);
    let options = TcpKeepalive::new().with_time(Duration::from_secs(60));
    socket.set_tcp_keepalive(&options.with_retries(7))?;
    Ok(socket.set_keepalive(false)?)
}

/// The connections that an audit writes.
fn audited(arguments: &[&str]) -> Result<Vec<Value>> {
    let lines = text(&[&["audit", "--loopback", "--json"], arguments].concat())?;
    let validator = schema::validator(AUDIT).map_err(Error::msg)?;
    let all = lines.lines().map(|it| schema::check(&validator, it));
    let all: Result<Vec<_>, _> = all.collect();
    let mut all = all.map_err(Error::msg)?;
    all.retain(|it| it["inode"].is_u64());
    Ok(all)
}

/// What a command writes to a pipe.
fn text(arguments: &[&str]) -> Result<String> {
    Ok(String::from_utf8(command::run(arguments)?.stdout)?)
}

/// A group is a program and a service, whichever filter leaves the listener out.
pub fn groups_are_of_one_service() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let ends: Result<Vec<_>> = (0..3).map(|_| connect_to(&listener)).collect();
    let ends = ends?;
    let near = ends.iter().map(|(near, _)| near);
    for near in near.clone() {
        SockRef::from(near).set_keepalive(true)?;
    }
    let clients: Result<Vec<_>> = near.map(|it| Ok(it.local_addr()?.port())).collect();
    let clients = clients?;
    let first = clients.first().context("no client")?.to_string();
    for (filter, accepted, initiated) in [
        (vec![], 3, 3),
        (vec!["--remoteport", &first], 1, 0),
        (vec!["--localport", &first], 0, 1),
        (vec!["--state", "established", "-p", "1"], 0, 0),
    ] {
        let found = groups(&filter)?;
        let count = |is_accepted: bool| {
            let of = found.iter().filter(|it| it["accepted"] == is_accepted);
            of.filter_map(|it| it["count"].as_u64()).sum::<u64>()
        };
        let counts = (count(true), count(false));
        ensure!(counts == (accepted, initiated), "{filter:?}: {found:?}");
        for it in &found {
            let (on, off) = match it["accepted"] == true {
                true => (json!(0), &it["count"]),
                false => (it["count"].clone(), &json!(0)),
            };
            ensure!(it["keepalive_on"] == on, "{it}");
            ensure!(it["keepalive_off"] == *off, "{it}");
            let of = if it["accepted"] == true {
                "lport"
            } else {
                "rport"
            };
            ensure!(it[of] == port, "{it}");
        }
    }
    let output = command::run(&["sockets", "--group", "--max-rows", "1"])?;
    let (stdout, stderr) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    );
    ensure!(stdout.lines().count() == 2, "{stdout}");
    ensure!(stderr.contains("shown: 1 of 2 groups"), "{stderr}");
    Ok(())
}

/// The groups that `kaprobe sockets --group` writes.
fn groups(arguments: &[&str]) -> Result<Vec<Value>> {
    let lines = text(&[&["sockets", "--group", "--json"], arguments].concat())?;
    let validator = schema::validator(GROUPS).map_err(Error::msg)?;
    let all = lines.lines().map(|it| schema::check(&validator, it));
    let all: Result<Vec<_>, _> = all.collect();
    all.map_err(Error::msg)
}

/// On a terminal no line is too wide, what `ss` lacks is shown, and a hostile name is
/// escaped. A pipe gets every column.
pub fn lines_fit_a_terminal() -> Result<()> {
    netns::enter_new()?;
    let listener = TcpListener::bind("[::1]:0")?;
    let (near, far) = connect_to(&listener)?;
    let mut hostile = Process::start(Task {
        comm: "\u{1b}[2J\u{202e}\r\n".to_owned(),
        holds: Some(Held {
            address: Ipv4Addr::LOCALHOST.into(),
            count: 1,
            seconds: None,
        }),
        ..Task::default()
    })?;
    hostile.go()?;
    let mapped = TcpListener::bind("[::]:0")?;
    let (_near, _far) = connect_mapped(&mapped)?;

    let commands: [&[&str]; 3] = [
        &["sockets"],
        &["sockets", "--group"],
        &["audit", "--loopback", "--idle-timeout", "350s"],
    ];
    for arguments in commands {
        for columns in [60, 80, 120] {
            let mut command = command::kaprobe()?;
            command.args(arguments).env_remove("COLUMNS");
            let shown = streams::shown_on_terminal(command, columns)?;
            let words = ["KEEPALIVE", "DEAD-IN", "IDLE"];
            for word in words.iter().filter(|_| arguments[0] == "sockets") {
                ensure!(shown.contains(word), "{arguments:?} {columns}: {shown}");
            }
            ensure!(
                !shown.contains(['\u{1b}', '\u{202e}']),
                "{arguments:?}: {shown:?}"
            );
            for line in shown.lines() {
                let width = line.chars().count();
                ensure!(width <= columns.into(), "{arguments:?} {columns}: {line}");
            }
        }
    }
    let mut command = command::kaprobe()?;
    command.args(["sockets"]).env("COLUMNS", "40");
    let shown = streams::shown_on_terminal(command, 200)?;
    ensure!(shown.contains("no room for "), "{shown}");
    let piped = text(&["sockets"])?;
    ensure!(piped.starts_with("STATE       RECVQ SENDQ PID "), "{piped}");
    let port = mapped.local_addr()?.port();
    ensure!(piped.contains(&format!(" [127.0.0.1]:{port} ")), "{piped}");
    drop((near, far));
    hostile.dismiss()
}

/// A connection from IPv4 to a listener of both families.
fn connect_mapped(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let near = TcpStream::connect(("127.0.0.1", listener.local_addr()?.port()))?;
    let (far, _) = listener.accept()?;
    Ok((near, far))
}
