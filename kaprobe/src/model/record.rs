//! The record: what every sink writes, one line each, under the same names.
//!
//! The meaning of the fields is also in `schema/kaprobe-log.schema.json`, which a test
//! holds to the same names.

use crate::model::event::Kind;
use crate::model::fate::Why;
use crate::model::field::record;
use crate::model::named::named_enum;
use crate::model::remedy::SetIn;
use crate::model::socket::{Ages, Endpoints, Identity, Process, Settings};
use crate::model::time::{Instant, WallTime};
use crate::model::values::{
    Cause, Confidence, Direction, Errno, Evidence, FinWait2, Hook, LearnedOf, LostWhy, Met, State,
    TcpFlags, VerdictName,
};
use crate::text::escape::Escaped;

record! {
    /// One thing that happened. A field that does not apply, or is not known, is
    /// absent. Times in ms are made from the kernel's ticks; their grain is a tick,
    /// 1 to 10 ms.
    Record {
        /// When, by the wall clock.
        time: WallTime,
        /// When, CLOCK_MONOTONIC, ns.
        mono_ns: u64,
        /// Number of the record in this output, from 1.
        seq: u64,
        /// What.
        event: EventName,
        /// The host that it happened on, where the output is of several.
        host: Option<Escaped>,
        /// Number of the socket in this trace, from 1.
        sock: Option<u64>,
        /// Who holds the socket.
        process: Process,
        /// Who the socket is between, where the record is about one.
        endpoints: Option<Endpoints>,
        /// Which socket it is.
        identity: Identity,
        /// TCP state when it happened.
        state: Option<State>,
        /// Its keepalive settings.
        settings: Settings,
        /// Which probe this is about, from 1.
        probe: Option<u32>,
        /// Unanswered probes, after.
        probes_out: Option<u32>,
        /// How long ago anything passed.
        ages: Ages,
        /// Until the timer fires again, ms.
        next_ms: Option<u64>,
        /// How late the timer fired, ms.
        late_ms: Option<u64>,
        /// Segments sent and not acknowledged.
        unacked: Option<u32>,
        /// Why keepalive gave up.
        cause: Option<Cause>,
        /// What became of an orphan in FIN_WAIT2.
        to: Option<FinWait2>,
        /// The socket's error.
        err: Option<Errno>,
        /// Who asked for the reset.
        direction: Option<Direction>,
        /// The kernel's reason for the reset.
        reason: Option<Escaped>,
        /// `mono_ns` of the firing that this reset, or this firing's reset, is part of.
        firing_ns: Option<u64>,
        /// From the probe to the last acknowledgement seen, ms: the answer came no
        /// later than that.
        answered_after_ms: Option<u64>,
        /// The hook whose events were lost.
        hook: Option<Hook>,
        /// What was lost, where known.
        lost_kind: Option<EventName>,
        /// Why it was lost.
        lost_why: Option<LostWhy>,
        /// How many were lost.
        lost: Option<u64>,
        /// Data waited to be sent.
        unsent: Option<bool>,
        /// How often in a row the oldest unacknowledged segment was sent again.
        retransmits: Option<u32>,
        /// Flags of the segment that a reset answers.
        flags: Option<TcpFlags>,
        /// Bytes of data in it.
        len: Option<u32>,
        /// TTL or hop limit that was left in it.
        ttl: Option<u32>,
        /// What it met.
        met: Option<Met>,
        /// What the records named in `evidence` say together.
        verdict: Option<VerdictName>,
        /// How sure that is.
        confidence: Option<Confidence>,
        /// Numbers (`seq`) of the records that it rests on.
        evidence: Option<Evidence>,
        /// Middleboxes whose idle timeout fits, and that timeout.
        middlebox: Option<Escaped>,
        /// Longest idle time, ms, that connections to there are known to have survived.
        survived_ms: Option<u64>,
        /// Shortest idle time, ms, that one is known to have died of.
        died_ms: Option<u64>,
        /// What `survived_ms` and `died_ms` were learned of.
        learned_of: Option<LearnedOf>,
        /// These two contradict each other: one was survived that is longer than one
        /// that was not.
        contradictory: Option<bool>,
        /// What to set, where and to what.
        advice: Option<Escaped>,
        /// From the firing that sent the probe to its answer, us.
        rtt_us: Option<u64>,
        /// What the verdicts of several hosts on this connection say together.
        story: Option<Escaped>,
        /// Why a connection is a zombie.
        why: Option<Why>,
        /// In how long keepalive would give up, ms, if the peer were gone.
        dead_in_ms: Option<u64>,
        /// By which rule.
        dead_by: Option<Cause>,
        /// Where a setting would have kept the connection.
        set_in: Option<SetIn>,
        /// That setting, or those in this order, as `NAME=VALUE`.
        set: Option<Escaped>,
    }
    order {
        time,
        mono_ns,
        seq,
        event,
        host,
        sock,
        process.pid,
        process.comm,
        endpoints?.family,
        endpoints?.laddr,
        endpoints?.lport,
        endpoints?.raddr,
        endpoints?.rport,
        endpoints?.netns,
        identity.inode,
        identity.cookie,
        identity.uid,
        identity.cgroup,
        identity.orphan,
        state,
        settings.keepalive,
        settings.keepalive_time_ms,
        settings.keepalive_time_from,
        settings.keepalive_intvl_ms,
        settings.keepalive_intvl_from,
        settings.keepalive_probes,
        settings.keepalive_probes_from,
        settings.user_timeout_ms,
        settings.user_timeout_from,
        probe,
        probes_out,
        ages.idle_ms,
        ages.lastrcv_ms,
        ages.lastack_ms,
        ages.lastsnd_ms,
        next_ms,
        late_ms,
        unacked,
        cause,
        to,
        err,
        direction,
        reason,
        firing_ns,
        answered_after_ms,
        hook,
        lost_kind,
        lost_why,
        lost,
        unsent,
        retransmits,
        flags,
        len,
        ttl,
        met,
        verdict,
        confidence,
        evidence,
        middlebox,
        survived_ms,
        died_ms,
        learned_of,
        contradictory,
        advice,
        rtt_us,
        story,
        why,
        dead_in_ms,
        dead_by,
        set_in,
        set,
    }
}

impl Record {
    /// A record that says no more than what happened, and when.
    #[must_use]
    #[inline]
    pub fn new(at: Instant, event: EventName) -> Self {
        Self {
            time: WallTime(at.wall_ns),
            mono_ns: at.mono_ns,
            event,
            ..Self::default()
        }
    }
}

named_enum! {
    /// What a record reports.
    #[expect(
        missing_docs,
        reason = "see the kinds of the same names in `event::Kind`"
    )]
    EventName {
        Probe = "probe",
        ProbeCongested = "probe_congested",
        Early = "early",
        DataPending = "data_pending",
        Busy = "busy",
        Timeout = "timeout",
        FinWait2 = "fin_wait2",
        NotRearmed = "not_rearmed",
        Unclassified = "unclassified",
        RstSent = "rst_sent",
        RstReceived = "rst_received",
        Closed = "closed",
        /// Events that could not be delivered.
        Lost = "lost",
        /// A probe was answered: seen as the answer came in, or else derived from the events
        /// that follow.
        Answered = "answered",
        /// What earlier records say together.
        Verdict = "verdict",
        /// A connection that was dead already when the trace began, and whose end does not
        /// know: of the snapshot that it starts from.
        Zombie = "zombie",
    }
}

impl From<Kind> for EventName {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Probe => Self::Probe,
            Kind::ProbeCongested => Self::ProbeCongested,
            Kind::Early => Self::Early,
            Kind::DataPending => Self::DataPending,
            Kind::Busy => Self::Busy,
            Kind::Timeout(_) => Self::Timeout,
            Kind::FinWait2(_) => Self::FinWait2,
            Kind::NotRearmed => Self::NotRearmed,
            Kind::Unclassified => Self::Unclassified,
            Kind::RstSent => Self::RstSent,
            Kind::RstReceived => Self::RstReceived,
            Kind::Closed => Self::Closed,
            Kind::Answered => Self::Answered,
        }
    }
}
