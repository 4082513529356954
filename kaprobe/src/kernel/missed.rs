//! How often the kernel skipped a program: counted by the kernel, where it does.
//!
//! A program that would run inside itself is skipped (`recursion_misses`, since
//! 5.12), a kprobe that is hit while another one is handled too (`missed` of its
//! link, since 6.7).

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::programs::{Program, loaded_links};
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type, bpf_prog_info};

use crate::kernel::bpf;

/// A program whose misses are counted. It holds the program and its links in the
/// kernel for as long as it lives.
pub struct Watched {
    program: OwnedFd,
    /// Links that count what they missed: those of kprobes.
    links: Vec<OwnedFd>,
}

impl Watched {
    /// Watches a program that is attached.
    ///
    /// # Errors
    /// When no descriptor is to be had.
    pub fn new(program: &Program) -> io::Result<Self> {
        let fd = program.fd().map_err(io::Error::other)?;
        let links = match program {
            Program::KProbe(kprobe) => links_of(kprobe.info().map_err(io::Error::other)?.id()),
            _ => Vec::new(),
        };
        Ok(Self {
            program: fd.as_fd().try_clone_to_owned()?,
            links,
        })
    }

    /// How often it was skipped, as far as the kernel counts that.
    pub fn missed(&self) -> u64 {
        let recursion =
            info::<bpf_prog_info>(self.program.as_fd()).map_or(0, |info| info.recursion_misses);
        let links = self.links.iter().filter_map(|link| missed_by(link).ok());
        recursion + links.sum::<u64>()
    }
}

/// The links of a program; none on kernels whose kprobes are not linked (before 5.15).
fn links_of(program: u32) -> Vec<OwnedFd> {
    loaded_links()
        .filter_map(Result::ok)
        .filter(|link| link.program_id() == program)
        .filter_map(|link| link_fd(link.id()).ok())
        .collect()
}

fn link_fd(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: zero is a value of this union of integers.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.__bindgen_anon_6.__bindgen_anon_1.link_id = id;
    bpf::call_for_fd(bpf_cmd::BPF_LINK_GET_FD_BY_ID, &mut attr)
}

fn missed_by(link: &OwnedFd) -> io::Result<u64> {
    let info = info::<bpf_link_info>(link.as_fd())?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_PERF_EVENT as u32 {
        return Ok(0);
    }
    // SAFETY: integers whichever member of the union the kernel filled; what it did
    // not fill is still zero.
    Ok(unsafe {
        info.__bindgen_anon_1
            .perf_event
            .__bindgen_anon_1
            .kprobe
            .missed
    })
}

/// What the kernel says of a BPF object. `T` must be the structure that goes with
/// the object behind `fd`, made of integers only.
fn info<T>(fd: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: `T` is made of integers, for which zero is a value.
    let (mut info, mut attr): (T, bpf_attr) = unsafe { (zeroed(), zeroed()) };
    attr.info.bpf_fd = u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)?;
    attr.info.info_len = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    attr.info.info = &raw mut info as u64;
    bpf::call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}
