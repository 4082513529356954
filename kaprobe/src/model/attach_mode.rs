//! The ways to attach to a hook.

use crate::model::named::named_enum;

named_enum! {
    /// How a BPF program can be attached; in the order in which `auto` tries them,
    /// cheapest first.
    AttachMode {
        /// BPF trampolines at a function's entry and exit.
        Fentry = "fentry",
        /// A kprobe at a function's entry, a kretprobe at its exit.
        Kprobe = "kprobe",
        /// Raw tracepoints.
        Tracepoint = "tracepoint",
    }
}
