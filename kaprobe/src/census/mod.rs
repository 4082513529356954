//! Sums up the sockets of a snapshot by program and remote end. Another process reads the
//! sockets: [`reader`].

pub mod plan;
pub mod reader;
pub mod sums;
