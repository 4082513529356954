//! Prometheus of Debian scrapes the agent beside a box that forgets idle connections, with the
//! rules of `contrib/`: the alert fires, and ends after the cure.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::agent::Agent;
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::http;
use kaprobe_testkit::ipvs::{exchange, expect_death};
use kaprobe_testkit::package::{Server, beside_host, on_host_only};
use kaprobe_testkit::wait::{HANG, wait_until};
use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};

use crate::silent_drop::{SILENCE, network};

/// Where Prometheus serves, on the client.
const PROMETHEUS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);

/// The port of the service.
const SERVICE: u16 = 5_672;

/// The alert on idle connections that are lost.
const ALERT: &str = "KaprobeIdleConnectionsLost";

/// The time that the rules look back, as they write it, and what it is in the test.
const LOOKS_BACK: [(&str, &str); 2] = [("15m", "20s"), ("time() - 900", "time() - 20")];

/// The files of `contrib/prometheus`.
fn contrib() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/prometheus");
    if !folder.exists() {
        return Err(Skip("contrib/ is not on this machine".into()).into());
    }
    Ok(folder)
}

/// promtool takes the rules, and its tests of them pass.
pub fn rules_pass_promtool() -> Result<()> {
    on_host_only()?;
    let folder = contrib()?;
    for arguments in [
        ["check", "rules", "kaprobe.rules.yml"],
        ["test", "rules", "kaprobe.rules.test.yml"],
    ] {
        let mut promtool = beside_host("prometheus", "usr/bin/promtool")?;
        let output = promtool.args(arguments).current_dir(&folder).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let found = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{arguments:?}: {found}{said}");
    }
    Ok(())
}

/// promtool takes the metrics, and finds nothing wrong with their names.
pub fn metrics_pass_promtool() -> Result<()> {
    on_host_only()?;
    kaprobe_testkit::netns::enter_new()?;
    let agent = Agent::start(&["--no-snapshot", "--netns", "/proc/self/ns/net"])?;
    wait_until("it is ready", || Ok(agent.get("/readyz")?.status == 200))?;
    let metrics = tempfile::NamedTempFile::new()?;
    fs::write(metrics.path(), agent.metrics()?.body)?;
    let mut promtool = beside_host("prometheus", "usr/bin/promtool")?;
    let promtool = promtool.args(["check", "metrics"]);
    let output = promtool.stdin(fs::File::open(metrics.path())?).output()?;
    let said = String::from_utf8(output.stderr)?;
    // It reads the older format, where the help of a counter has the whole name.
    let is_of_format = |line: &str| line.is_empty() || line.ends_with("_total no help text");
    ensure!(said.lines().all(is_of_format), "{said}");
    ensure!(said.contains("kaprobe_probes_sent_total"), "{said}");
    Ok(())
}

/// The command that runs Prometheus in a folder, with the rules of `contrib/` but for how far they
/// look back.
fn prometheus(folder: &Path, agent: SocketAddr) -> Result<Command> {
    let mut rules = fs::read_to_string(contrib()?.join("kaprobe.rules.yml"))?;
    for (ordinary, here) in LOOKS_BACK {
        ensure!(rules.contains(ordinary), "the rules look back otherwise");
        rules = rules.replace(ordinary, here);
    }
    fs::write(folder.join("rules.yml"), rules)?;
    let config = format!(
        "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n\
         rule_files: [rules.yml]\n\
         scrape_configs:\n  - job_name: kaprobe\n    static_configs:\n      - targets: ['{agent}']\n"
    );
    fs::write(folder.join("prometheus.yml"), config)?;
    let mut command = beside_host("prometheus", "usr/bin/prometheus")?;
    command
        .arg("--config.file=prometheus.yml")
        .arg("--storage.tsdb.path=data")
        .arg(format!("--web.listen-address={PROMETHEUS}"))
        .arg("--log.level=error")
        .current_dir(folder);
    Ok(command)
}

/// The firing alerts with this name.
fn firing() -> Result<Vec<Value>> {
    let response = http::get(PROMETHEUS, "/api/v1/alerts")?;
    // The response may come in chunks.
    let (start, end) = (response.body.find('{'), response.body.rfind('}'));
    let json = start
        .zip(end)
        .and_then(|(start, end)| response.body.get(start..=end));
    let json: Value = serde_json::from_str(json.context("no JSON")?)?;
    let alerts = json["data"]["alerts"].as_array().context("no alerts")?;
    let is_it = |it: &&Value| it["labels"]["alertname"] == ALERT && it["state"] == "firing";
    Ok(alerts.iter().filter(is_it).cloned().collect())
}

/// The alert fires when a connection was lost, and ends once keepalive preserves connections.
pub fn alert_fires_until_the_cure() -> Result<()> {
    on_host_only()?;
    let network = network()?;
    let (client, server) = (&network.client, &network.server);
    let address = SocketAddr::from((server.address, SERVICE));
    let listener = server.on(|| Ok(TcpListener::bind(address)?))?;
    let connect = || -> Result<_> {
        let stream = client.on(|| Ok(TcpStream::connect(address)?))?;
        stream.set_read_timeout(Some(HANG))?;
        Ok((stream, listener.accept()?.0))
    };
    let agent = client.on(|| Agent::start(&["--netns", client.name, "--interval", "1s"]))?;
    let folder = tempfile::tempdir()?;
    let prometheus = prometheus(folder.path(), agent.address)?;
    let _prometheus = client.on(|| Server::start(prometheus, PROMETHEUS))?;
    wait_until("Prometheus has scraped the agent", || {
        let query = "/api/v1/query?query=kaprobe_build_info";
        let response = client.on(|| http::get(PROMETHEUS, query))?;
        Ok(response.body.contains("\"kernel\""))
    })?;
    ensure!(
        client.on(firing)?.is_empty(),
        "an alert fires before anything happened"
    );

    let (mut stream, mut accepted) = connect()?;
    exchange(&mut stream, &mut accepted)?;
    thread::sleep(SILENCE);
    stream.write_all(b"ping")?;
    expect_death(&mut stream, ErrorKind::TimedOut)?;
    let mut alerts = Vec::new();
    wait_until("the alert fires", || {
        alerts = client.on(firing)?;
        Ok(!alerts.is_empty())
    })?;
    let labels = &alerts[0]["labels"];
    ensure!(
        labels["remote"] == address.to_string() && labels["verdict"] == "silent_drop",
        "{labels}"
    );

    // The cure: probes within the time that the box remembers.
    let (mut stream, mut accepted) = connect()?;
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1));
    SockRef::from(&stream).set_tcp_keepalive(&probes)?;
    // It ends once there was no such verdict for as long as the rule looks back.
    wait_until("the alert ends", || Ok(client.on(firing)?.is_empty()))?;
    exchange(&mut stream, &mut accepted)?;
    let metrics = client.on(|| agent.metrics())?;
    let answered = metrics.metric("kaprobe_probes_answered_total", "")?;
    ensure!(answered > 0.0, "no probe");
    Ok(())
}
