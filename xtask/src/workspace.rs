//! Paths in the checkout, and file helpers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use toml::Table;

use crate::git;

/// The root of the checkout.
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// A path in the cache of everything that xtask downloads or builds for itself.
///
/// In the checkout even if `CARGO_TARGET_DIR` points elsewhere: cargo hashes the path of
/// `core`, relative to the sysroot in this cache, into symbol names.
pub fn cache(name: &str) -> PathBuf {
    root().join("target/xtask").join(name)
}

/// An empty folder on the file system of the cache, deleted on drop.
pub fn scratch() -> Result<TempDir> {
    let parent = cache("tmp");
    fs::create_dir_all(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
    TempDir::new_in(&parent)
        .with_context(|| format!("cannot create a folder in {}", parent.display()))
}

/// Waits for the lock of `path`, and holds it until the returned file is dropped.
pub fn lock(path: &Path) -> Result<File> {
    let path = path.with_added_extension("lock");
    create_parent(&path)?;
    let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
    locked.with_context(|| format!("cannot lock {}", path.display()))
}

/// Makes a folder unless it exists. It is made elsewhere, then moved: never partial.
pub fn make_once(folder: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let _held = lock(folder)?;
    if folder.is_dir() {
        return Ok(());
    }
    let scratch = scratch()?;
    make(scratch.path())?;
    rename(scratch.path(), folder)
}

/// A cargo command that runs in this checkout.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The paths of the files below a folder of the checkout, but of those that git ignores.
pub fn tracked(folder: &str) -> Result<Vec<String>> {
    let all = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listing = git::read(root(), &[&all[..], &["--", folder]].concat())?;
    // Git also lists files that were deleted.
    let paths = listing.lines().filter(|it| root().join(it).is_file());
    Ok(paths.map(str::to_owned).collect())
}

/// The version of the workspace.
pub fn version() -> Result<String> {
    version_in(&read("Cargo.toml")?)
}

/// The version that a Cargo.toml of a workspace names.
pub fn version_in(manifest: &str) -> Result<String> {
    let manifest: Table = manifest.parse()?;
    let workspace = manifest.get("workspace").and_then(|it| it.get("package"));
    let version = workspace.and_then(|it| it.get("version")?.as_str());
    Ok(version
        .context("Cargo.toml names no version of the workspace")?
        .to_owned())
}

/// The first of the authors of the workspace.
pub fn maintainer() -> Result<String> {
    let manifest: Table = read("Cargo.toml")?.parse()?;
    let workspace = manifest.get("workspace").and_then(|it| it.get("package"));
    let authors = workspace.and_then(|it| it.get("authors")?.as_array());
    let first = authors.and_then(|it| it.first()?.as_str());
    let first = first.context("Cargo.toml names no authors of the workspace")?;
    ensure!(
        mailbox(first).is_some(),
        "{first:?} is no name with an address in angle brackets"
    );
    Ok(first.to_owned())
}

/// The name and the address of an author, as Cargo.toml has one.
pub fn mailbox(author: &str) -> Option<(&str, &str)> {
    let (name, rest) = author.split_once(" <")?;
    let address = rest.strip_suffix('>')?;
    let is_plain = |it: &str| !it.is_empty() && !it.contains(['<', '>', '"', '\n']);
    (is_plain(name) && is_plain(address) && address.contains('@')).then_some((name, address))
}

/// Reads a file of the checkout; `path` is relative to the root.
pub fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = root().join(path);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file and creates its folders, unless the file holds these bytes already.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    let bytes = bytes.as_ref();
    if fs::read(path).is_ok_and(|current| current == bytes) {
        return Ok(());
    }
    create_parent(path)?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Creates a symbolic link at `link`; replaces an existing link.
pub fn link(target: &Path, link: &Path) -> Result<()> {
    create_parent(link)?;
    if link.is_symlink() {
        fs::remove_file(link).with_context(|| format!("cannot remove {}", link.display()))?;
    }
    std::os::unix::fs::symlink(target, link)
        .with_context(|| format!("cannot link {} to {}", link.display(), target.display()))
}

/// Moves a file or folder; creates the parent folder of `to`.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    create_parent(to)?;
    fs::rename(from, to)
        .with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use anyhow::bail;

    use super::*;

    #[test]
    fn an_author_is_a_name_and_an_address() {
        for (author, expected) in [
            ("A B <a@b.c>", Some(("A B", "a@b.c"))),
            ("A B", None),
            ("<a@b.c>", None),
            ("A <a>", None),
            ("A <a@b> <c@d>", None),
        ] {
            assert_eq!(mailbox(author), expected, "{author}");
        }
    }

    #[test]
    fn one_of_many_threads_makes_the_folder_and_all_see_it_complete() -> Result<()> {
        let home = scratch()?;
        let folder = home.path().join("folder");
        let half = make_once(&folder, |into| {
            fs::write(into.join("first"), "")?;
            bail!("no second file")
        });
        assert!(half.is_err() && !folder.exists());

        let (begin, made) = (Barrier::new(8), AtomicU32::new(0));
        let make = |into: &Path| {
            made.fetch_add(1, Ordering::Relaxed);
            for name in ["first", "second"] {
                fs::write(into.join(name), "")?;
                thread::yield_now();
            }
            Ok(())
        };
        let work = || {
            begin.wait();
            make_once(&folder, make)?;
            Ok(folder.join("first").exists() && folder.join("second").exists())
        };
        let seen: Vec<Result<bool>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
            let seen = threads.into_iter().map(|it| it.join());
            seen.map(|it| it.unwrap_or_else(|_| bail!("a thread panicked")))
                .collect()
        });
        for is_complete in seen {
            assert!(is_complete?);
        }
        assert_eq!(made.into_inner(), 1);
        Ok(())
    }
}
