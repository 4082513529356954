//! kaprobe: is TCP keepalive working on this connection, and why did this idle
//! connection die?
//!
//! The binary is a thin shell around this library, so that tests, benches and fuzz
//! targets reach the same code. Its interface is not stable.

pub mod agent;
pub mod audit;
mod census;
pub mod cli;
pub mod condense;
pub mod containers;
pub mod correlate;
pub mod demo;
pub mod doctor;
pub mod exit;
pub mod explain;
pub mod filter;
pub mod glossary;
pub mod host;
mod keepalive;
pub mod kernel;
mod lru;
pub mod manual;
pub mod memory;
mod messages;
pub mod metrics;
pub mod model;
mod output_file;
pub mod owners;
mod programs;
pub mod record;
pub mod replay;
pub mod report;
#[cfg(test)]
mod sample;
mod shutdown;
pub mod sink;
pub mod sockets;
pub mod stderr;
mod stop;
pub mod text;
mod timeout;
pub mod top;
pub mod trace;
pub mod traffic;
pub mod verdict;
pub mod version;
