//! Prometheus of Debian scrapes the agent of a client whose idle connections something on the
//! path forgets, with the rules of `contrib/`: the alert fires, and ends after the cure.

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
use kaprobe_testkit::ipvs::{self, Host, Network, exchange, expect_death};
use kaprobe_testkit::package::{Server, beside_host, on_host_only};
use kaprobe_testkit::wait::{HANG, wait_until};
use serde_json::Value;
use socket2::{SockRef, TcpKeepalive};
use tempfile::TempDir;

use crate::silent_drop::{SILENCE, network};
use crate::story;

/// Where Prometheus serves, on the client.
const PROMETHEUS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);

/// The port of the service.
const SERVICE: u16 = 5_672;

/// The alert on idle connections that are lost.
const ALERT: &str = "KaprobeIdleConnectionsLost";

/// The time that the rules look back, as they write it, and what it is in the test.
const LOOKS_BACK: [(&str, &str); 2] = [("15m", "20s"), ("time() - 900", "time() - 20")];

/// The rules.
const RULES: &str = include_str!("../../contrib/prometheus/kaprobe.rules.yml");

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

/// An agent on a host, and Prometheus that scrapes it there.
struct Scraped<'a> {
    host: &'a Host,
    agent: Agent,
    _prometheus: Server,
    _folder: TempDir,
}

impl<'a> Scraped<'a> {
    /// Starts both, and waits until the agent was scraped.
    fn start(host: &'a Host) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let agent = host.on(|| Agent::start(&["--netns", host.name, "--interval", "1s"]))?;
        let prometheus = prometheus(folder.path(), agent.address)?;
        let scraped = Self {
            host,
            agent,
            _prometheus: host.on(|| Server::start(prometheus, PROMETHEUS))?,
            _folder: folder,
        };
        wait_until("Prometheus has scraped the agent", || {
            let query = "/api/v1/query?query=kaprobe_build_info";
            let response = host.on(|| http::get(PROMETHEUS, query))?;
            Ok(response.body.contains("\"kernel\""))
        })?;
        Ok(scraped)
    }

    /// The alert fires once `lose` has lost a connection to `remote`, with this verdict. It ends
    /// while a connection that `cure` opens lives.
    fn alerts<T>(
        &self,
        remote: SocketAddr,
        verdict: &str,
        lose: impl FnOnce() -> Result<()>,
        cure: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let firing = || self.host.on(firing);
        ensure!(
            firing()?.is_empty(),
            "an alert fires before anything happened"
        );
        lose()?;
        let mut alerts = Vec::new();
        wait_until("the alert fires", || {
            alerts = firing()?;
            Ok(!alerts.is_empty())
        })?;
        let labels = &alerts[0]["labels"];
        ensure!(
            labels["remote"] == remote.to_string() && labels["verdict"] == verdict,
            "{labels}"
        );
        let cured = cure()?;
        wait_until("probes are answered", || {
            let metrics = self.host.on(|| self.agent.metrics())?;
            Ok(metrics.metric("kaprobe_probes_answered_total", "")? >= 2.0)
        })?;
        // It ends once there was no such verdict for as long as the rule looks back.
        wait_until("the alert ends", || Ok(firing()?.is_empty()))?;
        Ok(cured)
    }
}

/// The command that runs Prometheus in a folder, with the rules of `contrib/` but for how far they
/// look back.
fn prometheus(folder: &Path, agent: SocketAddr) -> Result<Command> {
    let mut rules = RULES.to_owned();
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

/// A router forgets silent connections without a word, until there are probes.
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
    let scraped = Scraped::start(client)?;
    let lose = || {
        let (mut stream, mut accepted) = connect()?;
        exchange(&mut stream, &mut accepted)?;
        thread::sleep(SILENCE);
        stream.write_all(b"ping")?;
        expect_death(&mut stream, ErrorKind::TimedOut)
    };
    let cure = || {
        let (stream, accepted) = connect()?;
        // Within the time that the router remembers.
        let probes = TcpKeepalive::new()
            .with_time(Duration::from_secs(1))
            .with_interval(Duration::from_secs(1));
        SockRef::from(&stream).set_tcp_keepalive(&probes)?;
        Ok((stream, accepted))
    };
    let (stream, accepted) = scraped.alerts(address, "silent_drop", lose, cure)?;
    exchange(&stream, &accepted)
}

/// The story of the load balancer: it forgets an idle connection, and hands the client's next
/// segment to a server that never had it. It remembers one that probes in time.
pub fn alert_fires_on_the_story() -> Result<()> {
    let network = Network::build(story::FORGETS_S)?;
    let scraped = Scraped::start(&network.client)?;
    let lose = || {
        let mut lost = story::connect(&network, None, None)?;
        wait_until("the balancer has forgotten", || {
            Ok(network.remembered()? == 0)
        })?;
        lost.client.write_all(b"ping")?;
        expect_death(&mut lost.client, ErrorKind::ConnectionReset)
    };
    let cure = || story::connect(&network, Some(u64::from(story::FORGETS_S) / 2), None);
    let cured = scraped.alerts(ipvs::SERVICE, "idle_eviction", lose, cure)?;
    ensure!(network.remembered()? > 0, "the balancer has forgotten it");
    exchange(&cured.client, &cured.server)
}
