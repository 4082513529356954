//! What is drawn, at several sizes.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;

use crate::census::sums::Census;
use crate::census::sums::group_of;
use crate::cli::args::TopSort;
use crate::model::peer_group::PeerGroup;
use crate::model::record::EventName;
use crate::model::row::Timer;
use crate::sample::{at, golden};
use crate::text::escape::Escaped;
use crate::text::histogram::Bars;
use crate::top::events::Events;
use crate::top::model::Model;
use crate::top::tests::made::{
    census, host, key, plain, process, push, record, row, status, to_server,
};
use crate::top::ui::{Place, Ui};
use crate::top::view::look::Look;
use crate::top::view::{Status, View};

/// What is drawn on a screen of this size.
fn buffer(
    (width, height): (u16, u16),
    (census, events): &(Census, Events),
    ui: &Ui,
    (look, status): (&Look, &Status),
) -> Buffer {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let area = Rect::new(0, 0, width, height);
    let model = Model { census, events };
    let Ok(_) = terminal.draw(|frame| View::new(model, ui, look, status, area).draw(frame));
    terminal.backend().buffer().clone()
}

/// The lines of a screen, without spaces at their ends.
fn lines(buffer: &Buffer) -> Vec<String> {
    let width = buffer.area.width.max(1).into();
    let rows = buffer.content.chunks(width);
    let text = |row: &[ratatui::buffer::Cell]| -> String {
        let cells: String = row.iter().map(|cell| cell.symbol()).collect();
        cells.trim_end().to_owned()
    };
    rows.map(text).collect()
}

fn drawn(size: (u16, u16), host: &(Census, Events), ui: &Ui) -> String {
    lines(&buffer(size, host, ui, (&plain(), &status()))).join("\n")
}

fn at_place(place: Place) -> Ui {
    Ui {
        place,
        ..Ui::new(TopSort::Trouble)
    }
}

fn broker() -> PeerGroup {
    let java = crate::model::socket::Process {
        cmdline: Some(Escaped::from("java -jar app.jar")),
        ..process("java", 4242)
    };
    group_of(&to_server(1, 5, 5_672), &java, false)
}

#[test]
fn screens_match_the_golden_files() -> Result<(), String> {
    let groups = Ui::new(TopSort::Trouble);
    let connections = at_place(Place::Group(broker()));
    let timeline = |port| {
        let key = key(&to_server(port, 5, 5_672));
        at_place(Place::Connection(broker(), key))
    };
    let help = Ui {
        shows_help: true,
        ..groups.clone()
    };
    let host = host();
    for (name, size, ui) in [
        ("groups-80x24", (80, 24), &groups),
        ("groups-120x40", (120, 40), &groups),
        ("groups-40x10", (40, 10), &groups),
        ("groups-20x5", (20, 5), &groups),
        ("connections-80x24", (80, 24), &connections),
        ("connections-40x10", (40, 10), &connections),
        ("timeline-80x24", (80, 24), &timeline(42_000)),
        ("unanswered-80x24", (80, 24), &timeline(40_000)),
        ("help-80x24", (80, 24), &help),
        ("help-40x10", (40, 10), &help),
    ] {
        golden::check(&format!("top-{name}.txt"), &(drawn(size, &host, ui) + "\n"))?;
    }
    Ok(())
}

/// The screen that a terminal has at first shows all of the help. A lower one says which lines
/// it shows.
#[test]
fn the_help_fits_a_screen() {
    let help = Ui {
        shows_help: true,
        ..Ui::new(TopSort::Trouble)
    };
    let host = host();
    let (small, low) = (drawn((80, 24), &host, &help), drawn((80, 12), &host, &help));
    assert!(small.contains("\narrows ") && small.contains("kaprobe trace shows every event"));
    assert!(!small.contains("lines 1-"), "{small}");
    assert!(low.contains("lines 1-10 of 21: arrows"), "{low}");
}

/// A name that is cut ends in a mark, and so do the lines above the rows.
#[test]
fn what_is_cut_is_marked() {
    let endpoints = to_server(1, 5, 443);
    let named = row(endpoints, process("a-name-of-15-ch", 1), None);
    let host = (census(&[named], None), Events::default());
    let text = drawn((40, 20), &host, &Ui::new(TopSort::Trouble));
    let rows: Vec<_> = text.lines().collect();
    assert!(rows[0].ends_with('~'), "{text}");
    assert!(rows[1].ends_with('~'), "{text}");
    assert!(rows[4].starts_with("a-name-of-15-~ 10.0.0.5:443"), "{text}");
}

/// A screen that has no room for something that is wrong says so.
#[test]
fn a_finding_that_is_hidden_is_named() {
    let mut stalled = row(to_server(1, 5, 443), process("client", 1), None);
    (stalled.retransmits, stalled.unacked) = (Some(9), Some(1));
    stalled.timer = Timer::On;
    stalled.transfer.stalled_ms = Some(60_000);
    let host = (census(&[stalled], None), Events::default());
    assert_eq!(host.0.total.stalled, 1);
    let notice = |width| {
        let text = drawn((width, 24), &host, &Ui::new(TopSort::Trouble));
        text.lines().nth(2).unwrap_or_default().to_owned()
    };
    assert_eq!(notice(80), "");
    assert!(notice(29).starts_with("no room for STALL: "));
}

/// The connections of a group are those that live, as many as are listed, and those that are
/// over.
#[test]
fn a_title_counts_what_is_listed() {
    let host = host();
    let title = |filter: &str| {
        let ui = Ui {
            filter: filter.to_owned(),
            ..at_place(Place::Group(broker()))
        };
        let text = drawn((120, 40), &host, &ui);
        text.lines().next().unwrap_or_default().to_owned()
    };
    assert!(title("").contains("  8 of 40 and 6 over: java -jar app.jar, "));
    assert!(title("42001").contains("  0 of 40 and 1 over: "));
    assert!(title("40001").contains("  1 of 40: "));
}

#[test]
fn the_screen_says_what_it_waits_for() {
    let status = Status {
        has_census: false,
        ..status()
    };
    let (host, ui) = (Default::default(), Ui::new(TopSort::Trouble));
    let buffer = buffer((60, 8), &host, &ui, (&plain(), &status));
    assert_eq!(lines(&buffer)[2], "reading the sockets");
}

/// Each place, paused, filtered, typing, and with help.
fn all_uis() -> Vec<Ui> {
    let places = [
        Place::Groups,
        Place::Group(broker()),
        Place::Connection(broker(), key(&to_server(42_000, 5, 5_672))),
        Place::Connection(broker(), key(&to_server(1, 1, 1))),
    ];
    let uis = places.into_iter().flat_map(|place| {
        let ui = at_place(place);
        [
            ui.clone(),
            Ui {
                shows_help: true,
                scroll: 1_000,
                ..ui.clone()
            },
            Ui {
                is_paused: true,
                is_typing: true,
                filter: "\u{1b}[2J\u{4e2d}".to_owned(),
                ..ui
            },
        ]
    });
    uis.collect()
}

#[test]
fn every_size_can_be_drawn_on() {
    let host = host();
    for ui in all_uis() {
        for width in [0, 1, 2, 7, 12, 20, 33, 46, 61, 79, 80, 81, 200] {
            for height in [0, 1, 2, 3, 7, 8, 16, 60] {
                let area = Rect::new(0, 0, width, height);
                let (look, status) = (plain(), status());
                let model = Model {
                    census: &host.0,
                    events: &host.1,
                };
                let (_, page) = View::new(model, &ui, &look, &status, area).listed(area);
                assert!(page > 0);
                if !area.is_empty() {
                    drawn((width, height), &host, &ui);
                }
            }
        }
    }
}

#[test]
fn without_colors_there_are_none() {
    let host = host();
    for (colored, expected) in [(false, false), (true, true)] {
        let look = Look {
            colored,
            bars: Bars::Unicode,
            ..plain()
        };
        let ui = Ui::new(TopSort::Trouble);
        let buffer = buffer((80, 24), &host, &ui, (&look, &status()));
        let is_colored =
            |cell: &ratatui::buffer::Cell| [cell.fg, cell.bg].iter().any(|it| *it != Color::Reset);
        assert_eq!(buffer.content.iter().any(is_colored), expected);
    }
}

#[test]
fn losses_and_failures_are_shown() {
    let mut host = host();
    let notice = |host: &(Census, Events), status: &Status| {
        let ui = Ui::new(TopSort::Trouble);
        lines(&buffer((80, 24), host, &ui, (&plain(), status))).swap_remove(2)
    };
    let untraced = Status {
        untraced: Some("tracing needs CAP_BPF".to_owned()),
        ..status()
    };
    assert_eq!(
        notice(&host, &untraced),
        "no events, only snapshots: tracing needs CAP_BPF"
    );
    let slow = Status {
        slow_s: Some(4),
        ..status()
    };
    assert_eq!(notice(&host, &slow), "the snapshot takes 4 s so far");
    let mut lost = record(at(0), EventName::Lost, to_server(1, 1, 1), process("", 0));
    lost.lost = Some(12);
    push(&mut host.1, &lost);
    assert_eq!(
        notice(&host, &untraced),
        "12 events lost: probes, answers and verdicts may be missing"
    );
    lost.lost = None;
    push(&mut host.1, &lost);
    assert!(notice(&host, &slow).contains("a hook was switched off"));
    let unread = Status {
        unread: Some("it was killed\u{1b}[2J".to_owned()),
        ..status()
    };
    assert_eq!(
        notice(&host, &unread),
        "no more snapshots: it was killed\\u{1b}[2J"
    );
}

/// Names that programs can choose themselves.
#[test]
fn hostile_names_are_escaped_everywhere() {
    let name = "\u{1b}[2J\u{202e}\n\u{7}\u{9b}31m";
    let hostile = process(name, 1);
    let endpoints = to_server(1, 5, 443);
    let mut row = row(endpoints, hostile.clone(), None);
    row.process.unit = Some(Escaped::from(name));
    row.netns_name = Some(Escaped::from(name));
    let id = group_of(&endpoints, &row.process, false);
    let mut events = Events::default();
    let mut told = record(
        at(0),
        EventName::RstReceived,
        endpoints,
        row.process.clone(),
    );
    told.reason = Some(Escaped::from(name));
    push(&mut events, &told);
    let mut census = census(&[row], None);
    census.notes.push(format!("a note {name}"));
    let host = (census, events);
    let status = Status {
        host: Escaped::from(name),
        message: Some(name.to_owned()),
        ..status()
    };
    for place in [
        Place::Groups,
        Place::Group(id.clone()),
        Place::Connection(id.clone(), key(&endpoints)),
    ] {
        let ui = Ui {
            filter: "1".to_owned(),
            ..at_place(place)
        };
        let buffer = buffer((200, 40), &host, &ui, (&plain(), &status));
        let text = lines(&buffer).join("");
        assert!(text.contains("\\u{1b}[2J"), "{text}");
        assert!(
            text.chars().all(|it| !it.is_control() && it != '\u{202e}'),
            "{text:?}"
        );
    }
}
