//! From records to verdicts: why a connection ended, how sure that is, what it rests
//! on, and what to set.
//!
//! No clock, no I/O, no randomness, bounded memory; what was lost makes no verdict surer.

mod finding;
pub mod judge;
pub mod pipeline;
mod remedies;
mod rules;
mod words;

#[cfg(test)]
mod tests;
