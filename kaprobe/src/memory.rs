//! Tunes the glibc allocator. Other allocators are left alone.

/// The block size, in bytes, from which malloc uses mmap. This is glibc's default.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 * 1024;

/// Tells glibc to map every large block separately and to use one heap for small blocks.
///
/// The kernel gets the pages of a mapped block back when the block is freed. A block that
/// grows is remapped, not copied.
///
/// By default, each mapped block that is freed raises the threshold to its size, and
/// smaller blocks then come from the heap (`M_MMAP_THRESHOLD`, mallopt(3)). The kernel's
/// types, 10 MB, are freed first; after that, every table that grows would leave a hole
/// in the heap.
///
/// With one heap, a thread reuses the small blocks that another thread freed. With a heap
/// per thread, the heap of the snapshot thread would outlive the thread. More heaps gain
/// little here because one thread frees what another allocates.
pub fn tune_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets numbers, and no other thread runs yet. If it fails, the
    // default stays, which is harmless.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
