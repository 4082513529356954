//! The kernel's rules for the keepalive timer. Pure.

pub mod connection;
pub mod forecast;
pub mod zombie;
