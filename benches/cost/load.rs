//! The load: processes that hold connections whose keepalive timers fire each second.

use std::env;
use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use kaprobe::traffic::load::{Load, Member, allow_open_files};
use kaprobe::traffic::pair::{Keepalive, Path};

/// Connections of one process: two descriptors each, and 20,000 is a common limit.
const EACH: u32 = 8_000;

/// Processes that hold connections until this is dropped.
pub struct Holders(Vec<Child>);

impl Holders {
    /// Starts as many processes as `connections` take; returns once all are open. Each
    /// has a timer that fires so many seconds apart, and probes that are answered.
    pub fn start(connections: u32, seconds: u32) -> Result<Self> {
        let mut holders = Self(Vec::new());
        let mut opened = Vec::new();
        for (n, first) in (1..).zip((0..connections).step_by(EACH as usize)) {
            let count = EACH.min(connections - first);
            let mut child = Command::new(env::current_exe()?)
                .args(["load", &Ipv4Addr::new(127, 0, n, 1).to_string()])
                .args([count, seconds].map(|it| it.to_string()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start the load")?;
            opened.push(child.stdout.take().context("no stdout")?);
            holders.0.push(child);
        }
        for stdout in opened {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            ensure!(line == "open\n", "the load did not open: {line:?}");
        }
        Ok(holders)
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // The end of its input is the end of the load.
            drop(child.stdin.take());
            // It is gone either way.
            let _ = child.wait();
        }
    }
}

/// Holds connections until standard input ends.
pub fn hold(address: IpAddr, connections: u32, seconds: u32) -> Result<()> {
    allow_open_files(connections.into()).context("cannot hold so many connections")?;
    let member = Member {
        keepalive: Keepalive::new(seconds, seconds, 9),
        answered: true,
    };
    let members = (0..connections).map(|_| member);
    let load = Load::open(Path::V4, address, members).context("cannot open the load")?;
    println!("open");
    io::stdin().lines().for_each(drop);
    Ok(load.end()?)
}
