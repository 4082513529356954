//! Files as an artifact holds them: with a mode, owned by root, and dated by the release.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

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

/// The folders above these files, each after the one that holds it.
pub fn folders(files: &[File]) -> BTreeSet<&Path> {
    let above = files
        .iter()
        .flat_map(|it| Path::new(&it.path).ancestors().skip(1));
    above.filter(|it| *it != Path::new("")).collect()
}

/// A tar archive of files and the folders above them, in the order of their paths. Every path
/// begins with `prefix`.
pub fn tar(files: &[File], prefix: &str, epoch: u32) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let mut put = |path: &str, kind, mode, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(epoch.into());
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root")?;
        header.set_groupname("root")?;
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, format!("{prefix}{path}"), bytes)
    };
    for folder in folders(files) {
        let path = format!("{}/", folder.display());
        put(&path, EntryType::Directory, 0o755, &[]).context("cannot archive a folder")?;
    }
    let mut sorted: Vec<_> = files.iter().collect();
    sorted.sort_by_key(|it| &it.path);
    for file in sorted {
        put(&file.path, EntryType::Regular, file.mode, &file.bytes)
            .with_context(|| format!("cannot archive {}", file.path))?;
    }
    archive.into_inner().context("cannot end an archive")
}

/// The SHA-256 of these bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
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
