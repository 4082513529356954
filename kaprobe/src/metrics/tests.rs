//! Tests of what is counted, of its bounds, and of the text.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::num::NonZeroUsize;
use std::sync::Arc;

use proptest::prelude::*;

use crate::metrics::aggregator::Aggregator;
use crate::metrics::counts::SeriesCounts;
use crate::metrics::exposition::{self, Exposition, OwnFacts, RecorderFacts};
use crate::metrics::families::{FAMILIES, MetricFamily};
use crate::metrics::gauges::{ConnectionGauges, ConnectionSums};
use crate::metrics::key::SeriesKey;
use crate::metrics::snapshot::MetricsSnapshot;
use crate::model::peers::Peers;
use crate::model::record::{EventName, Record};
use crate::model::socket::{Endpoints, Process};
use crate::model::time::Instant;
use crate::model::values::{
    Cause, Confidence, Direction, Hook, LearnedOf, LostWhy, State, VerdictName,
};
use crate::sample::at;
use crate::text::escape::Escaped;

/// The connections that the whole run of [`an_hour_of_churn_is_bounded_and_exact`] has: 2,000
/// each second of an hour. The variable KAPROBE_CHURN sets the number.
const CHURN: u64 = 7_200_000;

fn series(most: usize) -> NonZeroUsize {
    NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN)
}

fn program(name: &[u8]) -> Process {
    Process {
        pid: Some(7),
        comm: Some(Escaped::from_bytes(name)),
        ..Process::default()
    }
}

/// A record of a connection from this host to a server.
fn record(at: Instant, event: EventName, process: Process, server: u32, rport: u16) -> Record {
    let local = [10, 0, 0, 1].into();
    let remote = std::net::Ipv4Addr::from(server).into();
    Record {
        process: process.into(),
        endpoints: Some(Endpoints::new((local, 40_000), (remote, rport), 1)),
        ..Record::new(at, event)
    }
}

fn plain(event: EventName) -> Record {
    record(at(0), event, program(b"curl"), 0x0a00_0005, 443)
}

fn text_of(aggregator: &Aggregator) -> String {
    let exposition = Exposition {
        counted: Arc::new(aggregator.snapshot()),
        ..Exposition::default()
    };
    exposition::encode(exposition).unwrap_or_default()
}

/// The value of a sample.
fn value(text: &str, sample: &str) -> Option<f64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn records_are_counted_by_what_they_tell() {
    let probe = |number| Record {
        probe: Some(number),
        probes_out: u8::try_from(number).ok(),
        ..plain(EventName::Probe)
    };
    let answered = |ms| Record {
        probe: Some(1),
        answered_after_ms: Some(ms),
        ..plain(EventName::Answered)
    };
    let timeout = |cause, probes_out| Record {
        cause: Some(cause),
        probes_out: Some(probes_out),
        ..plain(EventName::Timeout)
    };
    let verdict = Record {
        verdict: Some(VerdictName::IdleEviction),
        confidence: Some(Confidence::High),
        learned_of: Some(LearnedOf::Endpoint),
        survived_ms: Some(300_000),
        died_ms: Some(400_000),
        ..plain(EventName::Verdict)
    };
    let reset = |event, direction| Record {
        direction,
        reason: Some(Escaped::from("NO_SOCKET")),
        ..plain(event)
    };
    let fin = |event, state| Record {
        state: Some(state),
        ..plain(event)
    };
    let mut aggregator = Aggregator::new(series(8));
    for record in [
        probe(1),
        answered(12),
        probe(1),
        probe(2),
        probe(3),
        timeout(Cause::ProbeCount, 3),
        timeout(Cause::Retransmission, 0),
        Record {
            rtt_us: Some(900),
            ..answered(12)
        },
        plain(EventName::Stalled),
        fin(EventName::FinSent, State::Established),
        fin(EventName::FinReceived, State::FinWait2),
        fin(EventName::FinReceived, State::Established),
        fin(EventName::FinReceived, State::Established),
        fin(EventName::FinSent, State::CloseWait),
        reset(EventName::RstReceived, None),
        reset(EventName::RstSent, Some(Direction::Active)),
        reset(EventName::RstSent, Some(Direction::Passive)),
        verdict,
        Record {
            hook: Some(Hook::KeepaliveTimer),
            lost_why: Some(LostWhy::RingBuffer),
            lost_kind: Some(EventName::Probe),
            lost: Some(5),
            ..Record::new(at(0), EventName::Lost)
        },
        Record {
            hook: Some(Hook::SendReset),
            lost_why: Some(LostWhy::SwitchedOff),
            ..Record::new(at(0), EventName::Lost)
        },
        Record::new(at(0), EventName::RstSent),
    ] {
        aggregator.push(&record);
    }
    let text = text_of(&aggregator);
    let own = "program=\"curl\",remote=\"10.0.0.5:443\"";
    for (sample, expected) in [
        (format!("kaprobe_probes_sent_total{{{own}}}"), 4.0),
        (format!("kaprobe_probes_answered_total{{{own}}}"), 2.0),
        // The second and the third show that the one before had none; the end shows the third.
        (format!("kaprobe_probes_unanswered_total{{{own}}}"), 3.0),
        (format!("kaprobe_give_ups_total{{{own},cause=\"probe_count\"}}"), 1.0),
        (format!("kaprobe_give_ups_total{{{own},cause=\"zero_window\"}}"), 0.0),
        (format!("kaprobe_resets_total{{{own},direction=\"received\"}}"), 1.0),
        (format!("kaprobe_resets_total{{{own},direction=\"sent_passive\"}}"), 1.0),
        ("kaprobe_resets_total{remote=\"other\",direction=\"sent_active\"}".into(), 1.0),
        (format!("kaprobe_stalls_total{{{own}}}"), 1.0),
        (format!("kaprobe_idle_closes_total{{{own},by=\"local\"}}"), 1.0),
        (format!("kaprobe_idle_closes_total{{{own},by=\"peer\"}}"), 2.0),
        (
            format!("kaprobe_verdicts_total{{{own},verdict=\"idle_eviction\",confidence=\"high\"}}"),
            1.0,
        ),
        (format!("kaprobe_probe_answer_seconds_bucket{{le=\"0.001\",{own}}}"), 1.0),
        (format!("kaprobe_probe_answer_seconds_bucket{{le=\"0.025\",{own}}}"), 2.0),
        (format!("kaprobe_probe_answer_seconds_bucket{{le=\"+Inf\",{own}}}"), 2.0),
        (format!("kaprobe_probe_answer_seconds_sum{{{own}}}"), 0.0129),
        (
            "kaprobe_learned_died_seconds{remote=\"10.0.0.5:443\",learned_of=\"endpoint\"}".into(),
            400.0,
        ),
        (
            "kaprobe_events_lost_total{hook=\"tcp_keepalive_timer\",why=\"ring_buffer\",event=\"probe\"}"
                .into(),
            5.0,
        ),
        ("kaprobe_hook_switched_off_total{hook=\"tcp_v4_send_reset\"}".into(), 1.0),
        ("kaprobe_records_total{event=\"probe\"}".into(), 4.0),
        (
            "kaprobe_reset_reasons_total{direction=\"received\",reason=\"NO_SOCKET\"}".into(),
            1.0,
        ),
        ("kaprobe_reset_reasons_total{direction=\"sent_active\"}".into(), 1.0),
        ("kaprobe_series_dropped_total".into(), 0.0),
    ] {
        assert_eq!(value(&text, &sample), Some(expected), "{sample} in\n{text}");
    }
}

#[test]
fn an_accepted_connection_is_of_the_port_that_listens() {
    let accepted = |event, lport| Record {
        endpoints: Some(Endpoints::new(
            ([10, 0, 0, 1].into(), lport),
            ([10, 0, 0, 5].into(), 20_000),
            1,
        )),
        ..record(at(0), event, program(b"nginx"), 0, 0)
    };
    let mut aggregator = Aggregator::new(series(8));
    aggregator.set_listeners([(1, 443)].into_iter().collect());
    for record in [
        accepted(EventName::Probe, 443),
        accepted(EventName::Probe, 50_000),
    ] {
        aggregator.push(&record);
    }
    // Without an owner, it is of the program that the connection had.
    aggregator.push(&Record {
        process: Process::default().into(),
        ..accepted(EventName::Answered, 443)
    });
    let text = text_of(&aggregator);
    for sample in [
        "kaprobe_probes_sent_total{program=\"nginx\",remote=\"clients of :443\"}",
        "kaprobe_probes_answered_total{program=\"nginx\",remote=\"clients of :443\"}",
        "kaprobe_probes_sent_total{program=\"nginx\",remote=\"10.0.0.5:20000\"}",
    ] {
        assert_eq!(value(&text, sample), Some(1.0), "{sample} in\n{text}");
    }
}

/// Whether a line is a comment or a sample of OpenMetrics.
fn is_line(line: &str) -> bool {
    if let Some(comment) = line.strip_prefix("# ") {
        return comment == "EOF" || comment.starts_with("HELP ") || comment.starts_with("TYPE ");
    }
    let Some((head, number)) = line.rsplit_once(' ') else {
        return false;
    };
    let labels = head
        .split_once('{')
        .map_or(Some(""), |(_, it)| it.strip_suffix('}'));
    number.parse::<f64>().is_ok() && labels.is_some_and(are_labels)
}

/// Whether text is a list of labels, whose values are quoted.
fn are_labels(mut text: &str) -> bool {
    while !text.is_empty() {
        let Some((name, rest)) = text.split_once("=\"") else {
            return false;
        };
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next() {
                Some((_, '\\')) => match chars.next() {
                    Some((_, '\\' | '"' | 'n')) => {}
                    _ => return false,
                },
                Some((at, '"')) => break at,
                Some((_, it)) if it.is_control() => return false,
                Some(_) => {}
                None => return false,
            }
        };
        if name.is_empty() || !name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_') {
            return false;
        }
        text = &rest[end + 1..];
        text = text.strip_prefix(',').unwrap_or(text);
    }
    true
}

#[test]
fn hostile_names_stay_inside_their_labels() {
    let mut aggregator = Aggregator::new(series(100));
    let names: [&[u8]; 9] = [
        b"\n# EOF",
        b"\"} 1",
        b"\\",
        b"\\\"",
        b"\xff\xfe",
        "\u{202e}\u{7}".as_bytes(),
        b"a=\"b\",c",
        b"other",
        b"",
    ];
    for name in names {
        aggregator.push(&record(at(0), EventName::Probe, program(name), 1, 443));
    }
    let long = "x".repeat(5_000);
    let process = Process {
        cmdline: Some(Escaped::from(long.as_str())),
        unit: Some(Escaped::from("\"\n")),
        container: Some(Escaped::from(long.as_str())),
        pod: Some(Escaped::from("\\")),
        ..program(b"java")
    };
    aggregator.push(&record(at(0), EventName::Probe, process, 1, 443));
    let text = text_of(&aggregator);
    for line in text.lines() {
        assert!(is_line(line), "{line:?}");
        assert!(line.chars().count() < 500, "{line:?}");
    }
    let ends = text.lines().filter(|it| *it == "# EOF").count();
    assert!(text.ends_with("# EOF\n") && ends == 1, "{text}");
    let sent = "kaprobe_probes_sent_total{";
    assert_eq!(
        text.lines().filter(|it| it.starts_with(sent)).count(),
        names.len() + 2
    );
}

/// Everything that metrics can show.
fn full() -> Exposition {
    let key = SeriesKey::new(&program(b"curl"), Peers::Server([10, 0, 0, 5].into(), 443));
    let sums = ConnectionSums {
        keepalive_on: 3,
        ..ConnectionSums::default()
    };
    Exposition {
        connections: Some(Arc::new(ConnectionGauges {
            groups: vec![(key, sums)],
            ..ConnectionGauges::default()
        })),
        own: OwnFacts {
            recorder: Some(RecorderFacts::default()),
            reloaded: Some(true),
            ..OwnFacts::default()
        },
        ..Exposition::default()
    }
}

#[test]
fn the_text_has_every_metric_once() {
    let text = exposition::encode(full()).unwrap_or_default();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let shown: Vec<_> = types.map(str::to_owned).collect();
    let names = |it: &MetricFamily| format!("{} {}", it.name, it.kind_name());
    assert_eq!(shown, FAMILIES.iter().map(names).collect::<Vec<_>>());
    assert!(
        text.contains("kaprobe_build_info{version=\"\",revision=\"\",kernel=\"\"} 1\n"),
        "{text}"
    );
    let connections =
        "kaprobe_connections{program=\"curl\",remote=\"10.0.0.5:443\",keepalive=\"on\"}";
    assert_eq!(value(&text, connections), Some(3.0), "{text}");
    for line in text.lines() {
        assert!(is_line(line), "{line:?}");
    }
}

#[test]
fn the_page_has_every_metric() {
    let page = include_str!("../../../docs/agent.md");
    let row = |it: &MetricFamily| {
        let labels: Vec<_> = it.all_labels().collect();
        let (name, kind) = (it.sample_name(), it.kind_name());
        format!(
            "| `{name}` | {kind} | {} | {} |",
            labels.join(", "),
            it.help
        )
    };
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `kaprobe_") || line.starts_with("| `process_"));
    let rows: Vec<_> = rows.map(str::to_owned).collect();
    assert_eq!(rows, FAMILIES.iter().map(row).collect::<Vec<_>>());
}

/// Names of metrics in rules and dashboards.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_name = |it: char| it.is_ascii_lowercase() || it == '_';
    let words = text.split(|it: char| !is_name(it));
    let prefixes = ["kaprobe_", "process_"];
    let names = words.filter(|word| prefixes.iter().any(|it| word.starts_with(it)));
    names.map(str::to_owned).collect()
}

#[test]
fn rules_and_dashboard_name_metrics_that_exist() {
    let known: BTreeSet<_> = FAMILIES
        .iter()
        .flat_map(|it| {
            let name = it.sample_name();
            let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}"));
            parts.into_iter().chain([name])
        })
        .collect();
    for (path, text) in [
        (
            "rules",
            include_str!("../../../contrib/prometheus/kaprobe.rules.yml"),
        ),
        (
            "dashboard",
            include_str!("../../../contrib/grafana/kaprobe.json"),
        ),
    ] {
        let named = names_in(text);
        assert!(named.len() > 5, "{path}: {named:?}");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
}

#[test]
fn the_worst_and_the_largest_groups_are_kept() {
    let key = |port| SeriesKey::new(&program(b"curl"), Peers::Server([10, 0, 0, 5].into(), port));
    let sums = |on, dead| ConnectionSums {
        keepalive_on: on,
        fates: [dead, 0, 0, 0, 0, 0, 0, 0],
        ..ConnectionSums::default()
    };
    let mut gauges = ConnectionGauges {
        groups: vec![
            (key(1), sums(5, 0)),
            (key(2), sums(1, 1)),
            (key(3), sums(9, 0)),
            (key(3), sums(1, 0)),
            (key(4), sums(2, 0)),
        ],
        ..ConnectionGauges::default()
    };
    gauges.keep(2);
    assert_eq!(gauges.groups, [(key(2), sums(1, 1)), (key(3), sums(10, 0))]);
    assert_eq!(gauges.other, sums(7, 0));
}

#[test]
fn room_goes_to_those_with_most_to_count() {
    let mut aggregator = Aggregator::new(series(2));
    let push = |aggregator: &mut Aggregator, server, times| {
        for _ in 0..times {
            let probe = record(at(0), EventName::Probe, program(b"curl"), server, 443);
            aggregator.push(&probe);
        }
    };
    let shown = |aggregator: &Aggregator, server: &str| {
        let sample =
            format!("kaprobe_probes_sent_total{{program=\"curl\",remote=\"0.0.0.{server}:443\"}}");
        value(&text_of(aggregator), &sample)
    };
    let other = |aggregator: &Aggregator| {
        value(
            &text_of(aggregator),
            "kaprobe_probes_sent_total{remote=\"other\"}",
        )
    };
    push(&mut aggregator, 1, 100);
    push(&mut aggregator, 2, 10);
    push(&mut aggregator, 3, 15);
    assert_eq!(other(&aggregator), Some(15.0));
    // Half as much again is not enough to take the room of another.
    let minute_ns = 60_000_000_000;
    aggregator.tick(minute_ns);
    aggregator.tick(2 * minute_ns);
    assert_eq!(shown(&aggregator, "2"), Some(10.0));
    push(&mut aggregator, 3, 60);
    aggregator.tick(3 * minute_ns);
    assert_eq!(shown(&aggregator, "1"), Some(100.0));
    assert_eq!(
        (shown(&aggregator, "2"), shown(&aggregator, "3")),
        (None, Some(0.0))
    );
    // What was counted before stays where it was.
    push(&mut aggregator, 3, 1);
    push(&mut aggregator, 2, 1);
    assert_eq!(shown(&aggregator, "3"), Some(1.0));
    assert_eq!(other(&aggregator), Some(76.0));
    let dropped = value(&text_of(&aggregator), "kaprobe_series_dropped_total");
    assert_eq!(dropped, Some(1.0));
    // Trouble weighs more than much that is in order.
    for _ in 0..20 {
        let reset = record(at(0), EventName::RstReceived, program(b"curl"), 4, 443);
        aggregator.push(&reset);
    }
    aggregator.tick(4 * minute_ns);
    assert_eq!(shown(&aggregator, "4"), Some(0.0));
}

#[test]
fn fewer_series_may_be_wanted_later() {
    let mut aggregator = Aggregator::new(series(3));
    for server in 1..=3 {
        for _ in 0..server {
            aggregator.push(&record(
                at(0),
                EventName::Probe,
                program(b"curl"),
                server,
                443,
            ));
        }
    }
    aggregator.set(series(1), None);
    let snapshot = aggregator.snapshot();
    let kept: Vec<_> = snapshot.series.iter().map(|(_, it)| it.sent).collect();
    assert_eq!((kept, snapshot.dropped), (vec![3], 2));
}

/// Probes that are shown, by series.
fn sent(snapshot: &MetricsSnapshot) -> BTreeMap<SeriesKey, u64> {
    let other = (SeriesKey::default(), snapshot.other.sent);
    let series = snapshot.series.iter();
    let series = series.map(|(key, it)| ((**key).clone(), it.sent));
    series.chain([other]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever comes: no count decreases, and each event is counted once.
    #[test]
    fn no_count_decreases_or_jumps(
        events in prop::collection::vec((0_u32..12, 0_u64..20), 1..400),
        most in 1_usize..5,
    ) {
        let mut aggregator = Aggregator::new(series(most));
        let (mut now_ns, mut before) = (0, sent(&aggregator.snapshot()));
        for (server, pause_s) in events {
            now_ns += pause_s * 1_000_000_000;
            aggregator.tick(now_ns);
            let ticked = sent(&aggregator.snapshot());
            for (key, count) in &ticked {
                // What is new has nothing yet.
                prop_assert_eq!(*count, before.get(key).copied().unwrap_or(0));
            }
            aggregator.push(&record(at(0), EventName::Probe, program(b"a"), server, 443));
            let after = sent(&aggregator.snapshot());
            prop_assert!(after.len() <= most + 1);
            let grown = after.iter().map(|(key, count)| count - ticked.get(key).unwrap_or(&0));
            prop_assert_eq!(grown.sum::<u64>(), 1);
            before = after;
        }
    }
}

/// A simulated hour of 2,000 new connections a second, to new servers, by programs with hostile
/// names, beside one service whose connections are lost.
#[test]
fn an_hour_of_churn_is_bounded_and_exact() {
    const MOST: usize = 200;
    let wanted = env::var("KAPROBE_CHURN")
        .ok()
        .and_then(|it| it.parse().ok());
    let connections: u64 = wanted.unwrap_or(CHURN / 120);
    let mut aggregator = Aggregator::new(series(MOST));
    let (mut largest, mut text_size) = (0, 0);
    let mut eviction = Record {
        verdict: Some(VerdictName::SilentDrop),
        confidence: Some(Confidence::Medium),
        ..plain(EventName::Verdict)
    };
    let mut evictions = 0;
    for n in 0..connections {
        let now = at(n / 2);
        let server = u32::try_from(n.wrapping_mul(0x9e37_79b9) & 0xffff_ffff).unwrap_or_default();
        let name = [b'"', b'\n', (n % 251) as u8, (n % 127) as u8];
        aggregator.push(&record(now, EventName::Probe, program(&name), server, 443));
        if n % 2_000 == 0 {
            eviction.mono_ns = now.mono_ns;
            aggregator.push(&eviction);
            evictions += 1;
            aggregator.tick(now.mono_ns);
            largest = largest.max(aggregator.kept());
        }
        if n % 200_000 == 0 {
            text_size = text_size.max(text_of(&aggregator).len());
        }
    }
    let snapshot = aggregator.snapshot();
    assert!(snapshot.series.len() <= MOST);
    // Series, candidates, connections, learned bounds, and the counts of the host.
    let bound = MOST + 4_096 + 16_384 + MOST + 200;
    assert!(largest <= bound, "{largest} entries");
    assert!(text_size < 1 << 20, "{text_size} bytes");
    assert_eq!(
        snapshot.host.records[EventName::Probe as usize],
        connections
    );
    assert_eq!(
        snapshot.host.records[EventName::Verdict as usize],
        evictions
    );
    // The service had room all the time, once it had some.
    let own = SeriesKey::new(&program(b"curl"), Peers::Server([10, 0, 0, 5].into(), 443));
    let counts: Option<&SeriesCounts> = snapshot
        .series
        .iter()
        .find_map(|(key, it)| (**key == own).then_some(&**it));
    let shown = counts.map(|it| it.verdicts.values().sum::<u64>());
    assert_eq!(shown, Some(evictions));
}
