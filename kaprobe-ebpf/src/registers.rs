//! The arguments of a function that a kprobe is attached to, and what it returned.
//!
//! Their registers differ between architectures, and the verifier lets a program read its
//! context at constant offsets only. So each read has an offset that stands for the real
//! one, which user space puts there before it loads the programs.

use aya_ebpf::EbpfContext;
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use kaprobe_ebpf::config::{ARGUMENTS, RETURNED};

/// The argument number `N` of the function, counted from 0.
#[inline(always)]
pub fn argument<const N: usize>(ctx: &ProbeContext) -> u64 {
    read(ctx, const { ARGUMENTS[N] })
}

/// What the function returned.
#[inline(always)]
pub fn returned(ctx: &RetProbeContext) -> u64 {
    read(ctx, RETURNED)
}

/// Reads a register. The read is volatile, so that the compiler reads all of it, by one
/// instruction that user space can find.
#[inline(always)]
fn read(ctx: &impl EbpfContext, offset: i16) -> u64 {
    let register = ctx.as_ptr().wrapping_byte_offset(offset as isize);
    // SAFETY: user space has made the offset that of a register, and the verifier checks it.
    unsafe { register.cast::<u64>().read_volatile() }
}
