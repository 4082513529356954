//! kaprobe: is TCP keepalive working on this connection, and why did this idle connection die?

mod event;

fn main() {}
