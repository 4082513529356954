//! TCP connections on loopback whose keepalive timers do what is asked of them.
//!
//! `kaprobe demo` shows them, and the test kit builds on them. Nothing here traces
//! anything, and nothing leaves the machine.
//!
//! | module | what it holds |
//! |---|---|
//! | [`pair`] | both ends of one connection, and what can happen to the far one |
//! | [`sockopt`] | the socket options that have no name in `socket2` |
//! | [`script`] | a scenario as data, and what plays many at once |
//! | [`scenarios`] | scenarios in which a connection ends by its keepalive timer |

pub mod pair;
pub mod scenarios;
pub mod script;
pub mod sockopt;
