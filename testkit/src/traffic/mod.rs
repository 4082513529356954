//! Traffic for tests and benches, based on [`kaprobe::traffic`].

pub mod ends;
pub mod load;
pub mod lock;
pub mod play;
pub mod scenarios;
pub mod steps;
