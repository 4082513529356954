//! Who held the sockets that a snapshot saw. Once no process holds a socket, the kernel no
//! longer tells, and the socket may live on for minutes.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashMap;

use crate::model::event::{Kind, SocketEvent};
use crate::model::flow::FlowKey;
use crate::model::owner::Owner;
use crate::model::row::Row;
use crate::model::socket::{Endpoints, Identity};

/// The processes that held sockets when a snapshot saw them.
///
/// There are many sockets, so each is known by 64 bits of a hash. Uid and cgroup stay with a
/// socket that no process holds, and belong to the hash: a later connection with the same
/// addresses is not taken for this one where another user or container made it.
#[derive(Debug)]
pub struct Holders {
    owners: HashMap<u64, Owner>,
    capacity: usize,
    hasher: RandomState,
}

impl Holders {
    /// Remembers `capacity` sockets at most.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            owners: HashMap::new(),
            capacity,
            hasher: RandomState::new(),
        }
    }

    /// Remembers the only process that held the socket of a row. Without room, it does not.
    pub fn note(&mut self, row: &Row, owner: &Owner) {
        if self.owners.len() < self.capacity {
            let key = self.key(&row.endpoints, &row.identity);
            self.owners.insert(key, owner.clone());
        }
    }

    /// The process that held the socket of an event last, if none holds it now. Forgets the
    /// socket with its end.
    pub fn last_of(&mut self, event: &SocketEvent) -> Option<Owner> {
        if self.owners.is_empty() || event.identity.inode.is_some() {
            return None;
        }
        let key = self.key(&event.endpoints, &event.identity);
        match event.kind {
            Kind::Closed => self.owners.remove(&key),
            _ => self.owners.get(&key).cloned(),
        }
    }

    fn key(&self, endpoints: &Endpoints, identity: &Identity) -> u64 {
        let of_socket = (identity.uid, identity.cgroup);
        self.hasher.hash_one((FlowKey::from(endpoints), of_socket))
    }
}
