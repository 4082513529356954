//! Reads the ring buffer: kernel/bpf/ringbuf.c, from which the names are.
//!
//! As aya does, but that the data is mapped once: twice in a row, as is usual, spares a
//! look at where it ends, and counts as twice the memory.

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData};
use rustix::mm::ProtFlags;
use rustix::param::page_size;

use crate::kernel::mapping::Mapping;

/// `BPF_RINGBUF_HDR_SZ`: bytes before each record, the first four of them its length.
const HEADER: usize = 8;
/// `BPF_RINGBUF_BUSY_BIT`: it is being written.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: it is none.
const DISCARDED: u32 = 1 << 30;

/// The reading end.
pub struct Ring {
    map: MapData,
    /// The page that holds `consumer_pos`.
    consumer: Mapping,
    /// The page that holds `producer_pos`, then the data.
    producer: Mapping,
    /// Bytes of data, a power of two.
    size: usize,
    /// What is read next, counted from the beginning.
    position: u64,
    record: Vec<u8>,
}

impl Ring {
    /// Maps the buffer.
    ///
    /// # Errors
    /// When it is none, or can't be mapped.
    pub fn new(map: Map) -> Result<Self> {
        let Map::RingBuf(map) = map else {
            bail!("it is no ring buffer");
        };
        let (page, size) = (page_size(), map.info()?.max_entries() as usize);
        let fd = map.fd().as_fd();
        let consumer = Mapping::new(fd, 0, page, ProtFlags::READ | ProtFlags::WRITE);
        let producer = Mapping::new(fd, page, page + size, ProtFlags::READ);
        Ok(Self {
            consumer: consumer.context("cannot map its reading position")?,
            producer: producer.context("cannot map it")?,
            map,
            size,
            position: 0,
            record: Vec::new(),
        })
    }

    /// The next record, where one is complete.
    pub fn next(&mut self) -> Option<&[u8]> {
        loop {
            // SAFETY: at the start of its page, and only ever accessed whole.
            let produced = unsafe { self.producer.at::<AtomicU64>(0).as_ref() };
            // In one order with the position written below: the kernel wakes the reader
            // for a record only where it sees everything before it read
            // (`bpf_ringbuf_commit`), so one of the two sees the other's step.
            if self.position == produced.load(Ordering::SeqCst) {
                return None;
            }
            // SAFETY: records start at multiples of eight, within the data.
            let header = unsafe { self.data(self.position).cast::<AtomicU32>().as_ref() };
            let header = header.load(Ordering::SeqCst);
            if header & BUSY != 0 {
                return None;
            }
            let length = (header & !DISCARDED) as usize;
            if header & DISCARDED == 0 {
                self.copy(length);
            }
            self.position += (HEADER + length).next_multiple_of(8) as u64;
            // SAFETY: as above.
            let consumed = unsafe { self.consumer.at::<AtomicU64>(0).as_ref() };
            consumed.store(self.position, Ordering::SeqCst);
            if header & DISCARDED == 0 {
                return Some(&self.record);
            }
        }
    }

    /// Takes the record at hand out of the buffer; it may go on at its beginning.
    fn copy(&mut self, length: usize) {
        let length = length.min(self.size);
        let start = self.position + HEADER as u64;
        let until_end = self.size - (start as usize & (self.size - 1));
        let (from, beginning) = (self.data(start), self.producer.at::<u8>(page_size()));
        self.record.resize(length, 0);
        let (first, rest) = self.record.split_at_mut(until_end.min(length));
        for (from, to) in [(from, first), (beginning, rest)] {
            // SAFETY: within the data, which the kernel does not write again until the
            // position has moved past it; what is written to is this process's own.
            unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), to.len()) };
        }
    }

    /// The byte that has this position.
    fn data(&self, position: u64) -> ptr::NonNull<u8> {
        let byte = position as usize & (self.size - 1);
        self.producer.at(page_size() + byte)
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}
