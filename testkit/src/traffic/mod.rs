//! Traffic that only tests and benches play, on top of [`kaprobe::traffic`].

pub mod ends;
pub mod load;
pub mod lock;
pub mod play;
pub mod scenarios;
pub mod steps;
