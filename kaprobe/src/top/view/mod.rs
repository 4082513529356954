//! Draws the screen of `top`: a pure function of the model, of what the user looks at, and of
//! the size of the screen.

mod connections;
mod groups;
pub(super) mod look;
mod table;
mod timeline;
mod words;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Modifier;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use crate::cli::args::TopSort;
use crate::model::flow::FlowKey;
use crate::model::peer_group::PeerGroup;
use crate::model::time::WallTime;
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
    fn of(area: Rect, has_about: bool) -> Self {
        let about = if has_about && area.height >= HIGH_ENOUGH {
            ABOUT_HEIGHT
        } else {
            0
        };
        let head = match area.height {
            0..=2 => 0,
            3..=7 => 1,
            _ => 3,
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
        let body = usize::from(Areas::of(area, self.has_about()).body.height);
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
        let areas = Areas::of(frame.area(), self.has_about());
        self.head(frame, areas.head);
        let about = self.body(frame, areas.body);
        let lines = about.iter().flat_map(|line| {
            let width = usize::from(areas.about.width).max(1);
            textwrap::wrap(line, width)
                .into_iter()
                .map(|it| Line::from(it.into_owned()))
        });
        let lines: Vec<_> = lines.take(areas.about.height.into()).collect();
        frame.render_widget(Paragraph::new(lines), areas.about);
        self.foot(frame, areas.foot);
    }

    /// Draws the rows. Returns what is known of the selected one.
    fn body(&self, frame: &mut Frame<'_>, area: Rect) -> Vec<String> {
        let room = usize::from(area.height.saturating_sub(1));
        match &self.rows {
            Rows::Groups(rows) => {
                let selected = self.ui.groups.place(&ids(rows));
                let columns = groups::columns();
                let columns = (&columns[..], &groups::WORTH[..]);
                let (rows, place) = visible(rows, selected, room);
                table::draw(frame, area, self.look, columns, rows, place);
                rows.get(place.unwrap_or(0)).map(groups::about)
            }
            Rows::Connections(group, rows) => {
                let selected = self.ui.connections.place(&keys(rows));
                let columns = connections::columns(group.id.peers);
                let columns = (&columns[..], &connections::WORTH[..]);
                let (rows, place) = visible(rows, selected, room);
                table::draw(frame, area, self.look, columns, rows, place);
                rows.get(place.unwrap_or(0))
                    .map(connections::about_with_last)
            }
            Rows::Text(lines) => {
                let last = lines.len().saturating_sub(area.height.into());
                let lines = lines.iter().skip(self.ui.scroll.min(last));
                let lines = lines
                    .take(area.height.into())
                    .map(|line| Line::from(line.text.as_str()).style(self.look.style(line.tone)));
                frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
                None
            }
        }
        .unwrap_or_default()
    }

    fn head(&self, frame: &mut Frame<'_>, area: Rect) {
        let lines = [
            Line::from(self.title()).style(Modifier::BOLD),
            Line::from(self.totals()),
            self.notice(),
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
            Rows::Connections(group, rows) => format!(
                "  {} of {}: {}, {}",
                rows.len().min(group.kept()),
                group.sums.connections,
                program(group.id),
                group.id.peers,
            ),
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
    fn notice(&self) -> Line<'a> {
        let status = self.status;
        let events = self.model.events;
        let (text, tone) = if let Some(why) = &status.unread {
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
        } else if !self.model.census.is_judged {
            let text = "RISK has dying connections only: --behind or --idle-timeout sets a timeout";
            (text.to_owned(), Tone::Faint)
        } else {
            (String::new(), Tone::Plain)
        };
        Line::from(escape::message(&text)).style(self.look.style(tone))
    }

    fn foot(&self, frame: &mut Frame<'_>, area: Rect) {
        let text = if self.ui.is_typing {
            let typed = escape::message(&self.ui.filter);
            format!("filter: {typed}_   Enter keep, Esc drop")
        } else if self.ui.shows_help {
            "Esc back  q quit".to_owned()
        } else {
            match self.rows {
                Rows::Groups(_) => "Enter open  / filter  s sort  p pause  ? help  q quit",
                Rows::Connections(..) => {
                    "Enter timeline  Esc back  / filter  p pause  ? help  q quit"
                }
                Rows::Text(_) => "Esc back  p pause  ? help  q quit",
            }
            .to_owned()
        };
        let line = Line::from(text).style(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(line), area);
    }
}

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
