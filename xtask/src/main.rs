//! What a developer of kaprobe, or its CI, runs: `cargo xtask --help`.
fn main() {}
