//! Decodes what a socket has sent without an answer, and predicts when the kernel gives up on
//! it.

use kaprobe_ebpf::wire::{self, flag, kind};

use crate::keepalive::forecast::GiveUp;
use crate::keepalive::retransmission::{
    PendingTimer, RTO_MAX_MS, Retransmitting, RetryLimits, TimerWheel, WindowProbing,
};
use crate::kernel::decode::Decoder;
use crate::model::row::Timer;
use crate::model::socket::Transfer;
use crate::model::values::{Errno, State};

impl Decoder {
    /// When the kernel gives up on what was just sent again. Unknown for a shut window: the
    /// peer may answer.
    pub(super) fn give_up_after(&self, raw: &wire::Detailed) -> Option<GiveUp> {
        let (event, sending) = (&raw.event, &raw.sending);
        if is_shut(event, sending) {
            return None;
        }
        let (limits, wheel) = (self.limits(event, sending), self.wheel(event));
        let since_first_ms = since_first_ms(sending, sending.tcp_mstamp);
        let rto_ms = self.ms(sending.rto);
        Some(Retransmitting::just_now(since_first_ms, rto_ms, limits, wheel).give_up())
    }

    /// When the kernel gives up on a connection, if it waits for the answer to data that was
    /// sent again, or to window probes. Unknown if the peer shut its window on data in flight.
    pub(super) fn give_up_while(&self, raw: &wire::Snapshot, timer: Timer) -> Option<GiveUp> {
        let (event, sending) = (&raw.event, &raw.sending);
        let is_connected = !matches!(
            State::from_number(event.state),
            None | Some(State::Listen | State::SynSent | State::SynRecv | State::Close)
        );
        // Less than 0 if the timer is due: the wheel makes it late.
        let expires_in = raw
            .rto_expires
            .wrapping_sub(event.jiffies)
            .cast_signed()
            .into();
        let (limits, wheel) = (self.limits(event, sending), self.wheel(event));
        let is_timed = sending.probes_timed != 0;
        // The timer was set when the data was sent again, which the kernel notes, but not of a
        // FIN without data (`tcp_event_data_sent`, net/ipv4/tcp_output.c).
        let wait = raw.rto_expires.wrapping_sub(event.lsndtime);
        match timer {
            Timer::On if is_connected && event.retransmits > 0 && !is_shut(event, sending) => {
                let again = Retransmitting {
                    since_first_ms: since_first_ms(sending, event.mono_ns / 1_000),
                    timer: PendingTimer {
                        expires_in,
                        wait: wait.min(sending.rto).into(),
                    },
                    rto_ms: self.ms(sending.rto),
                    limits,
                    wheel,
                };
                Some(again.give_up())
            }
            Timer::Probe if is_timed || event.user_timeout == 0 => {
                let probing = WindowProbing {
                    expires_in,
                    since_first: self.probing_ticks(event, sending).map(u64::from),
                    probes_out: event.probes_out.into(),
                    backoff: sending.backoff.into(),
                    rto_ms: self.ms(sending.rto),
                    limits,
                    wheel,
                };
                Some(probing.give_up())
            }
            _ => None,
        }
    }

    /// What the socket of a detailed event had sent and what it had to send.
    ///
    /// The kernel has processed the acknowledgement in a FIN's segment already, which hides an
    /// earlier one. When the acknowledged data was sent is known (`tcp_rack_advance`,
    /// net/ipv4/tcp_recovery.c).
    pub(super) fn transfer_of(&self, raw: &wire::Detailed) -> Transfer {
        let event = &raw.event;
        let transfer = self.transfer(event, &raw.sending);
        if event.kind != kind::FIN_RECEIVED {
            return transfer;
        }
        let lastrcv_ms = self.ms(event.jiffies.wrapping_sub(event.lrcvtime));
        let quiet_ms = lastrcv_ms.min(ago_ms(event, raw.rack_mstamp));
        let before = |stalled_ms| quiet_ms.saturating_sub(stalled_ms);
        Transfer {
            silent_ms: transfer.stalled_ms.map(before),
            ..transfer
        }
    }

    /// What a socket had sent and what it had to send.
    pub(super) fn transfer(&self, event: &wire::Event, sending: &wire::Sending) -> Transfer {
        let between = |to: u32, from: u32| to.wrapping_sub(from).cast_signed().max(0);
        let in_flight = between(sending.snd_nxt, sending.snd_una).cast_unsigned();
        let waiting = between(sending.write_seq, sending.snd_nxt).cast_unsigned();
        // A SYN and a FIN each take a sequence number. The FIN is the last.
        let (syn, fin) = match State::from_number(event.state) {
            Some(State::SynSent | State::SynRecv) => (1, 0),
            Some(State::FinWait1 | State::Closing | State::LastAck) => (0, 1),
            _ => (0, 0),
        };
        let (fin_sent, fin_waiting) = if waiting == 0 { (fin, 0) } else { (0, fin) };
        let is_stamped = in_flight > 0 && sending.first_tx_mstamp != 0;
        let stalled_ms = is_stamped.then(|| sent_ago_ms(event, sending));
        let heard_ms = self.heard_ms(event);
        let quiet_ms = heard_ms.unwrap_or_else(|| self.idle_ms(event));
        Transfer {
            unacked_bytes: Some(in_flight.saturating_sub(syn + fin_sent)),
            unsent_bytes: Some(waiting.saturating_sub(fin_waiting)),
            stalled_ms,
            silent_ms: stalled_ms.map(|stalled_ms| quiet_ms.saturating_sub(stalled_ms)),
            err_soft: (sending.err_soft != 0).then_some(Errno(sending.err_soft)),
        }
    }

    /// What a socket in a snapshot has sent in vain: data that was sent again, or window
    /// probes. `None` if nothing is known to be amiss.
    pub(super) fn unanswered(&self, raw: &wire::Snapshot, timer: Timer) -> Option<Transfer> {
        let (event, sending) = (&raw.event, &raw.sending);
        let transfer = self.transfer(event, sending);
        match timer {
            Timer::On => (event.retransmits > 0).then_some(transfer),
            Timer::Probe => Some(Transfer {
                stalled_ms: self.probing_ticks(event, sending).map(|it| self.ms(it)),
                silent_ms: None,
                ..transfer
            }),
            _ => None,
        }
    }

    /// The ticks since the first probe of a shut window was due.
    fn probing_ticks(&self, event: &wire::Event, sending: &wire::Sending) -> Option<u32> {
        let is_probing = sending.probes_timed != 0 && sending.probes_tstamp != 0;
        is_probing.then(|| event.jiffies.wrapping_sub(sending.probes_tstamp))
    }

    fn limits(&self, event: &wire::Event, sending: &wire::Sending) -> RetryLimits {
        let is_orphan = event.flags & flag::DEAD != 0;
        RetryLimits {
            retries2: sending.retries2,
            orphan_retries: is_orphan.then_some(sending.orphan_retries),
            has_icmp_error: sending.err_soft != 0,
            user_timeout_ms: event.user_timeout.into(),
            rto_max_ms: match sending.rto_max {
                0 => RTO_MAX_MS,
                own => self.ms(own),
            },
        }
    }

    const fn wheel(&self, event: &wire::Event) -> TimerWheel {
        TimerWheel {
            hz: self.hz,
            jiffies: Some(event.jiffies),
        }
    }
}

/// Whether the peer's window is shut for a socket that a process has: its retransmissions are
/// window probes then (`tcp_retransmit_timer`, net/ipv4/tcp_timer.c).
const fn is_shut(event: &wire::Event, sending: &wire::Sending) -> bool {
    sending.snd_wnd == 0 && event.flags & flag::DEAD == 0
}

/// Time since data was retransmitted for the first time, ms, at a time of TCP's clock. The
/// stamps of TCP are the lower 32 bits.
fn since_first_ms(sending: &wire::Sending, now_us: u64) -> u64 {
    let ms = match (sending.retrans_stamp, sending.usec_ts) {
        (0, _) => 0,
        (stamp, 0) => ((now_us / 1_000) as u32).wrapping_sub(stamp),
        (stamp, _) => (now_us as u32).wrapping_sub(stamp) / 1_000,
    };
    ms.into()
}

/// Time since the oldest data in flight was first sent, ms. If data that was sent with it is
/// acknowledged, it counts from when that was sent (`tcp_rate_skb_delivered`,
/// net/ipv4/tcp_rate.c).
const fn sent_ago_ms(event: &wire::Event, sending: &wire::Sending) -> u64 {
    ago_ms(event, sending.first_tx_mstamp)
}

/// Time since a stamp of TCP, ms. Its clock is CLOCK_MONOTONIC in µs (`tcp_mstamp_refresh`,
/// net/ipv4/tcp_output.c).
const fn ago_ms(event: &wire::Event, stamp_us: u64) -> u64 {
    let now_us = event.mono_ns / 1_000;
    now_us.saturating_sub(stamp_us) / 1_000
}
