//! Tests of kaprobe's binary with real traffic. They need root, and run in their own
//! network namespaces: on the host and, with `cargo xtask test`, in virtual machines on
//! every kernel of the matrix.

use std::process::ExitCode;

use kaprobe_testkit::harness::Runs::{
    Architectures, EachKernel, Everywhere, Host, HostAndOne, Systemd,
};
use kaprobe_testkit::{harness, holder, process};

mod agent;
mod audit;
mod blind;
mod cases;
mod cases_closes;
mod cases_stalls;
mod containers;
mod demo;
mod digest;
mod docs;
mod doctor;
mod empty_root;
mod endings;
mod exact;
mod files;
mod filters;
mod fleet;
mod foretold;
mod full;
mod heard;
mod host_name;
mod host_timeouts;
mod idle_close;
mod knobs;
mod kubernetes;
mod limits;
mod logs;
mod manners;
mod manual;
mod mptcp;
mod observe;
mod outputs;
mod owner;
mod package;
mod prometheus;
mod prototypes;
mod race;
mod record;
mod replay;
mod report;
mod resets;
mod resumed;
mod rtt;
mod same;
mod samples;
mod screen;
mod servers;
mod silent_drop;
mod snapshot;
mod sockets;
mod sockets_adverse;
mod sockets_owners;
mod sockets_timers;
mod stalled;
mod story;
mod systemd;
mod thresholds;
mod time_namespace;
mod top;
mod traffic;

fn main() -> ExitCode {
    let other = process::run_if_task().or_else(holder::run_if_holder);
    if let Some(ended) = other {
        return ended;
    }
    harness::main(TESTS)
}

#[rustfmt::skip]
const TESTS: &[harness::Test] = &[
    (Architectures, "traffic", traffic::scenarios_move_the_counters),
    (Architectures, "exact", exact::records_equal_the_counters),
    (Everywhere, "exact_lossy", exact::lost_events_are_counted),
    (EachKernel, "full", full::reports_sockets_beyond_the_table),
    (Everywhere, "same", same::every_way_reports_the_same),
    (Host, "outputs_screen", outputs::stalled_screen_holds_up_nothing),
    (Host, "outputs_log", outputs::stalled_log_holds_up_nothing),
    (Host, "outputs_disk", outputs::full_disk_is_reported_in_the_log),
    (Host, "outputs_twice", outputs::second_signal_tells_what_is_lost),
    (Host, "outputs_stderr", outputs::stalled_stderr_holds_up_nothing),
    (Host, "logs_rotated", logs::log_goes_on_in_new_files),
    (Host, "logs_removed", logs::removed_log_is_noticed),
    (Host, "logs_restart", logs::restart_continues_the_log),
    (HostAndOne, "record", record::folder_equals_the_counters),
    (Host, "agent", agent::counters_equal_the_kernels),
    (Host, "agent_http", agent::only_what_it_should_is_answered),
    (Host, "agent_reload", agent::settings_are_read_again),
    (Host, "prometheus", prometheus::alert_fires_until_the_cure),
    (HostAndOne, "prometheus_story", prometheus::alert_fires_on_the_story),
    (Host, "prometheus_rules", prometheus::rules_pass_promtool),
    (Host, "prometheus_metrics", prometheus::metrics_pass_promtool),
    (Host, "kubernetes_manifests", kubernetes::manifests_are_what_helm_renders),
    (Host, "kubernetes_schemas", kubernetes::objects_pass_the_schemas),
    (Host, "kubernetes_refused", kubernetes::values_are_checked),
    (Host, "kubernetes_values", kubernetes::values_have_effect),
    (Host, "kubernetes_privileges", kubernetes::privileges_are_those_of_the_unit),
    (Host, "kubernetes_operator", kubernetes::operator_finds_pods_and_rules),
    (Host, "kubernetes_pod", kubernetes::agent_works_in_a_pod),
    (Systemd, "systemd_unit", systemd::the_unit_runs),
    (Systemd, "systemd_watchdog", systemd::the_watchdog_restarts_it),
    (Systemd, "systemd_reload", systemd::reload_reads_the_settings),
    (Systemd, "systemd_confined", systemd::the_unit_is_confined),
    (Systemd, "systemd_capabilities", systemd::each_capability_is_needed),
    (Systemd, "systemd_dpkg", package::dpkg_does_to_the_service_what_it_should),
    (Systemd, "systemd_rpm", package::rpm_scripts_do_to_the_service_what_they_should),
    (Host, "logs_hangup", logs::hangup_ends_only_what_it_should),
    (Everywhere, "race", race::other_processors_make_no_record_false),
    (Everywhere, "blind", blind::what_sees_nothing_is_not_used),
    (EachKernel, "blind_tests", blind::self_tests_are_not_shown),
    (EachKernel, "blind_later", blind::a_switch_is_noticed_during_a_trace),
    (Everywhere, "owner", owner::owner_is_the_holding_process),
    (Everywhere, "owner_sole", owner::sole_owner_is_followed),
    (Everywhere, "owner_shared", owner::owners_of_shared_sockets_are_followed),
    (EachKernel, "owner_orphan", owner::orphan_has_no_owner),
    (
        EachKernel,
        "owner_orphan_kept",
        snapshot::an_orphan_keeps_its_owner,
    ),
    (HostAndOne, "filters_port", filters::by_port),
    (Host, "filters_address", filters::by_address),
    (HostAndOne, "filters_place_and_event", filters::by_process_netns_cgroup_and_event),
    (Host, "filters_combined", filters::combined),
    (EachKernel, "filters_kernel", filters::in_the_kernel),
    (Architectures, "prototypes", prototypes::prototypes_match_this_kernel),
    (Host, "docs_samples", samples::samples_are_real),
    (Host, "docs_commands", docs::commands_run),
    (Everywhere, "doctor_agrees", doctor::a_trace_attaches_as_doctor_says),
    (HostAndOne, "doctor_lockdown", doctor::lockdown_is_named),
    (Host, "demo", demo::explains_every_connection),
    (Architectures, "empty_root", empty_root::three_commands_run),
    (Host, "digest", digest::problems_are_told_once_on_a_terminal),
    (Host, "digest_left", digest::nothing_of_the_status_line_is_left),
    (Host, "digest_every", digest::every_event_is_shown_on_request),
    (HostAndOne, "containers", containers::workloads_are_named),
    (HostAndOne, "containers_v1", containers::old_hierarchies_are_read),
    (HostAndOne, "replay", replay::replay_equals_the_trace),
    (Host, "fleet_answers", fleet::databases_answer_what_happened),
    (Host, "fleet_sockets", fleet::databases_know_what_no_log_has),
    (Host, "fleet_story", fleet::databases_find_the_real_story),
    (Host, "fleet_syslog_ng", fleet::syslog_ng_posts_each_line_once),
    (Host, "report_browser", report::browser_shows_it_light_dark_and_on_paper),
    (Host, "report_valid", report::html_is_valid),
    (Host, "report_command", report::command_reaches_its_namespace_only),
    (Everywhere, "resets", resets::every_reset_has_a_record_and_a_verdict),
    (Everywhere, "endings", endings::every_end_has_a_record),
    (EachKernel, "endings_stalled", endings::stalls_are_reported_once_and_end_as_predicted),
    (EachKernel, "endings_idle", endings::idle_closes_are_reported),
    (EachKernel, "endings_killed", endings::killed_processes_are_named),
    (Everywhere, "rtt", rtt::answers_are_reported_on_arrival),
    (Everywhere, "sockets", sockets::rows_equal_getsockopt),
    (EachKernel, "sockets_owners", sockets_owners::all_owners_are_shown),
    (EachKernel, "sockets_descriptors", sockets_owners::descriptors_equal_proc),
    (EachKernel, "sockets_fallback", sockets::fallback_rows_equal_sock_diag),
    (EachKernel, "sockets_many", sockets::many_sockets_need_constant_memory),
    (EachKernel, "foretold", foretold::predicted_ends_match_the_kernel),
    (Everywhere, "snapshot", snapshot::sees_existing_sockets),
    (EachKernel, "snapshot_ended", snapshot::names_owners_that_have_exited),
    (EachKernel, "snapshot_stuck", snapshot::blocked_snapshot_does_not_block_the_trace),
    (EachKernel, "sockets_timers", sockets_timers::timers_equal_ss_and_proc),
    (EachKernel, "sockets_hidden", sockets_timers::hidden_keepalive_timers_are_shown),
    (EachKernel, "sockets_vanish", sockets_adverse::survive_connections_that_vanish),
    (EachKernel, "sockets_netns_vanish", sockets_adverse::survive_namespaces_that_vanish),
    (EachKernel, "sockets_hidepid", sockets_adverse::hidden_processes_are_reported),
    (EachKernel, "sockets_no_ptrace", sockets_adverse::missing_privilege_is_reported),
    (Host, "limits_descriptors", limits::descriptors_that_run_out),
    (Host, "limits_raised", limits::soft_limit_is_raised),
    (Host, "limits_threads", limits::threads_that_run_out),
    (Host, "limits_proc", limits::proc_that_is_not_there),
    (Host, "limits_demo", limits::demo_without_net_admin),
    (Host, "servers_nginx", servers::nginx),
    (Host, "servers_redis", servers::redis),
    (Host, "servers_sshd", servers::sshd),
    (HostAndOne, "audit", audit::advice_makes_connections_safe),
    (EachKernel, "audit_forgotten", screen::forgotten_switch_is_a_finding),
    (Host, "manual_pages", manual::pages_pass_mandoc),
    (Host, "manual_fish", manual::fish_completes),
    (Host, "manual_zsh", manual::zsh_takes_the_script),
    (Host, "sockets_group", screen::groups_are_of_one_service),
    (Host, "sockets_screen", screen::lines_fit_a_terminal),
    (HostAndOne, "audit_sysctl", audit::sysctl_advice_makes_connections_safe),
    (Host, "audit_loopback", audit::loopback_is_left_out),
    (Host, "audit_log", audit::timeouts_come_from_a_log),
    (EachKernel, "audit_host", audit::timeouts_come_from_this_host),
    (EachKernel, "audit_balancer", audit::predicts_balancer_evictions),
    (EachKernel, "story", story::balancer_forgets_an_idle_connection),
    (HostAndOne, "story_cured", story::keepalive_preserves_the_balancer_entry),
    (Everywhere, "stops", manners::stops_cleanly),
    (Host, "stops_closed_pipe", manners::ends_when_stdout_is_closed),
    (Host, "stops_streams", manners::exit_codes_with_failing_streams),
    (Host, "stops_killed", manners::log_has_whole_lines_after_sigkill),
    (Host, "refuses", manners::refuses_impossible_arguments),
    (EachKernel, "refuses_way", manners::refuses_an_unsupported_way),
    (EachKernel, "refuses_types", manners::refuses_unreadable_btf),
    (Host, "refuses_nobody", manners::refuses_to_run_without_privilege),
    (Host, "host_name", host_name::a_log_names_the_host),
    (EachKernel, "host_timeouts_audit", host_timeouts::audit_applies_them_on_the_path),
    (HostAndOne, "host_timeouts_verdict", host_timeouts::verdicts_name_them_on_the_path),
    (Host, "host_timeouts_half_closed", host_timeouts::half_closed_connections_have_their_own),
    (Host, "host_timeouts_change", host_timeouts::changes_count_for_later_verdicts),
    (EachKernel, "time_namespace", time_namespace::times_are_the_hosts),
    (EachKernel, "time_namespace_left", time_namespace::an_unknown_offset_is_refused),
    (Host, "top", top::shows_connections_and_their_timelines),
    (Host, "top_ends", top::restores_the_terminal_however_it_ends),
    (Host, "top_color", top::colors_follow_no_color),
    (Host, "top_nobody", top::without_privilege_there_are_snapshots),
    (Host, "top_locked", top::a_blocked_snapshot_holds_up_nothing),
    (Host, "files_of_others", files::prepared_files_are_refused),
    (Host, "files_private", files::files_are_private),
    (Host, "knobs_postgresql", knobs::postgresql),
    (Host, "knobs_pgbouncer", knobs::pgbouncer),
    (Host, "knobs_haproxy", knobs::haproxy),
    (Host, "knobs_nginx", knobs::nginx),
    (Host, "knobs_redis", knobs::redis),
    (Host, "knobs_mariadb", knobs::mariadb),
    (Host, "knobs_rabbitmq", knobs::rabbitmq),
    (Host, "knobs_sshd", knobs::sshd),
    (Host, "knobs_java", knobs::java),
    (Host, "audit_place", audit::groups_name_their_place),
    (Host, "observe", observe::a_heartbeat_keeps_a_connection_alive),
    (Host, "observe_signal", observe::a_signal_ends_the_observation),
    (EachKernel, "heard", heard::probes_of_the_peer_are_heard),
    (EachKernel, "heard_zombie", heard::a_peer_that_probes_is_no_zombie),
    (EachKernel, "stalled_shown", stalled::dying_connections_are_shown),
    (EachKernel, "stalled_foretold", stalled::ends_are_foretold),
    (EachKernel, "resumed", resumed::the_end_of_a_stall_is_told),
    (Host, "thresholds", thresholds::thresholds_are_as_asked_for),
    (Host, "owner_netns", owner::records_name_their_namespace),
    (HostAndOne, "cases_unread", cases::idle_close_with_data_unread),
    (HostAndOne, "cases_lost_fin", cases::idle_close_whose_fin_is_lost),
    (HostAndOne, "cases_ordinary", cases::ordinary_closes_are_silent),
    (HostAndOne, "cases_invalid", cases::invalid_segment_is_not_translated),
    (HostAndOne, "cases_late_close", cases::late_close_is_no_eviction),
    (HostAndOne, "cases_overflow", cases::accept_queue_overflows),
    (HostAndOne, "cases_half_closed", cases::half_closed_connection_is_forgotten),
    (EachKernel, "mptcp", mptcp::a_lost_subflow_is_told_from_a_connection),
    (EachKernel, "cases_own_firewall", cases::own_firewall_is_told_from_the_peer),
    (EachKernel, "cases_redirected", cases::redirected_connection_names_its_proxy),
    (EachKernel, "cases_box", cases::reset_of_a_box_is_told_from_the_peer),
    (HostAndOne, "cases_restart", cases::younger_listener_is_named),
    (HostAndOne, "cases_same_ports", cases::ports_are_used_again_after_a_restart),
    (EachKernel, "cases_race", cases_closes::server_closes_while_a_request_is_on_its_way),
    (HostAndOne, "cases_proxy", cases_closes::proxy_closes_though_probes_are_answered),
    (EachKernel, "cases_http", cases_closes::ordinary_http_has_no_records),
    (EachKernel, "cases_vanishes", cases_stalls::peer_vanishes_with_data_in_flight),
    (EachKernel, "cases_icmp", cases_stalls::server_rejects_with_icmp),
    (EachKernel, "cases_user_timeout", cases_stalls::user_timeout_passes),
    (HostAndOne, "cases_long_query", cases_stalls::result_of_a_long_query_is_dropped),
    (HostAndOne, "cases_silent_drop", cases_stalls::request_after_a_silence_is_dropped),
    (EachKernel, "cases_zero_window", cases_stalls::user_timeout_passes_in_a_zero_window),
    (Host, "idle_close_nginx", idle_close::nginx),
    (Host, "idle_close_apache", idle_close::apache),
    (Host, "idle_close_haproxy", idle_close::haproxy),
    (Host, "idle_close_node", idle_close::node),
    (Host, "idle_close_gunicorn", idle_close::gunicorn),
    (Host, "idle_close_proxy", idle_close::proxy),
    (Host, "silent_drop_postgresql", silent_drop::postgresql),
    (Host, "silent_drop_redis", silent_drop::redis),
];
