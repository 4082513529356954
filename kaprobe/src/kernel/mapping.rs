//! Pages of a BPF map, in this process's memory too.

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Pages that the kernel shares. Unmapped when this is dropped.
pub struct Mapping {
    first: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: memory of this process, whichever thread looks at it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps so many bytes of a map from that offset on.
    ///
    /// # Errors
    /// When the kernel refuses: the map is of another kind or size.
    pub fn new(
        map: BorrowedFd<'_>,
        offset: usize,
        bytes: usize,
        protection: ProtFlags,
    ) -> io::Result<Self> {
        // SAFETY: a new mapping, placed by the kernel, which it checks the size of.
        let first = unsafe {
            mmap(
                ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                map,
                offset as u64,
            )
        }?;
        let first = NonNull::new(first).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { first, bytes })
    }

    /// What lies so many bytes into it, which must be inside and aligned.
    pub fn at<T>(&self, byte: usize) -> NonNull<T> {
        debug_assert!(byte + size_of::<T>() <= self.bytes, "past the mapping");
        // SAFETY: inside the mapping, as the caller sees to.
        unsafe { self.first.byte_add(byte) }.cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, and nothing refers to it any more. It
        // can't fail for one that is there.
        let _cannot_fail = unsafe { munmap(self.first.as_ptr(), self.bytes) };
    }
}
