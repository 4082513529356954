//! Keys move through the groups, their connections and timelines.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use crate::census::sums::Census;
use crate::cli::args::TopSort;
use crate::top::events::Events;
use crate::top::grouping::program;
use crate::top::model::Model;
use crate::top::tests::made::{host, plain, status};
use crate::top::ui::{Place, Request, Ui};
use crate::top::view::View;

const AREA: Rect = Rect::new(0, 0, 80, 24);

/// Presses a key. `^` before a character is Ctrl.
fn press(ui: &mut Ui, (census, events): &(Census, Events), key: &str) -> Option<Request> {
    let code = match key.trim_start_matches('^') {
        "enter" => KeyCode::Enter,
        "esc" => KeyCode::Esc,
        "up" => KeyCode::Up,
        "down" => KeyCode::Down,
        "pgdn" => KeyCode::PageDown,
        "end" => KeyCode::End,
        "home" => KeyCode::Home,
        "back" => KeyCode::Backspace,
        other => KeyCode::Char(other.chars().next().unwrap_or(' ')),
    };
    let modifiers = if key.len() > 1 && key.starts_with('^') {
        KeyModifiers::CONTROL
    } else {
        KeyModifiers::NONE
    };
    let model = Model { census, events };
    let (look, status, before) = (plain(), status(), ui.clone());
    let (listed, page) = View::new(model, &before, &look, &status, AREA).listed(AREA);
    ui.key(KeyEvent::new(code, modifiers), &listed, page)
}

/// Where the user is, as one line.
fn describe(ui: &Ui) -> String {
    let place = match &ui.place {
        Place::Groups => "groups".to_owned(),
        Place::Group(id) => format!("{} {}", program(id), id.peers),
        Place::Connection(id, key) => format!("{} {:?}", program(id), key.remote().1),
    };
    let mut words = vec![place];
    words.extend((!ui.filter.is_empty()).then(|| format!("filter {}", ui.filter)));
    words.extend(ui.is_typing.then(|| "typing".to_owned()));
    words.extend(ui.shows_help.then(|| "help".to_owned()));
    words.extend(ui.is_paused.then(|| "paused".to_owned()));
    words.extend(ui.order.reversed.then(|| "reversed".to_owned()));
    words.join(", ")
}

#[test]
fn keys_move_through_groups_connections_and_timelines() {
    let host = host();
    let broker = "java -jar app.jar 10.0.0.5:5672";
    for (keys, expected) in [
        ("", "groups"),
        ("enter", broker),
        ("enter esc", "groups"),
        ("down enter", "nginx clients of :8080"),
        ("j j j j enter", "psql 10.0.0.6:5432"),
        ("end enter", "psql 10.0.0.6:5432"),
        ("end home enter", broker),
        ("pgdn up enter", "nginx clients of :8080"),
        ("enter enter", "java -jar app.jar 5672"),
        ("enter enter esc", broker),
        ("enter enter esc esc", "groups"),
        ("/ p s q l", "groups, filter psql, typing"),
        ("/ p s q x back l enter", "groups, filter psql"),
        ("/ P S Q L enter enter", "psql 10.0.0.6:5432"),
        ("/ n o n e enter enter", "groups, filter none"),
        ("/ n o n e enter esc", "groups"),
        ("/ n o esc", "groups"),
        ("/ ? enter", "groups, filter ?"),
        ("?", "groups, help"),
        ("? down esc", "groups"),
        ("? enter", "groups"),
        ("p", "groups, paused"),
        ("p p", "groups"),
        ("r", "groups, reversed"),
        ("r enter", "psql 10.0.0.6:5432"),
        ("esc esc", "groups"),
        ("^x", "groups"),
    ] {
        let mut ui = Ui::new(TopSort::Trouble);
        for key in keys.split_whitespace() {
            press(&mut ui, &host, key);
        }
        let reversed = expected.starts_with("psql") && keys.starts_with("r ");
        let expected = format!("{expected}{}", if reversed { ", reversed" } else { "" });
        assert_eq!(describe(&ui), expected, "{keys}");
    }
}

#[test]
fn keys_ask_for_what_the_state_cannot_do() {
    let host = host();
    for (keys, request) in [
        ("q", Some(Request::Quit)),
        ("? q", Some(Request::Quit)),
        ("^c", Some(Request::Quit)),
        ("/ q", None),
        ("/ ^c", Some(Request::Quit)),
        ("^z", Some(Request::Suspend)),
        ("^l", Some(Request::Redraw)),
        ("enter", Some(Request::Refresh)),
        ("enter enter", None),
        ("x", None),
    ] {
        let mut ui = Ui::new(TopSort::Trouble);
        let mut last = None;
        for key in keys.split_whitespace() {
            last = press(&mut ui, &host, key);
        }
        assert_eq!(last, request, "{keys}");
    }
}

#[test]
fn the_sort_key_goes_round() {
    let host = host();
    let mut ui = Ui::new(TopSort::Trouble);
    let mut firsts = Vec::new();
    for _ in 0..6 {
        let (census, events) = &host;
        let rows = Model { census, events }.groups(ui.order, "");
        firsts.push(format!("{:?}: {}", ui.order.by, program(rows[0].id)));
        press(&mut ui, &host, "s");
    }
    assert_eq!(ui.order.by, TopSort::Trouble);
    assert_eq!(
        firsts,
        [
            "Trouble: java -jar app.jar",
            "Connections: java -jar app.jar",
            "Idle: java -jar app.jar",
            "Probes: psql",
            "Verdicts: java -jar app.jar",
            "Program: java -jar app.jar",
        ]
    );
}

#[test]
fn the_selected_row_stays_selected_when_rows_move() {
    let host = host();
    let mut ui = Ui::new(TopSort::Trouble);
    press(&mut ui, &host, "end");
    press(&mut ui, &host, "r");
    press(&mut ui, &host, "enter");
    assert_eq!(describe(&ui), "psql 10.0.0.6:5432, reversed");
}

#[test]
fn a_filter_has_a_longest_length() {
    let host = host();
    let mut ui = Ui::new(TopSort::Trouble);
    press(&mut ui, &host, "/");
    for _ in 0..1_000 {
        press(&mut ui, &host, "x");
    }
    assert_eq!(ui.filter.len(), 100);
}
