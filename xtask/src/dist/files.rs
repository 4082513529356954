//! Files as an artifact holds them: with a mode, owned by root, and dated by the release.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::workspace;

/// A file of an artifact.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path below the root, without a slash in front.
    pub path: String,
    /// Its permissions, such as `0o644`.
    pub mode: u32,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl File {
    /// A file that everybody may read, and its owner may write.
    pub fn new(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            mode: 0o644,
            bytes: bytes.into(),
        }
    }

    /// A file that everybody may run.
    pub fn program(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            mode: 0o755,
            ..Self::new(path, bytes)
        }
    }
}

/// The files below a folder of the checkout, by their paths in the checkout. A link to a file
/// becomes that file.
pub fn tracked(folder: &str) -> Result<Vec<File>> {
    let read = |path: String| {
        let bytes = fs::read(workspace::root().join(&path));
        let bytes = bytes.with_context(|| format!("cannot read {path}"))?;
        Ok(File::new(path, bytes))
    };
    workspace::tracked(folder)?.into_iter().map(read).collect()
}

/// The folders above these files, each after the one that holds it.
pub fn folders(files: &[File]) -> BTreeSet<&Path> {
    let above = files
        .iter()
        .flat_map(|it| Path::new(&it.path).ancestors().skip(1));
    above.filter(|it| *it != Path::new("")).collect()
}

/// A tar archive of files and the folders above them, each in the order of their paths. Every
/// path begins with `prefix`: nothing, or a folder with its slash.
pub fn tar(files: &[File], prefix: &str, epoch: u32) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let top = (!prefix.is_empty()).then(|| prefix.to_owned());
    let folders = folders(files);
    let folders = folders
        .iter()
        .map(|it| format!("{prefix}{}/", it.display()));
    for path in top.into_iter().chain(folders) {
        let header = header(EntryType::Directory, 0o755, epoch)?;
        add(&mut archive, header, &path, &[])?;
    }
    let mut sorted: Vec<_> = files.iter().collect();
    sorted.sort_by_key(|it| &it.path);
    for file in sorted {
        let header = header(EntryType::Regular, file.mode, epoch)?;
        add(
            &mut archive,
            header,
            &format!("{prefix}{}", file.path),
            &file.bytes,
        )?;
    }
    archive.into_inner().context("cannot end an archive")
}

fn header(kind: EntryType, mode: u32, epoch: u32) -> Result<Header> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(epoch.into());
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    Ok(header)
}

/// Adds an entry to an archive.
fn add(archive: &mut Builder<Vec<u8>>, mut header: Header, path: &str, bytes: &[u8]) -> Result<()> {
    header.set_size(bytes.len() as u64);
    // The library's own way to set a path takes away a `./` in front, which dpkg-deb writes.
    let gnu = header.as_gnu_mut().context("the header is not GNU's")?;
    let name = gnu.name.get_mut(..path.len());
    name.with_context(|| format!("{path} is too long for an archive"))?
        .copy_from_slice(path.as_bytes());
    header.set_cksum();
    archive
        .append(&header, bytes)
        .with_context(|| format!("cannot archive {path}"))
}

/// These bytes, compressed by gzip without a name and without a time.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    gzip.write_all(bytes)
        .and_then(|()| gzip.finish())
        .context("cannot compress")
}
