//! Reads all TCP sockets, by the BPF iterator iter/tcp.
//!
//! An iterator sees the network namespace of the thread that opens it
//! (`bpf_iter_init_seq_net`, fs/proc/proc_net.c).

use std::fs::File;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use kaprobe_ebpf::wire::{self, flag};

use crate::keepalive::forecast;
use crate::kernel::config::TracerConfig;
use crate::kernel::decode::{self, DecodeError, Decoder, ticks_until};
use crate::kernel::descriptors::DescriptorIterator;
use crate::kernel::object::{self, LoadedObject};
use crate::kernel::seq_file;
use crate::model::row::{Row, RowSource, Timer};
use crate::model::socket::Ages;
use crate::model::values::{Hook, State};

/// Name of the program in the object.
const PROGRAM: &str = "sockets";

/// The iterator over TCP sockets, in the kernel.
pub struct SocketIterator {
    ebpf: Ebpf,
    decoder: Decoder,
    descriptors: Option<DescriptorIterator>,
}

impl SocketIterator {
    /// Loads the iterator.
    ///
    /// # Errors
    /// When the kernel does not have this iterator, or refuses it.
    pub fn load(config: &TracerConfig) -> Result<Self> {
        let mut object = LoadedObject::load(config)?;
        object.load_iterator(PROGRAM, "tcp")?;
        object.attach(Hook::DestroySock)?;
        let hz = object.calibrate()?.hz;
        Ok(Self {
            decoder: object.decoder(hz),
            descriptors: DescriptorIterator::load(&mut object).ok(),
            ebpf: object.into_ebpf(),
        })
    }

    /// Opens the file that lists the sockets of this thread's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses to attach or to open it.
    pub(super) fn open(&mut self) -> Result<File> {
        let program = object::iterator(&mut self.ebpf, PROGRAM)?;
        let link = program.attach().context("cannot attach iter/tcp")?;
        let link = program.take_link(link)?;
        link.into_file().context("cannot open iter/tcp")
    }

    /// Calls `see` for every socket of this thread's network namespace that passes the
    /// filters.
    ///
    /// # Errors
    /// When the kernel can't be read, or `see` fails.
    pub fn each(&mut self, see: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let file = self.open()?;
        seq_file::read(file, wire::SNAPSHOT_SIZE, &mut |bytes| {
            see(self.decoder.row(bytes)?)
        })
        .context("cannot read iter/tcp")
    }

    /// Takes the iterator over descriptors, if the kernel has it.
    pub fn take_descriptors(&mut self) -> Option<DescriptorIterator> {
        self.descriptors.take()
    }
}

impl Decoder {
    /// Decodes one socket.
    fn row(&self, bytes: &[u8]) -> Result<Row, DecodeError> {
        let raw = wire::Snapshot::from_bytes(bytes).ok_or(DecodeError::Length(bytes.len()))?;
        if raw.event.version != wire::VERSION {
            return Err(DecodeError::Version(raw.event.version));
        }
        let socket = &raw.event.socket;
        let at = self.instant(raw.event.mono_ns);
        let state =
            State::from_number(raw.event.state).ok_or(DecodeError::State(raw.event.state))?;
        let endpoints = decode::endpoints(socket)?;
        let row = Row::new(at, endpoints, state, RowSource::IterTcp);
        match state {
            State::TimeWait | State::NewSynRecv => self.minisock(row, &raw),
            _ => Ok(self.with_give_up(self.full(row, &raw), &raw)),
        }
    }

    /// The row of a minisock, with the values that /proc/net/tcp shows
    /// (`get_timewait4_sock`, `get_openreq4`, net/ipv4/tcp_ipv4.c).
    fn minisock(&self, row: Row, raw: &wire::Snapshot) -> Result<Row, DecodeError> {
        let timer_ms = Some(self.until(raw.rto_expires, raw));
        if row.state == State::NewSynRecv {
            return Ok(Row {
                state: State::SynRecv,
                timer: Timer::On,
                timer_ms,
                retransmits: Some(raw.timeouts),
                ..row
            });
        }
        let state = State::from_number(raw.substate).ok_or(DecodeError::State(raw.substate))?;
        Ok(Row {
            state,
            timer: Timer::TimeWait,
            timer_ms,
            ..row
        })
    }

    /// Adds when and why the kernel gives up on the connection, if the peer is gone. While
    /// data is not acknowledged, keepalive does not.
    fn with_give_up(&self, row: Row, raw: &wire::Snapshot) -> Row {
        let Some(give_up) = self.give_up_while(raw, row.timer) else {
            return forecast::with_give_up(row);
        };
        Row {
            dead_in_ms: Some(give_up.in_ms),
            dead_by: Some(give_up.cause),
            ..row
        }
    }

    /// The row of a full socket.
    fn full(&self, row: Row, raw: &wire::Snapshot) -> Row {
        let event = &raw.event;
        let has = |bit| event.flags & bit != 0;
        let pending = has(flag::PENDING_AFTER);
        let timer = Timer::pending(raw.pending, pending);
        let keepalive_next_ms = pending.then(|| self.until(event.expires_after, raw));
        // Without the lock, this may fall between two writes and give less than 0.
        let queue = |to: u32, from: u32| {
            u64::from(to.wrapping_sub(from).cast_signed().max(0).cast_unsigned())
        };
        // The end of the handshake sets the stamps that ages count from
        // (`tcp_finish_connect`, net/ipv4/tcp_input.c).
        let connected = !matches!(row.state, State::Listen | State::SynSent | State::Close);
        let age = |stamp: u32| self.ms(event.jiffies.wrapping_sub(stamp));
        let ages = || {
            let (lastrcv_ms, lastack_ms) = (age(event.lrcvtime), age(event.rcv_tstamp));
            Ages {
                heard_ms: self.heard_ms(event),
                ..Ages::new(lastrcv_ms, lastack_ms, age(event.lsndtime))
            }
        };
        Row {
            recvq: match row.state {
                State::Listen => raw.ack_backlog.into(),
                _ => queue(raw.rcv_nxt, raw.copied_seq),
            },
            sendq: queue(raw.sending.write_seq, raw.sending.snd_una),
            timer,
            timer_ms: match timer {
                Timer::Keepalive => keepalive_next_ms,
                Timer::Off => None,
                _ => Some(self.until(raw.rto_expires, raw)),
            },
            identity: decode::identity(event),
            retransmits: Some(event.retransmits),
            probes_out: Some(event.probes_out),
            unacked: Some(event.packets_out),
            settings: self.settings(event),
            ages: connected.then(ages).unwrap_or_default(),
            keepalive_next_ms,
            transfer: self.unanswered(raw, timer).unwrap_or_default(),
            ..row
        }
    }

    /// Time until a timer expires, ms.
    fn until(&self, expires: u32, raw: &wire::Snapshot) -> u64 {
        self.ms(ticks_until(expires, raw.event.jiffies_after))
    }
}
