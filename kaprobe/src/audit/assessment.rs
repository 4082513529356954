//! An assessment: a connection, its fate, and the settings that save it.
//!
//! `schema/kaprobe-audit.schema.json` documents the fields too. A test checks that the
//! names are the same.

use crate::audit::advice::advise;
use crate::audit::judge::judge;
use crate::audit::silence::{ConnectionSilences, ObservedSilence, ObservedSilences};
use crate::keepalive::connection::Connection;
use crate::model::fate::{Fate, Why};
use crate::model::field::{Value, record};
use crate::model::owner::Owner;
use crate::model::remedy::{ProgramAdvice, Remedy, SetIn};
use crate::model::row::Row;
use crate::model::socket::{Ages, Endpoints, Identity, Settings, Transfer};
use crate::model::time::WallTime;
use crate::model::values::Cause;
use crate::programs::settings;
use crate::programs::table::{ConnectionSide, find};
use crate::text::escape::Escaped;
use crate::timeout::middlebox::Answer;
use crate::timeout::timeouts::{Timeout, Timeouts};

/// Version of this format, which each JSON line bears. The major number changes when a reader
/// of the old format would misread the new one.
pub const VERSION: &str = "1.0";

record! {
    /// A connection and its fate. Fields that rows of `kaprobe sockets` have too have the
    /// same names. A field that does not apply, or is not known, is absent.
    pub struct Assessment {
        /// Time of reading, wall clock.
        time: WallTime,
        /// Time of reading, CLOCK_MONOTONIC, ns.
        mono_ns: u64,
        /// The fate of the connection.
        fate: Fate,
        /// Local and remote address and port.
        endpoints: Endpoints,
        /// The reason for a fate that is not `safe`.
        why: Option<Why>,
        /// The idle timeout used for the fate, ms.
        timeout_ms: Option<u64>,
        /// The middlebox or flag that the timeout comes from.
        timeout_of: Option<Escaped>,
        /// Further details of that timeout: what applies it, and how it is known to be on
        /// the path.
        timeout_about: Option<Escaped>,
        /// Name of the network namespace, as `ip netns` lists it.
        netns_name: Option<Escaped>,
        /// The process that holds the socket.
        process: Owner,
        /// Inode, cookie, uid and cgroup.
        identity: Identity,
        /// The connection was accepted: a socket listens on the local port.
        accepted: Option<bool>,
        /// Keepalive settings of the socket.
        settings: Settings,
        /// The keepalive options that are set on the socket while SO_KEEPALIVE is off, and so do
        /// nothing.
        unused_options: Option<Escaped>,
        /// Ages of the last traffic.
        ages: Ages,
        /// The longest silence that was observed. If probes do not restart the timeout,
        /// only data ends a silence; otherwise every segment from the peer does, its probes
        /// included.
        observed: ObservedSilence,
        /// Time until the keepalive timer fires, ms.
        keepalive_next_ms: Option<u64>,
        /// Unanswered probes.
        probes_out: Option<u8>,
        /// The longest silence that the settings allow while the peer answers, ms.
        silence_ms: Option<u64>,
        /// Number of probes sent before the timeout, even if timers fire late.
        probes_in_time: Option<u64>,
        /// Number of these probes that may be lost without losing the connection.
        probes_spare: Option<u64>,
        /// Time until the kernel gives up if the peer is gone, ms.
        dead_in_ms: Option<u64>,
        /// The rule by which the kernel gives up then.
        dead_by: Option<Cause>,
        /// Consecutive retransmissions of the oldest unacknowledged segment.
        retransmits: Option<u8>,
        /// What was sent in vain, if data was sent again or a shut window is probed.
        transfer: Transfer,
        /// Where to change a setting that saves the connection.
        set_in: Option<SetIn>,
        /// The settings to change, in this order.
        set: Option<Escaped>,
        /// The socket options that do the same as these sysctls.
        socket_set: Option<Escaped>,
        /// The settings to change in the words of the program.
        own: ProgramAdvice,
    }
    order {
        time,
        mono_ns,
        fate,
        endpoints.netns,
        endpoints.family,
        endpoints.laddr,
        endpoints.lport,
        endpoints.raddr,
        endpoints.rport,
        derived.community_id,
        why,
        timeout_ms,
        timeout_of,
        timeout_about,
        netns_name,
        process.pid,
        process.comm,
        process.cmdline,
        process.unit,
        process.container,
        process.container_id,
        process.pod,
        process.pod_namespace,
        process.pod_uid,
        identity.inode,
        accepted,
        settings.keepalive,
        settings.keepalive_time_ms,
        settings.keepalive_time_from,
        settings.keepalive_intvl_ms,
        settings.keepalive_intvl_from,
        settings.keepalive_probes,
        settings.keepalive_probes_from,
        settings.user_timeout_ms,
        unused_options,
        ages.idle_ms,
        ages.heard_ms,
        ages.lastsnd_ms,
        observed.observed_ms,
        observed.observed_silence_min_ms,
        observed.observed_silence_max_ms,
        observed.outlived_silence_ms,
        keepalive_next_ms,
        probes_out,
        silence_ms,
        probes_in_time,
        probes_spare,
        dead_in_ms,
        dead_by,
        retransmits,
        transfer.unacked_bytes,
        transfer.unsent_bytes,
        transfer.stalled_ms,
        transfer.silent_ms,
        transfer.err_soft,
        set_in,
        set,
        socket_set,
        own.program,
        own.program_set,
        own.program_apply,
        own.program_reaches,
        own.program_sysctl,
        own.program_or,
    }
}

impl Assessment {
    /// The Community ID of the connection.
    fn community_id(&self) -> Value<'_> {
        let id = self.endpoints.community_id();
        id.map_or(Value::Absent, Value::CommunityId)
    }

    /// Assesses a row, with the silences of the connection if it was observed.
    #[must_use]
    pub(super) fn of(
        row: &Row,
        accepted: bool,
        timeouts: &Timeouts,
        silences: Option<&ConnectionSilences>,
    ) -> Self {
        let connection = Connection::from_row(row);
        let timeout = timeouts.of(&row.endpoints);
        let observed = silences.map_or_else(ObservedSilences::default, |it| {
            observed(it, timeout.as_ref())
        });
        let judgement = judge(connection.as_ref(), timeout.as_ref(), &observed);
        let unused_options = row.settings.unused_options();
        let advice = match (&connection, &timeout) {
            (Some(connection), Some(timeout)) => advise(connection, &judgement, timeout),
            // The options show that keepalive is wanted, whatever the timeout is.
            _ if judgement.why == Some(Why::NoTimeout) && unused_options.is_some() => {
                Some(Remedy::SWITCH)
            }
            _ => None,
        };
        let is_on = row.settings.keepalive == Some(true);
        Self {
            time: row.time,
            mono_ns: row.mono_ns,
            fate: judgement.fate,
            why: judgement.why,
            endpoints: row.endpoints,
            timeout_ms: timeout.as_ref().map(|it| it.ms),
            timeout_about: timeout.as_ref().map(|it| Escaped::from_escaped(&it.about)),
            timeout_of: timeout.map(|it| it.of),
            netns_name: row.netns_name.clone(),
            process: row.process.clone(),
            identity: row.identity,
            accepted: Some(accepted),
            settings: row.settings,
            unused_options: unused_options.map(|it| Escaped::from(it.as_str())),
            ages: row.ages,
            observed: observed.that_count,
            keepalive_next_ms: row.keepalive_next_ms,
            probes_out: row.probes_out,
            silence_ms: connection.filter(|_| is_on).map(|it| it.silence_ms()),
            probes_in_time: judgement.probes_in_time,
            probes_spare: judgement.probes_spare,
            dead_in_ms: row.dead_in_ms,
            dead_by: row.dead_by,
            retransmits: row.retransmits,
            transfer: row.transfer,
            set_in: advice.map(|it| it.set_in),
            set: advice.map(text),
            socket_set: advice.filter(|it| it.set_in == SetIn::Sysctl).map(|it| {
                text(Remedy {
                    set_in: SetIn::Program,
                    ..it
                })
            }),
            own: advice
                // A reload with the same value arms no timer anew.
                .filter(|_| judgement.why != Some(Why::LateTimer))
                .and_then(|it| in_words_of(row, accepted, &it))
                .unwrap_or_default(),
        }
    }

    /// Assesses a row of a connection that was not observed.
    #[must_use]
    pub(crate) fn unobserved(row: &Row, accepted: bool, timeouts: &Timeouts) -> Self {
        Self::of(row, accepted, timeouts, None)
    }

    /// The silence that a probe of the peer ended, if such probes keep the connection alive.
    pub(super) fn peer_probes_after_ms(&self) -> Option<u64> {
        let after_ms = self.ages.idle_ms?.checked_sub(self.ages.heard_ms?);
        after_ms.filter(|_| self.fate == Fate::KeptByPeer)
    }

    /// Whether the socket has a file but no readable process holds it.
    #[must_use]
    pub fn is_ownerless(&self) -> bool {
        self.identity.inode.is_some() && self.process.pid.is_none()
    }
}

/// The fate of a row's connection, as an assessment has it; made with much less work.
#[must_use]
pub(crate) fn fate(row: &Row, timeouts: &Timeouts) -> Fate {
    let connection = Connection::from_row(row);
    let timeout = timeouts.of(&row.endpoints);
    let unobserved = ObservedSilences::default();
    judge(connection.as_ref(), timeout.as_ref(), &unobserved).fate
}

/// The silences that matter for this timeout. What the connection outlived is kept if it
/// contradicts the timeout.
fn observed(silences: &ConnectionSilences, timeout: Option<&Timeout>) -> ObservedSilences {
    let is_of_data = timeout.is_some_and(|it| it.refreshed == Answer::No);
    let (that_count, of_traffic) = if is_of_data {
        (silences.between_data(), silences.between_data())
    } else {
        (silences.between_segments(), silences.between_traffic())
    };
    let contradicts = |ms: &u64| timeout.is_some_and(|it| *ms > it.expired_ms);
    ObservedSilences {
        that_count: ObservedSilence {
            outlived_silence_ms: that_count.outlived_silence_ms.filter(contradicts),
            ..that_count
        },
        of_traffic,
    }
}

fn text(remedy: Remedy) -> Escaped {
    Escaped::from(remedy.to_string().as_str())
}

/// The remedy in the words of the program that holds the connection.
fn in_words_of(row: &Row, accepted: bool, remedy: &Remedy) -> Option<ProgramAdvice> {
    let side = if accepted {
        ConnectionSide::Accepted
    } else {
        ConnectionSide::Initiated
    };
    let program = find(&row.process, side, row.endpoints.rport)?;
    settings::in_words_of(program, remedy, &row.settings)
}
