//! What the BPF programs of kaprobe and its user space share, and nothing else.
//!
//! [`wire`] is what goes up: one event for each thing that happened. [`config`]
//! is what goes down: where the members lie in this kernel, and what to keep.
#![no_std]

pub mod config;
pub mod wire;
