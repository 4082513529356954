//! The kernels that kaprobe is tested on: one of each Debian release, and newer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;

use crate::apt::{self, Suites};
use crate::process::{CommandExt, say};
use crate::workspace;

/// A line of kernels that Debian keeps up to date.
pub struct Series {
    /// How its versions begin.
    pub name: &'static str,
    suites: &'static [&'static str],
}

/// What the matrix covers. 5.10 is the oldest with all that kaprobe needs; each
/// of the others changed something that it reads.
pub const MATRIX: [Series; 5] = [
    Series {
        name: "5.10",
        suites: &["bullseye", "bullseye-security"],
    },
    Series {
        name: "6.1",
        suites: &["bookworm", "bookworm-security"],
    },
    Series {
        name: "6.12",
        suites: &["trixie", "trixie-security"],
    },
    Series {
        name: "6.18",
        suites: &["trixie-backports"],
    },
    Series {
        name: "7",
        suites: &["trixie-backports"],
    },
];

/// The build for virtual machines: small, and with all that kaprobe looks at.
const FLAVOUR: &str = "-cloud-amd64";

/// Which kernels of the matrix to use.
#[derive(clap::Args)]
pub struct Choice {
    /// A kernel of the matrix, more than one, or all [default: all]
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
    /// Whether there is a choice at all.
    pub fn is_given(&self) -> bool {
        !self.names.is_empty()
    }

    /// The series chosen, in the order of the matrix.
    pub fn series(&self) -> impl Iterator<Item = &'static Series> {
        let all = !self.is_given() || self.names.iter().any(|name| name == "all");
        MATRIX
            .iter()
            .filter(move |series| all || self.names.iter().any(|name| name == series.name))
    }
}

/// A kernel, unpacked.
pub struct Kernel {
    /// The series it belongs to.
    pub series: &'static str,
    /// What `uname -r` prints.
    pub release: String,
    /// The version of Debian's package, which names the upstream one.
    pub version: String,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {} (Debian {})", self.release, self.version)
    }
}

impl Series {
    /// The kernel kept from an earlier run, else the newest that the archive
    /// has; `None` when it has none any more.
    pub fn kernel(&self) -> Result<Option<Kernel>> {
        let home = home(self.name);
        if !home.is_dir() {
            let suites = Suites::open(self.suites)?;
            let Some((release, version)) = self.newest(&suites)? else {
                return Ok(None);
            };
            workspace::kept(&home, |into| install(&suites, &release, &version, into))
                .with_context(|| format!("cannot unpack Linux {release}"))?;
        }
        let named = home.join("version");
        let name = fs::read_to_string(&named)
            .with_context(|| format!("cannot read {}", named.display()))?;
        let (release, version) = name
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
        let names = suites.names(&format!("linux-image-{}.", self.name))?;
        let releases = names.iter().filter_map(|name| {
            let release = name.strip_prefix("linux-image-")?;
            Some((numbers(release.strip_suffix(FLAVOUR)?), release))
        });
        let Some((_, release)) = releases.max() else {
            return Ok(None);
        };
        let version = suites.version(&format!("linux-image-{release}"))?;
        Ok(Some((release.to_owned(), version)))
    }
}

/// The numbers in a version, by which those of one series are ordered.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn home(series: &str) -> PathBuf {
    workspace::cache("kernels").join(series)
}

/// Downloads a kernel, and puts its image, modules and version into a folder.
fn install(suites: &Suites, release: &str, version: &str, home: &Path) -> Result<()> {
    say(format_args!(
        "downloading Linux {release} (Debian {version})"
    ));
    // Until 6.18 one package holds a kernel; later ones are split.
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
        .check_aside()?;
    workspace::write(&home.join("version"), format!("{release} {version}\n"))
}

impl Kernel {
    /// The folder of its files, laid out as from a root.
    pub fn home(&self) -> PathBuf {
        home(self.series)
    }

    /// The image that boots.
    pub fn image(&self) -> PathBuf {
        self.home().join("vmlinuz")
    }

    /// Those of the modules that are files of their own; says which are neither that nor built in.
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

    /// The files of the modules and of those they depend on, with the tables
    /// that modprobe reads, as paths from [`Self::home`].
    pub fn module_files(&self, modules: &[String]) -> Result<BTreeSet<PathBuf>> {
        let known = self.dependencies()?;
        let folder = Path::new("lib/modules").join(&self.release);
        let mut files = BTreeSet::new();
        let mut open: Vec<String> = modules
            .iter()
            .map(|module| module.replace('-', "_"))
            .collect();
        while let Some(name) = open.pop() {
            // Unknown is built in, or `loadable` has said so.
            let Some((file, needs)) = known.get(&name) else {
                continue;
            };
            if files.insert(folder.join(file)) {
                open.extend(needs.iter().map(|need| module_name(need)));
            }
        }
        files.extend(
            ["dep", "alias", "symbols", "builtin"]
                .map(|table| folder.join(format!("modules.{table}"))),
        );
        Ok(files)
    }

    /// Of each module, its file and those of the modules that it needs.
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

/// The name of a module in a file such as `kernel/net/sched/sch-netem.ko.xz`.
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
    fn a_module_is_named_by_its_file() {
        for (file, name) in [
            ("kernel/drivers/net/veth.ko", "veth"),
            ("kernel/net/netfilter/nf-thing.ko.xz", "nf_thing"),
        ] {
            assert_eq!(module_name(file), name);
        }
    }
}
