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
    /// Where the next record starts, in bytes since the buffer was made.
    position: u64,
    record: Vec<u8>,
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
            record: Vec::new(),
        })
    }

    /// The next record that is complete.
    pub fn next(&mut self) -> Option<&[u8]> {
        loop {
            // In one order with the position written below: the kernel wakes the reader
            // for a record only if it sees everything before it read
            // (`bpf_ringbuf_commit`), so one of the two sees the other's step.
            if self.position == self.producer.load_u64(0) {
                return None;
            }
            let header = self.producer.load_u32(self.byte(self.position));
            if header & BUSY != 0 {
                return None;
            }
            let length = (header & !DISCARDED) as usize;
            if header & DISCARDED == 0 {
                self.copy(length);
            }
            self.position += (HEADER + length).next_multiple_of(8) as u64;
            self.consumer.store_u64(0, self.position);
            if header & DISCARDED == 0 {
                return Some(&self.record);
            }
        }
    }

    /// Copies the record at the position out of the buffer. A record that reaches the end
    /// of the data continues at the start.
    fn copy(&mut self, length: usize) {
        let length = length.min(self.size);
        let from = self.byte(self.position + HEADER as u64);
        self.record.resize(length, 0);
        let until_end = self.page + self.size - from;
        let (first, rest) = self.record.split_at_mut(until_end.min(length));
        for (from, to) in [(from, first), (self.page, rest)] {
            // SAFETY: the record is complete, and the kernel does not write to it again
            // until the position has moved past it.
            unsafe { self.producer.copy(from, to) };
        }
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
