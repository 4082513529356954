//! Opens files for writing, but none that another user has prepared.
//!
//! kaprobe runs as root. In a folder that others can write to, they can put a symbolic or
//! hard link where a file is expected, so that root writes to another one, or a FIFO or a
//! file that they read. `docs/files.md` has the rule that this module holds to. It is that of
//! the kernel's `fs.protected_symlinks`, `protected_hardlinks`, `protected_regular` and
//! `protected_fifos` (`may_follow_link` and `may_create_in_sticky`, fs/namei.c), for folders
//! without the sticky bit too, and whatever those sysctls say.

pub mod folder;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Most symbolic links on the way to a file, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;

/// The mode of a new log: it tells more than /proc tells everyone.
pub const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Opens a file for writing. `flags` may create it, and must not truncate it.
///
/// # Errors
/// When it can't be opened, or another user may have prepared it.
pub fn open(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    let Place {
        folder,
        name,
        is_magic,
    } = Place::find(path, flags.contains(OFlags::EXCL))?;
    let follow = if is_magic {
        OFlags::empty()
    } else {
        OFlags::NOFOLLOW
    };
    if is_magic || is_private(&rustix::fs::fstat(&folder)?) {
        let file = rustix::fs::openat(&folder, &name, flags | follow | OFlags::CLOEXEC, mode)?;
        return Ok(file.into());
    }
    match rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        found => check_owned(&found?)?,
    }
    // Another file may be in its place by now. If it is a FIFO, opening it may not wait.
    let checked = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&folder, &name, checked, mode)?;
    check_owned(&rustix::fs::fstat(&file)?)?;
    let kept = rustix::fs::fcntl_getfl(&file)? - OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&file, kept | flags.intersection(OFlags::NONBLOCK))?;
    Ok(file.into())
}

/// Renames a file that was opened at this path to `NAME.1`, `NAME.1` to `NAME.2`, and so on, in
/// the folder where it is. The last one that is kept is overwritten. A link on the way is
/// followed by the rule for opening, and names are changed in one folder only, whatever
/// another user does to the path meanwhile.
///
/// # Errors
/// When a file can't be renamed, or another file is at the path.
pub fn rename_older(path: &Path, file: &File, keep: u32) -> io::Result<()> {
    let Place { folder, name, .. } = Place::find(path, false)?;
    let stat = |name: &OsStr| rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW);
    let (there, own) = (stat(&name)?, rustix::fs::fstat(file)?);
    if (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino) {
        return Err(io::Error::other("another file is in its place"));
    }
    if keep == 0 {
        return Ok(rustix::fs::unlinkat(&folder, &name, AtFlags::empty())?);
    }
    let numbered = |number: u32| {
        let mut numbered = name.clone();
        numbered.push(format!(".{number}"));
        numbered
    };
    let rename = |from: &OsStr, to: u32| {
        rustix::fs::renameat(&folder, from, &folder, numbered(to).as_os_str())
    };
    let used = (1..keep).take_while(|&number| stat(&numbered(number)).is_ok());
    for number in (1..=used.count() as u32).rev() {
        rename(&numbered(number), number + 1)?;
    }
    Ok(rename(&name, 1)?)
}

/// Where a file is or will be, with all links followed that may be.
struct Place {
    folder: OwnedFd,
    name: OsString,
    /// The file is a link of /proc: it leads to an open file, and has no path.
    is_magic: bool,
}

impl Place {
    /// Follows a path. If the file must be new, a link in its place is not followed.
    fn find(path: &Path, is_new: bool) -> io::Result<Self> {
        let mut rest: VecDeque<_> = path.components().map(step).collect();
        let mut folder = open_folder(CWD, OsStr::new("."), OFlags::empty())?;
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            let is_last = rest.is_empty();
            let found = match rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) if is_last => None,
                found => Some(found?),
            };
            let is_link = found
                .as_ref()
                .is_some_and(|it| kind(it) == FileType::Symlink);
            let is_magic = is_link && is_proc(&folder)?;
            if is_last && (is_magic || !is_link || is_new) {
                return Ok(Self {
                    folder,
                    name,
                    is_magic,
                });
            }
            if let Some(link) = found.filter(|_| is_link && !is_magic) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                check_link(&link, &rustix::fs::fstat(&folder)?)?;
                let target = rustix::fs::readlinkat(&folder, &name, Vec::new())?;
                let target = OsString::from_vec(target.into_bytes());
                for component in Path::new(&target).components().rev() {
                    rest.push_front(step(component));
                }
                continue;
            }
            let follow = if is_magic {
                OFlags::empty()
            } else {
                OFlags::NOFOLLOW
            };
            folder = open_folder(folder, &name, follow)?;
        }
        // A path of nothing but `/` or `..` names no file.
        Err(Errno::ISDIR.into())
    }
}

fn step(component: Component<'_>) -> OsString {
    component.as_os_str().to_owned()
}

fn open_folder(at: impl AsFd, name: &OsStr, follow: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | follow;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn kind(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

fn is_proc(folder: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(folder)?.f_type == libc::PROC_SUPER_MAGIC)
}

/// Whether something belongs to root or to the user who runs kaprobe.
fn is_trusted(found: &Stat) -> bool {
    found.st_uid == 0 || found.st_uid == geteuid().as_raw()
}

/// Whether no other user can make files in a folder.
fn is_private(folder: &Stat) -> bool {
    let others = Mode::WGRP | Mode::WOTH;
    is_trusted(folder) && !Mode::from_raw_mode(folder.st_mode).intersects(others)
}

/// Checks that a symbolic link may be followed.
fn check_link(link: &Stat, folder: &Stat) -> io::Result<()> {
    if is_private(folder) || is_trusted(link) {
        return Ok(());
    }
    Err(refused(
        "a symbolic link on the way belongs to another user",
    ))
}

/// Checks that a file in a folder that others write to was not prepared by them.
fn check_owned(file: &Stat) -> io::Result<()> {
    if !is_trusted(file) {
        return Err(refused("it belongs to another user"));
    }
    if kind(file) == FileType::RegularFile && file.st_nlink > 1 {
        return Err(refused("it has another name too (a hard link)"));
    }
    Ok(())
}

fn refused(why: &str) -> io::Error {
    io::Error::other(format!("{why}, in a folder that others can write to"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
    use std::path::PathBuf;

    use super::*;

    const OTHER: u32 = 61_235;

    /// A folder with a file that must not change.
    struct Folder(tempfile::TempDir);

    impl Folder {
        /// `mode` is that of the folder in which files are opened.
        fn new(mode: u32) -> io::Result<Self> {
            let folder = Self(tempfile::tempdir()?);
            fs::create_dir(folder.path("shared"))?;
            fs::set_permissions(folder.path("shared"), Permissions::from_mode(mode))?;
            fs::write(folder.path("precious"), "precious")?;
            Ok(folder)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Opens a file as a log that overwrites, and writes to it.
        fn write(&self, name: &str) -> Result<(), String> {
            let flags = OFlags::WRONLY | OFlags::CREATE;
            open(&self.path(name), flags, PRIVATE)
                .and_then(|mut file| file.write_all(b"written!"))
                .map_err(|why| why.to_string())
        }

        fn is_untouched(&self) -> bool {
            fs::read(self.path("precious")).is_ok_and(|it| it == b"precious")
        }
    }

    /// Whether files can be given to another user, which takes root.
    fn is_root() -> bool {
        geteuid().is_root()
    }

    #[test]
    fn links_and_files_of_others_are_refused_where_others_write() -> io::Result<()> {
        if !is_root() {
            println!("skipped: this user can't make files of another");
            return Ok(());
        }
        for mode in [0o1777, 0o777, 0o775] {
            let folder = Folder::new(mode)?;
            let at = |name: &str| folder.path(&format!("shared/{name}"));
            symlink(folder.path("precious"), at("link"))?;
            lchown(at("link"), Some(OTHER), None)?;
            symlink("none", at("dangling"))?;
            lchown(at("dangling"), Some(OTHER), None)?;
            symlink(folder.path(""), at("folder"))?;
            lchown(at("folder"), Some(OTHER), None)?;
            fs::hard_link(folder.path("precious"), at("hard"))?;
            fs::write(at("theirs"), "")?;
            chown(at("theirs"), Some(OTHER), None)?;
            rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, PRIVATE, 0)?;
            chown(at("fifo"), Some(OTHER), None)?;
            for name in [
                "link",
                "dangling",
                "folder/precious",
                "hard",
                "theirs",
                "fifo",
            ] {
                let said = folder
                    .write(&format!("shared/{name}"))
                    .err()
                    .unwrap_or_default();
                let is_said = said.contains("in a folder that others can write to");
                assert!(is_said, "{mode:o} {name}: {said}");
            }
            assert!(folder.is_untouched() && !at("none").exists(), "{mode:o}");
            folder.write("shared/new").map_err(io::Error::other)?;
            folder.write("shared/new").map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// The names in a folder and what the files hold.
    fn held(folder: &Path) -> io::Result<String> {
        let mut all = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            all.push(format!("{name}={}", fs::read_to_string(entry.path())?));
        }
        all.sort();
        Ok(all.join(" "))
    }

    /// Opens the log in a folder, and writes this to it.
    fn log(path: &Path, text: &str) -> io::Result<File> {
        let mut log = open(path, OFlags::WRONLY | OFlags::CREATE, PRIVATE)?;
        log.write_all(text.as_bytes())?;
        Ok(log)
    }

    #[test]
    fn older_files_are_renamed_beside_the_file_itself() -> io::Result<()> {
        let folder = Folder::new(0o755)?;
        symlink("shared/log", folder.path("link"))?;
        for text in ["a", "b", "c", "d"] {
            let file = log(&folder.path("link"), text)?;
            rename_older(&folder.path("link"), &file, 2)?;
        }
        assert_eq!(held(&folder.path("shared"))?, "log.1=d log.2=c");
        let file = log(&folder.path("link"), "e")?;
        rename_older(&folder.path("link"), &file, 0)?;
        assert_eq!(held(&folder.path("shared"))?, "log.1=d log.2=c");
        Ok(())
    }

    /// While a log is written, another user puts something else where it is.
    #[test]
    fn nothing_but_the_file_itself_is_renamed() -> io::Result<()> {
        if !is_root() {
            println!("skipped: this user can't make files of another");
            return Ok(());
        }
        // The folder is another one now.
        let folder = Folder::new(0o777)?;
        let (way, away) = (folder.path("shared/way"), folder.path("shared/away"));
        let precious = folder.path("secret");
        for path in [&way, &precious] {
            fs::create_dir(path)?;
        }
        fs::write(precious.join("log"), "precious")?;
        let file = log(&way.join("log"), "log")?;
        fs::rename(&way, &away)?;
        symlink(&precious, &way)?;
        lchown(&way, Some(OTHER), None)?;
        for keep in [0, 9] {
            assert!(rename_older(&way.join("log"), &file, keep).is_err());
        }
        // The link is to a folder of the same user's, so it is followed, but not renamed in.
        lchown(&way, Some(0), None)?;
        for keep in [0, 9] {
            let said = rename_older(&way.join("log"), &file, keep).map_err(|it| it.to_string());
            assert_eq!(said, Err("another file is in its place".to_owned()));
        }
        assert_eq!(held(&precious)?, "log=precious");

        // The log is another file, or a link.
        let file = log(&away.join("log"), "log")?;
        fs::rename(away.join("log"), away.join("gone"))?;
        symlink(precious.join("log"), away.join("log"))?;
        lchown(away.join("log"), Some(OTHER), None)?;
        fs::set_permissions(&away, Permissions::from_mode(0o777))?;
        assert!(rename_older(&away.join("log"), &file, 9).is_err());
        fs::remove_file(away.join("log"))?;
        fs::write(away.join("log"), "theirs")?;
        assert!(rename_older(&away.join("log"), &file, 9).is_err());
        assert_eq!(held(&away)?, "gone=log log=theirs");
        assert_eq!(held(&precious)?, "log=precious");
        Ok(())
    }

    #[test]
    fn own_links_are_followed() -> io::Result<()> {
        let folder = Folder::new(0o755)?;
        symlink("shared", folder.path("way"))?;
        symlink("target", folder.path("shared/link"))?;
        symlink("/proc/self/fd", folder.path("fds"))?;
        symlink("loop", folder.path("loop"))?;
        folder.write("way/link").map_err(io::Error::other)?;
        let mut text = String::new();
        File::open(folder.path("shared/target"))?.read_to_string(&mut text)?;
        assert_eq!(text, "written!");
        let mode = fs::metadata(folder.path("shared/target"))?
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let said = folder.write("loop").err().unwrap_or_default();
        assert!(said.contains("Too many levels of symbolic links"), "{said}");
        // A file that has no path.
        let (mut reader, writer) = io::pipe()?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&writer);
        folder
            .write(&format!("fds/{number}"))
            .map_err(io::Error::other)?;
        drop(writer);
        text.clear();
        reader.read_to_string(&mut text)?;
        assert_eq!(text, "written!");
        Ok(())
    }
}
