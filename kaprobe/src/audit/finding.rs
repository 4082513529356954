//! What is told of a connection. The fields are declared once; their meaning is also in
//! `schema/kaprobe-audit.schema.json`, which a test holds to the same names.

#![expect(
    clippy::too_many_arguments,
    reason = "a finding is made from all the fields that every one has"
)]

use std::net::IpAddr;

use crate::audit::advice::{Place, advise};
use crate::audit::judge::judge;
use crate::keepalive::connection::Connection;
use crate::model::event::{Cause, Origin};
use crate::model::fate::{Fate, Why};
use crate::model::record::{Family, WallTime, record};
use crate::model::row::Row;
use crate::text::escape::Escaped;
use crate::timeout::timeouts::Timeouts;

record! {
    /// A connection and its fate. What is also in a row of `kaprobe sockets` has the
    /// same name there. A field that does not apply, or is not known, is absent.
    Finding
    required {
        /// When, by the wall clock.
        time: WallTime,
        /// When, CLOCK_MONOTONIC, ns.
        mono_ns: u64,
        /// What becomes of it.
        fate: Fate,
        /// Network namespace, inode number.
        netns: u32,
        /// Address family of the socket; of one that carries IPv4 over AF_INET6, inet6.
        family: Family,
        /// Local address.
        laddr: IpAddr,
        /// Local port.
        lport: u16,
        /// Remote address.
        raddr: IpAddr,
        /// Remote port.
        rport: u16,
    }
    optional {
        /// Why it is no better.
        why: Why,
        /// The idle timeout that it is judged by, ms.
        timeout_ms: u64,
        /// Who has that timeout.
        timeout_of: Escaped,
        /// Name of the network namespace, as `ip netns` lists it.
        netns_name: Escaped,
        /// A process that holds the socket.
        pid: u32,
        /// Its command.
        comm: Escaped,
        /// Inode number in sockfs.
        inode: u64,
        /// Somebody listens on the local port in its namespace: it was accepted.
        accepted: bool,
        /// SO_KEEPALIVE is on.
        keepalive: bool,
        /// Idle time before the first probe, ms.
        keepalive_time_ms: u64,
        /// Who set it.
        keepalive_time_from: Origin,
        /// Time between probes, ms.
        keepalive_intvl_ms: u64,
        /// Who set it.
        keepalive_intvl_from: Origin,
        /// Unanswered probes after which the kernel gives up.
        keepalive_probes: u64,
        /// Who set it.
        keepalive_probes_from: Origin,
        /// TCP_USER_TIMEOUT, ms.
        user_timeout_ms: u32,
        /// Since anything came from the peer, ms.
        idle_ms: u64,
        /// Since data was sent, ms.
        lastsnd_ms: u64,
        /// Until the keepalive timer fires, ms.
        keepalive_next_ms: u64,
        /// Unanswered probes.
        probes_out: u32,
        /// The longest silence that the settings let pass while the peer answers, ms.
        silence_ms: u64,
        /// How many probes are sent before the timeout, however late timers fire.
        probes_in_time: u64,
        /// How many of them may be lost without an end to the connection.
        probes_spare: u64,
        /// In how long keepalive would give up, ms, if the peer were gone.
        dead_in_ms: u64,
        /// By which rule.
        dead_by: Cause,
        /// Where a setting would save it.
        set_in: Place,
        /// That setting, or those, in this order.
        set: Escaped,
    }
}

impl Finding {
    /// Judges a row.
    #[must_use]
    pub fn of(row: &Row, accepted: bool, timeouts: &Timeouts) -> Self {
        let connection = Connection::of(row);
        let timeout = timeouts.towards((row.raddr, row.rport));
        let judgement = judge(connection.as_ref(), timeout.as_ref());
        let advice = connection
            .as_ref()
            .zip(timeout.as_ref())
            .and_then(|(connection, timeout)| advise(connection, &judgement, timeout));
        let is_on = row.keepalive == Some(true);
        Self {
            why: judgement.why,
            timeout_ms: timeout.as_ref().map(|it| it.ms),
            timeout_of: timeout.map(|it| it.of),
            netns_name: row.netns_name.clone(),
            pid: row.pid,
            comm: row.comm.clone(),
            inode: row.inode,
            accepted: Some(accepted),
            keepalive: row.keepalive,
            keepalive_time_ms: row.keepalive_time_ms,
            keepalive_time_from: row.keepalive_time_from,
            keepalive_intvl_ms: row.keepalive_intvl_ms,
            keepalive_intvl_from: row.keepalive_intvl_from,
            keepalive_probes: row.keepalive_probes,
            keepalive_probes_from: row.keepalive_probes_from,
            user_timeout_ms: row.user_timeout_ms,
            idle_ms: row.idle_ms,
            lastsnd_ms: row.lastsnd_ms,
            keepalive_next_ms: row.keepalive_next_ms,
            probes_out: row.probes_out,
            silence_ms: connection.filter(|_| is_on).map(|it| it.silence_ms()),
            probes_in_time: judgement.in_time,
            probes_spare: judgement.spare,
            dead_in_ms: row.dead_in_ms,
            dead_by: row.dead_by,
            set_in: advice.map(|it| it.place),
            set: advice.map(|it| Escaped::from(it.to_string().as_str())),
            ..Self::new(
                row.time,
                row.mono_ns,
                judgement.fate,
                row.netns,
                row.family,
                row.laddr,
                row.lport,
                row.raddr,
                row.rport,
            )
        }
    }

    /// Whether it has a file, and nobody who may be looked at holds it.
    #[must_use]
    pub fn is_ownerless(&self) -> bool {
        self.inode.is_some() && self.pid.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_the_same_fields() -> serde_json::Result<()> {
        let schema = include_str!("../../../schema/kaprobe-audit.schema.json");
        let schema: serde_json::Value = serde_json::from_str(schema)?;
        let properties = schema["$defs"]["finding"]["properties"].as_object();
        let mut documented: Vec<_> = properties.into_iter().flat_map(|it| it.keys()).collect();
        let mut names = Finding::NAMES.to_vec();
        documented.sort();
        names.sort_unstable();
        assert_eq!(documented, names);
        Ok(())
    }
}
