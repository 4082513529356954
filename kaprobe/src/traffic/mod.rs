//! TCP connections on loopback with scripted keepalive timers.
//!
//! Used by `kaprobe demo` and the test kit. Does no tracing and sends nothing over the
//! network.
//!
//! | module | contents |
//! |---|---|
//! | [`loopback`] | sets the loopback device of a namespace up |
//! | [`pair`] | both ends of one connection, and actions on the far end |
//! | [`sockopt`] | socket options that `socket2` lacks |
//! | [`script`] | scenarios as data, and a function that plays many at once |
//! | [`scenarios`] | scenarios in which the keepalive timer ends a connection |

pub mod loopback;
pub mod pair;
pub mod scenarios;
pub mod script;
pub mod sockopt;
