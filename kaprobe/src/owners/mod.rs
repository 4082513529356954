//! Finds the processes that own a socket, which means: have a descriptor of it.

pub mod cache;
pub mod descriptors;
mod held;
mod process;
mod processes;
pub mod table;
