//! TCP connections on loopback whose keepalive timers do what is asked of them.
//!
//! `kaprobe demo` shows them, and the tests measure against them. Nothing here
//! traces anything, and nothing leaves the machine.
//!
//! | module | what it holds |
//! |---|---|
//! | [`pair`] | both ends of one connection, and what can happen to the far one |
//! | [`sockopt`] | the socket options that have no name in `socket2` |
//! | [`lock`] | keeps a socket's lock taken, by a page fault served late |
//! | [`script`] | a scenario as data, and the stage that plays many at once |
//! | [`scenarios`] | the scenarios: one for each thing a keepalive timer can do |
//! | [`load`] | many connections, answered or silent, that only sit there |

pub mod load;
pub mod lock;
pub mod pair;
pub mod scenarios;
pub mod script;
pub mod sockopt;
