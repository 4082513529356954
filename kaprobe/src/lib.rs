//! kaprobe: is TCP keepalive working on this connection, and why did this idle
//! connection die?
//!
//! The binary is a thin shell around this library, so that tests, benches and fuzz
//! targets reach the same code. It is no stable interface.

pub mod audit;
pub mod cli;
pub mod correlate;
pub mod demo;
pub mod doctor;
pub mod ending;
pub mod ends;
pub mod escape;
pub mod event;
pub mod exit;
pub mod filter;
pub mod histogram;
pub mod host;
pub mod kernel;
pub mod memory;
pub mod plan;
pub mod ports;
mod recent;
pub mod record;
pub mod replay;
pub mod report;
#[cfg(test)]
mod sample;
pub mod sink;
pub mod sockets;
pub mod source;
pub mod trace;
pub mod traffic;
pub mod values;
pub mod verdict;
pub mod way;
pub mod words;
mod wrap;
