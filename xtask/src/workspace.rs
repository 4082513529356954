//! Where things lie in the checkout.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The root of the checkout.
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Where everything that xtask downloads or builds for itself stays.
///
/// Under the checkout even when `CARGO_TARGET_DIR` points elsewhere: cargo
/// hashes the place of `core`, relative to the sysroot we keep here, into
/// symbol names.
pub fn cache(name: &str) -> PathBuf {
    root().join("target/xtask").join(name)
}

/// An empty folder on the file system of the cache, gone when dropped.
pub fn scratch() -> Result<TempDir> {
    let parent = cache("tmp");
    fs::create_dir_all(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
    TempDir::new_in(&parent)
        .with_context(|| format!("cannot create a folder in {}", parent.display()))
}

/// Waits for whoever works on `path` in this checkout; until what it returns is dropped,
/// others wait for us.
pub fn lock(path: &Path) -> Result<File> {
    let path = path.with_added_extension("lock");
    create_parent(&path)?;
    let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
    locked.with_context(|| format!("cannot lock {}", path.display()))
}

/// A folder that is made once, in a scratch one, and kept: it is there once it is whole.
pub fn kept(folder: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let _held = lock(folder)?;
    if folder.is_dir() {
        return Ok(());
    }
    let scratch = scratch()?;
    make(scratch.path())?;
    rename(scratch.path(), folder)
}

/// A cargo that works on this checkout.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Reads a file of the checkout, named by its path from the root.
pub fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = root().join(path);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file and the folders it lies in, unless it holds these bytes already.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    let bytes = bytes.as_ref();
    if fs::read(path).is_ok_and(|kept| kept == bytes) {
        return Ok(());
    }
    create_parent(path)?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Puts a symbolic link at `link`, in place of an older one.
pub fn link(target: &Path, link: &Path) -> Result<()> {
    create_parent(link)?;
    if link.is_symlink() {
        fs::remove_file(link).with_context(|| format!("cannot remove {}", link.display()))?;
    }
    std::os::unix::fs::symlink(target, link)
        .with_context(|| format!("cannot link {} to {}", link.display(), target.display()))
}

/// Moves a file or folder to a place whose own folder need not be there yet.
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
    fn of_many_who_want_a_folder_one_makes_it_and_all_see_it_whole() -> Result<()> {
        let home = scratch()?;
        let folder = home.path().join("folder");
        let half = kept(&folder, |into| {
            fs::write(into.join("first"), "")?;
            bail!("there is no second")
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
        let want = || {
            begin.wait();
            kept(&folder, make)?;
            Ok(folder.join("first").exists() && folder.join("second").exists())
        };
        let seen: Vec<Result<bool>> = thread::scope(|scope| {
            let wanting: Vec<_> = (0..8).map(|_| scope.spawn(want)).collect();
            let seen = wanting.into_iter().map(|it| it.join());
            seen.map(|it| it.unwrap_or_else(|_| bail!("it died")))
                .collect()
        });
        for whole in seen {
            assert!(whole?);
        }
        assert_eq!(made.into_inner(), 1);
        Ok(())
    }
}
