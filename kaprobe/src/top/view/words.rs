//! The words for settings, ages, risks and counts.

use crate::census::sums::Sums;
use crate::model::fate::Fate;
use crate::model::named::Named as _;
use crate::model::socket::Settings;
use crate::text::cell::{NOTHING, UNSEEN};
use crate::text::units::{Ms, plural};
use crate::top::events::{Counts, LearnedBounds};

/// The fates of connections that an idle timeout would kill, or has.
pub(super) const RISKS: [Fate; 4] = [Fate::Dying, Fate::Zombie, Fate::Unprotected, Fate::AtRisk];

/// The keepalive settings of a group, as short as possible.
pub(super) fn keepalive(sums: &Sums) -> String {
    let (on, off) = (sums.keepalive_on, sums.keepalive_off);
    match (on, off) {
        _ if sums.connections == 0 => NOTHING.to_owned(),
        (0, 0) => UNSEEN.to_owned(),
        (0, _) if sums.hides_keepalive() => format!("{off} off, {UNSEEN}"),
        (0, _) => match sums.user_timeout_ms {
            Some((ms, _)) => format!("off ut {}", Ms(ms)),
            None => "off".to_owned(),
        },
        (on, _) if on < sums.connections => format!("{on}/{} on", sums.connections),
        _ => match (sums.time_ms, sums.intvl_ms, sums.probes) {
            (Some((time, last)), Some((intvl, most)), Some((probes, max)))
                if time == last && intvl == most && probes == max =>
            {
                format!("{}/{}/{probes}", Ms(time), Ms(intvl))
            }
            (None, ..) => format!("on {UNSEEN}"),
            _ => "on, mixed".to_owned(),
        },
    }
}

/// The keepalive settings of a group, in full.
pub(super) fn keepalive_in_full(sums: &Sums) -> String {
    let mut words = Vec::new();
    if sums.keepalive_on > 0 {
        let mut text = format!("{} on", sums.keepalive_on);
        if let (Some(time), Some(intvl), Some(probes)) = (sums.time_ms, sums.intvl_ms, sums.probes)
        {
            let probes = range(probes, |it| it.to_string());
            text.push_str(&format!(
                " (first probe after {}, then each {}, {probes} probes)",
                span(time),
                span(intvl),
            ));
        }
        words.push(text);
    }
    if sums.keepalive_off > 0 {
        words.push(format!("{} off", sums.keepalive_off));
    }
    let hidden = sums.connections - sums.keepalive_on - sums.keepalive_off;
    if hidden > 0 {
        words.push(format!("{hidden} not to be seen"));
    }
    if let Some(timeout) = sums.user_timeout_ms {
        words.push(format!("TCP_USER_TIMEOUT {}", span(timeout)));
    }
    words.join(", ")
}

/// The keepalive settings of a connection.
pub(super) fn settings(it: &Settings) -> String {
    let mut text = match (it.keepalive, it.keepalive_time_ms, it.keepalive_intvl_ms) {
        (None, ..) => UNSEEN.to_owned(),
        (Some(false), ..) => "off".to_owned(),
        (Some(true), Some(time), Some(intvl)) => {
            let probes = it.keepalive_probes.unwrap_or(0);
            format!("{}/{}/{probes}", Ms(time), Ms(intvl))
        }
        (Some(true), ..) => format!("on {UNSEEN}"),
    };
    if let Some(ms) = it.user_timeout_ms {
        text.push_str(&format!(" ut {}", Ms(ms.into())));
    }
    text
}

/// Number of connections that an idle timeout would kill, or has.
pub(super) fn at_risk(sums: &Sums) -> u64 {
    RISKS.iter().map(|fate| sums.of(*fate)).sum()
}

/// How many connections have each fate, worst first.
pub(super) fn fates(sums: &Sums) -> String {
    let counted = Fate::ALL.iter().filter(|fate| sums.of(**fate) > 0);
    let words: Vec<_> = counted
        .map(|fate| format!("{} {}", sums.of(*fate), fate.name()))
        .collect();
    words.join(", ")
}

/// How often each verdict was drawn, the most frequent first.
pub(super) fn verdicts(counts: &Counts) -> String {
    let mut all: Vec<_> = counts.verdicts.iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words: Vec<_> = all
        .iter()
        .map(|(verdict, count)| format!("{count} {}", verdict.name()))
        .collect();
    words.join(", ")
}

/// The bounds of an idle timeout that was learned.
pub(super) fn learned(it: &LearnedBounds) -> String {
    let doubt = if it.contradictory { "?" } else { "" };
    match (it.survived_ms, it.died_ms) {
        (Some(survived), Some(died)) => format!("{}-{}{doubt}", Ms(survived), Ms(died)),
        (None, Some(died)) => format!("<{}{doubt}", Ms(died)),
        (Some(survived), None) => format!(">{}{doubt}", Ms(survived)),
        (None, None) => NOTHING.to_owned(),
    }
}

/// The probes of a group: how many were sent, and what became of them.
pub(super) fn probes(sums: &Sums, counts: &Counts) -> String {
    let mut text = plural(counts.probes, "probe sent", "probes sent");
    text.push_str(&format!(", {} answered", counts.answered));
    if sums.unanswered > 0 {
        let connections = plural(sums.unanswered, "connection", "connections");
        text.push_str(&format!("; {connections} without an answer now"));
    }
    if sums.stalled > 0 {
        text.push_str(&format!("; {} stalled", sums.stalled));
    }
    if let Some(ms) = sums.dead_in_ms {
        text.push_str(&format!(
            "; the kernel gives up in {} at the earliest",
            Ms(ms)
        ));
    }
    text
}

/// A range of times.
pub(super) fn span(of: (u64, u64)) -> String {
    range(of, |ms| Ms(ms).to_string())
}

fn range((min, max): (u64, u64), text: impl Fn(u64) -> String) -> String {
    if min == max {
        text(min)
    } else {
        format!("{}-{}", text(min), text(max))
    }
}
