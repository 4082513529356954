//! What the user looks at, and what keys do to it. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::cli::args::TopSort;
use crate::model::flow::FlowKey;
use crate::model::peer_group::PeerGroup;
use crate::top::model::Order;

/// The longest filter, characters.
const MAX_FILTER: usize = 100;

/// The sort keys, in the order in which a key goes through them.
const SORTS: [TopSort; 6] = [
    TopSort::Trouble,
    TopSort::Connections,
    TopSort::Idle,
    TopSort::Probes,
    TopSort::Verdicts,
    TopSort::Program,
];

/// What the user looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ui {
    pub(super) place: Place,
    pub(super) groups: Cursor<PeerGroup>,
    pub(super) connections: Cursor<FlowKey>,
    /// Number of lines of a timeline, or of the help, above the screen.
    pub(super) scroll: usize,
    pub(super) order: Order,
    /// The text that rows must contain.
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) is_typing: bool,
    pub(super) shows_help: bool,
    pub(super) is_paused: bool,
}

/// A place in the tree of groups, connections and their timelines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// All groups.
    Groups,
    /// The connections of a group.
    Group(PeerGroup),
    /// The timeline of a connection.
    Connection(PeerGroup, FlowKey),
}

/// The selected row of a list. It stays selected when rows move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor<K> {
    selected: Option<K>,
    /// Where it was last.
    at: usize,
}

impl<K> Default for Cursor<K> {
    fn default() -> Self {
        Self {
            selected: None,
            at: 0,
        }
    }
}

/// The rows that keys move in.
pub(super) enum Listed {
    Groups(Vec<PeerGroup>),
    Connections(Vec<FlowKey>),
    /// A text, that can be scrolled by this many lines.
    Text(usize),
}

/// What a key asks for that the state can't do itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// End.
    Quit,
    /// Stop the process until the shell continues it.
    Suspend,
    /// Take a snapshot now.
    Refresh,
    /// Draw the whole screen anew.
    Redraw,
}

/// A step of the cursor.
#[derive(Clone, Copy)]
enum Step {
    Up(usize),
    Down(usize),
    First,
    Last,
}

impl<K: PartialEq + Clone> Cursor<K> {
    /// The place of the selected row; of the row that took its place, if it is gone.
    pub(super) fn place(&self, rows: &[K]) -> usize {
        let found = self
            .selected
            .as_ref()
            .and_then(|it| rows.iter().position(|row| row == it));
        found.unwrap_or(self.at.min(rows.len().saturating_sub(1)))
    }

    fn step(&mut self, rows: &[K], step: Step) {
        let last = rows.len().saturating_sub(1);
        self.at = step.from(self.place(rows), last);
        self.selected = rows.get(self.at).cloned();
    }

    /// The selected row, if there is one. It stays selected.
    fn take(&mut self, rows: &[K]) -> Option<K> {
        self.step(rows, Step::Down(0));
        self.selected.clone()
    }
}

impl Step {
    fn from(self, at: usize, last: usize) -> usize {
        match self {
            Self::Up(rows) => at.saturating_sub(rows),
            Self::Down(rows) => at.saturating_add(rows).min(last),
            Self::First => 0,
            Self::Last => last,
        }
    }
}

impl Ui {
    /// The state at the start.
    pub(super) fn new(sort: TopSort) -> Self {
        Self {
            place: Place::Groups,
            groups: Cursor::default(),
            connections: Cursor::default(),
            scroll: 0,
            order: Order {
                by: sort,
                reversed: false,
            },
            filter: String::new(),
            is_typing: false,
            shows_help: false,
            is_paused: false,
        }
    }

    /// The group that is shown open.
    pub(super) const fn open(&self) -> Option<&PeerGroup> {
        match &self.place {
            Place::Groups => None,
            Place::Group(id) | Place::Connection(id, _) => Some(id),
        }
    }

    /// Handles a key. `page` is the number of rows on the screen.
    pub(super) fn key(&mut self, key: KeyEvent, listed: &Listed, page: usize) -> Option<Request> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Request::Quit),
                KeyCode::Char('z') => Some(Request::Suspend),
                KeyCode::Char('l') => Some(Request::Redraw),
                _ => None,
            };
        }
        if self.is_typing {
            self.type_filter(key.code);
            return None;
        }
        if self.shows_help {
            return self.help_key(key.code, listed, page);
        }
        if let Some(step) = step(key.code, page) {
            self.step(listed, step);
            return None;
        }
        match key.code {
            KeyCode::Char('q') => return Some(Request::Quit),
            KeyCode::Enter | KeyCode::Right => return self.open_selected(listed),
            KeyCode::Esc | KeyCode::Left | KeyCode::Backspace => self.go_back(),
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('s') => self.next_sort(),
            KeyCode::Char('r') => self.order.reversed = !self.order.reversed,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => {
                self.shows_help = true;
                self.scroll = 0;
            }
            _ => {}
        }
        None
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(char) if self.filter.chars().count() < MAX_FILTER => {
                self.filter.push(char);
            }
            _ => {}
        }
    }

    fn help_key(&mut self, code: KeyCode, listed: &Listed, page: usize) -> Option<Request> {
        match (code, step(code, page)) {
            (_, Some(step)) => self.step(listed, step),
            (KeyCode::Char('q'), _) => return Some(Request::Quit),
            _ => {
                self.shows_help = false;
                self.scroll = 0;
            }
        }
        None
    }

    fn step(&mut self, listed: &Listed, step: Step) {
        match listed {
            Listed::Groups(rows) => self.groups.step(rows, step),
            Listed::Connections(rows) => self.connections.step(rows, step),
            Listed::Text(last) => self.scroll = step.from(self.scroll.min(*last), *last),
        }
    }

    fn open_selected(&mut self, listed: &Listed) -> Option<Request> {
        match (&self.place, listed) {
            (Place::Groups, Listed::Groups(rows)) => {
                self.place = Place::Group(self.groups.take(rows)?);
                self.connections = Cursor::default();
                self.filter.clear();
                // It lists more connections of the group.
                Some(Request::Refresh)
            }
            (Place::Group(id), Listed::Connections(rows)) => {
                let key = self.connections.take(rows)?;
                self.place = Place::Connection(id.clone(), key);
                self.scroll = 0;
                None
            }
            _ => None,
        }
    }

    fn go_back(&mut self) {
        if !self.filter.is_empty() && !matches!(self.place, Place::Connection(..)) {
            self.filter.clear();
            return;
        }
        self.scroll = 0;
        self.place = match &self.place {
            Place::Groups | Place::Group(_) => Place::Groups,
            Place::Connection(id, _) => Place::Group(id.clone()),
        };
    }

    fn next_sort(&mut self) {
        let at = SORTS.iter().position(|it| *it == self.order.by);
        let next = at.map_or(0, |at| (at + 1) % SORTS.len());
        self.order.by = SORTS[next];
    }
}

/// The step that a key asks for.
const fn step(code: KeyCode, page: usize) -> Option<Step> {
    Some(match code {
        KeyCode::Up | KeyCode::Char('k') => Step::Up(1),
        KeyCode::Down | KeyCode::Char('j') => Step::Down(1),
        KeyCode::PageUp => Step::Up(page),
        KeyCode::PageDown => Step::Down(page),
        KeyCode::Home | KeyCode::Char('g') => Step::First,
        KeyCode::End | KeyCode::Char('G') => Step::Last,
        _ => return None,
    })
}
