//! Draws the screen of `top`: a pure function of the model, of what the user looks at, and of
//! the size of the screen.

mod connections;
mod groups;
pub(super) mod look;
mod table;
mod timeline;
mod words;

use std::borrow::Cow;
use std::ops::Range;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Modifier;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use unicode_width::UnicodeWidthStr as _;

use crate::cli::args::TopSort;
use crate::model::flow::FlowKey;
use crate::model::peer_group::PeerGroup;
use crate::model::time::WallTime;
use crate::text::columns::Hidden;
use crate::text::cut;
use crate::text::escape::{self, Escaped};
use crate::text::units::plural;
use crate::top::grouping::program;
use crate::top::model::{ConnectionRow, GroupRow, Model};
use crate::top::ui::{Listed, Place, Ui};
use crate::top::view::look::{Look, Tone};
use crate::top::view::timeline::TextLine;

/// Lines for what is known of the selected row.
const ABOUT_HEIGHT: u16 = 5;
/// The screen must have this many lines to have those.
const HIGH_ENOUGH: u16 = 16;

/// What the screen shows besides the model.
#[derive(Clone, Debug)]
pub(super) struct Status {
    /// The time, wall clock.
    pub(super) now: WallTime,
    /// The name of this host.
    pub(super) host: Escaped,
    /// Why there are no events, if there are none.
    pub(super) untraced: Option<String>,
    /// Why there are no more snapshots, if there are none.
    pub(super) unread: Option<String>,
    /// The last message, if there is one.
    pub(super) message: Option<String>,
    /// The snapshot takes longer than usual: for so many seconds by now.
    pub(super) slow_s: Option<u64>,
    /// A first snapshot was taken.
    pub(super) has_census: bool,
}

/// The rows of the current place, and what can be moved through.
pub(super) struct View<'a> {
    model: Model<'a>,
    ui: &'a Ui,
    look: &'a Look,
    status: &'a Status,
    rows: Rows<'a>,
}

enum Rows<'a> {
    Groups(Vec<GroupRow<'a>>),
    Connections(GroupRow<'a>, Vec<ConnectionRow<'a>>),
    Text(Vec<TextLine>),
}

/// The parts of the screen.
struct Areas {
    head: Rect,
    body: Rect,
    about: Rect,
    foot: Rect,
}

impl Areas {
    fn of(area: Rect, head: u16, has_about: bool) -> Self {
        let about = if has_about && area.height >= HIGH_ENOUGH {
            ABOUT_HEIGHT
        } else {
            0
        };
        let foot = u16::from(area.height > 1);
        let heights = [
            Constraint::Length(head),
            Constraint::Min(1),
            Constraint::Length(about),
            Constraint::Length(foot),
        ];
        let [head, body, about, foot] = Layout::vertical(heights).areas(area);
        Self {
            head,
            body,
            about,
            foot,
        }
    }
}

impl<'a> View<'a> {
    /// Prepares what is to be drawn on a screen of this size.
    pub(super) fn new(
        model: Model<'a>,
        ui: &'a Ui,
        look: &'a Look,
        status: &'a Status,
        area: Rect,
    ) -> Self {
        let width = area.width.into();
        let rows = match &ui.place {
            _ if ui.shows_help => Rows::Text(timeline::help(width)),
            Place::Groups => Rows::Groups(model.groups(ui.order, &ui.filter)),
            Place::Group(id) => {
                Rows::Connections(model.group(id), model.connections(id, &ui.filter))
            }
            Place::Connection(id, key) => Rows::Text(match model.connection(id, key) {
                Some(row) => timeline::lines(look, &row, width),
                None => vec![TextLine {
                    text: "no longer there, and its events are no longer kept".to_owned(),
                    tone: Tone::Faint,
                }],
            }),
        };
        Self {
            model,
            ui,
            look,
            status,
            rows,
        }
    }

    /// What keys can move through, and the number of rows on a page.
    pub(super) fn listed(&self, area: Rect) -> (Listed, usize) {
        let body = usize::from(self.areas(area).body.height);
        let page = body.saturating_sub(1).max(1);
        match &self.rows {
            Rows::Groups(rows) => (Listed::Groups(ids(rows)), page),
            Rows::Connections(_, rows) => (Listed::Connections(keys(rows)), page),
            Rows::Text(lines) => (Listed::Text(lines.len().saturating_sub(body)), page),
        }
    }

    fn has_about(&self) -> bool {
        !matches!(self.rows, Rows::Text(_))
    }

    /// Draws it.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let areas = self.areas(frame.area());
        let (about, hidden) = self.body(frame, areas.body);
        self.head(frame, areas.head, &hidden);
        self.about(frame, areas.about, &about);
        self.foot(frame, &areas);
    }

    fn areas(&self, area: Rect) -> Areas {
        let head = match area.height {
            0..=2 => 0,
            3..=7 => 1,
            // The help fits a screen of 80 columns and 24 lines.
            _ if self.ui.shows_help => 1,
            _ => 3,
        };
        Areas::of(area, head, self.has_about())
    }

    /// Draws what is known of the selected row. The end is cut if it is too long.
    fn about(&self, frame: &mut Frame<'_>, area: Rect, about: &[String]) {
        let (width, height) = (usize::from(area.width).max(1), area.height.into());
        let lines = about.iter().flat_map(|it| textwrap::wrap(it, width));
        let mut lines: Vec<_> = lines.map(Cow::into_owned).collect();
        if let Some(next) = lines.get(height).cloned() {
            lines.truncate(height);
            if let Some(last) = lines.last_mut() {
                // It is too long for a line.
                last.extend([" ", &next, &" ".repeat(width)]);
            }
        }
        let lines = lines.into_iter().map(|it| Line::from(self.cut(&it, area)));
        frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
    }

    /// Cuts a line that is too wide, and marks that.
    fn cut(&self, line: &str, area: Rect) -> String {
        cut::end(line, area.width.into(), self.look.bars.ellipsis()).into_owned()
    }

    /// Draws the rows. Returns what is known of the selected one, and the columns that there
    /// is no room for.
    fn body(&self, frame: &mut Frame<'_>, area: Rect) -> (Vec<String>, Hidden) {
        let room = usize::from(area.height.saturating_sub(1));
        match &self.rows {
            Rows::Groups(rows) => {
                let selected = self.ui.groups.place(&ids(rows));
                let (rows, place) = visible(rows, selected, room);
                let columns = groups::columns();
                let hidden = table::draw(frame, area, self.look, &columns, rows, place);
                let row = rows.get(place.unwrap_or(0));
                (row.map(groups::about).unwrap_or_default(), hidden)
            }
            Rows::Connections(group, rows) => {
                let selected = self.ui.connections.place(&keys(rows));
                let (rows, place) = visible(rows, selected, room);
                let columns = connections::columns(group.id.peers);
                let hidden = table::draw(frame, area, self.look, &columns, rows, place);
                let row = rows.get(place.unwrap_or(0));
                let about = row.map(connections::about_with_last);
                (about.unwrap_or_default(), hidden)
            }
            Rows::Text(lines) => {
                let shown = &lines[self.scrolled(lines.len(), area)];
                let shown = shown
                    .iter()
                    .map(|line| Line::from(line.text.as_str()).style(self.look.style(line.tone)));
                frame.render_widget(Paragraph::new(shown.collect::<Vec<_>>()), area);
                (Vec::new(), Hidden::default())
            }
        }
    }

    /// Which lines of a text are shown.
    fn scrolled(&self, lines: usize, area: Rect) -> Range<usize> {
        let height = usize::from(area.height);
        let first = self.ui.scroll.min(lines.saturating_sub(height));
        first..lines.min(first + height)
    }

    fn head(&self, frame: &mut Frame<'_>, area: Rect, hidden: &Hidden) {
        let (notice, tone) = self.notice(hidden);
        let notice = self.cut(&escape::message(&notice), area);
        let lines = [
            Line::from(self.cut(&self.title(), area)).style(Modifier::BOLD),
            Line::from(self.cut(&self.totals(), area)),
            Line::from(notice).style(self.look.style(tone)),
        ];
        frame.render_widget(Paragraph::new(lines.to_vec()), area);
    }

    /// Where the user is, and how rows are chosen.
    fn title(&self) -> String {
        let time = self.look.clock(self.status.now);
        let mut title = format!("kaprobe top  {}  {time}", self.status.host);
        if self.ui.is_paused {
            title.push_str("  PAUSED");
        }
        title.push_str(&match &self.rows {
            _ if self.ui.shows_help => "  help".to_owned(),
            Rows::Groups(_) => format!("  sorted by {}", sort_name(self.ui.order.by)),
            Rows::Connections(group, rows) => {
                let live = rows.iter().filter(|it| it.live.is_some()).count();
                let over = match rows.len() - live {
                    0 => String::new(),
                    over => format!(" and {over} over"),
                };
                let (all, name) = (group.sums.connections, program(group.id));
                format!("  {live} of {all}{over}: {name}, {}", group.id.peers)
            }
            Rows::Text(_) => "  timeline".to_owned(),
        });
        if self.ui.order.reversed && matches!(self.rows, Rows::Groups(_)) {
            title.push_str(", reversed");
        }
        if !self.ui.filter.is_empty() {
            title.push_str(&format!("  filter: {}", escape::message(&self.ui.filter)));
        }
        title
    }

    /// The sums of everything.
    fn totals(&self) -> String {
        let Model { census, events } = self.model;
        let (now, so_far) = (&census.total, &events.total);
        let mut text = format!(
            "{}, {} unanswered, {} stalled; {}; {} sent, {} answered",
            plural(now.connections, "connection", "connections"),
            now.unanswered,
            now.stalled,
            plural(so_far.verdict_count(), "verdict", "verdicts"),
            plural(so_far.probes, "probe", "probes"),
            so_far.answered,
        );
        if census.other.connections > 0 {
            let other = census.other.connections;
            text.push_str(&format!("; {other} in groups that are not listed"));
        }
        text
    }

    /// The most important thing that is not as it should be.
    fn notice(&self, hidden: &Hidden) -> (String, Tone) {
        let status = self.status;
        let events = self.model.events;
        if let Some(why) = &status.unread {
            (format!("no more snapshots: {why}"), Tone::Bad)
        } else if events.lost > 0 || events.silenced {
            (lost(events.lost, events.silenced), Tone::Bad)
        } else if let Some(why) = &status.untraced {
            (format!("no events, only snapshots: {why}"), Tone::Warning)
        } else if let Some(seconds) = status.slow_s {
            (
                format!("the snapshot takes {seconds} s so far"),
                Tone::Warning,
            )
        } else if let Some(note) = self.model.census.notes.first().or(status.message.as_ref()) {
            (note.clone(), Tone::Warning)
        } else if !status.has_census {
            ("reading the sockets".to_owned(), Tone::Faint)
        } else if let Some(note) = self.no_room(hidden) {
            (note, Tone::Warning)
        } else if !self.model.census.is_judged {
            let text = "RISK has dying connections only: --behind or --idle-timeout sets a timeout";
            (text.to_owned(), Tone::Faint)
        } else {
            (String::new(), Tone::Plain)
        }
    }

    /// That the screen has no room for something that is wrong.
    fn no_room(&self, hidden: &Hidden) -> Option<String> {
        let columns = hidden.findings.join(", ");
        (!columns.is_empty()).then(|| format!("no room for {columns}: make the screen wider"))
    }

    fn foot(&self, frame: &mut Frame<'_>, areas: &Areas) {
        let text = if self.ui.is_typing {
            let typed = escape::message(&self.ui.filter);
            self.cut(
                &format!("filter: {typed}_   Enter keep, Esc drop"),
                areas.foot,
            )
        } else {
            self.keys(areas)
        };
        let line = Line::from(text).style(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(line), areas.foot);
    }

    /// The keys that there is room for, the most important first.
    fn keys(&self, areas: &Areas) -> String {
        let mut keys: Vec<Cow<'_, str>> = match &self.rows {
            Rows::Groups(_) => KEYS_OF_GROUPS.map(Cow::from).into(),
            Rows::Connections(..) => KEYS_OF_CONNECTIONS.map(Cow::from).into(),
            Rows::Text(_) if self.ui.shows_help => KEYS_OF_HELP.map(Cow::from).into(),
            Rows::Text(_) => KEYS_OF_TEXT.map(Cow::from).into(),
        };
        if let Rows::Text(lines) = &self.rows {
            let shown = self.scrolled(lines.len(), areas.body);
            if shown.len() < lines.len() {
                let (first, last) = (shown.start + 1, shown.end);
                let more = format!("lines {first}-{last} of {}: arrows", lines.len());
                keys.insert(1, more.into());
            }
        }
        let mut text = String::new();
        for key in keys {
            let space = if text.is_empty() { "" } else { "  " };
            if text.width() + space.len() + key.width() > areas.foot.width.into() {
                break;
            }
            text.extend([space, &key]);
        }
        text
    }
}

/// Keys and what they do, the most important first.
const KEYS_OF_GROUPS: [&str; 6] = [
    "Enter open",
    "? help",
    "q quit",
    "/ filter",
    "s sort",
    "p pause",
];
const KEYS_OF_CONNECTIONS: [&str; 6] = [
    "Esc back",
    "Enter timeline",
    "? help",
    "q quit",
    "/ filter",
    "p pause",
];
const KEYS_OF_HELP: [&str; 2] = ["Esc back", "q quit"];
const KEYS_OF_TEXT: [&str; 4] = ["Esc back", "? help", "q quit", "p pause"];

/// What is said about lost events.
fn lost(count: u64, silenced: bool) -> String {
    let events = plural(count, "event", "events");
    if silenced {
        format!("{events} lost, and a hook was switched off: how many it missed is not known")
    } else {
        format!("{events} lost: probes, answers and verdicts may be missing")
    }
}

const fn sort_name(by: TopSort) -> &'static str {
    match by {
        TopSort::Trouble => "trouble",
        TopSort::Connections => "connections",
        TopSort::Idle => "idle",
        TopSort::Probes => "probes",
        TopSort::Verdicts => "verdicts",
        TopSort::Program => "program",
    }
}

fn ids(rows: &[GroupRow<'_>]) -> Vec<PeerGroup> {
    rows.iter().map(|row| row.id.clone()).collect()
}

fn keys(rows: &[ConnectionRow<'_>]) -> Vec<FlowKey> {
    rows.iter().map(ConnectionRow::key).collect()
}

/// The page of rows that has the selected one, and its place there.
fn visible<R>(rows: &[R], selected: usize, room: usize) -> (&[R], Option<usize>) {
    let room = room.max(1);
    let first = selected / room * room;
    let page = rows.get(first..).unwrap_or_default();
    let page = &page[..page.len().min(room)];
    let place = (!page.is_empty()).then_some(selected - first);
    (page, place)
}
