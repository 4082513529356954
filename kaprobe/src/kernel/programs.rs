//! The programs of the object: which attach to a hook, and where.

use std::collections::BTreeSet;

use aya::Ebpf;
use aya::programs::Program;

use crate::model::attach_mode::AttachMode;
use crate::model::named::Named as _;
use crate::model::values::Hook;

/// A program of the object, and what it attaches to.
pub type Part = (&'static str, &'static str);

/// The programs that attach to a hook in one mode, entry before exit; none if the hook does
/// not have that mode.
pub fn parts(hook: Hook, mode: AttachMode) -> &'static [Part] {
    match (hook, mode) {
        (Hook::KeepaliveTimer, AttachMode::Fentry) => &[
            ("timer_fentry", "tcp_keepalive_timer"),
            ("timer_fexit", "tcp_keepalive_timer"),
        ],
        (Hook::KeepaliveTimer, AttachMode::Kprobe) => &[
            ("timer_kprobe", "tcp_keepalive_timer"),
            ("timer_kretprobe", "tcp_keepalive_timer"),
        ],
        (Hook::KeepaliveTimer, AttachMode::Tracepoint) => &[
            ("timer_expire_entry", "timer_expire_entry"),
            ("timer_expire_exit", "timer_expire_exit"),
        ],
        (Hook::SendActiveReset, AttachMode::Fentry) => &[("reset_fentry", "tcp_send_active_reset")],
        (Hook::SendActiveReset, AttachMode::Kprobe) => &[("reset_kprobe", "tcp_send_active_reset")],
        (Hook::SendActiveReset, AttachMode::Tracepoint) => {
            &[("reset_tracepoint", "tcp_send_reset")]
        }
        (Hook::DestroySock, AttachMode::Tracepoint) => {
            &[("destroy_tracepoint", "tcp_destroy_sock")]
        }
        (Hook::SendReset, AttachMode::Fentry) => &[
            ("passive_v4_fentry", "tcp_v4_send_reset"),
            ("passive_v6_fentry", "tcp_v6_send_reset"),
        ],
        (Hook::SendReset, AttachMode::Kprobe) => &[
            ("passive_v4_kprobe", "tcp_v4_send_reset"),
            ("passive_v6_kprobe", "tcp_v6_send_reset"),
        ],
        (Hook::SendReset, AttachMode::Tracepoint) => &[("passive_tracepoint", "tcp_send_reset")],
        (Hook::ReceiveReset, AttachMode::Tracepoint) => {
            &[("receive_tracepoint", "tcp_receive_reset")]
        }
        (Hook::Reset, AttachMode::Fentry) => &[("arrival_fentry", "tcp_reset")],
        (Hook::Reset, AttachMode::Kprobe) => &[("arrival_kprobe", "tcp_reset")],
        (Hook::Probe, AttachMode::Tracepoint) => &[("segment_tracepoint", "tcp_probe")],
        (Hook::Retransmit, AttachMode::Tracepoint) => {
            &[("retransmit_tracepoint", "tcp_retransmit_skb")]
        }
        (Hook::SetState, AttachMode::Tracepoint) => &[("state_tracepoint", "inet_sock_set_state")],
        (
            Hook::DestroySock
            | Hook::ReceiveReset
            | Hook::Probe
            | Hook::SetState
            | Hook::Retransmit,
            AttachMode::Fentry | AttachMode::Kprobe,
        )
        | (Hook::Reset, AttachMode::Tracepoint) => &[],
    }
}

/// The program that sees, inside a firing, whether a probe was sent; `None` if the mode has
/// none. Tracing is possible without it: less is known of a socket that another processor
/// changes meanwhile.
pub fn wakeup(hook: Hook, mode: AttachMode) -> Option<Part> {
    match (hook, mode) {
        (Hook::KeepaliveTimer, AttachMode::Fentry) => Some(("wakeup_fexit", WAKEUP)),
        (Hook::KeepaliveTimer, AttachMode::Kprobe) => Some(("wakeup_kretprobe", WAKEUP)),
        _ => None,
    }
}

/// The function that `tcp_keepalive_timer` calls to send a probe.
const WAKEUP: &str = "tcp_write_wakeup";

/// The programs that see changes of the processes that hold sockets.
pub const OWNER_CHANGES: [Part; 4] = [
    ("exit_tracepoint", "sched_process_exit"),
    ("exec_tracepoint", "sched_process_exec"),
    ("fork_tracepoint", "sched_process_fork"),
    ("rename_tracepoint", "task_rename"),
];

/// The program that sees a process receive a descriptor of a socket. Every way to receive one
/// calls this function: SCM_RIGHTS, pidfd_getfd(2), the descriptors that seccomp's supervisor
/// adds, and io_uring's fixed files (`receive_fd`, fs/file.c).
///
/// It has no kprobe: while that is handled, a timer that interrupts it fires unseen, as the
/// kernel skips the kprobe of the timer (`kprobe_ftrace_handler`, arch/x86/kernel/kprobes/ftrace.c).
pub const RECEIVED_SOCKET: Part = ("received_fentry", RECEIVE);

/// The function that the kernel calls for a socket that a process received
/// (net/core/sock.c).
const RECEIVE: &str = "__receive_sock";

/// The modes that a hook can be attached in, cheapest first.
pub fn modes(hook: Hook) -> impl Iterator<Item = AttachMode> {
    let modes = AttachMode::ALL.iter().copied();
    modes.filter(move |&mode| !parts(hook, mode).is_empty())
}

/// The kernel functions that programs attach to by their numbers in BTF: those of fentry and
/// fexit, and those that the kernel calls for each item of an iterator.
pub fn functions() -> BTreeSet<&'static str> {
    let targets = Hook::ALL
        .iter()
        .flat_map(|&hook| parts(hook, AttachMode::Fentry))
        .map(|(_, target)| *target);
    let others = [WAKEUP, RECEIVE, "bpf_iter_tcp", "bpf_iter_task_file"];
    // Entry and exit attach to one function.
    targets.chain(others).collect()
}

/// The programs that are loaded for a hook in one mode.
pub fn loaded(ebpf: &Ebpf, hook: Hook, mode: AttachMode) -> impl Iterator<Item = &Program> {
    parts(hook, mode)
        .iter()
        .filter_map(|(program, _)| ebpf.program(program))
}
