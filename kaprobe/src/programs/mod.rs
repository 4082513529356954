//! Programs: what runs, in which unit, and what its keepalive settings are called.

pub mod cmdline;
pub mod settings;
pub mod table;
pub mod unit;
