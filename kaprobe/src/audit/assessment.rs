//! An assessment: a connection, its fate, and what would save it.
//!
//! The meaning of the fields is also in `schema/kaprobe-audit.schema.json`, which a test
//! holds to the same names.

use crate::audit::advice::advise;
use crate::audit::judge::judge;
use crate::keepalive::connection::Connection;
use crate::model::fate::{Fate, Why};
use crate::model::field::record;
use crate::model::remedy::SetIn;
use crate::model::row::Row;
use crate::model::socket::{Ages, Endpoints, Identity, Process, Settings};
use crate::model::time::WallTime;
use crate::model::values::Cause;
use crate::text::escape::Escaped;
use crate::timeout::timeouts::Timeouts;

record! {
    /// A connection and its fate. What is also in a row of `kaprobe sockets` has the
    /// same name there. A field that does not apply, or is not known, is absent.
    Assessment {
        /// When, by the wall clock.
        time: WallTime,
        /// When, CLOCK_MONOTONIC, ns.
        mono_ns: u64,
        /// What becomes of it.
        fate: Fate,
        /// Who the socket is between.
        endpoints: Endpoints,
        /// Why it is no better.
        why: Option<Why>,
        /// The idle timeout that it is judged by, ms.
        timeout_ms: Option<u64>,
        /// Who has that timeout.
        timeout_of: Option<Escaped>,
        /// Name of the network namespace, as `ip netns` lists it.
        netns_name: Option<Escaped>,
        /// Who holds the socket.
        process: Process,
        /// Which socket it is.
        identity: Identity,
        /// Somebody listens on the local port in its namespace: it was accepted.
        accepted: Option<bool>,
        /// Its keepalive settings.
        settings: Settings,
        /// How long ago anything passed.
        ages: Ages,
        /// Until the keepalive timer fires, ms.
        keepalive_next_ms: Option<u64>,
        /// Unanswered probes.
        probes_out: Option<u32>,
        /// The longest silence that the settings let pass while the peer answers, ms.
        silence_ms: Option<u64>,
        /// How many probes are sent before the timeout, however late timers fire.
        probes_in_time: Option<u64>,
        /// How many of them may be lost without an end to the connection.
        probes_spare: Option<u64>,
        /// In how long keepalive would give up, ms, if the peer were gone.
        dead_in_ms: Option<u64>,
        /// By which rule.
        dead_by: Option<Cause>,
        /// Where a setting would save it.
        set_in: Option<SetIn>,
        /// That setting, or those, in this order.
        set: Option<Escaped>,
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
        why,
        timeout_ms,
        timeout_of,
        netns_name,
        process.pid,
        process.comm,
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
        ages.idle_ms,
        ages.lastsnd_ms,
        keepalive_next_ms,
        probes_out,
        silence_ms,
        probes_in_time,
        probes_spare,
        dead_in_ms,
        dead_by,
        set_in,
        set,
    }
}

impl Assessment {
    /// Judges a row.
    #[must_use]
    pub fn of(row: &Row, accepted: bool, timeouts: &Timeouts) -> Self {
        let connection = Connection::from_row(row);
        let timeout = timeouts.towards(row.endpoints.remote());
        let judgement = judge(connection.as_ref(), timeout.as_ref());
        let advice = connection
            .as_ref()
            .zip(timeout.as_ref())
            .and_then(|(connection, timeout)| advise(connection, &judgement, timeout));
        let is_on = row.settings.keepalive == Some(true);
        Self {
            time: row.time,
            mono_ns: row.mono_ns,
            fate: judgement.fate,
            why: judgement.why,
            endpoints: row.endpoints,
            timeout_ms: timeout.as_ref().map(|it| it.ms),
            timeout_of: timeout.map(|it| it.of),
            netns_name: row.netns_name.clone(),
            process: row.process.clone(),
            identity: row.identity,
            accepted: Some(accepted),
            settings: row.settings,
            ages: row.ages,
            keepalive_next_ms: row.keepalive_next_ms,
            probes_out: row.probes_out,
            silence_ms: connection.filter(|_| is_on).map(|it| it.silence_ms()),
            probes_in_time: judgement.in_time,
            probes_spare: judgement.spare,
            dead_in_ms: row.dead_in_ms,
            dead_by: row.dead_by,
            set_in: advice.map(|it| it.set_in),
            set: advice.map(|it| Escaped::from(it.to_string().as_str())),
        }
    }

    /// Whether it has a file, and nobody who may be looked at holds it.
    #[must_use]
    pub fn is_ownerless(&self) -> bool {
        self.identity.inode.is_some() && self.process.pid.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::field::Fields as _;

    #[test]
    fn the_schema_has_the_same_fields() -> serde_json::Result<()> {
        let schema = include_str!("../../../schema/kaprobe-audit.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema)?;
        let properties = schema["$defs"]["finding"]["properties"].as_object();
        let mut documented: Vec<_> = properties.into_iter().flat_map(|it| it.keys()).collect();
        let mut names = Assessment::NAMES.to_vec();
        documented.sort();
        names.sort_unstable();
        assert_eq!(documented, names);
        Ok(())
    }
}
