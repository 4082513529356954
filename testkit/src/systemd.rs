//! Runs kaprobe's unit, in a guest whose first process is systemd.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs, io};

use anyhow::{Context as _, Result, ensure};

use crate::command::copy_binary;
use crate::harness::Skip;
use crate::http::{self, HttpResponse};
use crate::wait::wait_until;

/// The unit, as users get it.
pub const UNIT: &str = include_str!("../../contrib/systemd/kaprobe.service");

/// Its name.
pub const NAME: &str = "kaprobe.service";

/// Where the agent serves.
const ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10_977);

/// The unit's own file, and the folder of what changes it.
const FILE: &str = "/etc/systemd/system/kaprobe.service";
const CHANGES: &str = "/etc/systemd/system/kaprobe.service.d";

/// The settings that a package installs, and that the unit names in a comment.
const SETTINGS: &str = "/etc/kaprobe.toml";

/// The link that enables it.
const LINK: &str = "/etc/systemd/system/multi-user.target.wants/kaprobe.service";

/// Where the agent's messages go.
const SAID: &str = "/run/kaprobe.said";

/// The folder of records, which the unit names.
pub const RECORDS: &str = "/var/log/kaprobe";

/// Where systemd keeps that folder, for a user that exists while the service runs: what the unit
/// names is a link.
const PRIVATE: &str = "/var/log/private/kaprobe";

/// The installed service. Stopped when dropped.
#[derive(Debug)]
pub struct Service(());

impl Service {
    /// Installs it as `docs/operate.md` says, with nothing of an earlier one, but does not start
    /// it. `changes` are lines of its section `[Service]` that come after its own.
    pub fn install(changes: &[&str]) -> Result<Self> {
        clear()?;
        let program = Path::new(program()?);
        fs::create_dir_all(program.parent().context("no folder")?)?;
        gone_already(fs::remove_file(program))?;
        copy_binary(program)?;
        fs::write(FILE, UNIT)?;
        let service = Self(());
        service.change(changes)?;
        systemctl(&["enable", NAME])?;
        Ok(service)
    }

    /// That of a package, which the caller installs. Nothing of an earlier one is left.
    pub fn of_package() -> Result<Self> {
        clear()?;
        let service = Self(());
        for file in [FILE, LINK, SETTINGS] {
            gone_already(fs::remove_file(file))?;
        }
        systemctl(&["daemon-reload"])?;
        Ok(service)
    }

    /// Changes it: these are all lines that come after its own.
    pub fn change(&self, changes: &[&str]) -> Result<()> {
        fs::create_dir_all(CHANGES)?;
        let lines = changes.join("\n");
        let text = format!("[Service]\nStandardError=truncate:{SAID}\n{lines}\n");
        fs::write(Path::new(CHANGES).join("test.conf"), text)?;
        systemctl(&["daemon-reload"])?;
        Ok(())
    }

    /// Starts it, and waits until it is ready.
    pub fn start(&self) -> Result<()> {
        let started = systemctl(&["start", NAME]);
        started.with_context(|| self.said().unwrap_or_default())?;
        self.wait_ready()
    }

    /// Waits until every hook is attached and the connections were counted.
    pub fn wait_ready(&self) -> Result<()> {
        wait_until("the service is ready", || {
            Ok(self.get("/readyz").is_ok_and(|it| it.status == 200))
        })
    }

    /// Gets a page of it.
    pub fn get(&self, path: &str) -> Result<HttpResponse> {
        http::get(ADDRESS, path)
    }

    /// What systemd says of it.
    pub fn show(&self, property: &str) -> Result<String> {
        let shown = systemctl(&["show", NAME, "--value", "--property", property])?;
        Ok(shown.trim_end().to_owned())
    }

    /// Its process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.show("MainPID")?.parse()?)
    }

    /// What it said on standard error since it was started last.
    pub fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(SAID)?)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended before. An error changes nothing.
        let _ = systemctl(&["stop", NAME]);
        let _ = systemctl(&["reset-failed", NAME]);
    }
}

/// Removes what an earlier service has recorded, and what changed it. Skips the test where
/// systemd does not run.
fn clear() -> Result<()> {
    if env::var_os("KAPROBE_IN_VM").is_none() || !Path::new("/run/systemd/system").exists() {
        return Err(Skip("this is no guest that systemd has started".to_owned()).into());
    }
    for folder in [CHANGES, RECORDS, PRIVATE] {
        gone_already(fs::remove_dir_all(folder))?;
    }
    Ok(())
}

/// What an assignment of the unit sets; one that is a comment begins with `#`.
pub fn setting(name: &str) -> Result<&'static str> {
    let mut lines = UNIT.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.with_context(|| format!("no {name}= in the unit"))
}

/// The path of the program that the unit starts.
fn program() -> Result<&'static str> {
    let mut words = setting("ExecStart")?.split(' ');
    words.next().context("no program")
}

/// Runs `systemctl`, and returns what it printed. An error unless it exits with 0.
pub fn systemctl(arguments: &[&str]) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new("systemctl").args(arguments).output()?;
    let said = String::from_utf8_lossy(&stderr);
    ensure!(
        status.success(),
        "systemctl {arguments:?}: {status}: {said}"
    );
    Ok(String::from_utf8(stdout)?)
}

fn gone_already(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
