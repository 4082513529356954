//! Reads the ring buffer. The names are those of kernel/bpf/ringbuf.c.
//!
//! It works as aya's reader does, but maps a part of the data at a time: all of it would count
//! as memory of this process, though it is the kernel's. The kernel has the pages twice in a row
//! (`bpf_ringbuf_area_alloc`), so a record that reaches the end goes on behind it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use kaprobe_ebpf::wire::Detailed;
use rustix::mm::ProtFlags;
use rustix::param::page_size;

use crate::kernel::mapping::Mapping;

/// `BPF_RINGBUF_HDR_SZ`: bytes before each record. The first four are its length.
const HEADER: usize = 8;
/// `BPF_RINGBUF_BUSY_BIT`: the record is being written.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: the record is to be skipped.
const DISCARDED: u32 = 1 << 30;

/// How much of the data is mapped, bytes. To map the next part takes as long as reading some 20
/// of its 2,400 events.
const WINDOW: usize = 1 << 19;

/// A record fits into a page, which is mapped behind each window.
const _: () = assert!(HEADER + size_of::<Detailed>() <= 4096);

/// The reading end of the ring buffer.
pub(super) struct Ring {
    map: MapData,
    /// The page that contains `consumer_pos`.
    consumer: Mapping,
    /// The page that contains `producer_pos`.
    producer: Mapping,
    /// The part of the data that is read, and a page behind it.
    window: Mapping,
    /// Where the window starts in the data.
    window_start: usize,
    page: usize,
    /// Size of the data, bytes: a power of two.
    size: usize,
    /// Where the record starts that is read now, in bytes since the buffer was made: all before
    /// is the kernel's again.
    position: u64,
    /// Where the next record starts.
    read: u64,
}

impl Ring {
    /// Maps the buffer.
    ///
    /// # Errors
    /// When the map is not a ring buffer, or can't be mapped.
    pub fn new(map: Map) -> Result<Self> {
        let Map::RingBuf(map) = map else {
            bail!("it is not a ring buffer");
        };
        let (page, size) = (page_size(), map.info()?.max_entries() as usize);
        let fd = map.fd().as_fd();
        let consumer = Mapping::new(fd, 0, page, ProtFlags::READ | ProtFlags::WRITE);
        let producer = Mapping::new(fd, page, page, ProtFlags::READ);
        let window = window(fd, 0, size);
        Ok(Self {
            consumer: consumer.context("cannot map its reading position")?,
            producer: producer.context("cannot map its writing position")?,
            window: window.context("cannot map it")?,
            window_start: 0,
            map,
            page,
            size,
            position: 0,
            read: 0,
        })
    }

    /// The next record that is complete, where it lies. The kernel gets its place back with the
    /// next call.
    ///
    /// # Errors
    /// When the part of the buffer that it is in can't be mapped.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            // In one order with the position read below: the kernel wakes the reader for a
            // record only if it sees everything before it read (`bpf_ringbuf_commit`), so one of
            // the two sees the other's step.
            if self.read != self.position {
                self.position = self.read;
                self.consumer.store_u64(0, self.position);
            }
            if self.position == self.producer.load_u64(0) {
                return Ok(None);
            }
            let byte = self.byte()?;
            let header = self.window.load_u32(byte);
            if header & BUSY != 0 {
                return Ok(None);
            }
            let length = (header & !DISCARDED) as usize;
            self.read = self.position + (HEADER + length).next_multiple_of(8) as u64;
            if header & DISCARDED == 0 {
                let length = length.min(self.page - HEADER);
                // SAFETY: the record is complete, and the kernel does not write to it again until
                // the position moves past it, which takes this buffer exclusively.
                return Ok(Some(unsafe { self.window.bytes(byte + HEADER, length) }));
            }
        }
    }

    /// Where the window has the record at the position. Maps the window that it is in.
    fn byte(&mut self) -> io::Result<usize> {
        let at = self.position as usize & (self.size - 1);
        let start = at - at % WINDOW.min(self.size);
        if start != self.window_start {
            self.window = window(self.map.fd().as_fd(), start, self.size)?;
            self.window_start = start;
        }
        Ok(at - start)
    }
}

/// Maps a window of the data, and a page behind it.
fn window(map: BorrowedFd<'_>, start: usize, size: usize) -> io::Result<Mapping> {
    let page = page_size();
    let bytes = WINDOW.min(size) + page;
    Mapping::new(map, 2 * page + start, bytes, ProtFlags::READ)
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}
