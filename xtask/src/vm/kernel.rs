//! The kernels that kaprobe is tested on: one per Debian release, and newer ones; and any
//! other of Debian's, by its name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, fs};

use anyhow::{Context, Result, bail};

use crate::apt::{self, Suites};
use crate::arch::Arch;
use crate::process::{CommandExt, say};
use crate::workspace;

/// A kernel by its name: a version, and which of Debian's builds of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The first numbers of its version, such as `6.12` or `6.1.170`.
    version: String,
    flavour: Flavour,
}

/// Which of Debian's builds of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    /// For virtual machines: small, with everything that kaprobe reads.
    Cloud,
    /// For any machine.
    Full,
    /// PREEMPT_RT: softirqs are preempted, and spinlocks sleep.
    Rt,
    /// For any machine, with pages of 16 KiB.
    Pages16k,
}

impl Flavour {
    const ALL: [Self; 4] = [Self::Cloud, Self::Full, Self::Rt, Self::Pages16k];

    /// What follows the version in a kernel's name.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Cloud => "",
            Self::Full => "-full",
            Self::Rt => "-rt",
            Self::Pages16k => "-16k",
        }
    }

    /// How the release of such a build ends.
    fn release(self, arch: Arch) -> String {
        let arch = arch.debian();
        match self {
            Self::Cloud => format!("-cloud-{arch}"),
            Self::Full => format!("-{arch}"),
            Self::Rt => format!("-rt-{arch}"),
            Self::Pages16k => format!("-{arch}-16k"),
        }
    }
}

impl FromStr for Name {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut flavours = Flavour::ALL.into_iter().rev();
        let split = flavours.find_map(|it| Some((text.strip_suffix(it.suffix())?, it)));
        let (version, flavour) = split.context("no version")?;
        if !version.starts_with(|c: char| c.is_ascii_digit()) || version.contains('/') {
            bail!(
                "a kernel is named by its version, which may be followed by -full, -rt or -16k: \
                 6.12, 6.12-rt, 6.1.170, 7.3-16k"
            );
        }
        Ok(Self {
            version: version.to_owned(),
            flavour,
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.version, self.flavour.suffix())
    }
}

/// A kernel to look for in Debian's archive.
#[derive(Clone)]
pub struct Series {
    pub name: Name,
    pub arch: Arch,
    suites: &'static [&'static str],
}

/// The kernels of the matrix, oldest first, and the suites that update them.
///
/// 5.10 is the oldest with everything that kaprobe needs. Each later one changed
/// something that kaprobe reads. The last one has PREEMPT_RT.
const X86_64: [(&str, &[&str]); 6] = [
    ("5.10", &["bullseye", "bullseye-security"]),
    ("6.1", &["bookworm", "bookworm-security"]),
    ("6.12", &["trixie", "trixie-security"]),
    ("6.18", &["trixie-backports"]),
    ("7", &["trixie-backports"]),
    ("6.12-rt", &["trixie", "trixie-security"]),
];

/// The kernels of the matrix for 64-bit Arm. 6.1 has no fentry there, and the last one has
/// pages of 16 KiB.
const AARCH64: [(&str, &[&str]); 3] = [
    ("6.1", &["bookworm", "bookworm-security"]),
    ("7", &["trixie-backports"]),
    ("7-16k", &["trixie-backports"]),
];

/// Every suite that may have a kernel which the matrix does not name: older ones, those of
/// another flavour, release candidates.
const SUITES: [&str; 10] = [
    "bullseye",
    "bullseye-security",
    "bookworm",
    "bookworm-security",
    "bookworm-backports",
    "trixie",
    "trixie-security",
    "trixie-backports",
    "sid",
    "experimental",
];

/// The kernels of the matrix for an architecture.
pub fn matrix(arch: Arch) -> Vec<Series> {
    let rows: &[(&str, &'static [&str])] = match arch {
        Arch::X86_64 => &X86_64,
        Arch::Aarch64 => &AARCH64,
    };
    let series = |(name, suites): &(&str, &'static [&str])| {
        let name = name.parse().ok()?;
        Some(Series { name, arch, suites })
    };
    rows.iter().filter_map(series).collect()
}

/// The kernels to use.
#[derive(clap::Args)]
pub struct Choice {
    /// A kernel of Debian by its version, such as 6.12, 6.12-rt, 6.1.170 or 6.12-full, or all
    /// of the matrix; may be repeated [default: all]
    #[arg(long = "kernel", value_name = "KERNEL", value_parser = wanted)]
    names: Vec<Wanted>,
    /// The architecture of the kernels
    #[arg(long, value_enum, default_value_t = Arch::HOST)]
    pub arch: Arch,
}

/// A value of `--kernel`.
#[derive(Clone)]
enum Wanted {
    All,
    One(Name),
}

fn wanted(text: &str) -> Result<Wanted> {
    match text {
        "all" => Ok(Wanted::All),
        name => name.parse().map(Wanted::One),
    }
}

impl Choice {
    /// Whether the command line chooses.
    pub fn is_given(&self) -> bool {
        !self.names.is_empty() || self.arch != Arch::HOST
    }

    /// The chosen kernels: those of the matrix in its order, then the others.
    pub fn series(&self) -> Vec<Series> {
        let matrix = matrix(self.arch);
        let all = self.names.is_empty() || self.names.iter().any(|it| matches!(it, Wanted::All));
        let mut names = Vec::new();
        for wanted in &self.names {
            match wanted {
                Wanted::One(name) if !names.contains(name) => names.push(name.clone()),
                Wanted::One(_) | Wanted::All => {}
            }
        }
        let (mut chosen, left): (Vec<_>, Vec<_>) = matrix
            .into_iter()
            .partition(|it| all || names.contains(&it.name));
        drop(left);
        names.retain(|name| chosen.iter().all(|it| it.name != *name));
        chosen.extend(names.into_iter().map(|name| Series {
            name,
            arch: self.arch,
            suites: &SUITES,
        }));
        chosen
    }
}

/// An unpacked kernel.
pub struct Kernel {
    /// The architecture that it is for.
    pub arch: Arch,
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The version of Debian's package, which contains the upstream version.
    pub version: String,
    /// The folder of its files, laid out like a root file system.
    pub home: PathBuf,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Linux {} (Debian {}, {})",
            self.release,
            self.version,
            self.arch.name()
        )
    }
}

/// Why there is no such kernel: what Debian's archive has instead.
#[derive(Debug)]
pub struct Missing(String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// A kernel in Debian's archive: its release, and the version of its package.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    release: String,
    version: String,
    /// What the names of its packages end with, after its release: release candidates are not
    /// signed.
    signed: &'static str,
}

impl Found {
    /// Whether this is a kernel. A release of two numbers is that of a release candidate, or of
    /// a package which depends on the newest kernel.
    fn is_kernel(&self) -> bool {
        numbers(self.release.split(['-', '+']).next().unwrap_or_default()).len() > 2
            || self.version.contains("~rc")
    }

    /// Orders the versions of Debian's packages: what follows a tilde comes before its end.
    fn order(&self) -> (Vec<u64>, bool, Vec<u64>) {
        let (start, rest) = match self.version.split_once('~') {
            Some((start, rest)) => (start, Some(rest)),
            None => (self.version.as_str(), None),
        };
        (
            numbers(start),
            rest.is_none(),
            numbers(rest.unwrap_or_default()),
        )
    }
}

impl Series {
    /// Whether a run of everything takes only the essential tests on this kernel: it differs
    /// from another one in one respect.
    pub fn is_variant(&self) -> bool {
        self.name.flavour != Flavour::Cloud
    }

    /// The kernel from an earlier run, else the newest in Debian's archive.
    ///
    /// # Errors
    /// [`Missing`] if the archive has none.
    pub fn kernel(&self) -> Result<Kernel> {
        let home = self.arch.cache("kernels").join(self.name.to_string());
        if !home.is_dir() {
            let suites = Suites::open(self.suites, self.arch)?;
            let found = self.newest(&suites)?;
            workspace::make_once(&home, |into| install(&suites, &found, into))
                .with_context(|| format!("cannot unpack Linux {}", found.release))?;
        }
        let file = home.join("version");
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let (release, version) = text
            .trim_end()
            .split_once(' ')
            .context("a kernel without a version")?;
        Ok(Kernel {
            arch: self.arch,
            release: release.into(),
            version: version.into(),
            home,
        })
    }

    fn newest(&self, suites: &Suites) -> Result<Found> {
        // Its first two numbers are in the names of all its packages, and the third may be in
        // their version alone: 6.1.170 was 6.1.0-48.
        let mut start: Vec<_> = self.name.version.split('.').take(2).collect();
        if start.len() == 1 {
            start.push("");
        }
        let names = suites.names(&format!("linux-image-{}", start.join(".")))?;
        let mut all = Vec::new();
        for name in names {
            if let Some((release, signed)) = self.parse(&name) {
                let version = suites.version(&name)?;
                let release = release.to_owned();
                all.push(Found {
                    release,
                    version,
                    signed,
                });
            }
        }
        let Some(found) = newest(&all, &self.name.version) else {
            let kernels = all.iter().filter(|it| it.is_kernel());
            let versions: BTreeSet<_> = kernels.map(|it| (it.order(), &it.version)).collect();
            let versions: Vec<_> = versions.into_iter().map(|(_, it)| it.as_str()).collect();
            let instead = match versions.as_slice() {
                [] => "none like it".to_owned(),
                some => some.join(", "),
            };
            let (name, arch) = (&self.name, self.arch.debian());
            let why = format!("Debian's archive has no kernel {name} for {arch}; it has {instead}");
            return Err(Missing(why).into());
        };
        Ok(found.clone())
    }

    /// The release in the name of a package with an image of this flavour, and what follows it.
    fn parse<'a>(&self, package: &'a str) -> Option<(&'a str, &'static str)> {
        let name = package.strip_prefix("linux-image-")?;
        let (release, signed) = match name.strip_suffix(UNSIGNED) {
            Some(release) => (release, UNSIGNED),
            None => (name, ""),
        };
        let version = release.strip_suffix(&self.name.flavour.release(self.arch))?;
        // The end of another flavour may be the end of this one.
        let is_own = !version.ends_with("-cloud") && !version.ends_with("-rt");
        is_own.then_some((release, signed))
    }
}

/// What the name of a package ends with if its kernel is not signed.
const UNSIGNED: &str = "-unsigned";

/// The newest kernel of a version; one that was built for its own suite and is signed, if there
/// is.
fn newest<'a>(all: &'a [Found], version: &str) -> Option<&'a Found> {
    let matching = all.iter().filter(|it| it.is_kernel()).filter(|it| {
        // Debian's 7.3~rc7 is the kernel's 7.3-rc7.
        let upstream = it.version.replace('~', "-");
        is_within(&upstream, version) || is_within(&it.release, version)
    });
    matching.max_by_key(|it| (it.order(), it.signed.is_empty()))
}

/// Whether a version begins with another, and is not a longer number there.
fn is_within(version: &str, start: &str) -> bool {
    let rest = version.strip_prefix(start);
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The numbers in a version; they order the versions of one series.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// Downloads a kernel and puts its image, modules and version into a folder.
fn install(suites: &Suites, found: &Found, home: &Path) -> Result<()> {
    let Found {
        release,
        version,
        signed,
    } = found;
    say(format_args!(
        "downloading Linux {release} (Debian {version})"
    ));
    // Up to 6.18 a kernel is one package; later kernels are split.
    let all = suites.names("linux-")?;
    let parts = [
        format!("linux-image-{release}{signed}"),
        format!("linux-base-{release}"),
        format!("linux-binary{signed}-{release}"),
        format!("linux-modules-{release}"),
    ];
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|part| all.contains(part))
        .map(|part| format!("{part}={version}"))
        .collect();
    let scratch = workspace::scratch()?;
    suites.unpack(&parts, scratch.path()).with_context(|| {
        format!(
            "Debian's archive lists {}, and no longer has all of it",
            parts.join(", ")
        )
    })?;

    let modules = ["usr/lib/modules", "lib/modules"]
        .map(|folder| scratch.path().join(folder).join(release))
        .into_iter()
        .find(|folder| folder.join("kernel").is_dir())
        .context("Debian's archive no longer has its modules")?;
    let image = [
        modules.join("vmlinuz"),
        scratch.path().join(format!("boot/vmlinuz-{release}")),
    ]
    .into_iter()
    .find(|image| image.is_file())
    .context("Debian's archive no longer has its image")?;
    workspace::rename(&image, &home.join("vmlinuz"))?;
    workspace::rename(&modules, &home.join("lib/modules").join(release))?;
    list_modules(home, release)?;
    workspace::write(&home.join("version"), format!("{release} {version}\n"))
}

/// Writes the tables of a kernel's modules. busybox's depmod refuses the releases of release
/// candidates.
fn list_modules(home: &Path, release: &str) -> Result<()> {
    let kmod = apt::tree("kmod")?;
    apt::loader(&kmod)
        .args(["--argv0", "depmod"])
        .arg(kmod.join("usr/bin/kmod"))
        .arg("-b")
        .arg(home)
        .arg(release)
        .check_to_stderr()
}

impl Kernel {
    /// The kernel image.
    pub fn image(&self) -> PathBuf {
        self.home.join("vmlinuz")
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
        let path = self.home.join("lib/modules").join(&self.release).join(name);
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
    fn a_kernel_is_named_by_its_version_and_build() {
        for (text, version, flavour) in [
            ("6.12", "6.12", Flavour::Cloud),
            ("6.1.170", "6.1.170", Flavour::Cloud),
            ("6.12-rt", "6.12", Flavour::Rt),
            ("6.12.100+deb13-full", "6.12.100+deb13", Flavour::Full),
            ("7-16k", "7", Flavour::Pages16k),
            ("7.4-rc3", "7.4-rc3", Flavour::Cloud),
        ] {
            let name = Name {
                version: version.into(),
                flavour,
            };
            assert_eq!(text.parse::<Name>().ok(), Some(name.clone()), "{text}");
            assert_eq!(name.to_string(), text);
        }
        for text in ["", "-rt", "rt", "6/../x", "latest"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_kernel_of_the_matrix_has_a_name() {
        assert_eq!(matrix(Arch::X86_64).len(), X86_64.len());
        assert_eq!(matrix(Arch::Aarch64).len(), AARCH64.len());
    }

    #[test]
    fn the_command_line_chooses_kernels() -> Result<()> {
        let names = |names: &[&str], arch| -> Result<String> {
            let names = names.iter().map(|it| wanted(it)).collect::<Result<_>>()?;
            let chosen = Choice { names, arch }.series();
            let chosen: Vec<_> = chosen.iter().map(|it| it.name.to_string()).collect();
            Ok(chosen.join(" "))
        };
        let (x86, arm) = (Arch::X86_64, Arch::Aarch64);
        assert_eq!(names(&[], x86)?, "5.10 6.1 6.12 6.18 7 6.12-rt");
        assert_eq!(
            names(&["6.1.170", "6.12", "6.1", "6.12"], x86)?,
            "6.1 6.12 6.1.170"
        );
        assert_eq!(names(&["all", "6.12-rt"], arm)?, "6.1 7 7-16k 6.12-rt");
        Ok(())
    }

    #[test]
    fn a_package_holds_a_kernel_of_one_build() -> Result<()> {
        let rows = [
            (
                "6.1",
                "linux-image-6.1.0-48-cloud-amd64",
                Some(("6.1.0-48-cloud-amd64", "")),
            ),
            ("6.1", "linux-image-6.1.0-48-amd64", None),
            (
                "6.1-full",
                "linux-image-6.1.0-48-amd64",
                Some(("6.1.0-48-amd64", "")),
            ),
            ("6.1-full", "linux-image-6.1.0-48-cloud-amd64", None),
            ("6.1-full", "linux-image-6.1.0-48-rt-amd64", None),
            ("6.1-full", "linux-image-6.1.0-48-amd64-dbg", None),
            (
                "7-full",
                "linux-image-7.4-amd64-unsigned",
                Some(("7.4-amd64", "-unsigned")),
            ),
        ];
        for (name, package, expected) in rows {
            let series = Series {
                name: name.parse()?,
                arch: Arch::X86_64,
                suites: &[],
            };
            assert_eq!(series.parse(package), expected, "{name} {package}");
        }
        let pages = Series {
            name: "7-16k".parse()?,
            arch: Arch::Aarch64,
            suites: &[],
        };
        let found = pages.parse("linux-image-7.3.4+deb13-arm64-16k");
        assert_eq!(found, Some(("7.3.4+deb13-arm64-16k", "")));
        Ok(())
    }

    #[test]
    fn the_newest_kernel_of_a_version_is_taken() {
        let all = [
            ("6.1.0-9-cloud-amd64", "6.1.27-1", ""),
            ("6.1.0-48-cloud-amd64", "6.1.170-3", ""),
            ("6.1.0-48-cloud-amd64", "6.1.170-3", "-unsigned"),
            ("6.1.0-57-cloud-amd64", "6.1.192-3", ""),
            ("6.1.0-0.deb11.57-cloud-amd64", "6.1.192-3~deb11u1", ""),
            ("6.12.100+deb13-cloud-amd64", "6.12.100-1", ""),
            ("6.12-cloud-amd64", "6.12.117-1~deb12u1", ""),
            ("7.3-cloud-amd64", "7.3~rc7-1~exp1", ""),
            ("7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1", ""),
        ];
        let all = all.map(|(release, version, signed)| Found {
            release: release.into(),
            version: version.into(),
            signed,
        });
        for (version, expected) in [
            ("6.1", Some(&all[3])),
            ("6.1.170", Some(&all[1])),
            ("6.1.17", None),
            ("6.1.0-9", Some(&all[0])),
            ("6.12", Some(&all[5])),
            ("6.12.117", None),
            ("6", Some(&all[5])),
            ("6.18", None),
            ("7.3", Some(&all[8])),
            ("7.3-rc7", Some(&all[7])),
            ("7.3-rc", None),
        ] {
            assert_eq!(newest(&all, version), expected, "{version}");
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
