//! The version of kaprobe, and the commit that it is built from.

/// The version, such as `0.2.0`.
pub const NUMBER: &str = env!("CARGO_PKG_VERSION");

/// The start of the commit's hash; `-dirty` follows if the sources differ from it. Not known
/// where there is no git, and not recorded in a debug build. The build script says it.
pub const COMMIT: &str = env!("KAPROBE_COMMIT");

/// The version and the commit: `0.2.0 (0123456789ab)`.
pub const FULL: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("KAPROBE_COMMIT"), ")");
