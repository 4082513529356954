//! Groups of socket fields that events and records share.

use std::net::{IpAddr, Ipv4Addr};

use crate::model::community_id::CommunityId;
use crate::model::field::group;
use crate::model::values::{Errno, Family, Origin};
use crate::model::workload::Workload;
use crate::text::escape::Escaped;

group! {
    /// Addresses, ports and network namespace of a socket. An IPv4-mapped address stays
    /// mapped, because the socket is AF_INET6.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Endpoints {
        /// Address family of the socket; inet6 also if it carries IPv4.
        family: Family,
        /// Local address.
        laddr: IpAddr,
        /// Local port.
        lport: u16,
        /// Remote address.
        raddr: IpAddr,
        /// Remote port.
        rport: u16,
        /// Network namespace, inode number.
        netns: u32,
    }
}

/// The first port of clients: the default of net.ipv4.ip_local_port_range.
const FIRST_CLIENT_PORT: u16 = 32_768;

impl Default for Endpoints {
    fn default() -> Self {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self::new((any, 0), (any, 0), 0)
    }
}

impl Endpoints {
    /// Makes endpoints whose family is that of the local address.
    #[must_use]
    #[inline]
    pub fn new((laddr, lport): (IpAddr, u16), (raddr, rport): (IpAddr, u16), netns: u32) -> Self {
        let family = if laddr.is_ipv4() {
            Family::Inet
        } else {
            Family::Inet6
        };
        Self {
            family,
            laddr,
            lport,
            raddr,
            rport,
            netns,
        }
    }

    /// Whether the ports are those of a connection that this host accepted.
    #[must_use]
    pub const fn seem_accepted(&self) -> bool {
        self.rport >= FIRST_CLIENT_PORT && self.lport < FIRST_CLIENT_PORT
    }

    /// Whether the ports are those of a connection that this host initiated.
    #[must_use]
    pub const fn seem_initiated(&self) -> bool {
        self.lport >= FIRST_CLIENT_PORT && self.rport < FIRST_CLIENT_PORT
    }

    /// The local address and port.
    #[must_use]
    pub const fn local(&self) -> (IpAddr, u16) {
        (self.laddr, self.lport)
    }

    /// The remote address and port.
    #[must_use]
    pub const fn remote(&self) -> (IpAddr, u16) {
        (self.raddr, self.rport)
    }

    /// The Community ID of the connection. `None` for a listener.
    #[must_use]
    pub fn community_id(&self) -> Option<CommunityId> {
        CommunityId::of(self.local(), self.remote())
    }
}

group! {
    /// Inode, cookie, owner and cgroup of a socket.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Identity {
        /// Inode number in sockfs; absent for an orphan.
        inode: Option<u64>,
        /// Socket cookie, if the kernel has assigned one.
        cookie: Option<u64>,
        /// uid of the socket's owner, in the initial user namespace.
        uid: Option<u32>,
        /// cgroup v2 id.
        cgroup: Option<u64>,
        /// No process holds the socket any more.
        orphan: Option<bool>,
    }
}

group! {
    /// The process that holds a socket, if known.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Process {
        /// Process ID.
        pid: Option<u32>,
        /// Command name.
        comm: Option<Escaped>,
        /// What a runtime runs, such as `java -jar broker.jar`; absent for other programs.
        cmdline: Option<Escaped>,
        /// systemd unit, from the cgroup of the process. In a container, the unit of the
        /// systemd that runs there.
        unit: Option<Escaped>,
        /// The container: its name, or the first 12 digits of its id if the name is not
        /// known.
        container: Option<Escaped>,
        /// Id of the container.
        container_id: Option<Escaped>,
        /// Name of the Kubernetes pod.
        pod: Option<Escaped>,
        /// Kubernetes namespace of the pod.
        pod_namespace: Option<Escaped>,
        /// uid of the pod.
        pod_uid: Option<Escaped>,
    }
}

impl Process {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self {
        pid: None,
        comm: None,
        cmdline: None,
        unit: None,
        container: None,
        container_id: None,
        pod: None,
        pod_namespace: None,
        pod_uid: None,
    };

    /// The process for people: what a runtime runs or the command name, its PID, and the
    /// place where it runs. `None` if it is not known.
    #[must_use]
    pub fn label(&self) -> Option<String> {
        let (name, pid) = (self.cmdline.as_ref().or(self.comm.as_ref())?, self.pid?);
        Some(format!("{name}[{pid}]{}", self.workload().suffix()))
    }

    /// The unit, the container and the pod.
    #[must_use]
    pub fn workload(&self) -> Workload {
        Workload {
            unit: self.unit.clone(),
            container: self.container.clone(),
            pod: self.pod.clone(),
            pod_namespace: self.pod_namespace.clone(),
        }
    }
}

group! {
    /// The process that closed or reset a connection. The process that holds the socket
    /// may be another.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Actor {
        /// Process ID.
        by_pid: Option<u32>,
        /// Command name.
        by_comm: Option<Escaped>,
        /// The process was ending: the kernel closed its sockets.
        by_exiting: Option<bool>,
    }
}

group! {
    /// Data that was sent and is not acknowledged, and what became of it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Transfer {
        /// Bytes sent and not acknowledged.
        unacked_bytes: Option<u32>,
        /// Bytes that wait to be sent.
        unsent_bytes: Option<u32>,
        /// Time since the oldest of these data was first sent, ms; for a shut window, since
        /// it was first to be probed.
        stalled_ms: Option<u64>,
        /// Time for which nothing was received before these data were sent, ms.
        silent_ms: Option<u64>,
        /// The last error that ICMP reported for this connection (`sk_err_soft`).
        err_soft: Option<Errno>,
    }
}

group! {
    /// The keepalive settings in force, and the origin of each.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Settings {
        /// SO_KEEPALIVE is on.
        keepalive: Option<bool>,
        /// Idle time before the first probe, ms.
        keepalive_time_ms: Option<u64>,
        /// Origin of the idle time.
        keepalive_time_from: Option<Origin>,
        /// Time between probes, ms.
        keepalive_intvl_ms: Option<u64>,
        /// Origin of the interval.
        keepalive_intvl_from: Option<Origin>,
        /// Unanswered probes after which the kernel gives up.
        keepalive_probes: Option<u64>,
        /// Origin of the probe count.
        keepalive_probes_from: Option<Origin>,
        /// TCP_USER_TIMEOUT, ms.
        user_timeout_ms: Option<u32>,
        /// Origin of TCP_USER_TIMEOUT: always the socket, there is no sysctl.
        user_timeout_from: Option<Origin>,
    }
}

impl Settings {
    /// The keepalive options that are set on the socket while SO_KEEPALIVE is off, as
    /// `NAME=VALUE`. The kernel keeps them, and sends no probe (`tcp_keepalive_timer`,
    /// net/ipv4/tcp_timer.c). `None` if there are none.
    #[must_use]
    pub fn unused_options(&self) -> Option<String> {
        let seconds = |ms: Option<u64>| ms.map(|it| it / 1_000);
        let options = [
            (
                "TCP_KEEPIDLE",
                seconds(self.keepalive_time_ms),
                self.keepalive_time_from,
            ),
            (
                "TCP_KEEPINTVL",
                seconds(self.keepalive_intvl_ms),
                self.keepalive_intvl_from,
            ),
            (
                "TCP_KEEPCNT",
                self.keepalive_probes,
                self.keepalive_probes_from,
            ),
        ];
        let own = options.into_iter().filter_map(|(name, value, from)| {
            (from == Some(Origin::Socket)).then(|| value.map(|it| format!("{name}={it}")))?
        });
        let own: Vec<_> = own.collect();
        (self.keepalive == Some(false) && !own.is_empty()).then(|| own.join(" "))
    }
}

group! {
    /// Ages of the last traffic, ms.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ages {
        /// Time since data or an acknowledgement was received, ms. The kernel compares it
        /// with the keepalive time (`keepalive_time_elapsed`, include/net/tcp.h).
        idle_ms: Option<u64>,
        /// Time since any segment of the peer was received, ms: data, an acknowledgement, or
        /// one outside the window, as the keepalive probes of a peer are
        /// (`last_oow_ack_time`, include/linux/tcp.h). Absent if it is not known.
        heard_ms: Option<u64>,
        /// Time since data was received, ms (ss: lastrcv).
        lastrcv_ms: Option<u64>,
        /// Time since an acknowledgement was received, ms (ss: lastack).
        lastack_ms: Option<u64>,
        /// Time since data was sent, ms (ss: lastsnd).
        lastsnd_ms: Option<u64>,
    }
}

impl Ages {
    /// Makes the ages of a socket that has been connected. Whether its peer sent probes is not
    /// known.
    #[must_use]
    #[inline]
    pub fn new(lastrcv_ms: u64, lastack_ms: u64, lastsnd_ms: u64) -> Self {
        Self {
            idle_ms: Some(lastrcv_ms.min(lastack_ms)),
            heard_ms: None,
            lastrcv_ms: Some(lastrcv_ms),
            lastack_ms: Some(lastack_ms),
            lastsnd_ms: Some(lastsnd_ms),
        }
    }

    /// Time for which nothing of the peer was received, ms, as far as it is known.
    #[must_use]
    pub fn quiet_ms(&self) -> Option<u64> {
        self.heard_ms.or(self.idle_ms)
    }

    /// Time since a probe of the peer was received, ms, if that is the last that was heard of
    /// it. Other segments from outside the window look the same, and are rare.
    #[must_use]
    pub fn probed_ms(&self) -> Option<u64> {
        let (heard_ms, idle_ms) = (self.heard_ms?, self.idle_ms?);
        (heard_ms < idle_ms).then_some(heard_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::assessment::Assessment;
    use crate::model::field::Fields as _;
    use crate::model::record::Record;
    use crate::model::row::Row;

    /// A record, the names of its fields, its schema, and where the schema lists fields.
    const RECORDS: [(&str, &[&str], &str, &str); 3] = [
        (
            "Record",
            Record::NAMES,
            include_str!("../../../schema/kaprobe-log.schema.json"),
            "/$defs/record/properties",
        ),
        (
            "Row",
            Row::NAMES,
            include_str!("../../../schema/kaprobe-sockets.schema.json"),
            "/properties",
        ),
        (
            "Assessment",
            Assessment::NAMES,
            include_str!("../../../schema/kaprobe-audit.schema.json"),
            "/$defs/finding/properties",
        ),
    ];

    /// The facts of a socket that a record does not write, and why.
    const LEFT_OUT: [(&str, &[&str], &str); 3] = [
        (
            "Assessment",
            &["cookie", "uid", "cgroup", "orphan"],
            "an audit names a socket by its inode, and only sees those that a file holds",
        ),
        (
            "Assessment",
            &["lastrcv_ms", "lastack_ms"],
            "the lesser of the two is idle_ms, which the timeout is compared with",
        ),
        (
            "Assessment",
            &["user_timeout_from"],
            "only the socket can set it",
        ),
    ];

    #[test]
    fn every_record_writes_every_fact_of_a_socket() {
        let groups = [
            Endpoints::NAMES,
            Identity::NAMES,
            Process::NAMES,
            Settings::NAMES,
            Ages::NAMES,
        ];
        for (record, names, ..) in RECORDS {
            let of_record = LEFT_OUT.iter().filter(|it| it.0 == record);
            let left_out: Vec<_> = of_record.flat_map(|(_, facts, _)| *facts).collect();
            for fact in groups.concat() {
                assert_ne!(
                    names.contains(&fact),
                    left_out.contains(&&fact),
                    "{fact} in {record}: order it, or leave it out and say why, not both"
                );
            }
        }
    }

    #[test]
    fn every_schema_has_the_fields_of_its_record() -> serde_json::Result<()> {
        for (record, names, schema, place) in RECORDS {
            let schema: serde_json::Value = serde_json::from_str(schema)?;
            let fields = schema.pointer(place).and_then(|it| it.as_object());
            let mut documented: Vec<_> = fields.into_iter().flat_map(|it| it.keys()).collect();
            let mut names = names.to_vec();
            // The writer of the lines adds the version.
            documented.retain(|name| *name != "version");
            documented.sort_unstable();
            names.sort_unstable();
            assert_eq!(documented, names, "{record}");
        }
        Ok(())
    }
}
