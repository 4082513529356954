//! The loop that draws: takes messages, asks for snapshots, and draws what has changed.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;
use ratatui::crossterm::event::{Event, KeyEvent, KeyEventKind};
use ratatui::layout::Rect;
use rustix::process::{Signal, getpid, kill_process};

use crate::census::reader::SnapshotReader;
use crate::census::sums::{Census, CensusRequest};
use crate::model::time::WallTime;
use crate::sink::{bars, is_colored};
use crate::stop::Stop;
use crate::top::counting_sink::{SharedEvents, lock};
use crate::top::events::Events;
use crate::top::message::ScreenMessage;
use crate::top::model::Model;
use crate::top::plan::TopPlan;
use crate::top::terminal::{self, DrawnTerminal};
use crate::top::ui::{Request, Ui};
use crate::top::view::look::Look;
use crate::top::view::{Status, View};
use crate::{host, kernel, stderr};

/// How long the screen waits for a message before it looks at the clock and the events.
const TICK: Duration = Duration::from_millis(250);

/// A snapshot that takes longer than this is mentioned.
const SLOW: Duration = Duration::from_secs(3);

/// The screen, and where what it shows comes from.
pub(super) struct LiveScreen {
    terminal: DrawnTerminal,
    reader: SnapshotReader,
    events: SharedEvents,
    census: Census,
    /// What is shown while the screen is paused.
    frozen: Option<Box<(Census, Events)>>,
    ui: Ui,
    look: Look,
    status: Status,
    interval: Duration,
    snapshot: Snapshot,
    /// What was drawn last.
    drawn: Option<Drawn>,
}

/// The state of the snapshots.
enum Snapshot {
    /// One is being taken since then. Another is to follow at once if it is wanted.
    Asked { since: Instant, again: bool },
    /// The next one is due then.
    Due(Instant),
    /// There are no more.
    Failed,
}

/// What the screen depends on, besides messages.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Drawn {
    second: i64,
    events: u64,
}

impl LiveScreen {
    pub(super) fn new(
        plan: &TopPlan,
        terminal: DrawnTerminal,
        reader: SnapshotReader,
        events: SharedEvents,
        untraced: Option<String>,
    ) -> Self {
        Self {
            terminal,
            reader,
            events,
            census: Census::default(),
            frozen: None,
            ui: Ui::new(plan.sort),
            look: Look {
                colored: is_colored(plan.color),
                bars: bars(),
                zone: TimeZone::system(),
            },
            status: Status {
                now: WallTime::default(),
                host: host::uts::host_name(),
                untraced,
                unread: None,
                message: None,
                slow_s: None,
                has_census: false,
            },
            interval: plan.interval,
            snapshot: Snapshot::Due(Instant::now()),
            drawn: None,
        }
    }

    /// Shows the screen until the user or a signal ends it.
    pub(super) fn run(mut self, messages: &Receiver<ScreenMessage>, stop: &Stop) -> Result<()> {
        loop {
            self.ask_if_due();
            self.draw_if_changed()?;
            match messages.recv_timeout(self.pause()) {
                Ok(message) => {
                    if self.take(message)? {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Each sender says why it ends.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if stop.wait(Duration::ZERO)? || terminal::is_gone() {
                return Ok(());
            }
        }
    }

    /// How long to wait for a message.
    fn pause(&self) -> Duration {
        match self.snapshot {
            Snapshot::Due(due) => due.saturating_duration_since(Instant::now()).min(TICK),
            _ => TICK,
        }
    }

    fn ask_if_due(&mut self) {
        let now = Instant::now();
        if matches!(self.snapshot, Snapshot::Due(due) if due <= now) {
            let open = self.ui.open().cloned();
            self.reader.request(CensusRequest::Worst { open });
            self.snapshot = Snapshot::Asked {
                since: now,
                again: false,
            };
        }
    }

    /// Takes a message. Returns whether it is the end.
    fn take(&mut self, message: ScreenMessage) -> Result<bool> {
        match message {
            ScreenMessage::Input(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                return self.key(key);
            }
            ScreenMessage::Input(_) => self.drawn = None,
            ScreenMessage::InputFailed(why) => return Err(why).context("cannot read the terminal"),
            ScreenMessage::Census(census) => self.census(census),
            ScreenMessage::TraceEnded(ended) => return ended.map(|()| true),
        }
        Ok(false)
    }

    fn census(&mut self, census: Result<Box<Census>>) {
        self.drawn = None;
        match census {
            Ok(census) => {
                lock(&self.events).set_listening(&census.listening);
                self.census = *census;
                self.status.has_census = true;
                let again = matches!(self.snapshot, Snapshot::Asked { again: true, .. });
                let pause = if again { Duration::ZERO } else { self.interval };
                self.snapshot = Snapshot::Due(Instant::now() + pause);
            }
            Err(why) => {
                self.status.unread = Some(format!("{why:#}"));
                self.snapshot = Snapshot::Failed;
            }
        }
    }

    /// Handles a key. Returns whether it is the end.
    fn key(&mut self, key: KeyEvent) -> Result<bool> {
        self.drawn = None;
        let area = self.terminal.0.size()?.into();
        let mut ui = self.ui.clone();
        let (listed, page) = self.with_screen(area, |screen| screen.listed(area));
        let request = ui.key(key, &listed, page);
        let pauses = ui.is_paused && !self.ui.is_paused;
        if pauses {
            let events = lock(&self.events).clone();
            self.frozen = Some(Box::new((self.census.clone(), events)));
        } else if !ui.is_paused {
            self.frozen = None;
        }
        self.ui = ui;
        match request {
            Some(Request::Quit) => return Ok(true),
            Some(Request::Suspend) => self.suspend()?,
            Some(Request::Redraw) => self.terminal.redraw()?,
            Some(Request::Refresh) => self.refresh(),
            None => {}
        }
        Ok(false)
    }

    /// Takes a snapshot as soon as can be.
    fn refresh(&mut self) {
        match &mut self.snapshot {
            Snapshot::Asked { again, .. } => *again = true,
            due @ Snapshot::Due(_) => *due = Snapshot::Due(Instant::now()),
            Snapshot::Failed => {}
        }
    }

    /// Stops the process until the shell continues it.
    fn suspend(&mut self) -> Result<()> {
        terminal::restore();
        kill_process(getpid(), Signal::TSTP).context("cannot stop this process")?;
        self.terminal
            .resume()
            .context("cannot draw on the terminal")
    }

    fn draw_if_changed(&mut self) -> Result<()> {
        let now = kernel::now();
        let drawn = Drawn {
            second: now.wall_ns.div_euclid(1_000_000_000),
            events: lock(&self.events).version,
        };
        if self.drawn == Some(drawn) {
            return Ok(());
        }
        self.drawn = Some(drawn);
        self.status.now = WallTime(now.wall_ns);
        self.status.message = stderr::last_held();
        self.status.slow_s = match self.snapshot {
            Snapshot::Asked { since, .. } if since.elapsed() > SLOW => {
                Some(since.elapsed().as_secs())
            }
            _ => None,
        };
        let Self {
            terminal,
            events,
            census,
            frozen,
            ui,
            look,
            status,
            ..
        } = self;
        let drawn = terminal.0.draw(|frame| {
            // Until the end of this closure. The trace doesn't wait for the terminal.
            let events = lock(events);
            let model = shown(frozen.as_deref(), census, &events);
            View::new(model, ui, look, status, frame.area()).draw(frame);
        });
        drawn.context("cannot draw on the terminal")?;
        Ok(())
    }

    fn with_screen<T>(&self, area: Rect, take: impl FnOnce(&View<'_>) -> T) -> T {
        let events = lock(&self.events);
        let model = shown(self.frozen.as_deref(), &self.census, &events);
        take(&View::new(model, &self.ui, &self.look, &self.status, area))
    }
}

/// What is shown: what was frozen, or what is now.
fn shown<'a>(
    frozen: Option<&'a (Census, Events)>,
    census: &'a Census,
    events: &'a Events,
) -> Model<'a> {
    match frozen {
        Some((census, events)) => Model { census, events },
        None => Model { census, events },
    }
}
