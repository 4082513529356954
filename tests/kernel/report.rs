//! `kaprobe report` in a real browser, and as a validator of HTML sees it.
//!
//! The page is that of the three logs in `tests/golden/story`: a load balancer forgot an idle
//! connection. With `KAPROBE_BLESS=1`, the picture of it becomes `docs/report.png`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::{env, fs, thread};

use anyhow::{Context as _, Result, anyhow, ensure};
use kaprobe_testkit::package::{self, Root};
use kaprobe_testkit::{command, netns};
use serde_json::json;

const CHROMIUM: &str = "usr/lib/chromium/chromium";

/// The file of the page, in the browser's /tmp.
const PAGE: &str = "report.html";

/// Nothing but what the page itself asks for: no update, no account, no sandbox, which root
/// can't use.
const QUIET: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
    "--hide-scrollbars",
];

/// The most that the picture in docs/ may take, bytes.
const MAX_PICTURE_LEN: usize = 200_000;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Writes the report of the three hosts' logs, and returns it.
fn story() -> Result<String> {
    let logs = ["client", "server1", "server2"].map(|host| {
        let log = checkout().join(format!("tests/golden/story/{host}.jsonl"));
        log.to_string_lossy().into_owned()
    });
    let mut kaprobe = command::kaprobe()?;
    kaprobe.env("TZ", "UTC").arg("report");
    let [client, first, second] = &logs;
    let (code, page, stderr) = command::run_as(kaprobe, &[client, first, second])?;
    ensure!(code == Some(0), "{code:?}: {stderr}");
    Ok(page)
}

/// A picture: its pixels by colour.
struct Picture {
    colours: BTreeMap<[u8; 3], u64>,
}

impl Picture {
    fn read(bytes: &[u8]) -> Result<Self> {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info()?;
        let size = reader
            .output_buffer_size()
            .context("the picture is too big")?;
        let mut pixels = vec![0; size];
        let info = reader.next_frame(&mut pixels)?;
        let samples = info.color_type.samples();
        ensure!(samples >= 3, "no colours: {info:?}");
        let mut colours = BTreeMap::new();
        for pixel in pixels[..info.buffer_size()].chunks_exact(samples) {
            *colours.entry([pixel[0], pixel[1], pixel[2]]).or_default() += 1;
        }
        Ok(Self { colours })
    }

    /// The colour of the most pixels: that of the paper.
    fn paper(&self) -> [u8; 3] {
        let most = self.colours.iter().max_by_key(|(_, count)| **count);
        most.map(|(colour, _)| *colour).unwrap_or_default()
    }

    /// The part of the pixels that are not paper, in a thousand.
    fn ink(&self) -> u64 {
        let all: u64 = self.colours.values().sum();
        let paper = self.colours[&self.paper()];
        (all - paper) * 1_000 / all.max(1)
    }
}

/// A browser in a root of its own, in a network namespace without a way out.
struct Browser(Root);

impl Browser {
    fn start() -> Result<Self> {
        let root = Root::of("chromium")?;
        netns::enter_new()?;
        root.use_etc("fonts")?;
        Ok(Self(root))
    }

    /// Shows the page with these options. Returns the requests that it made. Each run has a
    /// new profile.
    fn show(&self, page: &str, name: &str, options: &[&str]) -> Result<Vec<String>> {
        let mut command: Command = self.0.command(CHROMIUM);
        let profile = format!("--user-data-dir=/tmp/{name}-profile");
        let requests = format!("--log-net-log=/tmp/{name}.netlog");
        let shown = command
            .env("HOME", "/tmp")
            .env("TZ", "UTC")
            .args(QUIET)
            .args([&profile, &requests])
            .args(options)
            .arg(format!("file:///tmp/{page}"));
        let output = shown.output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {stderr}", output.status);
        self.requests(name)
    }

    /// The requests that a page made, as lines of the browser's log. What the browser asks
    /// for on its own has no origin.
    fn requests(&self, name: &str) -> Result<Vec<String>> {
        let log = String::from_utf8(self.read(&format!("{name}.netlog"))?)?;
        ensure!(log.contains("constants"), "no log of requests: {log:.200}");
        let requests = log.lines().filter(|it| it.contains("\"initiator\":"));
        let of_page = requests.filter(|it| !it.contains("\"initiator\":\"not an origin\""));
        Ok(of_page.map(str::to_owned).collect())
    }

    fn read(&self, file: &str) -> Result<Vec<u8>> {
        self.0.read(&format!("tmp/{file}"))
    }

    fn picture(&self, name: &str, options: &[&str]) -> Result<Vec<u8>> {
        let file = format!("--screenshot=/tmp/{name}.png");
        let options = [&[file.as_str(), "--window-size=1100,975"], options].concat();
        let requests = self.show(PAGE, name, &options)?;
        ensure!(requests.is_empty(), "{name}: {requests:?}");
        self.read(&format!("{name}.png"))
    }
}

/// The page can be seen on a light and on a dark screen, can be printed, and asks for
/// nothing.
pub fn browser_shows_it_light_dark_and_on_paper() -> Result<()> {
    package::on_host_only()?;
    let browser = Browser::start()?;
    browser.0.write("tmp/report.html", &story()?)?;

    // The log of the browser tells what a page asks for.
    let image = "<!DOCTYPE html><title>x</title><img src=http://kaprobe.invalid/x.png>";
    browser.0.write("tmp/other.html", image)?;
    let screenshot = ["--screenshot=/tmp/other.png"];
    let requests = browser.show("other.html", "other", &screenshot)?;
    ensure!(requests.len() == 1, "{requests:?}");

    let bytes = browser.picture("light", &["--blink-settings=preferredColorScheme=1"])?;
    let light = Picture::read(&bytes)?;
    let dark = browser.picture("dark", &["--blink-settings=preferredColorScheme=0"])?;
    let dark = Picture::read(&dark)?;
    for (name, picture) in [("light", &light), ("dark", &dark)] {
        let (ink, colours) = (picture.ink(), picture.colours.len());
        ensure!(ink > 20 && colours > 50, "{name}: {ink}, {colours} colours");
    }
    ensure!(light.paper() == [255; 3], "{:?}", light.paper());
    ensure!(dark.paper().iter().all(|it| *it < 50), "{:?}", dark.paper());

    let dark_screen = "--blink-settings=preferredColorScheme=0";
    let print = ["--print-to-pdf=/tmp/report.pdf", "--no-pdf-header-footer"];
    let requests = browser.show(PAGE, "paper", &[&print[..], &[dark_screen]].concat())?;
    ensure!(requests.is_empty(), "{requests:?}");
    let paper = browser.read("report.pdf")?;
    ensure!(
        paper.starts_with(b"%PDF-") && paper.len() > 10_000,
        "{}",
        paper.len()
    );

    if env::var_os("KAPROBE_BLESS").is_some() {
        ensure!(bytes.len() <= MAX_PICTURE_LEN, "{} bytes", bytes.len());
        fs::write(checkout().join("docs/report.png"), bytes)?;
    }
    Ok(())
}

/// The log of a verdict that advises a sysctl in this network namespace.
fn sysctl_log(netns: u64) -> String {
    let header = json!({"header": {
        "version": "1.5", "host": "mq", "kernel": "6.12", "kaprobe": "0.1.0",
        "started": "2024-05-06T07:08:09Z", "clock_offset_ns": 0, "hz": 250, "hooks": {},
        // Its verdicts are taken as they are.
        "filters": {"events": ["verdict"]},
    }});
    let verdict = json!({
        "time": "2024-05-06T07:08:10Z", "mono_ns": 1, "seq": 1, "event": "verdict",
        "family": "inet", "laddr": "10.0.0.1", "lport": 40_000, "raddr": "10.0.0.2",
        "rport": 5672, "netns": netns, "netns_name": "`reboot`", "verdict": "idle_eviction",
        "confidence": "low", "set_in": "sysctl", "set": "net.ipv4.tcp_keepalive_time=175",
    });
    format!("{header}\n{verdict}\n")
}

/// The first command that a report has to copy, as a browser copies it.
fn first_command(page: &str) -> Result<String> {
    let code = page.split("<pre><code>").nth(1).context("no command")?;
    let code = code.split('<').next().unwrap_or_default();
    let characters = [
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#60;", "<"),
        ("&#38;", "&"),
    ];
    let unescape = |text: String, (from, to): (&str, &str)| text.replace(from, to);
    Ok(characters.into_iter().fold(code.to_owned(), unescape))
}

/// A command to copy changes the sysctl of its network namespace, and of no other. Once the
/// namespace has no process, it changes nothing.
pub fn command_reaches_its_namespace_only() -> Result<()> {
    package::on_host_only()?;
    let time = || fs::read_to_string("/proc/sys/net/ipv4/tcp_keepalive_time");
    let before = time()?;
    ensure!(
        before.trim() != "175",
        "this namespace has the value already"
    );
    let inner = thread::scope(|scope| {
        let inner = scope.spawn(|| -> Result<_> {
            netns::enter_new()?;
            let mut process = Command::new("sleep").arg("infinity").spawn()?;
            let outcome = changed_time(&mut process);
            process.kill()?;
            process.wait()?;
            outcome
        });
        inner.join().map_err(|_| anyhow!("the thread panicked"))?
    });
    let (time_inside, command) = inner?;
    ensure!(time_inside.trim() == "175", "{command}: {time_inside}");
    ensure!(time()? == before, "{command}");
    let output = shell(&command)?;
    ensure!(!output.status.success(), "{command}: {output:?}");
    ensure!(time()? == before, "{command}");
    Ok(())
}

/// Runs the command of a report on the namespace of a process. Returns the keepalive time
/// there, and the command.
fn changed_time(process: &mut Child) -> Result<(String, String)> {
    let netns = fs::metadata(format!("/proc/{}/ns/net", process.id()))?.ino();
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log.jsonl");
    fs::write(&log, sysctl_log(netns))?;
    let log = log.to_str().context("the path is not UTF-8")?;
    let output = command::run(&["report", log])?;
    let command = first_command(&String::from_utf8(output.stdout)?)?;
    let output = shell(&command)?;
    ensure!(output.status.success(), "{command}: {output:?}");
    let time = fs::read_to_string("/proc/sys/net/ipv4/tcp_keepalive_time")?;
    Ok((time, command))
}

/// Runs a command as a reader does who is root.
fn shell(command: &str) -> Result<Output> {
    let line = format!("sudo() {{ \"$@\"; }}; {command}");
    Ok(Command::new("bash").args(["-c", &line]).output()?)
}

/// HTML Tidy finds neither an error nor anything to warn of.
pub fn html_is_valid() -> Result<()> {
    package::on_host_only()?;
    let root = Root::of("tidy")?;
    root.write("tmp/report.html", &story()?)?;
    let mut tidy = root.command("usr/bin/tidy");
    let output = tidy
        .args(["-quiet", "-errors", "/tmp/report.html"])
        .output()?;
    let found = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && found.trim().is_empty(),
        "{found}"
    );
    Ok(())
}
