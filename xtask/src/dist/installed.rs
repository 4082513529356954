//! What packages install, and what they say of themselves.

use anyhow::{Context, Result};

use crate::changelog;
use crate::dist::documents::Shell;
use crate::dist::files::{self, File};
use crate::dist::program::Program;
use crate::dist::source::Source;
use crate::workspace;

/// The name of the packages.
pub const NAME: &str = "kaprobe";

/// What kaprobe is, in a line.
pub const SUMMARY: &str = "tracer of TCP keepalive timers and resets";

/// What kaprobe is, in lines that fit a terminal.
pub const DESCRIPTION: &str = "\
kaprobe shows whether TCP keepalive works on a connection, and why idle
connections die: it reads the timers in the running kernel as they fire,
shows each probe and its answer, says why a connection ended, and what
setting would have prevented that.

It needs Linux 5.10 or later with BTF, and root. The package has a service
for systemd with metrics for Prometheus, which is not enabled:
systemctl enable --now kaprobe";

/// Which release of a version a package is.
pub const RELEASE: &str = "1";

/// The settings of the service, which an administrator may change.
pub const SETTINGS: &str = "etc/kaprobe.toml";

/// Where distributions differ.
pub struct Layout {
    /// The folder of completions for zsh.
    pub zsh: &'static str,
    /// The licence.
    pub licence: &'static str,
    /// The changes for users.
    pub changes: &'static str,
    /// The folder of the notices of others, and what follows the name of each file there.
    pub notices: [&'static str; 2],
}

/// The files that every package installs, but for documents of one kind of package.
pub fn files(source: &Source, program: &Program, layout: &Layout) -> Result<Vec<File>> {
    let mut files = vec![
        File::program("usr/bin/kaprobe", program.bytes.clone()),
        File::new("usr/lib/systemd/system/kaprobe.service", unit()?),
        File::new(SETTINGS, source.settings.clone()),
        text(layout.licence, workspace::read("LICENSE")?)?,
        text(layout.changes, workspace::read(changelog::FILE)?)?,
    ];
    let [folder, end] = layout.notices;
    for file in &source.notices.files {
        let path = format!("{folder}/{}{end}", file.path);
        files.push(text(&path, file.bytes.clone())?);
    }
    for (name, page) in &source.documents.pages {
        let path = format!("usr/share/man/man1/{name}.gz");
        files.push(File::new(path, files::gzip(page)?));
    }
    for (shell, script) in &source.documents.completions {
        let folder = match shell {
            Shell::Bash => "usr/share/bash-completion/completions",
            Shell::Fish => "usr/share/fish/vendor_completions.d",
            Shell::Zsh => layout.zsh,
        };
        let path = format!("{folder}/{}", shell.file());
        files.push(File::new(path, script.clone()));
    }
    let examples = [
        "contrib/prometheus/kaprobe.rules.yml",
        "contrib/grafana/kaprobe.json",
    ];
    for path in examples {
        let name = path.trim_start_matches("contrib/");
        let path_there = format!("usr/share/doc/kaprobe/examples/{name}");
        files.push(File::new(path_there, workspace::read(path)?));
    }
    Ok(files)
}

/// A text, compressed if its path says so.
pub fn text(path: &str, text: impl Into<Vec<u8>>) -> Result<File> {
    let text = text.into();
    let bytes = if path.ends_with(".gz") {
        files::gzip(&text)?
    } else {
        text
    };
    Ok(File::new(path, bytes))
}

/// The unit of `contrib`, for a program and settings where a package has them.
fn unit() -> Result<String> {
    let unit = workspace::read("contrib/systemd/kaprobe.service")?;
    packaged(&unit).context("contrib/systemd/kaprobe.service is not as packages expect it")
}

/// A unit whose program is that of a package. Its comments on how to install it by hand go.
fn packaged(unit: &str) -> Option<String> {
    let with_settings = unit
        .lines()
        .find_map(|line| line.strip_prefix("#ExecStart="))?;
    let (start, _) = unit.split_once("[Unit]")?;
    let mut packaged = String::new();
    let mut is_replaced = false;
    for line in unit[start.len()..].lines() {
        if line.starts_with("ExecStart=") {
            packaged += &format!("ExecStart={with_settings}\n");
            is_replaced = true;
        } else if !line.starts_with("#ExecStart=") && !line.contains("reads again") {
            packaged += &format!("{line}\n");
        }
    }
    let packaged = packaged.replace("/usr/local/bin/", "/usr/bin/");
    is_replaced.then_some(packaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_the_packages_program_with_its_settings() -> Result<()> {
        let unit = unit()?;
        let starts: Vec<_> = unit.lines().filter(|it| it.contains("ExecStart")).collect();
        let expected = format!("--config /{SETTINGS}");
        assert_eq!(starts.len(), 1, "{unit}");
        assert!(
            starts[0].starts_with("ExecStart=/usr/bin/kaprobe agent "),
            "{unit}"
        );
        assert!(starts[0].contains(&expected), "{unit}");
        assert!(!unit.contains("/usr/local"), "{unit}");
        assert!(unit.starts_with("[Unit]"), "{unit}");
        Ok(())
    }
}
