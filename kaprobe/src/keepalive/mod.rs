//! The rules of the keepalive timer, as the kernel has them. Pure.

pub mod forecast;
