//! How a BPF program is attached to a hook.

use crate::model::named::named_enum;

named_enum! {
    /// How a BPF program is attached. `auto` tries these in order, cheapest first.
    pub enum AttachMode {
        /// BPF trampolines at the entry and the exit of a function.
        Fentry = "fentry",
        /// A kprobe at the entry of a function, a kretprobe at its exit.
        Kprobe = "kprobe",
        /// Raw tracepoints.
        Tracepoint = "tracepoint",
    }
}
