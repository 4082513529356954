//! Debian's archive, through apt configurations of our own: the system's
//! sources and packages stay as they are, and what we fetch is only unpacked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{CommandExt, say};
use crate::workspace;

/// Signs every suite, and comes with Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One or more suites of Debian, such as `bookworm` and `bookworm-backports`.
pub struct Suites {
    config: PathBuf,
}

/// An empty folder on the file system of the cache, gone when dropped.
pub fn scratch() -> Result<TempDir> {
    let parent = workspace::cache("tmp");
    fs::create_dir_all(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
    TempDir::new_in(&parent)
        .with_context(|| format!("cannot create a folder in {}", parent.display()))
}

impl Suites {
    /// Fetches the index of the suites from the first of the machine's mirrors that has them.
    pub fn open(names: &[&str]) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("packages come from Debian's archive, and this host lacks apt or {KEYRING}");
        }
        say(format_args!(
            "reading Debian's index of {}",
            names.join(" and ")
        ));
        let home = workspace::cache("apt").join(names.join("+"));
        let suites = Self {
            config: home.join("apt.conf"),
        };
        suites.configure(&home)?;
        let mut refusals = String::new();
        for mirror in mirrors()? {
            let source = |suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
            let sources: String = names.iter().map(source).collect();
            workspace::write(&home.join("sources.list"), sources)?;
            let update = suites
                .apt("apt-get")
                .args(["update", "--quiet=2"])
                .output()?;
            if update.status.success() {
                return Ok(suites);
            }
            refusals += &String::from_utf8_lossy(&update.stderr);
        }
        bail!(
            "no mirror that apt is set up with has {}:\n{refusals}",
            names.join(" and ")
        )
    }

    fn configure(&self, home: &Path) -> Result<()> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(folder))
                .with_context(|| format!("cannot create {folder} in {}", home.display()))?;
        }
        workspace::write(&home.join("status"), "")?;
        let dir = home.display();
        // A folder under a home is closed to apt's own user, so root stays root.
        let config = format!(
            r#"Dir::Etc::SourceList "{dir}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "{dir}/lists";
Dir::State::Status "{dir}/status";
Dir::Cache "{dir}/cache";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
"#
        );
        workspace::write(&self.config, config)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.arg("--config-file")
            .arg(&self.config)
            .env("LC_ALL", "C.UTF-8");
        apt
    }

    /// Downloads packages, each a name or `name=version`, and unpacks them into a folder.
    pub fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let scratch = scratch()?;
        self.apt("apt-get")
            .arg("download")
            .args(packages)
            .current_dir(scratch.path())
            .check_aside()?;
        for deb in fs::read_dir(scratch.path())? {
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(deb?.path())
                .arg(into)
                .check_aside()?;
        }
        Ok(())
    }
}

/// The archives that this machine's own apt is told to use.
fn mirrors() -> Result<BTreeSet<String>> {
    let targets = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
        ])
        .read()
        .context("cannot ask apt for its mirrors")?;
    Ok(targets.lines().map(str::to_owned).collect())
}
