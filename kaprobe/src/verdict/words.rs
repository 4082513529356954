//! A finding in words: one line with concrete values.

use std::net::SocketAddr;

use crate::model::record::Record;
use crate::model::remedy::{Remedy, SetIn};
use crate::model::socket::Endpoints;
use crate::model::values::{Errno, LearnedOf, Origin};
use crate::text::escape::Escaped;
use crate::timeout::estimate::TimeoutBounds;
use crate::timeout::middlebox::Fit;
use crate::verdict::finding::{Abort, Because, Finding, HalfOf};

/// Whose timeouts fit.
pub(super) fn names(fits: &[Fit]) -> Escaped {
    let names = fits.iter().map(|fit| {
        let default = if fit.is_host { "" } else { " by default" };
        format!("{} ({} s{default})", fit.names, fit.seconds)
    });
    Escaped::from_escaped(&names.collect::<Vec<_>>().join("; "))
}

/// What happened, and what to do about it.
pub(super) fn advice(record: &Record, finding: &Finding) -> String {
    let program = program(record);
    let idle = || span(record.ages.idle_ms.unwrap_or_default());
    let said = match &finding.because {
        Because::Forgotten(half_of) => format!(
            "{} ({})",
            first_probe(record, finding.remedy),
            half(half_of)
        ),
        Because::ForgottenAtOnce(died_ms) => format!(
            "after {} of silence the other end had already forgotten it, as after a restart: \
             no setting of keepalive is sooner",
            span(*died_ms)
        ),
        Because::PeerHadClosed => {
            format!("the peer had closed before: {program} should close too when it reads the end")
        }
        Because::PeerRestarted => "the peer is back and knows the connection no more, as after a \
                                   restart: keepalive did its work"
            .to_owned(),
        Because::Unasked(Some(proxy)) => format!(
            "after {} of silence, unasked; {} closes after {} s by default, which keepalive does \
             not prevent: raise that timeout, or send data sooner",
            idle(),
            proxy.names,
            proxy.seconds
        ),
        Because::Unasked(None) => format!(
            "after {} of silence, unasked: the peer's program ended it, or a box between; see the \
             peer's log",
            idle()
        ),
        Because::SentAfterPeerClosed => format!(
            "the peer had closed, and {program} still sent: no setting of this host's keepalive \
             prevents it"
        ),
        Because::InUse => {
            "it was in use: see the peer's log; keepalive has no part in it".to_owned()
        }
        Because::Unreachable => unreachable(record, finding.remedy),
        Because::UserTimeout => user_timeout(record, finding.remedy),
        Because::FinWait2 => format!(
            "not keepalive: the program had closed, the peer never did; net.ipv4.tcp_fin_timeout \
             in netns {} or TCP_LINGER2 sets how long to wait",
            netns(record)
        ),
        Because::Aborted(abort) => aborted(*abort, &program),
        Because::DataAfterClose => format!(
            "{} bytes came after the program had closed: let it shut down and read to the end first",
            record.len.unwrap_or_default()
        ),
        Because::Stray(half_of) => stray(record, finding.remedy, half_of),
    };
    match finding.bounds {
        Some(bounds) => format!("{}; {said}", learned(record, bounds, &finding.fits)),
        None => said,
    }
}

/// What was learned of the timeout on the way, as a sentence.
fn learned(record: &Record, bounds: TimeoutBounds, fits: &[Fit]) -> String {
    let Some(Endpoints { raddr, rport, .. }) = record.endpoints else {
        return String::new();
    };
    let place = match bounds.of {
        LearnedOf::Endpoint => SocketAddr::new(raddr, rport).to_string(),
        LearnedOf::Network => format!("the network of {raddr}"),
    };
    let between = match (bounds.survived_ms, bounds.died_ms) {
        (Some(low), Some(high)) => format!("lies between {} and {}", span(low), span(high)),
        (None, Some(high)) => format!("is at most {}", span(high)),
        (Some(low), None) => format!("is more than {}", span(low)),
        (None, None) => "is not known".to_owned(),
    };
    let doubt = if bounds.contradictory {
        ", but the evidence contradicts itself: more than one timeout, or restarts"
    } else {
        ""
    };
    let named = fits.first().map_or(String::new(), |fit| {
        let default = if fit.is_host { "" } else { " default" };
        format!("; {}'s{default} is {} s", fit.first_name(), fit.seconds)
    });
    format!("idle timeout towards {place} {between}{doubt}{named}")
}

fn half(of: &HalfOf) -> String {
    match of {
        HalfOf::Fit(fit) => format!("half of {}'s {} s", fit.first_name(), fit.seconds),
        HalfOf::Death(ms) => format!("half of the {} that it did not survive", span(*ms)),
        HalfOf::Host(what) => format!("half of this host's {what} timeout"),
        HalfOf::Common => "half of the shortest common default".to_owned(),
    }
}

/// How to make the first probe go out earlier.
fn first_probe(record: &Record, remedy: Option<Remedy>) -> String {
    let program = program(record);
    let time_s = record.settings.keepalive_time_ms.unwrap_or_default() / 1000;
    let Some(remedy) = remedy else {
        return format!(
            "keepalive is on in {program}, first probe after {time_s} s, which should do"
        );
    };
    let seconds = remedy.time_s.unwrap_or_default();
    match remedy.set_in {
        SetIn::Sysctl => format!(
            "set {remedy} in netns {}, not {time_s}, or TCP_KEEPIDLE={seconds} in {program}",
            netns(record)
        ),
        _ if remedy.keepalive => {
            format!("in {program} turn on SO_KEEPALIVE with TCP_KEEPIDLE={seconds}")
        }
        _ => format!("in {program} set TCP_KEEPIDLE to {seconds}, not {time_s}"),
    }
}

fn unreachable(record: &Record, remedy: Option<Remedy>) -> String {
    let settings = &record.settings;
    let probes = record.probes_out.unwrap_or_default();
    let idle = span(record.ages.idle_ms.unwrap_or_default());
    let icmp = match record.err {
        Some(err) if err != Errno::TIMED_OUT => format!(", and the network said {err}"),
        _ => String::new(),
    };
    // A box that drops in silence makes a late probe look like this too.
    let late = remedy.map_or(String::new(), |remedy| {
        let time_s = settings.keepalive_time_ms.unwrap_or_default() / 1000;
        format!(
            "; the first probe came after {time_s} s only: if a box forgot it before, {}",
            first_probe(record, Some(remedy))
        )
    });
    let sooner = match (settings.keepalive_intvl_ms, settings.keepalive_intvl_from) {
        (Some(ms), Some(Origin::Socket)) => {
            format!("TCP_KEEPINTVL of {} in {}", span(ms), program(record))
        }
        (Some(ms), _) => format!(
            "net.ipv4.tcp_keepalive_intvl of {} in netns {}",
            span(ms),
            netns(record)
        ),
        (None, _) => "the interval".to_owned(),
    };
    format!(
        "{probes} probes unanswered, silent for {idle}{icmp}: the host or the way to it is gone; \
         to know sooner lower {sooner}{late}"
    )
}

fn user_timeout(record: &Record, remedy: Option<Remedy>) -> String {
    let all = remedy.and_then(|it| it.user_timeout_ms).unwrap_or_default();
    format!(
        "TCP_USER_TIMEOUT of {} overrides the probe count: for all {} probes set it to {all} ms in {}",
        span(record.settings.user_timeout_ms.unwrap_or_default().into()),
        record.settings.keepalive_probes.unwrap_or_default(),
        program(record)
    )
}

fn aborted(abort: Abort, program: &str) -> String {
    let what = match abort {
        Abort::DataUnread => "closed it with data unread: read to the end before close",
        Abort::NoFinWait2 => "set TCP_LINGER2 below 0: there is no FIN_WAIT2 then",
        Abort::Memory => {
            "left an orphan beyond net.ipv4.tcp_max_orphans or tcp_mem: raise them, or leave fewer"
        }
        Abort::DisconnectWithData => "disconnected it with data unsent",
        Abort::LingerOrDisconnect => {
            "closed it with SO_LINGER 0, or disconnected it: leave SO_LINGER alone to end with FIN"
        }
        Abort::OrphanLinger2OrMemory => {
            "left an orphan with TCP_LINGER2 below 0, or beyond net.ipv4.tcp_max_orphans or tcp_mem"
        }
        Abort::UnreadLingerOrDisconnect => {
            "closed it with data unread or SO_LINGER 0, or disconnected it (this kernel tells no more)"
        }
        Abort::OrphanMemoryOrDestroyed => {
            "left an orphan beyond net.ipv4.tcp_max_orphans or tcp_mem, or someone destroyed it, as \
             `ss -K` does"
        }
        Abort::NeverAccepted => {
            return "its listener was closed before a program accepted it".to_owned();
        }
        Abort::NoFinWait2Left => {
            return "the program had closed it with TCP_LINGER2 below 0: there is no FIN_WAIT2 then"
                .to_owned();
        }
        Abort::Destroyed => {
            return format!("someone destroyed the connection of {program}, as `ss -K` does");
        }
    };
    format!("{program} {what}")
}

fn stray(record: &Record, remedy: Option<Remedy>, half_of: &HalfOf) -> String {
    let peer = record.endpoints.map_or("the peer".to_owned(), |it| {
        SocketAddr::from(it.remote()).to_string()
    });
    let seconds = remedy.and_then(|it| it.time_s).unwrap_or_default();
    format!(
        "no such connection here: where a balancer sends {peer} here, it may have forgotten an idle \
         connection to another server; on {peer} set TCP_KEEPIDLE to at most half of its idle \
         timeout: {seconds} is {}",
        half(half_of)
    )
}

/// The program that holds the socket.
fn program(record: &Record) -> String {
    match (&record.process.comm, record.process.pid) {
        (Some(comm), Some(pid)) => format!("{comm}[{pid}]"),
        _ => "the program".to_owned(),
    }
}

fn netns(record: &Record) -> u32 {
    record.endpoints.map_or(0, |it| it.netns)
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
