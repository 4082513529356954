//! Which processes hold a socket.

pub mod batch;
pub mod cache;
pub mod descriptors;
