//! Tests of the counts, their output, and the memory bound.

use crate::model::advice::Advice;
use crate::model::socket::Endpoints;
use insta::assert_snapshot;
use serde_json::Value;

use super::*;
use crate::replay::summary::output::{SummaryFormat, write};
use crate::text::histogram::Bars;

const TEXT: SummaryFormat = SummaryFormat::Text {
    heading: true,
    bars: Bars::Unicode,
};

fn record(sock: u64, remote: (&str, u16), event: EventName) -> Record {
    let any = IpAddr::from([0; 4]);
    let local = (IpAddr::from([10, 0, 0, 1]), (sock % 60_000) as u16);
    let remote = (remote.0.parse().unwrap_or(any), remote.1);
    Record {
        seq: 1,
        event,
        sock: Some(sock),
        endpoints: Some(Endpoints::new(local, remote, 0)),
        ..Record::default()
    }
}

fn verdict(sock: u64, remote: (&str, u16), verdict: VerdictName, idle_s: u64) -> Record {
    let mut record = record(sock, remote, EventName::Verdict);
    record.verdict = Some(verdict);
    record.confidence = Some(Confidence::Medium);
    record.ages.idle_ms = Some(idle_s * 1_000);
    record.advice = Some(Box::new(Advice::from(Escaped::from(
        "in beam.smp[4242] turn on SO_KEEPALIVE with TCP_KEEPIDLE=175 (half of AWS NLB's 350s)",
    ))));
    record
}

const NLB: (&str, u16) = ("10.9.0.100", 5672);

/// Four connections, most evicted by a load balancer; a healthy IPv6 connection; a loss.
fn records() -> Vec<Record> {
    use EventName::{Answered, Closed, Probe, RstReceived};
    let healthy = ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 30_000);
    let mut records = vec![
        record(1, healthy, Probe),
        record(1, healthy, Answered),
        record(2, NLB, Probe),
        record(2, NLB, Answered),
    ];
    for (sock, idle_s) in [(2, 351), (3, 400), (4, 352), (5, 3_000)] {
        records.push(record(sock, NLB, RstReceived));
        records.push(verdict(sock, NLB, VerdictName::IdleEviction, idle_s));
        records.push(record(sock, NLB, Closed));
    }
    if let Some(last) = records.iter_mut().rfind(|it| it.verdict.is_some()) {
        (last.survived_ms, last.died_ms) = (Some(301_000), Some(352_000));
        last.learned_of = Some(LearnedOf::Endpoint);
        last.contradictory = Some(false);
    }
    records.push(Record {
        event: EventName::Lost,
        lost: Some(7),
        ..Record::default()
    });
    records
}

fn summary(records: &[Record]) -> ReplaySummary {
    let mut summary = ReplaySummary::default();
    records.iter().for_each(|it| summary.count(it));
    summary
}

fn written(summary: &ReplaySummary, format: SummaryFormat) -> String {
    let mut out = Vec::new();
    let done = write(&mut out, summary, format);
    assert!(done.is_ok(), "{done:?}");
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn text_fits_a_terminal() {
    let text = written(&summary(&records()), TEXT);
    assert!(text.lines().all(|it| it.chars().count() <= 80), "{text}");
    assert_snapshot!(text, @"
    REMOTE                        CONNS   PROBES ANSWERED TIMEOUTS RST-SENT RST-RCVD
    10.9.0.100:5672                   4        1        1        0        0        4
        4 idle_eviction (medium): in beam.smp[4242] turn on SO_KEEPALIVE with
        TCP_KEEPIDLE=175 (half of AWS NLB's 350s)
        idle age at death:
            [300s, 500s)    3  █████████████████████████████████████████████████████
            …
            [3000s, 5000s)  1  █████████████████▋
        idle timeout lies between 301s and 352s, if one box is on the way
    [2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:30000
                                      1        1        1        0        0        0
    7 events were lost: counts and verdicts may lack them
    ");
}

/// The JSON lines, checked against the published schema.
fn checked(summary: &ReplaySummary) -> Vec<Value> {
    let schema = include_str!("../../../../../schema/kaprobe-summary.schema.json");
    let schema = serde_json::from_str(schema).expect("the schema is JSON");
    let validator = jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("the schema is valid");
    let lines = written(summary, SummaryFormat::Json);
    let lines = lines.lines().map(|line| {
        let value = serde_json::from_str(line).expect("a line is JSON");
        let wrong: Vec<_> = validator.iter_errors(&value).collect();
        assert!(wrong.is_empty(), "{wrong:?} in {line}");
        value
    });
    lines.collect()
}

#[test]
fn json_matches_the_schema() {
    let lines = checked(&summary(&records()));
    let [nlb, healthy, total] = lines.as_slice() else {
        unreachable!("{lines:?}");
    };
    assert_eq!(nlb["raddr"], "10.9.0.100");
    assert_eq!(nlb["connections"], 4);
    assert_eq!(nlb["events"]["rst_received"], 4);
    assert_eq!(nlb["verdicts"][0]["count"], 4);
    assert_eq!(nlb["idle_at_death"][0]["count"], 3);
    assert_eq!(nlb["idle_timeout"]["died_ms"], 352_000);
    assert_eq!(healthy["events"]["answered"], 1);
    assert_eq!(total["total"]["lost"], 7);
}

#[test]
fn the_ports_of_a_client_are_one_row() {
    let ports = 1..=1_000_u16;
    let records: Vec<_> = ports
        .map(|port| record(port.into(), ("10.0.0.7", port), EventName::Probe))
        .collect();
    let few = summary(&records[..MAX_PORTS]);
    assert_eq!(few.rows().len(), MAX_PORTS);
    let many = summary(&records);
    let rows: Vec<_> = many
        .rows()
        .iter()
        .map(|it| {
            (
                it.port,
                it.counts.connections,
                it.counts.event_count(EventName::Probe),
            )
        })
        .collect();
    assert_eq!(rows, [(None, 1_000, 1_000)]);
    assert_eq!(many.row_count, 1);
    checked(&many);
}

#[test]
fn the_clients_of_a_server_are_one_row_for_each_address() {
    let accepted = |sock: u16, address: &str| {
        let mut record = record(sock.into(), (address, 40_000 + sock), EventName::Probe);
        record.endpoints.get_or_insert_default().lport = 5672;
        record
    };
    let records = [
        accepted(1, "10.0.0.7"),
        accepted(2, "10.0.0.7"),
        accepted(3, "10.0.0.8"),
    ];
    let summary = summary(&records);
    let text = written(&summary, TEXT);
    assert!(
        text.contains("\n10.0.0.7 to port 5672             2"),
        "{text}"
    );
    assert!(
        text.contains("\n10.0.0.8 to port 5672             1"),
        "{text}"
    );
    assert_eq!(checked(&summary)[0]["lport"], 5672);
}

#[test]
fn different_advice_under_one_verdict_is_kept_apart() {
    let advised = |sock, advice: &str| {
        let mut record = verdict(sock, NLB, VerdictName::AbortedByPeer, 3);
        record.advice = Some(Box::new(Advice::from(Escaped::from(advice))));
        record
    };
    let mut records = vec![
        advised(1, "redis[7] sent data 1.5s after the peer had closed"),
        advised(2, "the connection was not idle"),
        advised(3, "redis[88] sent data 12s after the peer had closed"),
    ];
    let text = written(&summary(&records), TEXT);
    assert!(
        text.contains("2 aborted_by_peer (medium): redis[88] sent data 12s after"),
        "{text}"
    );
    assert!(
        text.contains("1 aborted_by_peer (medium): the connection was not idle"),
        "{text}"
    );
    // Memory is bounded, and every verdict is counted.
    let letters = ('a'..='z').map(|it| it.to_string());
    records.extend((4..).zip(letters).map(|(sock, text)| advised(sock, &text)));
    let summary = summary(&records);
    let lines = checked(&summary);
    let verdicts = lines[0]["verdicts"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let counts: Vec<_> = verdicts
        .iter()
        .filter_map(|it| it["count"].as_u64())
        .collect();
    assert_eq!(counts, [2, 1, 1, 1, 24]);
    assert_eq!(verdicts.last().and_then(|it| it.get("advice")), None);
}

#[test]
fn memory_is_bounded_and_every_record_is_counted() {
    let mut summary = ReplaySummary::default();
    let count = 200_000_u32;
    for n in 0..count {
        let mut probe = record(n.into(), NLB, EventName::Probe);
        probe.endpoints.get_or_insert_default().raddr = IpAddr::from((n % 50_000).to_be_bytes());
        summary.count(&probe);
    }
    assert!(summary.row_count <= MAX_ROWS && summary.rows().len() <= MAX_ROWS + 1);
    let rows = summary.rows();
    let sum =
        |field: fn(&EndpointCounts) -> u64| rows.iter().map(|it| field(it.counts)).sum::<u64>();
    assert_eq!(sum(|it| it.connections), u64::from(count));
    assert_eq!(sum(|it| it.event_count(EventName::Probe)), u64::from(count));
    let room = MAX_SOCKETS.get() as u64;
    assert_eq!(summary.totals.forgotten, u64::from(count) - room);
    assert!(written(&summary, TEXT).contains("all others"));
    checked(&summary);
}

#[test]
fn a_socket_that_reconnects_is_another_connection() {
    let mut other = record(1, NLB, EventName::Probe);
    other.endpoints.get_or_insert_default().lport = 9;
    let records = [record(1, NLB, EventName::Probe), other.clone(), other];
    assert_eq!(summary(&records).rows()[0].counts.connections, 2);
}

#[test]
fn a_connection_dies_once() {
    let stall_and_end = |sock| {
        let age = |name| verdict(sock, NLB, name, 400);
        [age(VerdictName::SilentDrop), age(VerdictName::SilentDrop)]
    };
    let summary = summary(&[stall_and_end(1), stall_and_end(2)].concat());
    let row = checked(&summary).remove(0);
    let ages = row["idle_at_death"].as_array().expect("a histogram");
    let deaths: u64 = ages.iter().filter_map(|it| it["count"].as_u64()).sum();
    assert_eq!(deaths, 2);
    assert_eq!(row["verdicts"][0]["count"], 4);
}

#[test]
fn each_host_has_its_own_rows() {
    let of = |host: &str| {
        let mut record = record(1, NLB, EventName::Probe);
        record.host = Some(Escaped::from(host));
        record
    };
    let summary = summary(&[of("client"), of("mq1"), of("client")]);
    let text = written(&summary, TEXT);
    assert!(text.contains("client > 10.9.0.100:5672"), "{text}");
    assert_eq!(summary.rows().len(), 2);
    checked(&summary);
}
