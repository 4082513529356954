//! Every descriptor that refers to a socket, by the BPF iterator iter/task_file: what
//! /proc tells, for a ninth of the price.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd};
use kaprobe_ebpf::config::DescriptorOffsets;
use kaprobe_ebpf::wire::{DESCRIPTOR_SIZE, Descriptor};

use crate::kernel::object::LoadedObject;
use crate::kernel::{bpf, seq_file};

/// The iterator, in the kernel. It sees the pid namespace of the thread that reads.
#[derive(Debug)]
pub struct DescriptorIterator {
    link: OwnedFd,
}

impl DescriptorIterator {
    /// Loads the iterator.
    ///
    /// # Errors
    /// When the kernel does not have this iterator, or refuses it. /proc then tells the
    /// same.
    pub(super) fn load(object: &mut LoadedObject) -> Result<Self> {
        ensure!(
            object.config.offsets.descriptors != DescriptorOffsets::ABSENT,
            "the kernel's descriptors are not as kaprobe knows them"
        );
        let program = object.load_iterator("descriptors", "task_file")?;
        // Not by aya, whose link is used up by the first pass.
        let program = program.fd()?.as_fd().as_raw_fd();
        let link = bpf::call_for_fd(bpf_cmd::BPF_LINK_CREATE, &mut link_create(program)?);
        Ok(Self {
            link: link.context("cannot attach iter/task_file")?,
        })
    }

    /// Shows every socket that a process holds, in ascending order of pid and then of
    /// descriptor (`task_seq_get_next`, kernel/bpf/task_iter.c).
    ///
    /// The kernel holds on to each file while it is shown (`fget_task_next`, fs/file.c). A
    /// last descriptor that is closed within this half of a microsecond leaves the closing
    /// to the reader, who then also waits where SO_LINGER says so (`inet_release`,
    /// net/ipv4/af_inet.c).
    ///
    /// # Errors
    /// When the kernel can't be read.
    pub fn each(&self, see: &mut dyn FnMut(Descriptor)) -> Result<()> {
        // SAFETY: zero is a value of this union of integers.
        let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
        attr.iter_create.link_fd = u32::try_from(self.link.as_raw_fd())?;
        let file = bpf::call_for_fd(bpf_cmd::BPF_ITER_CREATE, &mut attr);
        let file = file.context("cannot open iter/task_file")?;
        seq_file::read(file.into(), DESCRIPTOR_SIZE, &mut |bytes| {
            see(Descriptor::from_bytes(bytes).context("no descriptor")?);
            Ok(())
        })
        .context("cannot read iter/task_file")
    }
}

fn link_create(program: i32) -> Result<bpf_attr> {
    // SAFETY: zero is a value of this union of integers.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.link_create.__bindgen_anon_1.prog_fd = u32::try_from(program)?;
    attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_ITER as u32;
    Ok(attr)
}
