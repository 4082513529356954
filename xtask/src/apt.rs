//! Downloads and unpacks Debian packages with xtask's own apt configurations.
//!
//! The host's package sources and installed packages do not change.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use object::{Object as _, read};

use crate::arch::Arch;
use crate::process::{CommandExt, say};
use crate::workspace;

/// The keys that sign every suite; part of Debian.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The Debian release of tools and guest packages, independent of the host.
const RELEASE: &str = "trixie";

/// How long a downloaded package index is used.
const MAX_INDEX_AGE: Duration = Duration::from_secs(3600);

/// Debian suites, such as `bookworm` and `bookworm-backports`, for one architecture.
pub struct Suites {
    config: PathBuf,
    arch: Arch,
}

/// Whether a package index is recent enough to use.
fn is_fresh(stamp: &Path) -> bool {
    let written = fs::metadata(stamp).and_then(|stamp| stamp.modified());
    written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < MAX_INDEX_AGE))
}

impl Suites {
    /// Downloads the index of each suite, from the first of the host's mirrors with it.
    ///
    /// Fails if no mirror has any of the suites.
    pub fn open(names: &[&str], arch: Arch) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("packages come from Debian's archive, and this host lacks apt or {KEYRING}");
        }
        let home = arch.cache("apt").join(names.join("+"));
        let suites = Self {
            config: home.join("apt.conf"),
            arch,
        };
        let stamp = home.join("stamp");
        let _held = workspace::lock(&home)?;
        // It names this folder, and a checkout may have been moved or copied.
        suites.configure(&home)?;
        if !is_fresh(&stamp) {
            say(format_args!(
                "reading Debian's index of {} for {}",
                names.join(" and "),
                arch.debian()
            ));
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
        let (dir, arch) = (home.display(), self.arch.debian());
        // apt's own user cannot read below a home directory, so root stays root.
        let config = format!(
            r#"Dir::Etc::SourceList "{dir}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "{dir}/lists";
Dir::State::Status "{dir}/status";
Dir::Cache "{dir}/cache";
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
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

    /// The mirror that has the first of the suites.
    pub fn mirror(&self) -> Result<String> {
        let path = self.config.with_file_name("sources.list");
        let sources =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mirror = sources.split_whitespace().nth(2);
        Ok(mirror.context("there is no mirror")?.to_owned())
    }

    /// All package names that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<BTreeSet<String>> {
        let names = self.apt("apt-cache").args(["pkgnames", prefix]).read()?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The newest version of each of these packages.
    pub fn versions(&self, packages: &[String]) -> Result<BTreeMap<String, String>> {
        if packages.is_empty() {
            return Ok(BTreeMap::new());
        }
        let records = self
            .apt("apt-cache")
            .args(["show", "--no-all-versions"])
            .args(packages)
            .read()?;
        Ok(versions(&records))
    }

    /// The names of these packages and of all their dependencies.
    fn closure(&self, packages: &[&str]) -> Result<Vec<String>> {
        let plan = self
            .apt("apt-get")
            .args(["install", "--simulate", "--no-install-recommends"])
            .args(packages)
            .read()?;
        let installed = plan
            .lines()
            .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
        Ok(installed.map(str::to_owned).collect())
    }

    /// Downloads packages (`name` or `name=version`) and unpacks them into a folder.
    pub fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let scratch = workspace::scratch()?;
        // Progress is for a terminal. A log needs no line per package.
        let quiet = if io::stderr().is_terminal() {
            "--quiet=0"
        } else {
            "--quiet=2"
        };
        self.apt("apt-get")
            .args(["download", quiet])
            .args(packages)
            .current_dir(scratch.path())
            .check_to_stderr()?;
        for deb in fs::read_dir(scratch.path())? {
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(deb?.path())
                .arg(into)
                .check_to_stderr()?;
        }
        Ok(())
    }
}

/// The folder of a package of [`RELEASE`] for this host, unpacked once with all its
/// dependencies.
pub fn tree(package: &str) -> Result<PathBuf> {
    tree_for(Arch::HOST, package)
}

/// The folder of a package of [`RELEASE`], unpacked once with all its dependencies. A shell
/// is one of them: packages take it for granted, as Debian calls it essential.
pub fn tree_for(arch: Arch, package: &str) -> Result<PathBuf> {
    tree_of(arch, package, &[package, "dash"])
}

/// The folder of several packages of [`RELEASE`], unpacked once with all their dependencies.
/// `name` is none of a package.
pub fn tree_of(arch: Arch, name: &str, packages: &[&str]) -> Result<PathBuf> {
    unpack_once(arch, name, |suites| suites.closure(packages))
}

/// The versions in records of packages, by the packages' names.
fn versions(records: &str) -> BTreeMap<String, String> {
    let field = |record: &str, name: &str| {
        let mut lines = record.lines();
        lines.find_map(|line| line.strip_prefix(name).map(str::to_owned))
    };
    let named = |record| Some((field(record, "Package: ")?, field(record, "Version: ")?));
    records.split("\n\n").filter_map(named).collect()
}

/// The files that a program of a package needs: itself, its loader and its libraries.
///
/// `path` is relative to the package. Each file comes with its path in the package.
pub fn program(arch: Arch, package: &str, path: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
    let tree = tree_for(arch, package)?;
    let libraries = Path::new(&arch.libraries()).to_owned();
    let mut to_visit = vec![PathBuf::from(path), arch.loader().into()];
    let mut files = BTreeMap::new();
    while let Some(path) = to_visit.pop() {
        if files.contains_key(&path) {
            continue;
        }
        // A library's name may be a link to a versioned file.
        let source = fs::canonicalize(tree.join(&path))
            .with_context(|| format!("{package} lacks {}", path.display()))?;
        let needed = needed(&source);
        let needed = needed.with_context(|| format!("cannot read {}", source.display()))?;
        // The loader is needed by its name, and lies elsewhere.
        let found = needed.iter().map(|name| libraries.join(name));
        to_visit.extend(found.filter(|it| !arch.loader().ends_with(file_name(it))));
        files.insert(path, source);
    }
    Ok(files
        .into_iter()
        .map(|(path, source)| (source, path))
        .collect())
}

/// The libraries that a program or a library names.
fn needed(file: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(file)?;
    let file = read::File::parse(&*bytes)?;
    let mut names = Vec::new();
    for library in file.import_libraries()? {
        names.push(String::from_utf8(library?.name().to_vec())?);
    }
    Ok(names)
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// A command that starts a program of an unpacked package with the package's own loader
/// and libraries. The caller appends the program and its arguments.
pub fn loader(tree: &Path) -> Command {
    let mut loader = Command::new(tree.join(Arch::HOST.loader()));
    loader
        .arg("--library-path")
        .arg(tree.join(Arch::HOST.libraries()));
    loader
}

/// The folder of a package, unpacked once without dependencies: it has static programs, or
/// files that nothing runs.
pub fn lone_package(arch: Arch, package: &str) -> Result<PathBuf> {
    unpack_once(arch, package, |_| Ok(vec![package.to_owned()]))
}

/// The folder of all packages that are unpacked for this host, one folder per name.
pub fn trees() -> PathBuf {
    trees_for(Arch::HOST)
}

fn trees_for(arch: Arch) -> PathBuf {
    arch.cache("packages")
}

fn unpack_once(
    arch: Arch,
    name: &str,
    packages: impl FnOnce(&Suites) -> Result<Vec<String>>,
) -> Result<PathBuf> {
    let tree = trees_for(arch).join(name);
    workspace::make_once(&tree, |into| {
        let suites = Suites::open(&[RELEASE], arch)?;
        let packages = packages(&suites)?;
        say(format_args!(
            "downloading {name}, {} packages in all",
            packages.len()
        ));
        suites.unpack(&packages, into)
    })?;
    Ok(tree)
}

/// The mirrors that the host's apt is configured to use.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_has_a_version() {
        let records = "Package: linux-image-6.1.0-49\nVersion: 6.1.174-1\nDepends: a\n\n\
                       Package: linux-image-6.1.0-57\nSource: x (1)\nVersion: 6.1.192-3\n\n\
                       Package: without\n\n";
        let found: Vec<_> = versions(records).into_iter().collect();
        let expected = [
            ("linux-image-6.1.0-49", "6.1.174-1"),
            ("linux-image-6.1.0-57", "6.1.192-3"),
        ];
        assert_eq!(found, expected.map(|(name, it)| (name.into(), it.into())));
    }
}
