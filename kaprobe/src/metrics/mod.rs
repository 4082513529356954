//! Counts the records of a trace for Prometheus, by program and remote end. Pure.
//!
//! Memory is bounded, and so is the number of series: [`series`] says how. Nothing that is
//! encoded is shared with the thread that counts: it hands out a [`snapshot`] now and then, and
//! goes on.

pub mod aggregator;
pub mod counts;
pub mod exposition;
pub mod families;
pub mod gauges;
pub mod key;
mod series;
pub mod snapshot;
#[cfg(test)]
mod tests;
