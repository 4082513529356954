//! Finds the processes that own a socket: that have a descriptor of it.

pub mod batch;
pub mod cache;
pub mod descriptors;
