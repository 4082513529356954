//! Writes an initramfs: an uncompressed cpio archive in the "newc" format.
//!
//! An emulated machine copies it faster than it could inflate it.
//!
//! The format is described in the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_777;

/// Folders of a package that no command needs at run time.
const SKIPPED: [&str; 3] = ["share", "include", "gconv"];

/// A writer of an initramfs, which adds parent folders by itself.
///
/// `/bin`, `/sbin`, `/lib` and `/lib64` are links into `/usr`.
pub struct Initramfs {
    file: BufWriter<File>,
    entries: u32,
    folders: BTreeSet<PathBuf>,
}

impl Initramfs {
    /// Starts an archive in a new file.
    pub fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut new = Self {
            file: BufWriter::new(file),
            entries: 0,
            folders: BTreeSet::new(),
        };
        for name in ["bin", "sbin", "lib", "lib64"] {
            new.entry(Path::new(name), SYMLINK, format!("usr/{name}").as_bytes())?;
        }
        Ok(new)
    }

    /// Adds a file, link or folder of this host at a path of the guest.
    pub fn add(&mut self, source: &Path, path: &Path) -> Result<()> {
        let kind = fs::symlink_metadata(source)
            .with_context(|| format!("cannot read {}", source.display()))?;
        if kind.is_dir() {
            for entry in fs::read_dir(source)? {
                let name = entry?.file_name();
                self.add(&source.join(&name), &path.join(&name))?;
            }
            Ok(())
        } else if kind.is_symlink() {
            self.leaf(path, SYMLINK, fs::read_link(source)?.as_os_str().as_bytes())
        } else {
            let bytes =
                fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
            self.leaf(path, REGULAR | (kind.permissions().mode() & 0o7777), &bytes)
        }
    }

    /// Adds the run-time files of an unpacked package and its dependencies.
    pub fn add_package(&mut self, tree: &Path) -> Result<()> {
        self.add_run_time_files(&tree.join("usr"), Path::new("usr"))
    }

    fn add_run_time_files(&mut self, folder: &Path, path: &Path) -> Result<()> {
        for entry in
            fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let entry = entry?;
            let (source, path) = (entry.path(), path.join(entry.file_name()));
            if !entry.file_type()?.is_dir() {
                self.add(&source, &path)?;
            } else if !SKIPPED
                .iter()
                .any(|skipped| entry.file_name() == OsStr::new(skipped))
            {
                self.add_run_time_files(&source, &path)?;
            }
        }
        Ok(())
    }

    /// Adds a file with this text.
    pub fn text(&mut self, path: &str, mode: u32, text: &str) -> Result<()> {
        self.leaf(Path::new(path), REGULAR | mode, text.as_bytes())
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &Path, target: &str) -> Result<()> {
        self.leaf(path, SYMLINK, target.as_bytes())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<()> {
        self.entry(Path::new("TRAILER!!!"), 0, &[])?;
        self.file.flush().context("cannot write the initramfs")
    }

    fn leaf(&mut self, path: &Path, mode: u32, data: &[u8]) -> Result<()> {
        let path = resolve(path);
        let parents: Vec<_> = path
            .ancestors()
            .skip(1)
            .filter(|parent| *parent != Path::new(""))
            .collect();
        for parent in parents.into_iter().rev() {
            if self.folders.insert(parent.to_owned()) {
                self.entry(parent, FOLDER, &[])?;
            }
        }
        self.entry(&path, mode, data)
    }

    fn entry(&mut self, path: &Path, mode: u32, data: &[u8]) -> Result<()> {
        let name = path.as_os_str().as_bytes();
        let size = |bytes: &[u8]| {
            u32::try_from(bytes.len()).context("a file exceeds 4 GiB, the limit of the format")
        };
        self.entries += 1;
        // ino, mode, uid, gid, nlink, mtime, filesize, two device numbers, namesize, check
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size(data)?,
            0,
            0,
            0,
            0,
            size(name)? + 1,
            0,
        ];
        let mut header = b"070701".to_vec();
        for field in fields {
            write!(header, "{field:08X}")?;
        }
        header.extend_from_slice(name);
        header.push(0);
        for part in [&header, data] {
            self.file
                .write_all(part)
                .context("cannot write the initramfs")?;
            let padding = part.len().next_multiple_of(4) - part.len();
            self.file
                .write_all(&[0; 4][..padding])
                .context("cannot write the initramfs")?;
        }
        Ok(())
    }
}

/// A path relative to the root, with the top-level links resolved.
fn resolve(path: &Path) -> PathBuf {
    let plain: PathBuf = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    let linked = ["bin", "sbin", "lib", "lib64"]
        .iter()
        .any(|link| plain.starts_with(link));
    if linked {
        Path::new("usr").join(plain)
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_level_links_are_resolved() {
        for (path, resolved) in [
            ("/bin/kaprobe", "usr/bin/kaprobe"),
            (
                "lib/modules/6.1/modules.dep",
                "usr/lib/modules/6.1/modules.dep",
            ),
            ("/usr/lib64/ld.so", "usr/lib64/ld.so"),
            ("./binary", "binary"),
            ("/root/x", "root/x"),
        ] {
            assert_eq!(resolve(Path::new(path)), Path::new(resolved));
        }
    }
}
