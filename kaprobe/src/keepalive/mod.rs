//! The kernel's rules for the keepalive timer, and for data that is not acknowledged. Pure.

pub mod connection;
pub mod forecast;
pub mod retransmission;
pub mod zombie;
