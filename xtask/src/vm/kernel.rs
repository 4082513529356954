//! An unpacked kernel: its image and its modules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context, Result};

use crate::apt::{self, Suites};
use crate::arch::Arch;
use crate::process::{CommandExt, say};
use crate::vm::archive::Found;
use crate::workspace;

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

/// Downloads a kernel and puts its image, modules and version into a folder.
pub fn install(suites: &Suites, found: &Found, home: &Path) -> Result<()> {
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
    fn a_module_is_named_after_its_file() {
        for (file, name) in [
            ("kernel/drivers/net/veth.ko", "veth"),
            ("kernel/net/netfilter/nf-thing.ko.xz", "nf_thing"),
        ] {
            assert_eq!(module_name(file), name);
        }
    }
}
