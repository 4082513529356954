//! Data types: events, records, sockets, and the names of their values. No logic.

pub mod advice;
pub mod alive;
pub mod attach_mode;
pub mod community_id;
pub mod event;
pub mod fate;
pub mod field;
pub mod flow;
pub mod header;
pub mod host_timeout;
pub mod named;
pub mod owner;
pub mod owner_fds;
pub mod peer_group;
pub mod peers;
pub mod record;
pub mod remedy;
pub mod row;
pub mod segment;
pub mod socket;
pub mod tally;
pub mod time;
pub mod timeouts_change;
pub mod trailer;
pub mod values;
pub mod workload;
