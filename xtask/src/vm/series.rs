//! The kernels that kaprobe is tested on: one per Debian release, and newer ones; and any
//! other of Debian's, by its name.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::{fmt, fs};

use anyhow::{Context, Result, bail};

use crate::apt::Suites;
use crate::arch::Arch;
use crate::vm::archive::{Found, newest};
use crate::vm::kernel::{self, Kernel};
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

impl Name {
    /// What the releases of all such kernels begin with: the first two numbers. The third may be
    /// in the versions of the packages alone, as 6.1.170 was 6.1.0-48, and so may be which release
    /// candidate it is.
    fn start(&self) -> String {
        let mut numbers: Vec<_> = self.version.split(['.', '-']).take(2).collect();
        if numbers.len() == 1 {
            numbers.push("");
        }
        numbers.join(".")
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

/// Why there is no such kernel: what Debian's archive has instead.
#[derive(Debug)]
pub struct Missing(String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

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
            workspace::make_once(&home, |into| kernel::install(&suites, &found, into))
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
        let names = suites.names(&format!("linux-image-{}", self.name.start()))?;
        let names: Vec<_> = names
            .into_iter()
            .filter(|it| self.parse(it).is_some())
            .collect();
        let versions = suites.versions(&names)?;
        let named = |(name, version): (&String, &String)| {
            let (release, signed) = self.parse(name)?;
            Some(Found {
                release: release.to_owned(),
                version: version.clone(),
                signed,
            })
        };
        let all: Vec<_> = versions.iter().filter_map(named).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn packages_are_looked_for_by_two_numbers() -> Result<()> {
        for (name, start) in [
            ("7", "7."),
            ("6.12-rt", "6.12"),
            ("6.1.170", "6.1"),
            ("6.1.0-48", "6.1"),
            ("7.3-rc7", "7.3"),
        ] {
            assert_eq!(name.parse::<Name>()?.start(), start, "{name}");
        }
        Ok(())
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
}
