//! What kaprobe speaks of: events, records, sockets, and the names of their values. It
//! knows no rule.

pub mod attach_mode;
pub mod event;
pub mod fate;
pub mod flow;
pub mod named;
pub mod record;
pub mod row;
