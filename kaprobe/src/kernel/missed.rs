//! How often the kernel skipped a program, as far as the kernel counts it.
//!
//! The kernel skips a program that would run inside itself (`recursion_misses`, since
//! 5.12), and a kprobe that is hit while another one is handled (`missed` of its link,
//! since 6.7).

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::{Program, loaded_links};
use aya_obj::generated::bpf_link_type;

use crate::exit;
use crate::kernel::bpf;

/// A program whose misses are counted. This keeps the program and its links in the kernel.
pub struct Watched {
    program: OwnedFd,
    /// Links that count their misses: those of kprobes.
    links: Vec<OwnedFd>,
}

impl Watched {
    /// Watches a program that is attached.
    ///
    /// # Errors
    /// When no descriptor is available.
    pub fn new(program: &Program) -> io::Result<Self> {
        let fd = program.fd().map_err(io::Error::other)?;
        let links = match program {
            Program::KProbe(kprobe) => links_of(kprobe.info().map_err(io::Error::other)?.id())?,
            _ => Vec::new(),
        };
        Ok(Self {
            program: fd.as_fd().try_clone_to_owned()?,
            links,
        })
    }

    /// How often the program was skipped, as far as the kernel counts it.
    pub fn missed(&self) -> u64 {
        let program = bpf::program_info(self.program.as_fd());
        let recursion = program.map_or(0, |info| info.recursion_misses);
        let links = self.links.iter().filter_map(|link| missed_by(link).ok());
        recursion + links.sum::<u64>()
    }
}

/// The links of a program that can be opened. Kernels before 5.15 do not link kprobes, and
/// only CAP_SYS_ADMIN may list links (`bpf_obj_get_next_id`, kernel/bpf/syscall.c).
///
/// # Errors
/// When no descriptor is available.
fn links_of(program: u32) -> io::Result<Vec<OwnedFd>> {
    let mut links = Vec::new();
    for link in loaded_links() {
        let opened = match link {
            Ok(link) if link.program_id() != program => continue,
            Ok(link) => bpf::open_link(link.id()).map_err(anyhow::Error::from),
            Err(why) => Err(why.into()),
        };
        match opened {
            Ok(link) => links.push(link),
            // The link is gone meanwhile, or may not be seen.
            Err(why) => exit::exhausted(&why).map_or(Ok(()), Err)?,
        }
    }
    Ok(links)
}

fn missed_by(link: &OwnedFd) -> io::Result<u64> {
    let info = bpf::link_info(link.as_fd())?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_PERF_EVENT as u32 {
        return Ok(0);
    }
    // SAFETY: integers, whichever member of the union the kernel filled; what it did
    // not fill is still zero.
    Ok(unsafe {
        info.__bindgen_anon_1
            .perf_event
            .__bindgen_anon_1
            .kprobe
            .missed
    })
}
