//! Reads the ring buffer. The names are those of kernel/bpf/ringbuf.c.
//!
//! It works as aya's reader does, but maps the data once. Mapping it twice in a row, as is
//! usual, saves a look at where the data ends, and counts as twice the memory.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use rustix::mm::ProtFlags;
use rustix::param::page_size;

use crate::kernel::mapping::Mapping;

/// `BPF_RINGBUF_HDR_SZ`: bytes before each record. The first four are its length.
const HEADER: usize = 8;
/// `BPF_RINGBUF_BUSY_BIT`: the record is being written.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: the record is to be skipped.
const DISCARDED: u32 = 1 << 30;

/// The reading end of the ring buffer.
pub(super) struct Ring {
    map: MapData,
    /// The page that contains `consumer_pos`.
    consumer: Mapping,
    /// The page that contains `producer_pos`, then the data.
    producer: Mapping,
    page: usize,
    /// Size of the data, bytes: a power of two.
    size: usize,
    /// Where the record starts that is read now, in bytes since the buffer was made: all before
    /// is the kernel's again.
    position: u64,
    /// Where the next record starts.
    read: u64,
    /// The last record that reached beyond the end of the data.
    joined: Vec<u8>,
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
        let producer = Mapping::new(fd, page, page + size, ProtFlags::READ);
        Ok(Self {
            consumer: consumer.context("cannot map its reading position")?,
            producer: producer.context("cannot map it")?,
            map,
            page,
            size,
            position: 0,
            read: 0,
            joined: Vec::new(),
        })
    }

    /// The next record that is complete, where it lies. The kernel gets its place back with the
    /// next call.
    pub fn next(&mut self) -> Option<&[u8]> {
        loop {
            // In one order with the position read below: the kernel wakes the reader for a
            // record only if it sees everything before it read (`bpf_ringbuf_commit`), so one of
            // the two sees the other's step.
            if self.read != self.position {
                self.position = self.read;
                self.consumer.store_u64(0, self.position);
            }
            if self.position == self.producer.load_u64(0) {
                return None;
            }
            let header = self.producer.load_u32(self.byte(self.position));
            if header & BUSY != 0 {
                return None;
            }
            let length = (header & !DISCARDED) as usize;
            self.read = self.position + (HEADER + length).next_multiple_of(8) as u64;
            if header & DISCARDED == 0 {
                return Some(self.record(length.min(self.size)));
            }
        }
    }

    /// The record at the position. One that reaches the end of the data continues at the start:
    /// it is put together.
    fn record(&mut self, length: usize) -> &[u8] {
        let from = self.byte(self.position + HEADER as u64);
        let until_end = self.page + self.size - from;
        let (first, rest) = (length.min(until_end), length.saturating_sub(until_end));
        // SAFETY: the record is complete, and the kernel does not write to it again until the
        // position moves past it, which takes this buffer exclusively.
        let bytes = |from, length| unsafe { self.producer.bytes(from, length) };
        if rest == 0 {
            return bytes(from, first);
        }
        self.joined.clear();
        self.joined.extend_from_slice(bytes(from, first));
        self.joined.extend_from_slice(bytes(self.page, rest));
        &self.joined
    }

    /// Where the data has this position, in `producer`.
    fn byte(&self, position: u64) -> usize {
        self.page + (position as usize & (self.size - 1))
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}
