//! A connection as a packet names it.

use std::net::IpAddr;

use crate::event::SocketEvent;
use crate::record::Record;
use crate::sockets::row::Row;

/// Both ends, and where. IPv4 over an IPv6 socket is the same as without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// This host's.
    pub local: (IpAddr, u16),
    /// The other.
    pub remote: (IpAddr, u16),
    /// The network namespace, inode number.
    pub netns: u32,
}

impl Ends {
    /// Those of a record, where it is about a connection.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        Some(Self {
            local: (record.laddr?.to_canonical(), record.lport?),
            remote: (record.raddr?.to_canonical(), record.rport?),
            netns: record.netns?,
        })
    }
}

impl From<&Row> for Ends {
    fn from(row: &Row) -> Self {
        Self {
            local: (row.laddr.to_canonical(), row.lport),
            remote: (row.raddr.to_canonical(), row.rport),
            netns: row.netns,
        }
    }
}

impl From<&SocketEvent> for Ends {
    fn from(event: &SocketEvent) -> Self {
        Self {
            local: (event.laddr.to_canonical(), event.lport),
            remote: (event.raddr.to_canonical(), event.rport),
            netns: event.netns,
        }
    }
}
