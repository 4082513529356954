//! Turns records into verdicts: why a connection ended, with what confidence, on which
//! evidence, and which setting to change.
//!
//! No clock, no I/O, no randomness; memory is bounded. A lost event never raises the
//! confidence of a verdict.

mod closes;
mod ending_words;
mod finding;
pub mod judge;
mod own_settings;
mod phrases;
pub mod pipeline;
mod remedies;
mod rules;
pub mod sent_resets;
mod undelivered;
mod words;

#[cfg(test)]
mod tests;
