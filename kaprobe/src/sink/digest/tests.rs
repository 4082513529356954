//! Half an hour of mixed traffic in simulated time, as a digest shows it.

use std::net::IpAddr;

use insta::assert_snapshot;
use unicode_width::UnicodeWidthStr as _;

use super::*;
use crate::model::event::{Event, Kind, SocketEvent, SocketId};
use crate::model::row::Row;
use crate::model::socket::Endpoints;
use crate::model::values::{Cause, Origin, State};
use crate::sample::{self, event, judged, lost, of, probe, unacked, with};
use crate::sink::options::{ColorWhen, TextStyle};
use crate::sink::text::TextLines;
use crate::text::escape::Escaped;

const MINUTE_MS: u64 = 60_000;

fn plain() -> Layout {
    Layout {
        columns: 80,
        colored: false,
        unicode: true,
    }
}

fn digest(layout: fn() -> Layout) -> Digest<Vec<u8>> {
    Digest::new(Vec::new(), layout, TimeFormat::Clock, TimeZone::UTC)
}

fn written(out: &mut dyn Encoder) -> String {
    String::from_utf8_lossy(&out.take()).into_owned()
}

/// What a digest shows of records, and of the clock once a second until it ends.
fn shown(mut digest: Digest<Vec<u8>>, records: &[Record]) -> io::Result<String> {
    for record in records {
        while digest.last.mono_ns + 1_000_000_000 < record.mono_ns && digest.last.mono_ns > 0 {
            let next = Instant {
                mono_ns: digest.last.mono_ns + 1_000_000_000,
                wall_ns: digest.last.wall_ns + 1_000_000_000,
            };
            digest.tick(next)?;
        }
        digest.record(record)?;
    }
    digest.end()?;
    Ok(written(&mut digest))
}

/// An event of a connection of this program, whose keepalive probes each minute.
fn of_program(comm: &str, nth: u16, remote: u8, event: SocketEvent) -> SocketEvent {
    let host = |last: u8| IpAddr::from([10, 0, 0, last]);
    let pid = 4_200 + u32::from(remote);
    with(event, |it| {
        let sk = u64::from(remote) * 1_000 + u64::from(nth);
        it.id = SocketId { sk, born_ns: 1 };
        it.endpoints = Endpoints::new((host(1), 40_000 + nth), (host(remote), 5_672), 7);
        it.identity.inode = Some(sk);
        it.owner = sample::owner(pid, comm);
        it.settings.keepalive_time_ms = Some(MINUTE_MS);
        it.settings.keepalive_intvl_ms = Some(75_000);
        it.settings.keepalive_intvl_from = Some(Origin::Sysctl);
        it.settings.keepalive_probes = Some(3);
    })
}

/// 20 connections that are probed once a minute, and answer.
fn healthy() -> Vec<SocketEvent> {
    let all = (0..20).flat_map(|nth| (1..30).map(move |minute| (nth, minute)));
    all.map(|(nth, minute)| {
        let sent = with(
            probe(minute * MINUTE_MS + u64::from(nth), 0, MINUTE_MS),
            |it| {
                (it.lastrcv_ms, it.lastsnd_ms) = (MINUTE_MS, MINUTE_MS);
                it.next_ms = Some(MINUTE_MS);
            },
        );
        of_program("beam.smp", nth, 7, sent)
    })
    .collect()
}

/// 40 connections to a broker that dies after five minutes.
fn dead_broker() -> Vec<SocketEvent> {
    let mut events = Vec::new();
    for nth in 0..40 {
        let died_ms = 5 * MINUTE_MS + u64::from(nth) * 500;
        let at = |sent: u64| died_ms + sent * 75_000;
        for sent in 0..3_u8 {
            let idle_ms = MINUTE_MS + u64::from(sent) * 75_000;
            events.push(with(probe(at(sent.into()), sent, idle_ms), |it| {
                (it.lastrcv_ms, it.lastsnd_ms) = (idle_ms, idle_ms);
            }));
        }
        let idle_ms = MINUTE_MS + 3 * 75_000;
        let end = |kind| {
            with(event(at(3), kind), |it| {
                (it.probes_out, it.probes_out_after) = (3, 3);
                (it.lastack_ms, it.lastrcv_ms) = (idle_ms, idle_ms);
                it.firing_ns = Some(sample::at(at(3)).mono_ns);
            })
        };
        events.push(end(Kind::RstSent));
        events.push(end(Kind::Timeout(Cause::ProbeCount)));
        let first = events.len() - 5;
        for event in &mut events[first..] {
            *event = of_program("java", nth, 9, event.clone());
        }
    }
    events
}

/// Data that is not acknowledged for a while, after ten minutes of silence.
fn stall() -> Vec<SocketEvent> {
    let at_ms = 20 * MINUTE_MS;
    let stalled = unacked(event(at_ms, Kind::Stalled), 3, 1_400, 10 * MINUTE_MS);
    let stalled = with(stalled, |it| it.dead_in_ms = Some(922_600));
    let resumed = with(event(at_ms + 40_000, Kind::Resumed), |it| {
        (it.lastack_ms, it.next_ms) = (20, None);
    });
    [stalled, resumed]
        .map(|event| of_program("psql", 0, 5, event))
        .to_vec()
}

/// A server that closes a connection after five minutes without data.
fn idle_close() -> Vec<SocketEvent> {
    let closed = with(event(25 * MINUTE_MS, Kind::FinReceived), |it| {
        (it.lastrcv_ms, it.lastsnd_ms) = (300_004, 300_008);
        it.lastack_ms = 1_000;
    });
    vec![of_program("curl", 0, 4, closed)]
}

/// All of it, in order.
fn half_hour() -> Vec<Event> {
    let mut events = [healthy(), dead_broker(), stall(), idle_close()].concat();
    events.sort_by_key(|it| it.at.mono_ns);
    events.into_iter().map(of).collect()
}

#[test]
fn half_an_hour_fits_one_screen_with_every_problem_and_its_remedy() -> io::Result<()> {
    let records = judged(&half_hour());
    let text = shown(digest(plain), &records)?;
    assert!(text.lines().count() <= 40, "{text}");
    assert!(text.lines().all(|line| line.width() <= 80), "{text}");
    assert_snapshot!(text);

    // With -v, all events are shown: a line each.
    let style = TextStyle {
        time: TimeFormat::Clock,
        wide: false,
        heading: false,
        color: ColorWhen::Never,
    };
    let mut all = TextLines::new(Vec::new(), style, false, TimeZone::UTC);
    records.iter().try_for_each(|record| all.record(record))?;
    let all = written(&mut all);
    let count = |words: &str| all.lines().filter(|line| line.contains(words)).count();
    assert_eq!(all.lines().count(), records.len());
    assert_eq!(count(" probe 1/3 "), 20 * 29 + 40);
    assert_eq!(count(" probe 3/3 "), 40);
    assert_eq!(count(" timeout probe_count "), 40);
    Ok(())
}

#[test]
fn no_screen_is_too_narrow_and_no_name_too_long() -> io::Result<()> {
    fn narrow() -> Layout {
        Layout {
            columns: 40,
            colored: true,
            ..plain()
        }
    }
    let hostile = Escaped::from_bytes(b"\x1b[2J\n\xff\xe2\x80\xae\x07 x\x1bc\x9b");
    let mut records = judged(&half_hour());
    for record in &mut records {
        record.process.comm = Some(hostile.clone());
        record.host = Some(Escaped::from("a-host-of-many-letters.example.org"));
    }
    for layout in [plain as fn() -> Layout, narrow] {
        let text = shown(digest(layout), &records)?;
        let columns = layout().columns;
        for line in text.lines() {
            let bare = line.replace("\u{1b}[0m", "");
            let bare = bare.split('\u{1b}').map(|it| match it.split_once('m') {
                Some((codes, rest)) if codes.starts_with('[') => rest,
                _ => it,
            });
            let bare: String = bare.collect();
            assert!(bare.width() <= columns, "{columns}: {bare}");
            assert!(!bare.chars().any(char::is_control), "{bare:?}");
        }
    }
    Ok(())
}

#[test]
fn an_event_and_its_verdict_are_one_block_and_a_lone_one_is_told() -> io::Result<()> {
    let all = judged(&[of(with(event(0, Kind::Timeout(Cause::ProbeCount)), |it| {
        (it.probes_out, it.probes_out_after) = (9, 9);
    }))]);
    assert_eq!(all.len(), 2, "with its verdict");
    let both = shown(digest(plain), &all)?;
    assert!(!both.contains(" timeout"), "{both}");
    assert!(
        both.contains(" peer_unreachable (high)  beam.smp[4242]"),
        "{both}"
    );
    let alone = shown(digest(plain), &all[..1])?;
    assert!(alone.contains(" timeout  beam.smp[4242]"), "{alone}");
    Ok(())
}

#[test]
fn recoveries_losses_and_zombies_are_told() -> io::Result<()> {
    let all = judged(&[
        Event::Snapshot(Box::new(sample::row(10, 9))),
        of(probe(0, 1, 7_000)),
        of(probe(10_000, 0, 1_000)),
        lost(20_000, Some(Kind::Probe)),
        lost(80_001, Some(Kind::Probe)),
    ]);
    assert_snapshot!(shown(digest(plain), &all)?);
    Ok(())
}

#[test]
fn silence_is_explained() -> io::Result<()> {
    let row = |nth: u16, keepalive: bool, next_ms: Option<u64>| Row {
        keepalive_next_ms: next_ms,
        ..with(sample::row(0, nth.into()), |it| {
            it.endpoints.rport = nth;
            it.settings.keepalive = Some(keepalive);
            it.process.pid = Some(4_242);
            it.process.comm = Some(Escaped::from("java"));
        })
    };
    let said = |rows: &[Row], is_filtered| -> io::Result<String> {
        let mut digest = digest(plain);
        rows.iter().for_each(|it| digest.existing(it));
        digest.watching(sample::at(0), is_filtered)?;
        digest.tick(sample::at(1_000))?;
        let status = digest.status().unwrap_or_default();
        Ok(format!("{}{status}", written(&mut digest)))
    };
    let mut half: Vec<_> = (0..20).map(|nth| row(nth, false, None)).collect();
    half.extend((20..40).map(|nth| row(nth, true, Some(6_200_000 + u64::from(nth) * 1_000))));
    let listener = with(row(99, false, None), |it| it.state = State::Listen);
    assert_snapshot!(
        [
            said(&half, true)?,
            said(&half[..20], true)?,
            said(&half[20..21], false)?,
            said(&[listener], true)?,
            said(&[], false)?,
        ]
        .join("\n\n")
    );
    Ok(())
}

#[test]
fn the_status_line_follows_the_records() -> io::Result<()> {
    let mut digest = digest(plain);
    let events = [
        of(probe(0, 0, 60_000)),
        of(probe(1_000, 1, 61_000)),
        lost(1_500, None),
    ];
    for record in judged(&events) {
        digest.record(&record)?;
    }
    digest.tick(sample::at(1_600))?;
    let status = digest.status().unwrap_or_default();
    assert_snapshot!(status, @"LOST 12 events | 1 unanswered | 1 connection | 2 probes, 0 answered | next timer in 0 s: beam.smp[4242]");
    assert_eq!(digest.status(), None, "it is taken once");
    Ok(())
}

/// Both ports of these connections are a client's. A socket listens on the local one, so all
/// are of one service.
#[test]
fn connections_to_a_port_that_listens_are_of_one_service() -> io::Result<()> {
    let mut events = dead_broker();
    for event in &mut events {
        let Endpoints { laddr, raddr, .. } = event.endpoints;
        let client = event.endpoints.lport;
        event.endpoints = Endpoints::new((laddr, 50_000), (raddr, client), 7);
    }
    events.sort_by_key(|it| it.at.mono_ns);
    let records = judged(&events.into_iter().map(of).collect::<Vec<_>>());
    let listener = Row {
        endpoints: Endpoints::new((IpAddr::from([0; 4]), 50_000), (IpAddr::from([0; 4]), 0), 7),
        state: State::Listen,
        ..Row::default()
    };
    for (is_known, blocks) in [(true, 1), (false, 40)] {
        let mut digest = digest(plain);
        if is_known {
            digest.existing(&listener);
        }
        let text = shown(digest, &records)?;
        let told = text.matches(" peer_unreachable (high) ").count();
        assert_eq!(told, blocks, "{text}");
    }
    Ok(())
}
