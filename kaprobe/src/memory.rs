//! How the allocator treats blocks: glibc's, where it is that one.

/// From how many bytes on a block has pages of its own: glibc's default.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 * 1024;

/// Lets every large block have pages of its own, which go back to the kernel when it is
/// freed, and are moved, not copied, when it grows.
///
/// Left to itself, glibc takes what is no larger than the largest block freed so far
/// from the heap (`M_MMAP_THRESHOLD`, mallopt(3)). The kernel's types, 10 MB, are the
/// first to go; after them every table that grew would leave a hole there.
///
/// Small ones all come from one heap, so that what one thread frees is another's next.
/// With a heap for each thread, that of the snapshot stays after its end; and little is
/// won by them here, where one thread frees what another allocates.
pub fn use_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets numbers, before any other thread runs. A refusal leaves the
    // default, which is no harm.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
