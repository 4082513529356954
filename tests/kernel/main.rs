//! The tests that need a kernel, and root: kaprobe's binary against real traffic, in
//! network namespaces of their own. They run on the host and, by `cargo xtask test`,
//! in virtual machines on every kernel of the matrix.

use std::process::ExitCode;

use kaprobe_testkit::{harness, holder, process};

mod audit;
mod demo;
mod exact;
mod filters;
mod foretold;
mod full;
mod manners;
mod owner;
mod prototypes;
mod replay;
mod resets;
mod rtt;
mod same;
mod servers;
mod snapshot;
mod sockets;
mod sockets_adverse;
mod sockets_owners;
mod sockets_timers;
mod story;
mod traffic;

fn main() -> ExitCode {
    let other = process::run_if_task().or_else(holder::run_if_holder);
    if let Some(ended) = other {
        return ended;
    }
    harness::main(&[
        ("traffic", traffic::moves_the_kernels_counters),
        ("exact", exact::equals_the_kernels_counters),
        ("exact_lossy", exact::counts_what_it_loses),
        ("full", full::tells_of_sockets_beyond_its_table),
        ("same", same::by_every_way_to_attach),
        ("owner", owner::is_who_holds_the_socket),
        ("owner_orphan", owner::of_an_orphan_is_nobody),
        ("filters_port", filters::by_port),
        ("filters_address", filters::by_address),
        ("filters_place_and_event", filters::by_place_and_event),
        ("filters_combined", filters::combined),
        ("filters_kernel", filters::in_the_kernel),
        ("prototypes", prototypes::are_this_kernels),
        ("demo", demo::shows_every_end),
        ("replay", replay::shows_what_the_trace_showed),
        ("resets", resets::have_records_and_verdicts),
        ("rtt", rtt::is_told_as_the_answer_comes_in),
        ("sockets", sockets::are_what_getsockopt_says),
        ("sockets_owners", sockets_owners::are_all_told),
        (
            "sockets_descriptors",
            sockets_owners::have_the_descriptors_that_proc_lists,
        ),
        ("sockets_fallback", sockets::are_what_sock_diag_says),
        ("sockets_many", sockets::are_all_there_in_little_memory),
        ("sockets_watch", sockets::are_watched_in_a_pipe),
        ("foretold", foretold::ends_come_as_foretold),
        ("snapshot", snapshot::knows_what_was_there_before),
        ("snapshot_ended", snapshot::knows_who_has_ended_since),
        ("snapshot_stuck", snapshot::keeps_no_trace_from_ending),
        ("sockets_timers", sockets_timers::agree_with_ss_and_proc),
        (
            "sockets_hidden",
            sockets_timers::are_right_where_another_hides_them,
        ),
        (
            "sockets_vanish",
            sockets_adverse::survive_connections_that_vanish,
        ),
        (
            "sockets_netns_vanish",
            sockets_adverse::survive_namespaces_that_vanish,
        ),
        ("sockets_hidepid", sockets_adverse::say_what_proc_hides),
        (
            "sockets_no_ptrace",
            sockets_adverse::say_what_may_not_be_looked_at,
        ),
        ("servers_nginx", servers::nginx),
        ("servers_redis", servers::redis),
        ("servers_sshd", servers::sshd),
        ("audit", audit::advises_what_saves),
        ("audit_sysctl", audit::advises_a_sysctl_that_saves_in_time),
        ("audit_loopback", audit::leaves_out_what_passes_no_middlebox),
        ("audit_log", audit::goes_by_what_a_log_shows),
        ("audit_host", audit::goes_by_what_this_host_does),
        ("audit_balancer", audit::names_those_that_a_balancer_kills),
        ("story", story::of_a_balancer_that_forgets),
        ("story_cured", story::does_not_happen_with_keepalive),
        ("stops", manners::stops_cleanly),
        ("stops_closed_pipe", manners::ends_quietly_with_its_reader),
        ("stops_streams", manners::ends_well_with_streams_that_fail),
        ("stops_killed", manners::leaves_whole_lines_when_killed),
        ("refuses", manners::refuses_what_it_cannot_do),
        ("refuses_way", manners::refuses_a_way_this_kernel_lacks),
        ("refuses_types", manners::refuses_types_it_cannot_read),
        ("refuses_nobody", manners::refuses_to_run_without_privilege),
    ])
}
