//! Debian's archive, through apt configurations of our own: the system's
//! sources and packages stay as they are, and what we fetch is only unpacked.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{CommandExt, say};
use crate::workspace;

/// Signs every suite, and comes with Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The release that tools and guest packages come from, whatever this host runs.
const RELEASE: &str = "trixie";

/// Where a tree has its dynamic loader.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// How long an index is good for.
const FRESH: Duration = Duration::from_secs(3600);

/// One or more suites of Debian, such as `bookworm` and `bookworm-backports`.
pub struct Suites {
    config: PathBuf,
}

/// Whether an index need not be read again.
fn is_fresh(stamp: &Path) -> bool {
    let written = fs::metadata(stamp).and_then(|stamp| stamp.modified());
    written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < FRESH))
}

impl Suites {
    /// Fetches the index of the suites, each from the first of the machine's
    /// mirrors that has it; not all need be there, but one.
    pub fn open(names: &[&str]) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("packages come from Debian's archive, and this host lacks apt or {KEYRING}");
        }
        let home = workspace::cache("apt").join(names.join("+"));
        let suites = Self {
            config: home.join("apt.conf"),
        };
        let stamp = home.join("stamp");
        let _held = workspace::lock(&home)?;
        if !is_fresh(&stamp) {
            say(format_args!(
                "reading Debian's index of {}",
                names.join(" and ")
            ));
            suites.configure(&home)?;
            suites.update(&home, names)?;
            fs::write(&stamp, "").with_context(|| format!("cannot write {}", stamp.display()))?;
        }
        Ok(suites)
    }

    fn update(&self, home: &Path, names: &[&str]) -> Result<()> {
        let mut sources = String::new();
        let mut refusals = String::new();
        let mirrors = mirrors()?;
        for suite in names {
            for mirror in &mirrors {
                let more = format!("{sources}deb [signed-by={KEYRING}] {mirror} {suite} main\n");
                workspace::write(&home.join("sources.list"), &more)?;
                let update = self.apt("apt-get").args(["update", "--quiet=2"]).output()?;
                if update.status.success() {
                    sources = more;
                    break;
                }
                refusals += &String::from_utf8_lossy(&update.stderr);
            }
        }
        if sources.is_empty() {
            bail!(
                "no mirror that apt is set up with has {}:\n{refusals}",
                names.join(" or ")
            );
        }
        workspace::write(&home.join("sources.list"), sources)
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

    /// The names of all packages that begin like this.
    pub fn names(&self, prefix: &str) -> Result<BTreeSet<String>> {
        let names = self.apt("apt-cache").args(["pkgnames", prefix]).read()?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The newest version of a package.
    pub fn version(&self, package: &str) -> Result<String> {
        let record = self
            .apt("apt-cache")
            .args(["show", "--no-all-versions", package])
            .read()?;
        let version = record
            .lines()
            .find_map(|line| line.strip_prefix("Version: "));
        Ok(version
            .with_context(|| format!("{package} has no version"))?
            .to_owned())
    }

    /// A package and all that it depends on.
    fn closure(&self, package: &str) -> Result<Vec<String>> {
        let plan = self
            .apt("apt-get")
            .args(["install", "--simulate", "--no-install-recommends", package])
            .read()?;
        let installed = plan
            .lines()
            .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
        Ok(installed.map(str::to_owned).collect())
    }

    /// Downloads packages, each a name or `name=version`, and unpacks them into a folder.
    pub fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let scratch = workspace::scratch()?;
        // Progress is for a person; a log is better off without a line a package.
        let quiet = if io::stderr().is_terminal() {
            "--quiet=0"
        } else {
            "--quiet=2"
        };
        self.apt("apt-get")
            .args(["download", quiet])
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

/// A package of [`RELEASE`] with all that it depends on, unpacked and kept.
pub fn tree(package: &str) -> Result<PathBuf> {
    kept(package, |suites| suites.closure(package))
}

/// A program of a package, by its path in there: itself and the libraries that it loads,
/// each with the path that it is found by. Asked of the loader that comes with it, as
/// this host may have another or none.
pub fn program(package: &str, path: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    let tree = tree(package)?;
    let listed = loader(&tree).arg("--list").arg(tree.join(path)).read()?;
    let found = listed.split_whitespace().map(Path::new);
    let loader = tree.join(LOADER);
    let libraries = found.filter(|word| word.starts_with(&tree) && word.is_file());
    let mut files = Vec::new();
    for file in [tree.join(path).as_path(), &loader]
        .into_iter()
        .chain(libraries)
    {
        // A library is known by a name that links to that of its version.
        let there = fs::canonicalize(file)
            .with_context(|| format!("{package} lacks {}", file.display()))?;
        files.push((there, file.strip_prefix(&tree)?.to_owned()));
    }
    Ok(files)
}

/// The command line of a program of an unpacked package, run by the loader that it
/// came with, whatever libraries this host has.
pub fn loader(tree: &Path) -> Command {
    let mut loader = Command::new(tree.join(LOADER));
    loader
        .arg("--library-path")
        .arg(tree.join("usr/lib/x86_64-linux-gnu"));
    loader
}

/// A package whose programs are linked statically, unpacked and kept: it needs no other.
pub fn static_package(package: &str) -> Result<PathBuf> {
    kept(package, |_| Ok(vec![package.to_owned()]))
}

/// Where the unpacked packages are, by name.
pub fn trees() -> PathBuf {
    workspace::cache("packages")
}

fn kept(name: &str, packages: impl FnOnce(&Suites) -> Result<Vec<String>>) -> Result<PathBuf> {
    let tree = trees().join(name);
    workspace::kept(&tree, |into| {
        let suites = Suites::open(&[RELEASE])?;
        let packages = packages(&suites)?;
        say(format_args!(
            "downloading {name}, {} packages in all",
            packages.len()
        ));
        suites.unpack(&packages, into)
    })?;
    Ok(tree)
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
