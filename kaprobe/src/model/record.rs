//! The record: one line of output. All sinks use the same field names.
//!
//! `schema/kaprobe-log.schema.json` documents the fields too. A test checks that the
//! names are the same.

use crate::model::advice::Advice;
use crate::model::alive::Alive;
use crate::model::event::Kind;
use crate::model::fate::Why;
use crate::model::field::{Value, record};
use crate::model::named::named_enum;
use crate::model::owner::Owner;
use crate::model::remedy::SetIn;
use crate::model::socket::{Actor, Ages, Endpoints, Identity, Settings, Transfer};
use crate::model::time::{Instant, WallTime};
use crate::model::values::{
    Cause, Confidence, Direction, Errno, Evidence, FinWait2, Hook, LearnedOf, LostWhy, Met, State,
    TcpFlags, VerdictName,
};
use crate::text::escape::Escaped;

record! {
    /// A record: one event or verdict. A field that does not apply, or is not known, is
    /// absent. Times in ms are converted from kernel ticks; their resolution is one
    /// tick, 1 to 10 ms.
    pub struct Record {
        /// Time of the event, wall clock.
        time: WallTime,
        /// Time of the event, CLOCK_MONOTONIC, ns.
        mono_ns: u64,
        /// Number of the record in this output, from 1.
        seq: u64,
        /// What the record reports.
        event: EventName,
        /// Host of the event, if the output is from several hosts. In JSON and CSV, of one
        /// host too: the sink adds it.
        host: Option<Escaped>,
        /// Number of the socket in this trace, from 1.
        sock: Option<u64>,
        /// The process that holds the socket; of an orphan, the one that held it last.
        process: Owner,
        /// Local and remote address and port, if the record is about a socket.
        endpoints: Option<Endpoints>,
        /// Name of the network namespace, from `ip netns`. Without one, the host name of its
        /// processes, if that differs from this host's.
        netns_name: Option<Escaped>,
        /// Inode, cookie, uid and cgroup.
        identity: Identity,
        /// TCP state at the time of the event.
        state: Option<State>,
        /// TCP state of a connection that was in CLOSE already when its reset was sent.
        state_before: Option<State>,
        /// Keepalive settings of the socket.
        settings: Settings,
        /// Number of the probe, from 1.
        probe: Option<u32>,
        /// Unanswered probes after the event.
        probes_out: Option<u8>,
        /// Ages of the last traffic.
        ages: Ages,
        /// Time until the timer fires again, ms.
        next_ms: Option<u64>,
        /// How late the timer fired, ms.
        late_ms: Option<u64>,
        /// Segments sent and not acknowledged.
        unacked: Option<u32>,
        /// Why the kernel gave up.
        cause: Option<Cause>,
        /// Outcome of an orphan's FIN_WAIT2 timer.
        to: Option<FinWait2>,
        /// The socket's error.
        err: Option<Errno>,
        /// Whether the reset is active or passive.
        direction: Option<Direction>,
        /// The kernel's reason for the reset.
        reason: Option<Escaped>,
        /// `mono_ns` of the firing: on a reset that a firing sent, and on that firing.
        firing_ns: Option<u64>,
        /// Time from the probe to the last acknowledgement seen, ms: an upper bound for
        /// the answer.
        answered_after_ms: Option<u64>,
        /// The hook whose events were lost.
        hook: Option<Hook>,
        /// Kind of the lost events, if known.
        lost_kind: Option<EventName>,
        /// Why the events were lost.
        lost_why: Option<LostWhy>,
        /// How many events were lost.
        lost: Option<u64>,
        /// The write queue was not empty.
        unsent: Option<bool>,
        /// Consecutive retransmissions of the oldest unacknowledged segment.
        retransmits: Option<u8>,
        /// TCP flags of the segment that a reset answers.
        flags: Option<TcpFlags>,
        /// Length of that segment's data in bytes.
        len: Option<u32>,
        /// TTL or hop limit as received: of that segment, of a received reset, or with
        /// `--rtt` of the answer to a probe.
        ttl: Option<u8>,
        /// TTL or hop limit with which the peer completed the handshake, if this host
        /// accepted the connection that a reset came in for.
        peer_ttl: Option<u8>,
        /// Whether this host itself sent the received reset, although the peer is another
        /// host: the loopback device delivered it.
        from_this_host: Option<bool>,
        /// Whether the peer had sent data on the connection before its reset came.
        data_received: Option<bool>,
        /// Whether conntrack of this host has an entry for the segment that a reset answers.
        /// False also where conntrack does not track.
        tracked: Option<bool>,
        /// How long the process has run that holds the listener which that segment met, s.
        process_age_s: Option<u32>,
        /// What that segment matched on this host.
        met: Option<Met>,
        /// Conclusion from the records in `evidence`.
        verdict: Option<VerdictName>,
        /// Confidence in the verdict.
        confidence: Option<Confidence>,
        /// Numbers (`seq`) of the records behind the verdict.
        evidence: Option<Evidence>,
        /// Middleboxes whose idle timeout matches, and that timeout.
        middlebox: Option<Escaped>,
        /// Longest idle time that a connection survived, ms; see `learned_of`.
        survived_ms: Option<u64>,
        /// Shortest idle time that killed a connection, ms; see `learned_of`.
        died_ms: Option<u64>,
        /// The set of connections behind `survived_ms` and `died_ms`.
        learned_of: Option<LearnedOf>,
        /// `survived_ms` and `died_ms` contradict each other: a connection survived a
        /// longer idle time than one that killed another.
        contradictory: Option<bool>,
        /// Advice: which setting to change, where, and the value.
        advice: Option<Box<Advice>>,
        /// Time from the firing that sent the probe to the answer, us.
        rtt_us: Option<u64>,
        /// Conclusion from the verdicts of several hosts on this connection.
        story: Option<Escaped>,
        /// Why a connection is a zombie.
        why: Option<Why>,
        /// Time until the kernel gives up if the peer is gone, ms.
        dead_in_ms: Option<u64>,
        /// The rule by which the kernel gives up then.
        dead_by: Option<Cause>,
        /// Where to change a setting that would have saved the connection.
        set_in: Option<SetIn>,
        /// The settings to change, in this order, as `NAME=VALUE`.
        set: Option<Escaped>,
        /// The process that closed or reset the connection.
        actor: Actor,
        /// Data that is not acknowledged.
        transfer: Transfer,
        /// The socket is a subflow of an MPTCP connection: its end is not the connection's.
        mptcp: Option<bool>,
        /// The probes that an `alive` record sums.
        alive: Option<Box<Alive>>,
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
        process.cmdline,
        process.unit,
        process.container,
        process.container_id,
        process.pod,
        process.pod_namespace,
        process.pod_uid,
        endpoints?.family,
        endpoints?.laddr,
        endpoints?.lport,
        endpoints?.raddr,
        endpoints?.rport,
        endpoints?.netns,
        derived.community_id,
        netns_name,
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
        ages.heard_ms,
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
        peer_ttl,
        from_this_host,
        data_received,
        tracked,
        process_age_s,
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
        actor.by_pid,
        actor.by_comm,
        actor.by_exiting,
        transfer.unacked_bytes,
        transfer.unsent_bytes,
        transfer.stalled_ms,
        transfer.silent_ms,
        transfer.err_soft,
        mptcp,
        state_before,
        alive?.probes_answered,
        alive?.since_ns,
        alive?.answered_ns,
        alive?.answered_min_ms,
        alive?.answered_max_ms,
        alive?.rtt_min_us,
        alive?.rtt_max_us,
        alive?.survived_ages_ms,
        alive?.held_ages_ms,
        alive?.quiet_ms,
        alive?.quiet_ns,
    }
}

// Each stage moves or clones records.
const _: () = assert!(size_of::<Record>() <= 800, "a record is not to grow");

impl Record {
    /// Makes a record with only a time and an event.
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

impl Record {
    /// The time of the event, by both clocks.
    #[must_use]
    #[inline]
    pub const fn at(&self) -> Instant {
        Instant {
            mono_ns: self.mono_ns,
            wall_ns: self.time.0,
        }
    }

    /// The Community ID of the connection, if the record is about one. An `alive` record has
    /// none: nearly all records of a folder are of this kind, and a hash can't be compressed.
    fn community_id(&self) -> Value<'_> {
        let endpoints = self.endpoints.as_ref();
        let endpoints = endpoints.filter(|_| self.alive.is_none());
        let id = endpoints.and_then(Endpoints::community_id);
        id.map_or(Value::Absent, Value::CommunityId)
    }

    /// The names of the program that closed or reset the connection, else of the one that
    /// holds it: its command name, and what a runtime runs. Separated by spaces.
    #[must_use]
    pub fn closer_names(&self) -> Option<String> {
        let is_holder = self
            .actor
            .by_pid
            .is_none_or(|pid| self.process.pid == Some(pid));
        let cmdline = self.process.cmdline.as_ref().filter(|_| is_holder);
        let comm = self.actor.by_comm.as_ref().or(self.process.comm.as_ref());
        let names: Vec<_> = comm
            .into_iter()
            .chain(cmdline)
            .map(Escaped::as_str)
            .collect();
        (!names.is_empty()).then(|| names.join(" "))
    }

    /// The program that closed or reset the connection, else the one that holds it. `None`
    /// if neither is known.
    #[must_use]
    pub fn closer(&self) -> Option<String> {
        match (&self.actor.by_comm, self.actor.by_pid) {
            (Some(comm), Some(pid)) if self.process.pid != Some(pid) => {
                Some(format!("{comm}[{pid}]"))
            }
            _ => self.process.label(),
        }
    }
}

named_enum! {
    /// The name of the event that a record reports.
    #[expect(
        missing_docs,
        reason = "documented in `event::Kind`, under the same names"
    )]
    pub enum EventName {
        Probe = "probe",
        ProbeCongested = "probe_congested",
        Early = "early",
        DataPending = "data_pending",
        Busy = "busy",
        Timeout = "timeout",
        FinWait2 = "fin_wait2",
        NotRearmed = "not_rearmed",
        Unclassified = "unclassified",
        ChangedMeanwhile = "changed_meanwhile",
        RstSent = "rst_sent",
        RstReceived = "rst_received",
        FinReceived = "fin_received",
        FinSent = "fin_sent",
        Stalled = "stalled",
        /// Data that had stalled was acknowledged: a look at the socket shows it, or a later
        /// event.
        Resumed = "resumed",
        Aborted = "aborted",
        Closed = "closed",
        /// Events that could not be delivered.
        Lost = "lost",
        /// A probe was answered: the answer was seen, or inferred from later events.
        Answered = "answered",
        /// A conclusion from earlier records.
        Verdict = "verdict",
        /// A connection of the snapshot that was already dead when the trace began.
        Zombie = "zombie",
        /// The sum of the probes of a connection that the peer answered.
        Alive = "alive",
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
            Kind::ChangedMeanwhile => Self::ChangedMeanwhile,
            Kind::RstSent => Self::RstSent,
            Kind::RstReceived => Self::RstReceived,
            Kind::FinReceived => Self::FinReceived,
            Kind::FinSent => Self::FinSent,
            Kind::Stalled => Self::Stalled,
            Kind::Resumed => Self::Resumed,
            Kind::Aborted => Self::Aborted,
            Kind::Closed => Self::Closed,
            Kind::Answered => Self::Answered,
        }
    }
}
