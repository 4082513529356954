//! The types that the BPF programs of kaprobe share with its user space.
//!
//! [`wire`] holds what goes up: one event for each thing that happened. [`config`] holds
//! what goes down: the offsets of members in this kernel, and the filters.
#![no_std]

pub mod config;
pub mod wire;
