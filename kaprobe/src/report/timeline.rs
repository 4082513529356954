//! Lays out the timeline of a connection: a lane for each host, marks for events.
//!
//! The template draws it as SVG. The plotting libraries for Rust write fixed colours into
//! their elements, which then can't follow a dark screen or paper, and have no titles.

use crate::model::named::Named as _;
use crate::model::time::ms_to_ns;
use crate::report::axis::{Tick, TimeAxis, tenth};
use crate::report::conversation::{Conversation, Lane};
use crate::report::conversations::Example;
use crate::report::mark::{Mark, Shape, VerdictMark};
use crate::report::words::{Hosts, arrow, verdict_text};
use crate::report::zone::Zone;
use crate::text::units::{Ms, plural};

/// Width of the drawing.
const WIDTH: f64 = 960.0;
/// Where lanes begin: their names are left of it.
const LEFT: f64 = 214.0;
/// Room at the right end.
const RIGHT: f64 = 14.0;
/// Height of a lane, and where in it its line is.
const LANE: f64 = 70.0;
const LINE: f64 = 40.0;
/// Height of the axis.
const AXIS: f64 = 30.0;
/// How far the marks of one moment are apart.
const STACK: f64 = 11.0;
/// Most marks on top of each other.
const MAX_STACK: usize = 3;
/// A silence shorter than this is not drawn, ms.
const MIN_SILENCE_MS: u64 = 1_000;
/// What is shorter than this has no label.
const MIN_LABELED: f64 = 84.0;
/// A reset is received within this time after it was sent, ns, by clocks that differ a
/// little.
const MAX_SKEW_NS: i64 = 1_000_000_000;

/// The timeline of a connection, laid out.
#[derive(Debug)]
pub(super) struct TimelineView {
    /// Its number in the report, from 1.
    pub(super) number: usize,
    pub(super) title: String,
    /// How many connections are like it.
    pub(super) alike: Option<String>,
    /// What the drawing shows, for those who can't see it.
    pub(super) description: String,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) lanes: Vec<LaneView>,
    pub(super) arrows: Vec<Arrow>,
    pub(super) ticks: Vec<Tick>,
    pub(super) axis_y: f64,
    pub(super) left: f64,
    pub(super) right: f64,
    /// The date and the offset from UTC.
    pub(super) caption: String,
    pub(super) story: Option<String>,
    pub(super) verdicts: Vec<VerdictView>,
    pub(super) events: Vec<EventView>,
    /// What is not drawn.
    pub(super) left_out: Option<String>,
}

/// A lane, laid out.
#[derive(Debug)]
pub(super) struct LaneView {
    pub(super) y: f64,
    pub(super) host: String,
    pub(super) end: String,
    pub(super) who: String,
    pub(super) bars: Vec<Bar>,
    pub(super) marks: Vec<MarkView>,
    pub(super) flags: Vec<Flag>,
}

/// A part of a lane.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) class: &'static str,
    pub(super) x: f64,
    pub(super) width: f64,
    pub(super) title: String,
    pub(super) label: Option<String>,
    pub(super) middle: f64,
}

/// A mark, laid out.
#[derive(Debug)]
pub(super) struct MarkView {
    pub(super) class: &'static str,
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) title: String,
    /// Several probes: how many, and how wide their bar is.
    pub(super) run: Option<(u64, f64)>,
}

/// The name of a verdict at its lane.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) anchor: &'static str,
    pub(super) text: &'static str,
}

/// A reset from the lane that sent it to the lane that received it.
#[derive(Debug)]
pub(super) struct Arrow {
    pub(super) x: f64,
    pub(super) from_y: f64,
    pub(super) to_x: f64,
    pub(super) to_y: f64,
    pub(super) title: String,
}

/// A verdict below the drawing.
#[derive(Debug)]
pub(super) struct VerdictView {
    pub(super) time: String,
    pub(super) host: String,
    pub(super) text: String,
}

/// A row of the table of events.
#[derive(Debug)]
pub(super) struct EventView {
    pub(super) time: String,
    pub(super) host: String,
    pub(super) what: &'static str,
    pub(super) text: String,
}

/// Lays out an example.
pub(super) fn timeline(
    number: usize,
    example: &Example,
    hosts: &Hosts<'_>,
    zone: &Zone,
) -> TimelineView {
    let mut conversation = example.conversation.clone();
    sort_lanes(&mut conversation);
    let it = &conversation;
    let (from_ns, to_ns) = (it.since_ns(), it.last_ns());
    let axis = TimeAxis::new(from_ns, to_ns, LEFT, WIDTH - LEFT - RIGHT);
    let layout = Layout {
        it,
        axis,
        hosts,
        zone,
    };
    let lanes: Vec<_> = (0..it.lanes.len()).map(|lane| layout.lane(lane)).collect();
    let axis_y = lane_y(it.lanes.len());
    TimelineView {
        number,
        title: arrow(it.ends),
        alike: (example.alike > 1).then(|| alike(example)),
        description: layout.description(),
        width: WIDTH,
        height: axis_y + AXIS,
        arrows: layout.arrows(),
        lanes,
        ticks: axis.ticks(zone),
        axis_y,
        left: LEFT,
        right: WIDTH - RIGHT,
        caption: format!("{}, {}", zone.date(from_ns), zone.offsets(from_ns, to_ns)),
        story: it.story.as_ref().map(ToString::to_string),
        verdicts: it.verdicts.iter().map(|it| layout.verdict(it)).collect(),
        events: layout.events(),
        left_out: left_out(it),
    }
}

/// How many connections are like an example.
fn alike(
    Example {
        conversation,
        alike,
    }: &Example,
) -> String {
    let others = plural(alike - 1, "other connection", "other connections");
    if conversation.has_problem() {
        format!("{others} to the same service ended with the same verdicts")
    } else {
        format!("{others} had no problem either")
    }
}

/// A host that reset the connection without having it comes first, then the end that opened
/// the connection, then the other: who speaks to whom is side by side.
fn sort_lanes(it: &mut Conversation) {
    let mut order: Vec<_> = (0..it.lanes.len()).collect();
    order.sort_by_key(|&at| {
        let lane = &it.lanes[at];
        (lane.socket.is_some(), !lane.key.is_first_end, lane.since_ns)
    });
    let place = |lane: usize| order.iter().position(|it| *it == lane);
    for verdict in &mut it.verdicts {
        verdict.lane = place(verdict.lane).unwrap_or_default();
    }
    it.lanes = order.iter().map(|&at| it.lanes[at].clone()).collect();
}

/// The top of a lane.
#[expect(clippy::cast_precision_loss, reason = "there are a few lanes")]
fn lane_y(lane: usize) -> f64 {
    lane as f64 * LANE
}

/// What is not drawn, as a sentence.
fn left_out(it: &Conversation) -> Option<String> {
    let marks: u64 = it.lanes.iter().map(|it| it.more).sum();
    let parts = [
        (marks, "event", "events"),
        (it.more_verdicts, "verdict", "verdicts"),
        (
            it.without_lane,
            "record of other hosts",
            "records of other hosts",
        ),
    ];
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, many)| plural(count, one, many))
        .collect();
    (!parts.is_empty()).then(|| format!("Not shown: {}.", parts.join(", ")))
}

/// A conversation, and where its times are.
struct Layout<'a> {
    it: &'a Conversation,
    axis: TimeAxis,
    hosts: &'a Hosts<'a>,
    zone: &'a Zone,
}

impl Layout<'_> {
    fn lane(&self, at: usize) -> LaneView {
        let lane = &self.it.lanes[at];
        let y = lane_y(at);
        let local = self.it.ends[usize::from(!lane.key.is_first_end)];
        LaneView {
            y,
            host: self.hosts.name(lane.key.host),
            end: crate::text::cell::endpoint(local),
            who: who(lane),
            bars: self.bars(lane),
            marks: self.marks(lane, y + LINE),
            flags: self.flags(at, y + LINE),
        }
    }

    /// The parts of a lane: when the connection was open, when it was silent, and when its
    /// other end was gone.
    fn bars(&self, lane: &Lane) -> Vec<Bar> {
        if lane.socket.is_none() {
            return Vec::new();
        }
        let (from_ns, to_ns) = (lane.since_ns, end_ns(lane));
        let mut bars = vec![self.bar("open", from_ns, to_ns, "the connection is open here")];
        if let Some(gone_ns) = self.other_end_gone_ns(lane)
            && to_ns.saturating_sub(gone_ns) > MAX_SKEW_NS
        {
            let from_ns = gone_ns.max(from_ns);
            bars.push(self.labeled("zombie", from_ns, to_ns, "zombie: the other end is gone"));
        }
        for (from_ns, to_ns) in silences(lane) {
            let ms = to_ns.saturating_sub(from_ns).max(0).unsigned_abs() / 1_000_000;
            let title = format!("silent {}", Ms(ms));
            bars.push(self.labeled("silent", from_ns, to_ns, &title));
        }
        bars
    }

    fn bar(&self, class: &'static str, from_ns: i64, to_ns: i64, title: &str) -> Bar {
        let x = self.axis.x(from_ns);
        let width = tenth((self.axis.x(to_ns) - x).max(1.0));
        Bar {
            class,
            x,
            width,
            title: title.to_owned(),
            label: None,
            middle: tenth(x + width / 2.0),
        }
    }

    fn labeled(&self, class: &'static str, from_ns: i64, to_ns: i64, title: &str) -> Bar {
        let mut bar = self.bar(class, from_ns, to_ns, title);
        bar.label = (bar.width >= MIN_LABELED).then(|| title.to_owned());
        bar
    }

    /// When the other end of a lane was gone, by the records of that end.
    fn other_end_gone_ns(&self, lane: &Lane) -> Option<i64> {
        let others = self.it.lanes.iter();
        let others = others.filter(|it| it.key.is_first_end != lane.key.is_first_end);
        others.filter_map(Lane::ended_ns).min()
    }

    fn marks(&self, lane: &Lane, line_y: f64) -> Vec<MarkView> {
        let mut sorted: Vec<_> = lane.marks.iter().collect();
        sorted.sort_by_key(|it| it.at_ns);
        let (mut last_x, mut stacked) = (f64::MIN, 0);
        let mut views = Vec::with_capacity(sorted.len());
        for mark in sorted {
            let x = self.axis.x(mark.at_ns);
            stacked = if x - last_x < STACK && mark.shape != Shape::Answered {
                (stacked + 1) % MAX_STACK
            } else {
                0
            };
            last_x = if stacked == 0 { x } else { last_x };
            let up: f64 = (0..stacked).map(|_| STACK).sum();
            let width = tenth(self.axis.x(mark.until_ns) - x);
            views.push(MarkView {
                class: mark.shape.class(),
                x,
                y: line_y - up,
                title: self.title(mark),
                run: (mark.count > 1).then_some((mark.count, width.max(1.0))),
            });
        }
        views
    }

    fn title(&self, mark: &Mark) -> String {
        let time = self.zone.clock(mark.at_ns, true);
        format!("{time} {}: {}", mark.shape.meaning(), text(mark))
    }

    /// The names of the verdicts on a lane. Two at one place are below each other.
    fn flags(&self, lane: usize, line_y: f64) -> Vec<Flag> {
        let of_lane = self.it.verdicts.iter().filter(|it| it.lane == lane);
        let mut flags: Vec<Flag> = Vec::new();
        for verdict in of_lane {
            let x = self.axis.x(verdict.at_ns);
            let is_right = x > LEFT + (WIDTH - LEFT) * 0.6;
            let (x, anchor) = if is_right {
                (x - 9.0, "end")
            } else {
                (x + 9.0, "start")
            };
            let text = verdict.verdict.name();
            let is_near = flags.last().is_some_and(|it| (it.x - x).abs() < 120.0);
            let y = line_y + if is_near { 27.0 } else { 17.0 };
            if !flags.iter().any(|it| it.text == text && is_near) {
                flags.push(Flag { x, y, anchor, text });
            }
        }
        flags
    }

    /// The resets that one lane sent and another received.
    fn arrows(&self) -> Vec<Arrow> {
        let mut arrows = Vec::new();
        for (to, lane) in self.it.lanes.iter().enumerate() {
            for received in lane
                .marks
                .iter()
                .filter(|it| it.shape == Shape::ResetReceived)
            {
                if let Some((from, sent)) = self.sender(lane, received) {
                    arrows.push(self.reset(from, sent, to, received));
                }
            }
        }
        arrows
    }

    /// The reset that this one is, where it was sent.
    fn sender(&self, to: &Lane, received: &Mark) -> Option<(usize, &Mark)> {
        let lanes = self.it.lanes.iter().enumerate();
        let others = lanes.filter(|(_, it)| it.key.is_first_end != to.key.is_first_end);
        let sent = others.flat_map(|(at, it)| it.marks.iter().map(move |mark| (at, mark)));
        let sent = sent.filter(|(_, it)| it.shape == Shape::ResetSent);
        let apart = |it: &Mark| it.at_ns.abs_diff(received.at_ns);
        let near = sent.filter(|(_, it)| apart(it) <= MAX_SKEW_NS.unsigned_abs());
        near.min_by_key(|(_, it)| apart(it))
    }

    fn reset(&self, from: usize, sent: &Mark, to: usize, received: &Mark) -> Arrow {
        let (from_y, to_y) = (lane_y(from) + LINE, lane_y(to) + LINE);
        let gap = if from_y < to_y { 7.0 } else { -7.0 };
        let (sender, receiver) = (&self.it.lanes[from], &self.it.lanes[to]);
        Arrow {
            x: self.axis.x(sent.at_ns),
            from_y: from_y + gap,
            to_x: self.axis.x(received.at_ns),
            to_y: to_y - gap,
            title: format!(
                "the reset that {} sent and {} received",
                self.hosts.name(sender.key.host),
                self.hosts.name(receiver.key.host)
            ),
        }
    }

    fn verdict(&self, it: &VerdictMark) -> VerdictView {
        VerdictView {
            time: self.zone.clock(it.at_ns, true),
            host: self.hosts.name(self.it.lanes[it.lane].key.host),
            text: verdict_text(it.verdict, it.confidence, it.idle_ms, it.advice.as_ref()),
        }
    }

    /// All marks in order of time.
    fn events(&self) -> Vec<EventView> {
        let lanes = self.it.lanes.iter();
        let marks = lanes.flat_map(|lane| lane.marks.iter().map(move |mark| (lane, mark)));
        let mut marks: Vec<_> = marks.collect();
        marks.sort_by_key(|(_, mark)| mark.at_ns);
        let views = marks.into_iter().map(|(lane, mark)| EventView {
            time: self.zone.clock(mark.at_ns, true),
            host: self.hosts.name(lane.key.host),
            what: mark.shape.meaning(),
            text: text(mark),
        });
        views.collect()
    }

    fn description(&self) -> String {
        let lanes = self.it.lanes.iter().map(|lane| {
            let marks = plural(lane.marks.len() as u64, "event", "events");
            format!("{}: {marks}", self.hosts.name(lane.key.host))
        });
        let lanes: Vec<_> = lanes.collect();
        format!(
            "A lane for each host, from {} to {}. {}. The table of events below has the same.",
            self.zone.full(self.it.since_ns()),
            self.zone.full(self.it.last_ns()),
            lanes.join(", ")
        )
    }
}

/// The program of a lane.
fn who(lane: &Lane) -> String {
    match (&lane.program, lane.socket) {
        (Some(program), _) => program.to_string(),
        (None, Some(_)) => "program not known".to_owned(),
        (None, None) => "has no such connection".to_owned(),
    }
}

/// The time at which a lane ends: that of its last record, as far as it is known.
fn end_ns(lane: &Lane) -> i64 {
    let closed = lane.marks.iter().find(|it| it.shape == Shape::Closed);
    lane.ended_ns()
        .or(closed.map(|it| it.at_ns))
        .unwrap_or(lane.last_ns)
}

/// When nothing was received on a lane. Each is as long as the last age that was read in it.
fn silences(lane: &Lane) -> Vec<(i64, i64)> {
    let mut all: Vec<(i64, i64)> = Vec::new();
    let mut marks: Vec<_> = lane.marks.iter().collect();
    marks.sort_by_key(|it| it.at_ns);
    for mark in marks.into_iter().filter(|it| it.shape != Shape::Closed) {
        let Some(idle_ms) = mark.idle_ms.filter(|it| *it >= MIN_SILENCE_MS) else {
            continue;
        };
        let from_ns = mark.at_ns.saturating_sub_unsigned(ms_to_ns(idle_ms));
        match all.last_mut() {
            Some((_, to_ns)) if from_ns < *to_ns => *to_ns = mark.at_ns.max(*to_ns),
            _ => all.push((from_ns, mark.at_ns)),
        }
    }
    all
}

/// The details of a mark.
fn text(mark: &Mark) -> String {
    let idle = mark.idle_ms.map(|ms| format!("idle {}", Ms(ms)));
    match (&mark.text, mark.count) {
        (Some(text), _) => text.to_string(),
        (None, 1) => idle.unwrap_or_default(),
        (None, count) => format!("{count} probes, {}", idle.unwrap_or_default()),
    }
}
