//! What to do about it, in one line with concrete values.
//!
//! A first probe at half of the timeout leaves room for one that is lost, and for a
//! timer that fires late (by an eighth at most). A probe refreshes what counts
//! packets; a proxy that counts bytes it does not, which is said where it may be one.

use std::net::IpAddr;

use crate::model::record::Record;
use crate::model::values::Origin;
use crate::model::values::{Errno, LearnedOf, State};
use crate::text::escape::Escaped;
use crate::timeout::estimate::Bracket;
use crate::timeout::middlebox::{Fit, Known};

/// Whose timeouts fit.
pub(super) fn names(fits: &[Fit]) -> Escaped {
    let names = fits.iter().map(|fit| {
        let default = if fit.is_host { "" } else { " by default" };
        format!("{} ({} s{default})", fit.names, fit.seconds)
    });
    Escaped::from_escaped(&names.collect::<Vec<_>>().join("; "))
}

/// How to probe before the middlebox forgets.
pub(super) fn earlier_probe(
    record: &Record,
    died_ms: u64,
    bracket: Option<Bracket>,
    fits: &[Fit],
) -> String {
    let report = bracket.map_or(String::new(), |it| {
        format!("{}; ", report(record, it, fits))
    });
    if died_ms < 2_000 && fits.is_empty() {
        // Half of it is less than TCP_KEEPIDLE can be.
        return format!(
            "{report}after {} of silence the other end had already forgotten it, as after a restart: \
             no setting of keepalive is sooner",
            span(died_ms)
        );
    }
    let (seconds, why) = match fits.first() {
        Some(fit) => (
            fit.seconds / 2,
            format!("half of {}'s {} s", first(&fit.names), fit.seconds),
        ),
        None => (
            died_ms / 2_000,
            format!("half of the {} that it did not survive", span(died_ms)),
        ),
    };
    format!("{report}{} ({why})", first_probe(record, seconds.max(1)))
}

/// What has been learned, as a sentence.
fn report(record: &Record, bracket: Bracket, fits: &[Fit]) -> String {
    let (Some(address), Some(port)) = (
        record.endpoints.map(|it| it.raddr),
        record.endpoints.map(|it| it.rport),
    ) else {
        return String::new();
    };
    let place = match bracket.of {
        LearnedOf::Endpoint => endpoint(address, port),
        LearnedOf::Network => format!("the network of {address}"),
    };
    let between = match (bracket.survived_ms, bracket.died_ms) {
        (Some(low), Some(high)) => format!("lies between {} and {}", span(low), span(high)),
        (None, Some(high)) => format!("is at most {}", span(high)),
        (Some(low), None) => format!("is more than {}", span(low)),
        (None, None) => "is not known".to_owned(),
    };
    let doubt = if bracket.contradictory {
        ", but the evidence contradicts itself: more than one timeout, or restarts"
    } else {
        ""
    };
    let named = fits.first().map_or(String::new(), |fit| {
        let default = if fit.is_host { "" } else { " default" };
        format!("; {}'s{default} is {} s", first(&fit.names), fit.seconds)
    });
    format!("idle timeout towards {place} {between}{doubt}{named}")
}

/// Which setting makes the first probe go out after so many seconds.
fn first_probe(record: &Record, seconds: u64) -> String {
    let program = program(record);
    let netns = record.endpoints.map(|it| it.netns).unwrap_or_default();
    let time_s = record.settings.keepalive_time_ms.unwrap_or_default() / 1000;
    let sysctl = format!("net.ipv4.tcp_keepalive_time={seconds} in netns {netns}");
    match (
        record.settings.keepalive,
        record.settings.keepalive_time_from,
    ) {
        (Some(true), _) if time_s <= seconds => {
            format!("keepalive is on in {program}, first probe after {time_s} s, which should do")
        }
        (Some(true), Some(Origin::Socket)) => {
            format!("in {program} set TCP_KEEPIDLE to {seconds}, not {time_s}")
        }
        (Some(true), _) => {
            format!("set {sysctl}, not {time_s}, or TCP_KEEPIDLE={seconds} in {program}")
        }
        _ => format!("in {program} turn on SO_KEEPALIVE with TCP_KEEPIDLE={seconds}"),
    }
}

/// Of a probe to a peer that has closed, or after others went unanswered.
pub(super) fn probe_of_the_dead(record: &Record) -> String {
    let program = program(record);
    if record.state == Some(State::CloseWait) {
        return format!(
            "the peer had closed before: {program} should close too when it reads the end"
        );
    }
    "the peer is back and knows the connection no more, as after a restart: keepalive did its work"
        .to_owned()
}

pub(super) fn unasked(record: &Record, proxies: &[Fit]) -> String {
    let idle = span(record.ages.idle_ms.unwrap_or_default());
    match proxies.first() {
        Some(fit) => format!(
            "after {idle} of silence, unasked; {} closes after {} s by default, which keepalive does \
             not prevent: raise that timeout, or send data sooner",
            fit.names, fit.seconds
        ),
        None => format!(
            "after {idle} of silence, unasked: the peer's program ended it, or a box between; see the peer's log"
        ),
    }
}

pub(super) fn aborted_by_peer(record: &Record) -> String {
    match record.state {
        Some(State::CloseWait) => format!(
            "the peer had closed, and {} still sent: no setting of this host's keepalive prevents it",
            program(record)
        ),
        _ => "it was in use: see the peer's log; keepalive has no part in it".to_owned(),
    }
}

pub(super) fn unreachable(record: &Record, known: &Known) -> String {
    let probes = record.probes_out.unwrap_or_default();
    let idle = span(record.ages.idle_ms.unwrap_or_default());
    let icmp = match record.err {
        Some(err) if err != Errno::TIMED_OUT => format!(", and the network said {err}"),
        _ => String::new(),
    };
    let time_s = record.settings.keepalive_time_ms.unwrap_or_default() / 1000;
    // A box that drops in silence makes a late probe look like this too.
    let shortest_s = known.shortest_refreshed_s();
    let late = if time_s > shortest_s {
        format!(
            "; the first probe came after {time_s} s only: if a box forgot it before, {}",
            first_probe(record, shortest_s / 2)
        )
    } else {
        String::new()
    };
    let netns = record.endpoints.map(|it| it.netns).unwrap_or_default();
    let sooner = match (
        record.settings.keepalive_intvl_ms,
        record.settings.keepalive_intvl_from,
    ) {
        (Some(ms), Some(Origin::Socket)) => {
            format!("TCP_KEEPINTVL of {} in {}", span(ms), program(record))
        }
        (Some(ms), _) => format!(
            "net.ipv4.tcp_keepalive_intvl of {} in netns {netns}",
            span(ms)
        ),
        (None, _) => "the interval".to_owned(),
    };
    format!(
        "{probes} probes unanswered, silent for {idle}{icmp}: the host or the way to it is gone; \
         to know sooner lower {sooner}{late}"
    )
}

pub(super) fn user_timeout(record: &Record) -> String {
    let timeout = span(record.settings.user_timeout_ms.unwrap_or_default().into());
    let time = record.settings.keepalive_time_ms.unwrap_or_default();
    let intvl = record.settings.keepalive_intvl_ms.unwrap_or_default();
    let probes = record.settings.keepalive_probes.unwrap_or_default();
    let all = time.saturating_add(intvl.saturating_mul(probes));
    format!(
        "TCP_USER_TIMEOUT of {timeout} overrides the probe count: for all {probes} probes set it to {all} ms in {}",
        program(record)
    )
}

pub(super) fn fin_wait2(record: &Record) -> String {
    let netns = record.endpoints.map(|it| it.netns).unwrap_or_default();
    format!(
        "not keepalive: the program had closed, the peer never did; net.ipv4.tcp_fin_timeout in netns \
         {netns} or TCP_LINGER2 sets how long to wait"
    )
}

/// The kernel's reason for a reset; empty where it gives none, in whatever words.
pub(super) fn reason(record: &Record) -> &str {
    let reason = record.reason.as_ref().map_or("", |it| it.as_str());
    if reason.ends_with("NOT_SPECIFIED") {
        ""
    } else {
        reason
    }
}

pub(super) fn aborted_locally(record: &Record) -> String {
    let program = program(record);
    let reason = reason(record);
    let said = |what: &str| reason.ends_with(what);
    let what = match record.state {
        _ if said("ABORT_ON_CLOSE") => "closed it with data unread: read to the end before close",
        _ if said("ABORT_ON_LINGER") => "set TCP_LINGER2 below 0: there is no FIN_WAIT2 then",
        _ if said("ABORT_ON_MEMORY") => {
            "left an orphan beyond net.ipv4.tcp_max_orphans or tcp_mem: raise them, or leave fewer"
        }
        _ if said("DISCONNECT_WITH_DATA") => "disconnected it with data unsent",
        // A socket without a file, and not because it was closed (`inet_child_forget`,
        // net/ipv4/inet_connection_sock.c).
        Some(State::Close)
            if record.identity.inode.is_none() && record.identity.orphan == Some(false) =>
        {
            return "its listener was closed before a program accepted it".to_owned();
        }
        Some(State::Close) if said("TCP_STATE") => {
            "closed it with SO_LINGER 0, or disconnected it: leave SO_LINGER alone to end with FIN"
        }
        Some(State::Close) if record.identity.orphan == Some(true) => {
            "left an orphan with TCP_LINGER2 below 0, or beyond net.ipv4.tcp_max_orphans or tcp_mem"
        }
        Some(State::Close) => {
            "closed it with data unread or SO_LINGER 0, or disconnected it (this kernel tells no more)"
        }
        // Its retransmission timer found no room for it (`tcp_out_of_resources`,
        // net/ipv4/tcp_timer.c), or an administrator asked (`tcp_abort`).
        _ if record.identity.orphan == Some(true) && reason.is_empty() => {
            "left an orphan beyond net.ipv4.tcp_max_orphans or tcp_mem, or someone destroyed it, as \
             `ss -K` does"
        }
        _ => return format!("someone destroyed the connection of {program}, as `ss -K` does"),
    };
    format!("{program} {what}")
}

pub(super) fn no_fin_wait2() -> String {
    "the program had closed it with TCP_LINGER2 below 0: there is no FIN_WAIT2 then".to_owned()
}

pub(super) fn data_after_close(record: &Record) -> String {
    let len = record.len.unwrap_or_default();
    format!(
        "{len} bytes came after the program had closed: let it shut down and read to the end first"
    )
}

pub(super) fn stray(record: &Record, known: &Known) -> String {
    let peer = match (
        record.endpoints.map(|it| it.raddr),
        record.endpoints.map(|it| it.rport),
    ) {
        (Some(address), Some(port)) => endpoint(address, port),
        _ => "the peer".to_owned(),
    };
    let (seconds, why) = match known
        .host()
        .max_by_key(|it| it.seconds)
        .filter(|it| it.seconds < 7_200)
    {
        Some(own) => (
            own.seconds / 2,
            format!("half of this host's {} timeout", own.what),
        ),
        None => (
            known.shortest_refreshed_s() / 2,
            "half of the shortest common default".to_owned(),
        ),
    };
    format!(
        "no such connection here: where a balancer sends {peer} here, it may have forgotten an idle \
         connection to another server; on {peer} set TCP_KEEPIDLE to at most half of its idle \
         timeout: {} is {why}",
        seconds.max(1)
    )
}

/// The program that holds the socket.
fn program(record: &Record) -> String {
    match (&record.process.comm, record.process.pid) {
        (Some(comm), Some(pid)) => format!("{comm}[{pid}]"),
        _ => "the program".to_owned(),
    }
}

fn endpoint(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// The first of several names.
fn first(names: &str) -> &str {
    names.split(", ").next().unwrap_or(names)
}

/// A time span for people, in seconds.
fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..100_000 if !ms.is_multiple_of(1_000) => {
            format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
        }
        _ => format!("{} s", ms / 1_000),
    }
}
