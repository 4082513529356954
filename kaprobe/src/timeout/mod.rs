//! Idle timeouts of middleboxes: published, read from this host, or learned. Pure.

pub mod ages;
pub mod estimate;
pub mod middlebox;
pub mod on_path;
pub mod quiet;
pub mod timeouts;
