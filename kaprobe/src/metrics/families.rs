//! The metrics: their names, kinds, labels, and what they tell. `docs/agent.md` has the same
//! table; a test compares them.

use prometheus_client::metrics::MetricType;

use crate::metrics::key::NAMES;

/// A metric with all its series.
#[derive(Clone, Copy, Debug)]
pub struct MetricFamily {
    /// The name, without the suffix that its kind adds.
    pub name: &'static str,
    /// The kind.
    pub kind: MetricType,
    /// The labels that are its own, beside those of a series if it has them.
    pub labels: &'static [&'static str],
    /// Whether it has the labels of a series.
    pub of_series: bool,
    /// What it tells.
    pub help: &'static str,
}

impl MetricFamily {
    /// The name that samples and queries have; of a histogram, the common part.
    #[must_use]
    pub fn sample_name(&self) -> String {
        let suffix = match self.kind {
            MetricType::Counter => "_total",
            _ => "",
        };
        format!("{}{suffix}", self.name)
    }

    /// The kind as a word.
    #[must_use]
    pub const fn kind_name(&self) -> &'static str {
        match self.kind {
            MetricType::Counter => "counter",
            MetricType::Histogram => "histogram",
            _ => "gauge",
        }
    }

    /// All labels.
    pub fn all_labels(&self) -> impl Iterator<Item = &'static str> {
        let of_series = NAMES.iter().chain(&["remote"]).filter(|_| self.of_series);
        of_series.chain(self.labels).copied()
    }
}

macro_rules! families {
    ($($const:ident: $kind:ident $name:literal [$($label:literal),*] $scope:ident $help:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub const $const: MetricFamily = MetricFamily {
                name: $name,
                kind: MetricType::$kind,
                labels: &[$($label),*],
                of_series: families!(@$scope),
                help: $help,
            };
        )+

        /// All metrics, in the order in which they are written.
        pub const FAMILIES: &[MetricFamily] = &[$($const),+];
    };
    (@series) => { true };
    (@host) => { false };
}

families! {
    SENT: Counter "kaprobe_probes_sent" [] series "Keepalive probes that were sent";
    ANSWERED: Counter "kaprobe_probes_answered" [] series "Keepalive probes that were answered";
    UNANSWERED: Counter "kaprobe_probes_unanswered" [] series "Keepalive probes without an answer when the next was sent or the kernel gave up";
    STALLS: Counter "kaprobe_stalls" [] series "Connections whose data was sent again and again and not acknowledged";
    GAVE_UP: Counter "kaprobe_give_ups" ["cause"] series "Connections that the kernel gave up";
    RESETS: Counter "kaprobe_resets" ["direction"] series "Resets that were received or sent";
    IDLE_CLOSES: Counter "kaprobe_idle_closes" ["by"] series "Connections that were closed after a time without data, by the end that closed first";
    VERDICTS: Counter "kaprobe_verdicts" ["verdict", "confidence"] series "Verdicts: why a connection ended";
    ANSWER_SECONDS: Histogram "kaprobe_probe_answer_seconds" [] series "Time from a probe to its answer; without --rtt an upper bound";
    CONNECTIONS: Gauge "kaprobe_connections" ["keepalive"] series "Connections, by SO_KEEPALIVE";
    FATES: Gauge "kaprobe_connections_by_fate" ["fate"] series "Connections, by what the idle timeout would make of them";
    PROBES_OUT: Gauge "kaprobe_connections_unanswered" [] series "Connections with unanswered keepalive probes";
    SURVIVED: Gauge "kaprobe_learned_survived_seconds" ["remote", "learned_of"] host "The longest idle time that a connection survived: the idle timeout is longer";
    DIED: Gauge "kaprobe_learned_died_seconds" ["remote", "learned_of"] host "The shortest idle time that killed connections: the idle timeout is shorter, if the deaths are believed";
    DEATHS: Gauge "kaprobe_learned_deaths" ["remote", "learned_of"] host "Deaths after an idle time, without those that one restart explains together: from 2 on they are believed";
    CONTRADICTORY: Gauge "kaprobe_learned_contradictory" ["remote", "learned_of"] host "1 if a connection survived an idle time at which another died: there is not one idle timeout";
    RECORDS: Counter "kaprobe_records" ["event"] host "Records of the trace, of all connections that the filters let pass";
    REASONS: Counter "kaprobe_reset_reasons" ["direction", "reason"] host "Resets of all connections that the filters let pass, by the kernel's reason";
    LOST: Counter "kaprobe_events_lost" ["hook", "why", "event"] host "Events that could not be delivered";
    SWITCHED_OFF: Counter "kaprobe_hook_switched_off" ["hook"] host "How often a hook was switched off or on: what it missed is not known";
    DROPPED: Counter "kaprobe_series_dropped" [] host "Series that made room for others";
    SNAPSHOT_TIME: Gauge "kaprobe_snapshot_timestamp_seconds" [] host "When the connections were read last";
    SNAPSHOT_INTERVAL: Gauge "kaprobe_snapshot_interval_seconds" [] host "Pause until the connections are read again: --interval, or more if that takes long";
    SNAPSHOTS_FAILED: Counter "kaprobe_snapshots_failed" [] host "Times that the connections could not be read";
    JUDGED: Gauge "kaprobe_fates_judged" [] host "1 if an idle timeout is known by which fates are judged, else 0";
    RECORDER_BYTES: Gauge "kaprobe_recorder_bytes" [] host "What the segments of the recorder take";
    RECORDER_MAX: Gauge "kaprobe_recorder_max_bytes" [] host "What they may take";
    RECORDER_SEGMENTS: Gauge "kaprobe_recorder_segments" [] host "Number of segments of the recorder";
    RECORDER_LOST: Counter "kaprobe_recorder_records_lost" [] host "Records that the recorder had no room or no time for";
    RELOADED: Gauge "kaprobe_config_last_reload_successful" [] host "1 if the file of --config was good when it was read last, else 0";
    HTTP: Counter "kaprobe_http_requests" ["code"] host "HTTP requests, by the status of the response";
    HTTP_CUT: Counter "kaprobe_http_connections_cut" ["why"] host "HTTP connections that were too slow, or made room for others";
    BUILD: Gauge "kaprobe_build_info" ["version", "revision", "kernel"] host "1, with the version of this program, its commit, and the version of the kernel";
    HOOKS: Gauge "kaprobe_hook_attached" ["hook", "mode"] host "1 for each hook, with how it is attached";
    READER_CPU: Counter "kaprobe_reader_cpu_seconds" [] host "CPU time of the process that reads the connections";
    READER_MEMORY: Gauge "kaprobe_reader_resident_memory_bytes" [] host "Resident memory of the process that reads the connections";
    CPU: Counter "process_cpu_seconds" [] host "CPU time of this process";
    MEMORY: Gauge "process_resident_memory_bytes" [] host "Resident memory of this process";
    VIRTUAL: Gauge "process_virtual_memory_bytes" [] host "Virtual memory of this process";
    OPEN_FDS: Gauge "process_open_fds" [] host "Open file descriptors of this process";
    MAX_FDS: Gauge "process_max_fds" [] host "Most file descriptors that this process may open";
    THREADS: Gauge "process_threads" [] host "Threads of this process";
    STARTED: Gauge "process_start_time_seconds" [] host "When this process started";
}
