//! What is told on stderr besides the records: how each hook was attached, and at the
//! end what was seen and what was lost.

use std::fmt::{self, Display};
use std::io::Write as _;

use crate::filter::Counts;
use crate::kernel::Attached;
use crate::model::named::Named as _;
use crate::model::values::Hook;
use crate::text::escape;

/// What is left to tell when a trace has ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was shown and what was lost.
    pub counts: Counts,
    /// How many sockets were spoken of, shown or not.
    pub sockets: u64,
    /// How many of them were forgotten for want of room.
    pub evicted: u64,
    /// How many events came from sockets that the kernel's table had no room for.
    pub untracked: u64,
    /// How many processes hid their descriptors.
    pub unreadable: usize,
    /// How many sockets of the snapshot there was no room to remember the owners of.
    pub unlearned: u64,
    /// How many sockets of the snapshot were seen, where the trace ended before it did.
    pub unfinished: Option<u64>,
}

/// Tells on stderr how each hook was attached, and what is done without.
pub fn banner(attached: &[Attached], without: &[String]) {
    tell(&Banner { attached, without });
}

/// Tells on stderr what the snapshot saw that a trace starts from, and why not more.
pub fn snapshot(sockets: u64, zombies: u64, outcome: &anyhow::Result<()>) {
    tell(&Snapshot {
        sockets,
        zombies,
        outcome,
    });
}

/// Tells on stderr how a trace went.
pub fn summary(outcome: &Outcome) {
    tell(&Summary(outcome));
}

/// Nobody may be there to read it, which is no reason to fail.
fn tell(what: &dyn Display) {
    let _unread = std::io::stderr().write_all(what.to_string().as_bytes());
}

struct Banner<'a> {
    attached: &'a [Attached],
    without: &'a [String],
}

impl Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Attached {
            hook,
            mode,
            refused,
        } in self.attached
        {
            write!(f, "kaprobe: {hook} by {mode}")?;
            if !refused.is_empty() {
                let refused: Vec<_> = refused.iter().map(|(mode, _)| mode.name()).collect();
                let refused = refused.join(", ");
                write!(f, " ({refused} refused: see kaprobe doctor)")?;
            }
            writeln!(f)?;
        }
        for missing in self.without {
            writeln!(f, "kaprobe: without {}", escape::message(missing))?;
        }
        Ok(())
    }
}

struct Snapshot<'a> {
    sockets: u64,
    zombies: u64,
    outcome: &'a anyhow::Result<()>,
}

impl Display for Snapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sockets = plural(self.sockets, "socket", "sockets");
        let zombies = plural(self.zombies, "zombie", "zombies");
        write!(f, "kaprobe: snapshot: {sockets}, {zombies}")?;
        match self.outcome {
            Ok(()) => writeln!(f),
            Err(why) => writeln!(f, ", and no more: {}", escape::message(&format!("{why:#}"))),
        }
    }
}

struct Summary<'a>(&'a Outcome);

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.0;
        let counts = &outcome.counts;
        write!(
            f,
            "kaprobe: {}",
            plural(counts.records, "record", "records")
        )?;
        let mut before = ": ";
        for (event, count) in &counts.events {
            write!(f, "{before}{count} {}", event.name())?;
            before = ", ";
        }
        let sockets = plural(outcome.sockets, "socket", "sockets");
        writeln!(f, "\nkaprobe: {sockets} seen")?;
        let mut before = "kaprobe: events lost: ";
        for &hook in Hook::ALL {
            let lost = counts.lost.get(&hook).copied().unwrap_or_default();
            if hook == Hook::Probe && lost == 0 {
                continue; // Seldom hooked at all: see --rtt.
            }
            write!(f, "{before}{lost} by {hook}")?;
            before = ", ";
        }
        writeln!(f)?;
        if outcome.evicted > 0 {
            let sockets = plural(outcome.evicted, "socket", "sockets");
            writeln!(f, "kaprobe: {sockets} forgotten for want of room")?;
        }
        if outcome.untracked > 0 {
            let events = plural(outcome.untracked, "event", "events");
            writeln!(
                f,
                "kaprobe: {events} of sockets beyond what the kernel's table holds"
            )?;
        }
        if outcome.unreadable > 0 {
            let processes = plural(outcome.unreadable as u64, "process", "processes");
            writeln!(
                f,
                "kaprobe: {processes} not searched for sockets: owners may be missing"
            )?;
        }
        if outcome.unlearned > 0 {
            let sockets = plural(outcome.unlearned, "socket", "sockets");
            writeln!(f, "kaprobe: snapshot: no room for the owners of {sockets}")?;
        }
        if let Some(sockets) = outcome.unfinished {
            let sockets = plural(sockets, "socket", "sockets");
            writeln!(
                f,
                "kaprobe: snapshot: {sockets}, when the trace ended before it"
            )?;
        }
        Ok(())
    }
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::model::attach_mode::AttachMode;
    use crate::model::record::EventName;

    #[test]
    fn the_banner_says_what_won_and_what_did_not() {
        let attached = [
            Attached {
                hook: Hook::KeepaliveTimer,
                mode: AttachMode::Fentry,
                refused: Vec::new(),
            },
            Attached {
                hook: Hook::SendActiveReset,
                mode: AttachMode::Tracepoint,
                refused: vec![
                    (AttachMode::Fentry, "not permitted".to_owned()),
                    (AttachMode::Kprobe, "this kernel\nhas none".to_owned()),
                ],
            },
        ];
        let without = ["tcp_destroy_sock: no such tracepoint".to_owned()];
        assert_snapshot!(Banner { attached: &attached, without: &without }, @r"
        kaprobe: tcp_keepalive_timer by fentry
        kaprobe: tcp_send_active_reset by tracepoint (fentry, kprobe refused: see kaprobe doctor)
        kaprobe: without tcp_destroy_sock: no such tracepoint
        ");
    }

    #[test]
    fn a_snapshot_that_broke_off_says_so() {
        let told = |sockets, zombies, outcome| {
            let outcome = &outcome;
            Snapshot {
                sockets,
                zombies,
                outcome,
            }
            .to_string()
        };
        assert_snapshot!(told(1_234, 1, Ok(())), @"kaprobe: snapshot: 1234 sockets, 1 zombie");
        let why = anyhow::anyhow!("exit status: 4");
        assert_snapshot!(told(1, 0, Err(why)), @"kaprobe: snapshot: 1 socket, 0 zombies, and no more: exit status: 4");
    }

    #[test]
    fn the_summary_hides_no_loss() {
        assert_snapshot!(Summary(&Outcome::default()), @"
        kaprobe: 0 records
        kaprobe: 0 sockets seen
        kaprobe: events lost: 0 by tcp_keepalive_timer, 0 by tcp_send_active_reset, 0 by tcp_v4_send_reset, 0 by tcp_receive_reset, 0 by tcp_destroy_sock
        ");
        let counts = Counts {
            records: 12,
            events: [
                (EventName::Probe, 8),
                (EventName::Timeout, 3),
                (EventName::Lost, 1),
            ]
            .into(),
            lost: [(Hook::KeepaliveTimer, 40)].into(),
        };
        let outcome = Outcome {
            counts,
            sockets: 1,
            evicted: 2,
            untracked: 1,
            unreadable: 3,
            unlearned: 2,
            unfinished: Some(1),
        };
        assert_snapshot!(Summary(&outcome), @"
        kaprobe: 12 records: 8 probe, 3 timeout, 1 lost
        kaprobe: 1 socket seen
        kaprobe: events lost: 40 by tcp_keepalive_timer, 0 by tcp_send_active_reset, 0 by tcp_v4_send_reset, 0 by tcp_receive_reset, 0 by tcp_destroy_sock
        kaprobe: 2 sockets forgotten for want of room
        kaprobe: 1 event of sockets beyond what the kernel's table holds
        kaprobe: 3 processes not searched for sockets: owners may be missing
        kaprobe: snapshot: no room for the owners of 2 sockets
        kaprobe: snapshot: 1 socket, when the trace ended before it
        ");
    }
}
