//! The rules of the keepalive timer, as the kernel has them. Pure.

pub mod connection;
pub mod forecast;
pub mod zombie;
