//! Pages of a BPF map that this process shares with the kernel.

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Pages of a map. Unmapped when this is dropped.
///
/// Each access panics if it goes beyond the pages or is not aligned.
pub(super) struct Mapping {
    first: NonNull<c_void>,
    bytes: usize,
    writable: bool,
}

// SAFETY: memory of this process, whichever thread accesses it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `bytes` bytes of a map from `offset` on.
    ///
    /// # Errors
    /// When the kernel refuses: the map is of another type or size.
    pub fn new(
        map: BorrowedFd<'_>,
        offset: usize,
        bytes: usize,
        protection: ProtFlags,
    ) -> io::Result<Self> {
        let (shared, offset) = (MapFlags::SHARED, offset as u64);
        // SAFETY: a new mapping; the kernel picks the place and checks the size.
        let first = unsafe { mmap(ptr::null_mut(), bytes, protection, shared, map, offset) }?;
        let first = NonNull::new(first).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self {
            first,
            bytes,
            writable: protection.contains(ProtFlags::WRITE),
        })
    }

    /// Loads the integer at this byte.
    pub fn load_u32(&self, byte: usize) -> u32 {
        // SAFETY: inside and aligned; the kernel only ever accesses it whole.
        unsafe { self.at::<AtomicU32>(byte, 1).as_ref() }.load(Ordering::SeqCst)
    }

    /// Loads the integer at this byte.
    pub fn load_u64(&self, byte: usize) -> u64 {
        // SAFETY: inside and aligned; the kernel only ever accesses it whole.
        unsafe { self.at::<AtomicU64>(byte, 1).as_ref() }.load(Ordering::SeqCst)
    }

    /// Stores an integer at this byte. Panics if the mapping is not writable.
    pub fn store_u64(&self, byte: usize, value: u64) {
        assert!(self.writable, "the mapping is not writable");
        // SAFETY: inside and aligned; the kernel only ever accesses it whole.
        unsafe { self.at::<AtomicU64>(byte, 1).as_ref() }.store(value, Ordering::SeqCst);
    }

    /// So many bytes, from this one on.
    ///
    /// # Safety
    /// The kernel must not write to them while the slice is used.
    pub unsafe fn bytes(&self, byte: usize, count: usize) -> &[u8] {
        let first = self.at::<u8>(byte, count);
        // SAFETY: inside the mapping and, as the caller promises, not written meanwhile.
        unsafe { slice::from_raw_parts(first.as_ptr(), count) }
    }

    /// The place of `count` values, checked.
    fn at<T>(&self, byte: usize, count: usize) -> NonNull<T> {
        let is_inside = count
            .checked_mul(size_of::<T>())
            .and_then(|size| byte.checked_add(size))
            .is_some_and(|end| end <= self.bytes);
        assert!(
            is_inside && byte.is_multiple_of(align_of::<T>()),
            "outside the mapping, or not aligned"
        );
        // SAFETY: inside the mapping.
        unsafe { self.first.byte_add(byte) }.cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, and nothing refers to it any more.
        // Unmapping one that exists can't fail.
        let _cannot_fail = unsafe { munmap(self.first.as_ptr(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::param::page_size;

    use super::*;

    #[test]
    fn an_access_is_inside_aligned_and_allowed() -> io::Result<()> {
        let (file, page) = (memfd_create("pages", MemfdFlags::CLOEXEC)?, page_size());
        ftruncate(&file, page as u64)?;
        let map = |protection| Mapping::new(file.as_fd(), 0, page, protection);
        let (readable, writable) = (
            map(ProtFlags::READ)?,
            map(ProtFlags::READ | ProtFlags::WRITE)?,
        );
        let panics = |access: &dyn Fn()| catch_unwind(AssertUnwindSafe(access)).is_err();
        writable.store_u64(page - 8, 7);
        assert_eq!(readable.load_u64(page - 8), 7);
        assert!(panics(&|| readable.store_u64(0, 7)));
        for byte in [4, page, page - 4, usize::MAX - 7] {
            assert!(
                panics(&|| {
                    let _value = readable.load_u64(byte);
                }),
                "{byte}"
            );
        }
        Ok(())
    }
}
