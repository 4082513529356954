//! What is kept stays within its bounds, and nothing is lost from the counts.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::census::sums::group_of;
use crate::census::sums::{Census, MAX_GROUPS, Sums};
use crate::model::owner::Owner;
use crate::model::record::EventName;
use crate::model::socket::{Ages, Endpoints};
use crate::model::values::VerdictName;
use crate::sample::at;
use crate::top::events::{Counts, Events, MAX_CONNECTIONS, MAX_LINES};
use crate::top::grouping::program;
use crate::top::tests::made::{
    census, eviction, host, key, listener, process, push, record, row, server, to_server,
};

#[test]
fn connections_are_grouped_by_program_and_service() {
    let client = |port| Endpoints::new((server(1), 8_080), (server(9), port), 7);
    let mapped = ["::ffff:10.0.0.1", "::ffff:10.0.0.5"].map(|it| it.parse().unwrap_or(server(0)));
    let census = census(
        &[
            listener(8_080),
            row(client(50_000), process("nginx", 1), None),
            row(client(50_001), process("nginx", 2), None),
            row(to_server(40_000, 5, 443), process("curl", 3), None),
            row(
                Endpoints::new((mapped[0], 40_001), (mapped[1], 443), 7),
                process("curl", 4),
                Some((60, 10)),
            ),
            row(to_server(8_081, 9, 50_002), process("nginx", 1), None),
        ],
        None,
    );
    let mut groups: Vec<_> = census
        .groups
        .iter()
        .map(|it| {
            format!(
                "{} {}: {}",
                program(&it.id),
                it.id.peers,
                it.sums.connections
            )
        })
        .collect();
    groups.sort_unstable();
    assert_eq!(
        groups,
        [
            "curl 10.0.0.5:443: 2",
            "nginx 10.0.0.9:50002: 1",
            "nginx clients of :8080: 2"
        ]
    );
}

#[test]
fn a_census_of_many_sockets_is_bounded() {
    let rows: Vec<_> = (0..5_000_u16)
        .map(|n| {
            let mut row = row(
                to_server(n, (n % 250) as u8, n / 2),
                process(&format!("p{}", n % 7), 1),
                (n % 3 == 0).then_some((60, 10)),
            );
            let idle_ms = u64::from(n) * 1_000;
            row.ages = Ages::new(idle_ms, idle_ms, idle_ms);
            row
        })
        .collect();
    let census = census(&rows, None);
    assert_eq!(census.groups.len(), MAX_GROUPS);
    let connections: u64 = census.groups.iter().map(|it| it.sums.connections).sum();
    assert!(census.other.connections > 0);
    assert_eq!(connections + census.other.connections, 5_000);
    assert_eq!(census.total.connections, 5_000);
    assert_eq!(census.total.idle.iter().sum::<u64>(), 5_000);
    assert_eq!(census.total.fates.iter().sum::<u64>(), 5_000);
}

#[test]
fn the_worst_connections_are_kept_and_more_of_the_open_group() {
    let rows: Vec<_> = (0..1_500_u16)
        .map(|n| {
            let mut row = row(to_server(n, 5, 443), process("curl", 1), Some((60, 10)));
            if n % 500 == 250 {
                (row.probes_out, row.dead_in_ms) = (Some(3), Some(u64::from(n)));
            }
            row
        })
        .collect();
    let few = census(&rows, None);
    let ports = |census: &Census| -> Vec<_> {
        let worst = census.groups[0].worst.iter();
        worst.map(|it| it.assessment.endpoints.lport).collect()
    };
    assert_eq!(ports(&few), [250, 750, 1_250, 0, 1, 2, 3, 4]);
    assert_eq!(few.total.unanswered, 3);
    assert_eq!(few.total.dead_in_ms, Some(250));
    let open = census(&rows, Some(few.groups[0].id.clone()));
    assert_eq!(ports(&open).len(), 1_000);
    assert_eq!(ports(&open)[..4], [250, 750, 1_250, 0]);
}

#[test]
fn a_census_survives_the_way_between_processes() -> serde_json::Result<()> {
    let (census, _) = host();
    let sent = serde_json::to_string(&census)?;
    let read: Census = serde_json::from_str(&sent)?;
    assert_eq!(serde_json::to_string(&read)?, sent);
    let sums = |it: &Census| -> Vec<_> {
        let groups = it.groups.iter();
        groups.map(|it| (it.id.clone(), it.sums.clone())).collect()
    };
    assert_eq!(sums(&read), sums(&census));
    Ok(())
}

#[test]
fn a_healthy_connection_has_one_line() {
    let (_, events) = host();
    let psql = to_server(41_000, 6, 5_432);
    let timeline = events.timeline_of(&key(&psql));
    let lines: Vec<_> = timeline
        .into_iter()
        .flat_map(|it| &it.lines)
        .map(|it| (it.event, it.count, it.text.as_str()))
        .collect();
    assert_eq!(lines, [(EventName::Answered, 5, "probe answered")]);
}

#[test]
fn a_late_answer_leaves_the_probes_that_had_none() {
    let (mut events, psql) = (Events::default(), to_server(1, 6, 5_432));
    for (ms, event, probe) in [
        (0, EventName::Probe, 1),
        (10, EventName::Probe, 2),
        (20, EventName::Answered, 2),
        (30, EventName::Probe, 1),
        (40, EventName::Answered, 1),
    ] {
        let mut record = record(at(ms), event, psql, process("psql", 9));
        record.probe = Some(probe);
        push(&mut events, &record);
    }
    let timeline = events.timeline_of(&key(&psql));
    let lines: Vec<_> = timeline
        .into_iter()
        .flat_map(|it| &it.lines)
        .map(|it| format!("{} {}", it.count, it.text))
        .collect();
    assert_eq!(
        lines,
        [
            "1 probe 1/9 idle 60s",
            "1 probe 2/9 idle 60s",
            "2 answered 2 in <30ms"
        ]
    );
}

#[test]
fn an_event_without_owner_belongs_to_the_group_of_its_connection() {
    let (mut events, curl) = (Events::default(), to_server(1, 5, 443));
    push(
        &mut events,
        &record(at(0), EventName::Probe, curl, process("curl", 9)),
    );
    push(
        &mut events,
        &record(at(1), EventName::RstReceived, curl, Owner::default()),
    );
    let groups: Vec<_> = events
        .groups()
        .map(|(id, it)| (program(id).into_owned(), it.resets))
        .collect();
    assert_eq!(groups, [("curl".to_owned(), 1)]);
}

/// An event of a hostile day: many programs, many peers, every kind of event.
#[derive(Clone, Copy, Debug)]
struct HostileEvent {
    program: u16,
    lport: u16,
    server: u8,
    rport: u16,
    event: u8,
}

fn hostile_event() -> impl Strategy<Value = HostileEvent> {
    (
        0..2_000_u16,
        any::<u16>(),
        any::<u8>(),
        1..2_000_u16,
        0..6_u8,
    )
        .prop_map(|(program, lport, server, rport, event)| HostileEvent {
            program,
            lport,
            server,
            rport,
            event,
        })
}

/// 24 hours of events, one each second: 86,400, from new connections of new programs.
#[test]
fn a_day_of_hostile_events_is_bounded_and_counted() {
    let mut runner = TestRunner::new(Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..Config::default()
    });
    let day = prop::collection::vec(hostile_event(), 86_400);
    let result = runner.run(&day, |day| {
        let mut events = Events::default();
        let mut expected = Counts::default();
        let mut lost = 0;
        for (second, it) in (0..).zip(day) {
            let at = at(second * 1_000);
            let endpoints = to_server(it.lport, it.server, it.rport);
            let process = process(&format!("p{}", it.program), it.program.into());
            let mut told = match it.event {
                0 => record(at, EventName::Probe, endpoints, process),
                1 => record(at, EventName::Answered, endpoints, process),
                2 => record(at, EventName::RstReceived, endpoints, process),
                3 => record(at, EventName::Lost, endpoints, process),
                4 => record(at, EventName::Timeout, endpoints, process),
                _ => eviction(at, endpoints, process),
            };
            told.lost = Some(3);
            match told.event {
                EventName::Probe => expected.probes += 1,
                EventName::Answered => expected.answered += 1,
                EventName::RstReceived => expected.resets += 1,
                EventName::Timeout => expected.gave_up += 1,
                EventName::Lost => lost += 3,
                _ => {
                    *expected
                        .verdicts
                        .entry(VerdictName::IdleEviction)
                        .or_default() += 1
                }
            }
            events.push(&told, &"x".repeat(5_000));
        }
        let (mut groups, mut sum) = (0, events.other.clone());
        for (_, counts) in events.groups() {
            groups += 1;
            sum.add(counts);
        }
        let learned = events.total.learned;
        prop_assert_eq!(
            &Counts { learned, ..sum },
            &Counts {
                learned,
                ..expected
            }
        );
        prop_assert_eq!(
            &events.total,
            &Counts {
                learned,
                ..events.total.clone()
            }
        );
        prop_assert_eq!(events.lost, lost);
        prop_assert_eq!(groups, 1_024);
        let connections: Vec<_> = events.connections().collect();
        prop_assert_eq!(connections.len(), MAX_CONNECTIONS.get());
        prop_assert!(events.forgotten > 0);
        for (_, timeline) in connections {
            prop_assert!(timeline.lines.len() <= MAX_LINES);
            prop_assert!(timeline.lines.iter().all(|it| it.text.len() <= 1_000));
        }
        Ok(())
    });
    assert!(result.is_ok(), "{:?}", result.map_err(|it| it.to_string()));
}

#[test]
fn a_connection_keeps_its_last_lines() {
    let (mut events, curl) = (Events::default(), to_server(1, 5, 443));
    for n in 0..20 {
        push(
            &mut events,
            &record(at(n), EventName::RstReceived, curl, process("curl", 9)),
        );
    }
    let timeline = events.timeline_of(&key(&curl));
    let kept = timeline.map(|it| (it.lines.len(), it.dropped, it.is_over));
    assert_eq!(kept, Some((MAX_LINES, 4, true)));
}

#[test]
fn nothing_is_the_default() {
    assert_eq!(Sums::NONE, Sums::default());
    assert_eq!(Counts::NONE, Counts::default());
    let id = group_of(&to_server(1, 2, 3), &Default::default(), false);
    assert_eq!(program(&id), "-");
}
