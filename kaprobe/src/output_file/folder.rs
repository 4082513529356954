//! A folder that only its owner can write to, and the files in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::output_file::{PRIVATE, Place, is_private, kind};

/// An open folder that only its owner, root or the user who runs kaprobe, can write to. What
/// is at its path later makes no difference.
#[derive(Debug)]
pub struct Folder(OwnedFd);

/// A file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderFile {
    /// Its name.
    pub name: String,
    /// Its size, bytes.
    pub size: u64,
}

impl Folder {
    /// Opens a folder. Makes it, for its owner only, if there is none.
    ///
    /// # Errors
    /// When it can't be opened, or another user can write to it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let Place { folder, name, .. } = Place::find(path, false)?;
        match rustix::fs::mkdirat(&folder, &name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(why) => return Err(why.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&folder, &name, flags, Mode::empty())?;
        if !is_private(&rustix::fs::fstat(&opened)?) {
            return Err(io::Error::other("other users can write to this folder"));
        }
        Ok(Self(opened))
    }

    /// Makes a file for its owner only.
    ///
    /// # Errors
    /// When it can't be made, or anything has this name.
    pub fn create(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
    }

    /// Opens a file for reading and writing. Makes it if there is none.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open_or_create(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlags::RDWR | OFlags::CREATE)
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, PRIVATE)?.into())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// The regular files whose names are text, in no particular order.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn files(&self) -> io::Result<Vec<FolderFile>> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let Some(name) = OsStr::from_bytes(entry.file_name().to_bytes()).to_str() else {
                continue;
            };
            match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) if kind(&found) == FileType::RegularFile => files.push(FolderFile {
                    name: name.to_owned(),
                    size: found.st_size.cast_unsigned(),
                }),
                // Another kind of file, or removed meanwhile.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(files)
    }

    /// Has the names of its files written to the disk.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn mode(path: &Path) -> io::Result<u32> {
        Ok(fs::symlink_metadata(path)?.permissions().mode() & 0o7777)
    }

    #[test]
    fn a_folder_and_its_files_are_for_their_owner_only() -> io::Result<()> {
        let above = tempfile::tempdir()?;
        let path = above.path().join("kept");
        let folder = Folder::open(&path)?;
        folder.create("a")?;
        assert_eq!((mode(&path)?, mode(&path.join("a"))?), (0o700, 0o600));
        assert!(folder.create("a").is_err(), "it exists");
        symlink("a", path.join("b"))?;
        assert!(folder.open_or_create("b").is_err(), "a link");
        let names: Vec<_> = folder.files()?.into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["a"]);
        folder.remove("a")?;
        folder.sync()?;
        assert_eq!(folder.files()?, []);
        Ok(())
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() -> io::Result<()> {
        let above = tempfile::tempdir()?;
        let path = above.path().join("shared");
        fs::create_dir(&path)?;
        for mode in [0o777, 0o1777, 0o770] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            let why = Folder::open(&path).err().map(|it| it.to_string());
            assert_eq!(why.as_deref(), Some("other users can write to this folder"));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Folder::open(&path)?;
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(61_235), None)?;
            assert!(Folder::open(&path).is_err(), "it belongs to another user");
        }
        // A file is no folder.
        fs::write(above.path().join("file"), "")?;
        assert!(Folder::open(&above.path().join("file")).is_err());
        Ok(())
    }
}
