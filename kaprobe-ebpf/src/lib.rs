//! What the BPF programs of kaprobe and its user space share.
#![no_std]
