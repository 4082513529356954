//! Programs: what runs, and what its keepalive settings are called.

pub mod cmdline;
pub mod settings;
pub mod table;
