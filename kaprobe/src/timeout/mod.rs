//! Idle timeouts of what is between two hosts: known, learned, and on a path. Pure.

pub mod estimate;
pub mod middlebox;
pub mod timeouts;
