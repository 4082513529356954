//! The load: processes that hold connections whose keepalive timers fire each second.

use std::env;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kaprobe::traffic::pair::{Keepalive, Pair, Path};
use kaprobe_testkit::traffic::ends::{far_asks, near_asks};
use kaprobe_testkit::traffic::load::{Load, Member, allow_open_files};

/// Connections of one process: two descriptors each, and 20,000 is a common limit.
const EACH: u32 = 8_000;

/// How many parts a load is made in whose timers fire all the time. Timers of a second
/// fire in batches 32 ms apart at HZ = 250 (the wheel's second level, kernel/time/timer.c).
const PARTS: u32 = 25;

/// Processes that hold connections until this is dropped.
pub struct Holders(Vec<Holder>);

struct Holder {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl Holders {
    /// Starts as many processes as `connections` take; returns once all are open. Each
    /// has a timer that fires so many seconds apart, and probes that are answered.
    pub fn start(connections: u32, seconds: u32) -> Result<Self> {
        let mut holders = Self(Vec::new());
        for (n, first) in (1..).zip((0..connections).step_by(EACH as usize)) {
            let count = EACH.min(connections - first);
            let mut child = Command::new(env::current_exe()?)
                .args(["load", &Ipv4Addr::new(127, 0, n, 1).to_string()])
                .args([count, seconds].map(|it| it.to_string()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start the load")?;
            let stdout = child.stdout.take().context("no stdout")?;
            let told = BufReader::new(stdout);
            holders.0.push(Holder { child, told });
        }
        holders.wait("open")?;
        Ok(holders)
    }

    /// The same, and the timers fire all through these seconds, as those of a host do: of
    /// connections that are opened at once they fire at once.
    pub fn spread(connections: u32, seconds: u32) -> Result<Vec<Self>> {
        let before = |part| connections * part / PARTS;
        let part = |n| {
            let part = Self::start(before(n + 1) - before(n), seconds);
            thread::sleep(Duration::from_secs(seconds.into()) / PARTS);
            part
        };
        (0..PARTS).map(part).collect()
    }

    /// Tells each process to do something: see [`Act`]. Returns once all have.
    pub fn act(&mut self, act: Act) -> Result<()> {
        for holder in &mut self.0 {
            let stdin = holder.child.stdin.as_mut().context("no stdin")?;
            writeln!(stdin, "{}", act.word())?;
        }
        self.wait("done")
    }

    fn wait(&mut self, what: &str) -> Result<()> {
        for holder in &mut self.0 {
            let mut line = String::new();
            holder.told.read_line(&mut line)?;
            ensure!(
                line.trim_end() == what,
                "the load said {line:?}, not {what}"
            );
        }
        Ok(())
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        for Holder { child, .. } in &mut self.0 {
            // The end of its input is the end of the load.
            drop(child.stdin.take());
        }
        for Holder { child, .. } in &mut self.0 {
            // It is gone either way.
            let _ = child.wait();
        }
    }
}

/// What connections of a load can be made to do.
#[derive(Clone, Copy, PartialEq)]
pub enum Act {
    /// Each end sends a byte.
    Talk,
    /// The timer of each end is set anew: to fire the keepalive time after the peer was
    /// last heard (`tcp_sock_set_keepidle_locked`, net/ipv4/tcp.c).
    Arm,
}

impl Act {
    const ALL: [Self; 2] = [Self::Talk, Self::Arm];

    const fn word(self) -> &'static str {
        match self {
            Self::Talk => "talk",
            Self::Arm => "arm",
        }
    }

    fn of_each(self, pair: &Pair, keepalive: Keepalive) -> io::Result<()> {
        match self {
            Self::Talk => {
                pair.send()?;
                pair.far_sends()
            }
            Self::Arm => {
                near_asks(pair, keepalive)?;
                far_asks(pair, keepalive)
            }
        }
    }
}

/// Holds connections until standard input ends, and does what it says.
pub fn hold(address: IpAddr, connections: u32, seconds: u32) -> Result<()> {
    allow_open_files(connections.into()).context("cannot hold so many connections")?;
    let keepalive = Keepalive::new(seconds, seconds, 9);
    let member = Member {
        keepalive,
        answered: true,
    };
    let members = (0..connections).map(|_| member);
    let load = Load::open(Path::V4, address, members).context("cannot open the load")?;
    println!("open");
    for line in io::stdin().lines() {
        let line = line?;
        let act = Act::ALL.into_iter().find(|act| act.word() == line);
        let act = act.with_context(|| format!("{line:?} is nothing to do"))?;
        let mut pairs = load.pairs().iter();
        pairs.try_for_each(|pair| act.of_each(pair, keepalive))?;
        println!("done");
    }
    Ok(load.end()?)
}
