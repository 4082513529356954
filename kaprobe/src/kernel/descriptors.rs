//! Every descriptor that refers to a socket, by the BPF iterator iter/task_file. It tells
//! what /proc does, at a ninth of the cost.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use kaprobe_ebpf::config::DescriptorOffsets;
use kaprobe_ebpf::wire::{DESCRIPTOR_SIZE, Descriptor};

use crate::kernel::object::LoadedObject;
use crate::kernel::{bpf, seq_file};

/// The iterator over descriptors, in the kernel. It sees the pid namespace of the thread
/// that reads it.
#[derive(Debug)]
pub struct DescriptorIterator {
    link: OwnedFd,
}

impl DescriptorIterator {
    /// Loads and attaches the iterator.
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
        // Not by aya, whose link serves for one pass only.
        let link = bpf::link_iterator(program.fd()?.as_fd());
        Ok(Self {
            link: link.context("cannot attach iter/task_file")?,
        })
    }

    /// Calls `see` for every descriptor of a socket, in ascending order of pid and then of
    /// descriptor (`task_seq_get_next`, kernel/bpf/task_iter.c).
    ///
    /// The kernel keeps each file open while it is shown (`fget_task_next`, fs/file.c). If
    /// its last descriptor is closed within this half of a microsecond, the reader closes
    /// the file instead, and waits where SO_LINGER says so (`inet_release`,
    /// net/ipv4/af_inet.c).
    ///
    /// # Errors
    /// When the kernel can't be read.
    pub fn each(&self, see: &mut dyn FnMut(Descriptor)) -> Result<()> {
        let file = bpf::open_iterator(self.link.as_fd()).context("cannot open iter/task_file")?;
        seq_file::read(file.into(), DESCRIPTOR_SIZE, &mut |bytes| {
            see(Descriptor::from_bytes(bytes).context("not a descriptor")?);
            Ok(())
        })
        .context("cannot read iter/task_file")
    }
}
