//! The end of an MPTCP subflow is told as that: the connection may go on without it.

use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::ipvs::settle;
use kaprobe_testkit::log::{LogFile, Record};
use kaprobe_testkit::netns;
use kaprobe_testkit::router::RoutedNetwork;
use kaprobe_testkit::tracer::Kaprobe;
use kaprobe_testkit::wait::wait_until;
use socket2::{Domain, Protocol, Socket, Type};

/// The only subflow of a connection has no way to its peer any more. Its records say that it
/// is one, and so does the verdict. A connection of plain TCP beside it has nothing of that.
pub fn a_lost_subflow_is_told_from_a_connection() -> Result<()> {
    let network = RoutedNetwork::build()?;
    let subflow = connect(&network, Protocol::MPTCP)?;
    let plain = connect(&network, Protocol::TCP)?;
    for (client, server) in [&subflow, &plain] {
        settle(client, server)?;
    }
    network
        .client
        .on(|| netns::set_ipv4_sysctl("tcp_retries2", 3))?;
    let file = LogFile::new()?;
    let arguments = ["--netns", network.client.name, "-o", &file.path];
    let kaprobe = network.client.on(|| Kaprobe::trace(&arguments)?.ready())?;
    network.rules(
        &network.router,
        "table ip lost { chain c { type filter hook forward priority 0; policy drop; }; }",
    )?;
    for (client, _) in [&subflow, &plain] {
        ensure!((&*client).write(b"?")? == 1, "the byte was not taken");
    }
    wait_until("the kernel gave up on both", || {
        Ok(file.log()?.count(&["timeout"]) >= 2)
    })?;
    let log = kaprobe.stop()?;
    for ((client, _), is_subflow) in [(&subflow, true), (&plain, false)] {
        let port = port(client)?;
        let own = |it: &&Record| it.number("lport") == Some(port.into());
        let records: Vec<_> = log.records.iter().filter(own).collect();
        let events: Vec<_> = records.iter().map(|it| it.event()).collect();
        for expected in ["stalled", "timeout", "verdict"] {
            ensure!(events.contains(&expected), "no {expected}: {events:?}");
        }
        for record in records {
            ensure!(
                (record.flag("mptcp") == Some(true)) == is_subflow,
                "{is_subflow}: {record:?}"
            );
            let says = record.text("advice").unwrap_or_default();
            ensure!(
                record.event() != "verdict" || says.contains("subflow") == is_subflow,
                "{is_subflow}: {says}"
            );
        }
    }
    Ok(())
}

/// A connection from the client to the server: both ends.
fn connect(network: &RoutedNetwork, protocol: Protocol) -> Result<(Socket, Socket)> {
    let listener = network.server.on(|| {
        let listener = socket(protocol)?;
        listener.bind(&SocketAddr::from((network.server.address, 0)).into())?;
        listener.listen(1)?;
        Ok(listener)
    })?;
    let client = network.client.on(|| {
        let client = socket(protocol)?;
        client.connect(&listener.local_addr()?)?;
        Ok(client)
    })?;
    let (accepted, _) = listener.accept()?;
    Ok((client, accepted))
}

fn socket(protocol: Protocol) -> Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).map_err(|why| {
        match why.raw_os_error() {
            Some(libc::EPROTONOSUPPORT | libc::ENOPROTOOPT) => {
                Skip("this kernel has no MPTCP".into()).into()
            }
            _ => why.into(),
        }
    })
}

fn port(socket: &Socket) -> Result<u16> {
    let address = socket.local_addr()?.as_socket();
    Ok(address.context("no internet address")?.port())
}
