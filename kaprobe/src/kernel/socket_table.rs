//! The table of the sockets that events have reported: its flags in the object.
//!
//! Allocated beforehand, every entry takes memory from the start, whether there is a socket for
//! it or not. Since Linux 6.1 hash maps have an allocator of their own, from which programs of
//! every context can take an entry when it is needed (`bpf_mem_alloc`, kernel/bpf/memalloc.c).
//! Before, the kernel warns of such a map, as an allocation inside a program can deadlock
//! (`check_map_prog_compatibility`, kernel/bpf/verifier.c).
//!
//! On PREEMPT_RT a thread refills the allocator (`irq_work` of kernel/irq_work.c): many timers
//! that fire in a row would find it empty. There, entries are allocated beforehand too.

use kaprobe_ebpf::config::{Config, SOCKETS_FLAGS};

use crate::kernel::btf::KernelTypes;

/// `BPF_F_NO_PREALLOC`, uapi/linux/bpf.h.
const NO_PREALLOC: u32 = 1;

/// The flags of the table on this kernel.
#[must_use]
pub fn flags(types: &KernelTypes, config: &Config) -> u32 {
    match types.maps_allocate() && config.preempt_rt == 0 {
        true => NO_PREALLOC,
        false => 0,
    }
}

/// Puts the flags into an object.
pub fn put_flags(object: &mut [u8], flags: u32) {
    // Map definitions are aligned like the integers that they consist of.
    let words = object.chunks_exact_mut(size_of::<u32>());
    for word in words.filter(|it| **it == SOCKETS_FLAGS.to_le_bytes()) {
        word.copy_from_slice(&flags.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::object::OBJECT;

    #[test]
    fn only_one_map_has_the_flags() {
        for flags in [0, NO_PREALLOC] {
            let mut object = OBJECT.to_vec();
            put_flags(&mut object, flags);
            let changed = object.chunks_exact(4).zip(OBJECT.chunks_exact(4));
            let changed: Vec<_> = changed.filter(|(new, old)| new != old).collect();
            assert_eq!(
                changed,
                [(&flags.to_le_bytes()[..], &SOCKETS_FLAGS.to_le_bytes()[..])]
            );
        }
    }
}
