//! The kernels that kaprobe is tested on: one per Debian release, and newer ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fmt, fs};

use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;

use crate::apt::{self, Suites};
use crate::process::{CommandExt, say};
use crate::workspace;

/// A kernel series that Debian updates.
pub struct Series {
    /// Its name in the matrix.
    pub name: &'static str,
    /// The prefix of its versions.
    versions: &'static str,
    flavour: Flavour,
    suites: &'static [&'static str],
}

/// Which of Debian's builds of a kernel.
#[derive(Clone, Copy, PartialEq)]
enum Flavour {
    /// For virtual machines: small, with everything that kaprobe reads.
    Cloud,
    /// PREEMPT_RT: softirqs are preempted, and spinlocks sleep.
    Rt,
}

impl Flavour {
    /// How the release of such a build ends.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Cloud => "-cloud-amd64",
            Self::Rt => "-rt-amd64",
        }
    }
}

/// The kernels of the matrix, oldest first.
///
/// 5.10 is the oldest with everything that kaprobe needs. Each later one changed
/// something that kaprobe reads. The last one has PREEMPT_RT.
pub const MATRIX: [Series; 6] = [
    Series::cloud("5.10", &["bullseye", "bullseye-security"]),
    Series::cloud("6.1", &["bookworm", "bookworm-security"]),
    Series::cloud("6.12", &["trixie", "trixie-security"]),
    Series::cloud("6.18", &["trixie-backports"]),
    Series::cloud("7", &["trixie-backports"]),
    Series {
        name: "6.12-rt",
        versions: "6.12",
        flavour: Flavour::Rt,
        suites: &["trixie", "trixie-security"],
    },
];

/// The kernels of the matrix to use.
#[derive(clap::Args)]
pub struct Choice {
    /// A kernel of the matrix, or all; may be repeated [default: all]
    #[arg(long = "kernel", value_name = "KERNEL", value_parser = names())]
    names: Vec<String>,
}

fn names() -> PossibleValuesParser {
    MATRIX
        .iter()
        .map(|series| series.name)
        .chain(["all"])
        .into()
}

impl Choice {
    /// Whether `--kernel` was given.
    pub fn is_given(&self) -> bool {
        !self.names.is_empty()
    }

    /// The chosen series, in the order of the matrix.
    pub fn series(&self) -> impl Iterator<Item = &'static Series> {
        let all = !self.is_given() || self.names.iter().any(|name| name == "all");
        MATRIX
            .iter()
            .filter(move |series| all || self.names.iter().any(|name| name == series.name))
    }
}

/// An unpacked kernel.
pub struct Kernel {
    /// The series it belongs to.
    pub series: &'static str,
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The version of Debian's package, which contains the upstream version.
    pub version: String,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {} (Debian {})", self.release, self.version)
    }
}

impl Series {
    const fn cloud(name: &'static str, suites: &'static [&'static str]) -> Self {
        Self {
            name,
            versions: name,
            flavour: Flavour::Cloud,
            suites,
        }
    }

    /// Whether a run of everything takes only the essential tests on this kernel: it differs
    /// from another one in one respect.
    pub fn is_variant(&self) -> bool {
        self.flavour == Flavour::Rt
    }

    /// The kernel from an earlier run, else the newest in Debian's archive.
    ///
    /// `None` if the archive no longer has one.
    pub fn kernel(&self) -> Result<Option<Kernel>> {
        let home = home(self.name);
        if !home.is_dir() {
            let suites = Suites::open(self.suites)?;
            let Some((release, version)) = self.newest(&suites)? else {
                return Ok(None);
            };
            workspace::make_once(&home, |into| install(&suites, &release, &version, into))
                .with_context(|| format!("cannot unpack Linux {release}"))?;
        }
        let file = home.join("version");
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let (release, version) = text
            .trim_end()
            .split_once(' ')
            .context("a kernel without a version")?;
        Ok(Some(Kernel {
            series: self.name,
            release: release.into(),
            version: version.into(),
        }))
    }

    fn newest(&self, suites: &Suites) -> Result<Option<(String, String)>> {
        let names = suites.names(&format!("linux-image-{}.", self.versions))?;
        let releases = names.iter().filter_map(|name| {
            let release = name.strip_prefix("linux-image-")?;
            Some((
                numbers(release.strip_suffix(self.flavour.suffix())?),
                release,
            ))
        });
        let Some((_, release)) = releases.max() else {
            return Ok(None);
        };
        let version = suites.version(&format!("linux-image-{release}"))?;
        Ok(Some((release.to_owned(), version)))
    }
}

/// The numbers in a version; they order the versions of one series.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn home(series: &str) -> PathBuf {
    workspace::cache("kernels").join(series)
}

/// Downloads a kernel and puts its image, modules and version into a folder.
fn install(suites: &Suites, release: &str, version: &str, home: &Path) -> Result<()> {
    say(format_args!(
        "downloading Linux {release} (Debian {version})"
    ));
    // Up to 6.18 a kernel is one package; later kernels are split.
    let all = suites.names("linux-")?;
    let parts =
        ["image", "base", "binary", "modules"].map(|part| format!("linux-{part}-{release}"));
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|part| all.contains(part))
        .collect();
    let scratch = workspace::scratch()?;
    suites.unpack(&parts, scratch.path())?;

    let modules = ["usr/lib/modules", "lib/modules"]
        .map(|folder| scratch.path().join(folder).join(release))
        .into_iter()
        .find(|folder| folder.is_dir())
        .context("the package holds no modules")?;
    let image = [
        modules.join("vmlinuz"),
        scratch.path().join(format!("boot/vmlinuz-{release}")),
    ]
    .into_iter()
    .find(|image| image.is_file())
    .context("the package holds no vmlinuz")?;
    workspace::rename(&image, &home.join("vmlinuz"))?;
    workspace::rename(&modules, &home.join("lib/modules").join(release))?;

    let busybox = apt::static_package("busybox-static")?.join("usr/bin/busybox");
    Command::new(busybox)
        .arg("depmod")
        .arg("-b")
        .arg(home)
        .arg(release)
        .check_to_stderr()?;
    workspace::write(&home.join("version"), format!("{release} {version}\n"))
}

impl Kernel {
    /// The folder of its files, laid out like a root file system.
    pub fn home(&self) -> PathBuf {
        home(self.series)
    }

    /// The kernel image.
    pub fn image(&self) -> PathBuf {
        self.home().join("vmlinuz")
    }

    /// The modules that are separate files. Reports those that the kernel lacks.
    pub fn loadable<'a>(&self, modules: &'a [String]) -> Result<Vec<&'a str>> {
        let known = self.dependencies()?;
        let built_in = self.table("modules.builtin")?;
        let built_in: BTreeSet<_> = built_in.lines().map(module_name).collect();
        let (loadable, absent): (Vec<_>, Vec<_>) = modules
            .iter()
            .map(String::as_str)
            .filter(|module| !built_in.contains(&module.replace('-', "_")))
            .partition(|module| known.contains_key(&module.replace('-', "_")));
        if !absent.is_empty() {
            say(format_args!(
                "Linux {} has no module {}",
                self.release,
                absent.join(", ")
            ));
        }
        Ok(loadable)
    }

    /// The files of the modules and their dependencies, and modprobe's tables.
    ///
    /// Paths are relative to [`Self::home`].
    pub fn module_files(&self, modules: &[String]) -> Result<BTreeSet<PathBuf>> {
        let known = self.dependencies()?;
        let folder = Path::new("lib/modules").join(&self.release);
        let mut files = BTreeSet::new();
        let mut to_visit: Vec<String> = modules
            .iter()
            .map(|module| module.replace('-', "_"))
            .collect();
        while let Some(name) = to_visit.pop() {
            // An unknown module is built in, or `loadable` reports it.
            let Some((file, needs)) = known.get(&name) else {
                continue;
            };
            if files.insert(folder.join(file)) {
                to_visit.extend(needs.iter().map(|need| module_name(need)));
            }
        }
        files.extend(
            ["dep", "alias", "symbols", "builtin"]
                .map(|table| folder.join(format!("modules.{table}"))),
        );
        Ok(files)
    }

    /// The file of each module, and the files of the modules that it needs.
    fn dependencies(&self) -> Result<BTreeMap<String, (String, Vec<String>)>> {
        let table = self.table("modules.dep")?;
        let lines = table.lines().filter_map(|line| line.split_once(':'));
        Ok(lines
            .map(|(file, needs)| {
                let needs = needs.split_whitespace().map(str::to_owned).collect();
                (module_name(file), (file.to_owned(), needs))
            })
            .collect())
    }

    fn table(&self, name: &str) -> Result<String> {
        let path = self
            .home()
            .join("lib/modules")
            .join(&self.release)
            .join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// The module name of a file such as `kernel/net/sched/sch-netem.ko.xz`.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_release_compares_greater() {
        for (older, newer) in [
            ("5.10.0-9", "5.10.0-46"),
            ("6.12.115+deb13", "6.12.115+deb13.1"),
            ("7.2.12+deb13", "7.3.4+deb13"),
        ] {
            assert!(numbers(older) < numbers(newer), "{older} < {newer}");
        }
    }

    #[test]
    fn a_module_is_named_after_its_file() {
        for (file, name) in [
            ("kernel/drivers/net/veth.ko", "veth"),
            ("kernel/net/netfilter/nf-thing.ko.xz", "nf_thing"),
        ] {
            assert_eq!(module_name(file), name);
        }
    }
}
