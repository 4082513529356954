//! Tests of what is counted, of its bounds, and of the text.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use proptest::prelude::*;

use crate::metrics::aggregator::Aggregator;
use crate::metrics::exposition::{self, Exposition, OwnFacts, RecorderFacts};
use crate::metrics::families::{FAMILIES, MetricFamily};
use crate::metrics::gauges::{ConnectionGauges, ConnectionSums};
use crate::metrics::key::SeriesKey;
use crate::metrics::snapshot::MetricsSnapshot;
use crate::model::peers::Peers;
use crate::model::record::{EventName, Record};
use crate::model::socket::{Endpoints, Process};
use crate::model::time::Instant;
use crate::model::values::{Cause, Confidence, Direction, Hook, LostWhy, State, VerdictName};
use crate::sample::at;
use crate::text::escape::Escaped;
use crate::timeout::estimate::{Death, LivedThrough, TimeoutEstimator};

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
        counted: Arc::new(aggregator.snapshot(&TimeoutEstimator::default())),
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

/// The bounds are those of the estimator at the moment: no verdict is needed to learn.
#[test]
fn learned_bounds_are_those_of_the_estimator() {
    let mut aggregator = Aggregator::new(series(8));
    aggregator.set_listeners([(1, 443)].into_iter().collect());
    aggregator.push(&plain(EventName::Answered));
    let client = ([10, 1, 0, 6].into(), 20_000);
    aggregator.push(&Record {
        endpoints: Some(Endpoints::new(([10, 0, 0, 1].into(), 443), client, 1)),
        ..plain(EventName::Answered)
    });
    let server = ([10, 0, 0, 5].into(), 443);
    let mut learned = TimeoutEstimator::default();
    // Neither has a series: a client's port is no label, and this server had no record.
    for remote in [client, ([10, 2, 0, 7].into(), 443)] {
        learned.lived(remote, LivedThrough::silence(1_000));
    }
    let shown = |learned: &TimeoutEstimator| {
        let exposition = Exposition {
            counted: Arc::new(aggregator.snapshot(learned)),
            ..Exposition::default()
        };
        let text = exposition::encode(exposition).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|it| it.strip_prefix("kaprobe_learned_"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(shown(&learned), [""; 0]);
    let of = |name: &str, value: &str| {
        format!("{name}{{remote=\"10.0.0.5:443\",learned_of=\"endpoint\"}} {value}")
    };
    for survived in ["60.0", "300.0"] {
        let ms = survived.parse::<f64>().unwrap_or_default() * 1e3;
        learned.lived(server, LivedThrough::silence(ms as u64));
        assert_eq!(shown(&learned), [of("survived_seconds", survived)]);
    }
    learned.died(server, Death::after(400_000, 1_000_000_000_000));
    let with = |died, deaths, contradictory| {
        [
            of("survived_seconds", "300.0"),
            of("died_seconds", died),
            of("deaths", deaths),
            of("contradictory", contradictory),
        ]
    };
    assert_eq!(shown(&learned), with("400.0", "1.0", "0.0"));
    learned.died(server, Death::after(350_000, 2_000_000_000_000));
    // The longer of two independent deaths is the bound.
    assert_eq!(shown(&learned), with("400.0", "2.0", "0.0"));
    learned.died(server, Death::after(200_000, 3_000_000_000_000));
    let contradictory = shown(&learned);
    assert!(
        contradictory.contains(&of("contradictory", "1.0")),
        "{contradictory:?}"
    );
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
    let snapshot = aggregator.snapshot(&TimeoutEstimator::default());
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
        let (mut now_ns, mut before) = (0, sent(&aggregator.snapshot(&TimeoutEstimator::default())));
        for (server, pause_s) in events {
            now_ns += pause_s * 1_000_000_000;
            aggregator.tick(now_ns);
            let ticked = sent(&aggregator.snapshot(&TimeoutEstimator::default()));
            for (key, count) in &ticked {
                // What is new has nothing yet.
                prop_assert_eq!(*count, before.get(key).copied().unwrap_or(0));
            }
            aggregator.push(&record(at(0), EventName::Probe, program(b"a"), server, 443));
            let after = sent(&aggregator.snapshot(&TimeoutEstimator::default()));
            prop_assert!(after.len() <= most + 1);
            let grown = after.iter().map(|(key, count)| count - ticked.get(key).unwrap_or(&0));
            prop_assert_eq!(grown.sum::<u64>(), 1);
            before = after;
        }
    }
}
