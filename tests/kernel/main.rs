//! Tests of kaprobe's binary with real traffic. They need root, and run in their own
//! network namespaces: on the host and, with `cargo xtask test`, in virtual machines on
//! every kernel of the matrix.

use std::process::ExitCode;

use kaprobe_testkit::{harness, holder, process};

mod audit;
mod blind;
mod demo;
mod exact;
mod files;
mod filters;
mod foretold;
mod full;
mod host_timeouts;
mod knobs;
mod limits;
mod logs;
mod manners;
mod outputs;
mod owner;
mod prototypes;
mod race;
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
mod time_namespace;
mod traffic;

fn main() -> ExitCode {
    let other = process::run_if_task().or_else(holder::run_if_holder);
    if let Some(ended) = other {
        return ended;
    }
    harness::main(TESTS, &ESSENTIAL)
}

/// The tests of what differs on a kernel with PREEMPT_RT: who runs when, and at once.
const ESSENTIAL: [&str; 12] = [
    "traffic",
    "exact",
    "exact_lossy",
    "same",
    "race",
    "blind",
    "owner",
    "resets",
    "rtt",
    "sockets",
    "snapshot",
    "stops",
];

const TESTS: &[harness::Test] = &[
    ("traffic", traffic::scenarios_move_the_counters),
    ("exact", exact::records_equal_the_counters),
    ("exact_lossy", exact::lost_events_are_counted),
    ("full", full::reports_sockets_beyond_the_table),
    ("same", same::every_way_reports_the_same),
    ("outputs_screen", outputs::stalled_screen_holds_up_nothing),
    ("outputs_log", outputs::stalled_log_holds_up_nothing),
    ("outputs_disk", outputs::full_disk_is_reported_in_the_log),
    ("outputs_stderr", outputs::stalled_stderr_holds_up_nothing),
    ("logs_rotated", logs::log_goes_on_in_new_files),
    ("logs_removed", logs::removed_log_is_noticed),
    ("logs_restart", logs::restart_continues_the_log),
    ("logs_hangup", logs::hangup_ends_only_what_it_should),
    ("race", race::other_processors_make_no_record_false),
    ("blind", blind::what_sees_nothing_is_not_used),
    ("blind_later", blind::a_switch_is_noticed_during_a_trace),
    ("owner", owner::owner_is_the_holding_process),
    ("owner_orphan", owner::orphan_has_no_owner),
    ("filters_port", filters::by_port),
    ("filters_address", filters::by_address),
    (
        "filters_place_and_event",
        filters::by_process_netns_cgroup_and_event,
    ),
    ("filters_combined", filters::combined),
    ("filters_kernel", filters::in_the_kernel),
    ("prototypes", prototypes::prototypes_match_this_kernel),
    ("demo", demo::explains_every_connection),
    ("replay", replay::replay_equals_the_trace),
    ("resets", resets::every_reset_has_a_record_and_a_verdict),
    ("rtt", rtt::answers_are_reported_on_arrival),
    ("sockets", sockets::rows_equal_getsockopt),
    ("sockets_owners", sockets_owners::all_owners_are_shown),
    (
        "sockets_descriptors",
        sockets_owners::descriptors_equal_proc,
    ),
    ("sockets_fallback", sockets::fallback_rows_equal_sock_diag),
    ("sockets_many", sockets::many_sockets_need_constant_memory),
    ("sockets_watch", sockets::watch_writes_to_a_pipe),
    ("foretold", foretold::predicted_ends_match_the_kernel),
    ("snapshot", snapshot::sees_existing_sockets),
    ("snapshot_ended", snapshot::names_owners_that_have_exited),
    (
        "snapshot_stuck",
        snapshot::blocked_snapshot_does_not_block_the_trace,
    ),
    ("sockets_timers", sockets_timers::timers_equal_ss_and_proc),
    (
        "sockets_hidden",
        sockets_timers::hidden_keepalive_timers_are_shown,
    ),
    (
        "sockets_vanish",
        sockets_adverse::survive_connections_that_vanish,
    ),
    (
        "sockets_netns_vanish",
        sockets_adverse::survive_namespaces_that_vanish,
    ),
    (
        "sockets_hidepid",
        sockets_adverse::hidden_processes_are_reported,
    ),
    (
        "sockets_no_ptrace",
        sockets_adverse::missing_privilege_is_reported,
    ),
    ("limits_descriptors", limits::descriptors_that_run_out),
    ("limits_raised", limits::soft_limit_is_raised),
    ("limits_threads", limits::threads_that_run_out),
    ("limits_proc", limits::proc_that_is_not_there),
    ("limits_demo", limits::demo_without_net_admin),
    ("servers_nginx", servers::nginx),
    ("servers_redis", servers::redis),
    ("servers_sshd", servers::sshd),
    ("audit", audit::advice_makes_connections_safe),
    ("audit_sysctl", audit::sysctl_advice_makes_connections_safe),
    ("audit_loopback", audit::loopback_is_left_out),
    ("audit_log", audit::timeouts_come_from_a_log),
    ("audit_host", audit::timeouts_come_from_this_host),
    ("audit_balancer", audit::predicts_balancer_evictions),
    ("story", story::balancer_forgets_an_idle_connection),
    ("story_cured", story::keepalive_preserves_the_balancer_entry),
    ("stops", manners::stops_cleanly),
    ("stops_closed_pipe", manners::ends_when_stdout_is_closed),
    ("stops_streams", manners::exit_codes_with_failing_streams),
    ("stops_killed", manners::log_has_whole_lines_after_sigkill),
    ("refuses", manners::refuses_impossible_arguments),
    ("refuses_way", manners::refuses_an_unsupported_way),
    ("refuses_types", manners::refuses_unreadable_btf),
    ("refuses_nobody", manners::refuses_to_run_without_privilege),
    (
        "host_timeouts_audit",
        host_timeouts::audit_applies_them_on_the_path,
    ),
    (
        "host_timeouts_verdict",
        host_timeouts::verdicts_name_them_on_the_path,
    ),
    (
        "host_timeouts_half_closed",
        host_timeouts::half_closed_connections_have_their_own,
    ),
    (
        "host_timeouts_change",
        host_timeouts::changes_count_for_later_verdicts,
    ),
    ("time_namespace", time_namespace::times_are_the_hosts),
    (
        "time_namespace_left",
        time_namespace::an_unknown_offset_is_refused,
    ),
    ("files_of_others", files::prepared_files_are_refused),
    ("files_private", files::files_are_private),
    ("knobs_postgresql", knobs::postgresql),
    ("knobs_pgbouncer", knobs::pgbouncer),
    ("knobs_haproxy", knobs::haproxy),
    ("knobs_nginx", knobs::nginx),
    ("knobs_redis", knobs::redis),
    ("knobs_mariadb", knobs::mariadb),
    ("knobs_rabbitmq", knobs::rabbitmq),
    ("knobs_sshd", knobs::sshd),
    ("knobs_java", knobs::java),
    ("audit_place", audit::groups_name_their_place),
];
