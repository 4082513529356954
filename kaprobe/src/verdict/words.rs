//! Writes a finding as one line of text with concrete values.

use std::mem;
use std::net::SocketAddr;

use crate::model::advice::Advice;
use crate::model::record::Record;
use crate::model::remedy::Remedy;
use crate::model::socket::Endpoints;
use crate::model::time::ms_to_ns;
use crate::model::values::{LearnedOf, Origin, State};
use crate::text::escape::Escaped;
use crate::text::units::Ms;
use crate::timeout::estimate::TimeoutBounds;
use crate::timeout::middlebox::{Fit, FitSource};
use crate::verdict::finding::{
    Abort, Explanation, Finding, ForgottenBy, IdleLimit, OtherEnd, OtherEndWhy, OtherTtl, Restart,
    SilentEnd, Stray,
};
use crate::verdict::phrases::{
    Words, against_a_box, closer, first_probe, limit, netns, place, probed_meanwhile_ms, program,
};
use crate::verdict::{ending_words, own_settings, remedies};

/// What is said where keepalive can't help.
const NOT_BY_KEEPALIVE: &str = "no keepalive setting prevents that";

/// What is said where keepalive of this host can't help.
const NOT_BY_KEEPALIVE_HERE: &str = "no keepalive setting on this host prevents that";

/// What is said where keepalive plays no part.
const NOT_KEEPALIVE: &str = "keepalive is not involved";

/// What stands before a remedy that helps only if a box has forgotten the connection.
const AGAINST_A_BOX: &str = "against a box, ";

/// The minimum of TCP_KEEPINTVL, ms.
const MIN_INTVL_MS: u64 = 1_000;

/// The names of the timeouts that explain the end.
pub(super) fn names(fits: &[Fit]) -> Escaped {
    let names = fits.iter().map(|fit| {
        let Fit { names, seconds, .. } = fit;
        match fit.source {
            FitSource::Host(evidence) => format!("{names}, {evidence} ({seconds}s)"),
            FitSource::PossibleHost => format!("{names}, if it is on the path ({seconds}s)"),
            FitSource::Default => format!("{names} ({seconds}s by default)"),
        }
    });
    Escaped::from_escaped(&names.collect::<Vec<_>>().join("; "))
}

/// The advice: what happened and what to do about it.
pub(super) fn advice(record: &Record, finding: &Finding) -> Advice {
    let mut words = explain(record, finding);
    if let Some(bounds) = finding.bounds.filter(|_| !is_told(finding)) {
        let after = mem::replace(&mut words.seen, learned(record, bounds, &finding.fits));
        words.also_seen(&after);
    }
    if let Some(ttl) = finding.same_ttl {
        words.also_seen(&format!(
            "the reset's TTL of {ttl} is that of the peer's segments: no nearer box sent it"
        ));
    }
    words.also_seen(subflow(record));
    words.also_advised(&own_settings::clause(record, finding));
    Advice::new(&words.seen, &words.advised)
}

/// Whether the other end of the connection has a verdict in the same trace, on the same cause.
fn is_told(finding: &Finding) -> bool {
    match &finding.explanation {
        Explanation::IdleClose(it) => it.is_told(),
        Explanation::ByOtherEnd(it) => it.is_told,
        _ => false,
    }
}

/// What happened and what to do about it, by what explains the end.
fn explain(record: &Record, finding: &Finding) -> Words {
    let program = program(record);
    let idle = || Ms(record.ages.idle_ms.unwrap_or_default());
    match &finding.explanation {
        Explanation::Forgotten { limit, by } => forgotten(record, finding, limit, *by),
        Explanation::Survived(ms) => Words::new(
            format!(
                "this connection had survived {} of silence, so no idle timeout ended it: the peer \
                 restarted, or its program reset the connection; {NOT_BY_KEEPALIVE}",
                Ms(*ms)
            ),
            "",
        ),
        Explanation::ForgottenTooSoon(died_ms) => Words::new(
            format!(
                "after {} of silence the other end no longer knew the connection, as after a restart; \
                 keepalive can't probe early enough",
                Ms(*died_ms)
            ),
            "",
        ),
        Explanation::PeerHadClosed => Words::new(
            "the peer had already closed",
            format!("{program} should close too when it reads EOF"),
        ),
        Explanation::PeerRestarted => Words::new(
            "the peer is reachable but no longer knows the connection, as after a restart; keepalive \
             worked as intended",
            "",
        ),
        Explanation::Unsolicited(Some(proxy)) => Words::new(
            format!(
                "reset after {} of silence, while this host sent nothing; the default idle timeout \
                 of {} is {}s, and probes do not count",
                idle(),
                proxy.names,
                proxy.seconds
            ),
            "raise that timeout, or send data more often",
        ),
        Explanation::Unsolicited(None) => Words::new(
            format!(
                "reset after {} of silence, while this host sent nothing: the peer's program or a \
                 middlebox ended the connection, or the peer's host restarted and used the same \
                 ports again",
                idle()
            ),
            "",
        )
        .with(&peer_log(finding)),
        Explanation::SentAfterPeerClosed => Words::new(
            format!("{program} sent data after the peer had closed; {NOT_BY_KEEPALIVE_HERE}"),
            format!("{program} should read to the end of what the peer sends, and close then"),
        ),
        Explanation::HalfClosedForgotten(fit) => half_closed(record, finding.remedy, fit),
        Explanation::CrossedPeerClose => Words::new(
            format!(
                "the peer closed while data of {program} was on its way; {NOT_BY_KEEPALIVE}"
            ),
            format!("{program} should close idle connections sooner than the peer does"),
        ),
        Explanation::ResetWhileRetransmitting => Words::new(
            format!(
                "the peer left data unanswered for {}, and reset the connection when it was sent \
                 again: the peer's host restarted, or the path to it was down and has changed; keepalive \
                 is not involved while data is unacknowledged",
                idle()
            ),
            "",
        ),
        Explanation::InUse => Words::new(
            format!(
                "the connection was not idle, its peer was heard {} before; {NOT_KEEPALIVE}",
                idle()
            ),
            "",
        )
        .with(&peer_log(finding)),
        Explanation::BeforeAnswer => Words::new(
            format!(
                "reset before the peer had sent any data, {} after it was heard: its program closed \
                 or never accepted the connection, its accept queue was full (with \
                 net.ipv4.tcp_abort_on_overflow=1 there), or a firewall or proxy rejects it; \
                 {NOT_KEEPALIVE}",
                idle()
            ),
            "",
        )
        .with(&peer_log(finding)),
        Explanation::ByThisHost => this_host(record),
        Explanation::ByBox(ttl) => Words::new(
            format!(
                "{}: a firewall or a balancer ended the connection, which had been silent for {}; no \
                 keepalive setting is known to prevent that",
                other_ttl(*ttl),
                idle()
            ),
            "",
        ),
        Explanation::ByOtherEnd(it) => other_end(record, it),
        Explanation::Unreachable => unreachable(record, finding.remedy),
        Explanation::UserTimeout => user_timeout(record, finding.remedy),
        Explanation::FinWait2 => Words::new(
            format!(
                "not keepalive: the program had closed, but the peer never did; \
                 net.ipv4.tcp_fin_timeout in netns {}, or TCP_LINGER2, sets how long the kernel waits",
                netns(record)
            ),
            "",
        ),
        Explanation::Aborted(abort) => aborted_here(record, *abort),
        Explanation::DataAfterClose => Words::new(
            format!(
                "{} bytes came after the program had closed: they were on their way when it closed, \
                 or the peer sends without reading EOF",
                record.len.unwrap_or_default()
            ),
            "to receive such data, the program should call shutdown and read to EOF before close",
        ),
        Explanation::AcceptQueueFull => {
            accept_queue_full(record.endpoints.map_or(0, |it| it.lport))
        }
        Explanation::Stray(it) => stray(record, finding.remedy, it),
        Explanation::EndedHere(end) => ended_here(record, end),
        Explanation::NotTranslated => Words::new(
            format!(
                "conntrack took this segment for INVALID, so it was not translated back (NAT), and \
                 no socket here has its connection: `conntrack -S` in netns {} counts such segments; \
                 with net.netfilter.nf_conntrack_tcp_loose=0, conntrack may have forgotten the \
                 connection",
                netns(record)
            ),
            "drop them before they are delivered (`ct state invalid drop`), or set \
             net.netfilter.nf_conntrack_tcp_be_liberal=1 there",
        ),
        Explanation::PortsReused => Words::new(
            "the peer still has an older connection with the ports of this new one, as after a \
             restart of this host, or through a NAT that used the ports again: this reset ends the \
             older one, and the new one is made when its SYN is sent again",
            "",
        ),
        Explanation::Stuck(it) => ending_words::stuck(record, finding, it),
        Explanation::IdleClose(it) => ending_words::idle_close(record, it),
        Explanation::PeerExited(it) => ending_words::peer_exited(record, it),
        Explanation::Rejected(err) => ending_words::probes_rejected(record, *err),
    }
}

/// The advice for a listener that reset a new connection.
fn accept_queue_full(port: u16) -> Words {
    Words::new(
        format!(
            "the accept queue of port {port} was full, and net.ipv4.tcp_abort_on_overflow is 1"
        ),
        "the program should accept faster, or raise its backlog and net.core.somaxconn",
    )
}

/// What the end of a subflow means (RFC 8684, section 3.4).
fn subflow(record: &Record) -> &'static str {
    if record.mptcp == Some(true) {
        "this was one subflow of an MPTCP connection, which may go on over its other subflows"
    } else {
        ""
    }
}

/// Where to look for the peer's side of a reset, or what its log lacks.
fn peer_log(finding: &Finding) -> Words {
    match &finding.peer_host {
        Some(host) => Words::new(no_such_reset(host), ""),
        None => Words::new("", "see the peer's log"),
    }
}

/// That the log of the peer's host was read, and has no record of the reset.
fn no_such_reset(host: &Escaped) -> String {
    format!(
        "the log of {host}, which has that address, shows no such reset at that time: the clocks of \
         the hosts differ, or a box between sent it"
    )
}

/// How it is known that a box sent a reset.
fn other_ttl(ttl: OtherTtl) -> String {
    let OtherTtl { reset, peer } = ttl;
    format!(
        "a box between sent the reset: its TTL is {reset}, where the peer's segments have {peer}"
    )
}

/// The advice for a reset that this host sent to itself.
fn this_host(record: &Record) -> Words {
    let proxy = match record.peer_ttl {
        Some(_) => "",
        None => ", or a proxy on this host that the connection is redirected to",
    };
    let netns = netns(record);
    Words::new(
        format!(
            "this host itself sent the reset, not the peer: its firewall rejects the connection's \
             segments{proxy}; {NOT_BY_KEEPALIVE}"
        ),
        format!(
            "look for `reject with tcp reset` in `nft list ruleset`, or REJECT in `iptables-save`, \
             in netns {netns}"
        ),
    )
}

/// The learned bounds for the idle timeout, as a clause.
fn learned(record: &Record, bounds: TimeoutBounds, fits: &[Fit]) -> String {
    let Some(Endpoints { raddr, rport, .. }) = record.endpoints else {
        return String::new();
    };
    let remote = match bounds.of {
        LearnedOf::Endpoint => SocketAddr::new(raddr, rport).to_string(),
        LearnedOf::Network => format!("the network of {raddr}"),
    };
    let between = match (bounds.survived_ms, bounds.died_ms) {
        (Some(low), Some(high)) => format!("lies between {} and {}", Ms(low), Ms(high)),
        (None, Some(high)) => format!("is at most {}", Ms(high)),
        (Some(low), None) => format!("is more than {}", Ms(low)),
        (None, None) => "is not known".to_owned(),
    };
    let doubt = if bounds.contradictory {
        ", but the evidence contradicts itself: more than one timeout, or restarts"
    } else {
        ""
    };
    let named = fits.first().map_or(String::new(), |fit| {
        let default = if fit.source == FitSource::Default {
            " default"
        } else {
            ""
        };
        format!("; {}'s{default} is {}s", fit.first_name(), fit.seconds)
    });
    format!("idle timeout towards {remote} {between}{doubt}{named}")
}

/// The advice for a connection that the other end no longer knew.
fn forgotten(record: &Record, finding: &Finding, of: &IdleLimit, by: ForgottenBy) -> Words {
    const IF_RESTARTED: &str = "first see whether the peer restarted then; if not, against a box: ";
    let (suspects, before) = match by {
        ForgottenBy::PeerOrBox => (
            "the peer restarted, its program closed the connection, or a box between forgot it: \
             if it happens again, that tells which"
                .to_owned(),
            "first see in the peer's log whether it restarted or closed the connection then; if \
             not, against a box: ",
        ),
        ForgottenBy::RestartOrBox => (
            "the peer restarted, or a box between forgot the connection: if it happens again, \
             that tells which"
                .to_owned(),
            IF_RESTARTED,
        ),
        ForgottenBy::RestartOrManyBoxes => (
            "other connections survived as long: the peer restarted, or this one passed another \
             box, which forgot it"
                .to_owned(),
            IF_RESTARTED,
        ),
        ForgottenBy::ProgramOrBox => (
            format!(
                "the peer's program closes idle connections or restarted more than once ({}), or a \
                 box between forgets them",
                match &finding.peer_host {
                    Some(host) => no_such_reset(host),
                    None => "see its log".to_owned(),
                }
            ),
            AGAINST_A_BOX,
        ),
        ForgottenBy::BoxByTtl(ttl) => (other_ttl(ttl), "if that was for its idle time, "),
        ForgottenBy::HostBox | ForgottenBy::Box => (String::new(), ""),
    };
    let change = against_a_box(record, finding.remedy, before, of);
    Words::new(suspects, "").with(&change)
}

/// Why the other end sent a reset, as its own records show.
fn other_end(record: &Record, it: &OtherEnd) -> Words {
    let program = it.program.as_deref().unwrap_or("the program");
    let what = match it.why {
        OtherEndWhy::Aborted(abort) => aborted(abort, program),
        OtherEndWhy::Closed => Words::new(
            format!("{program} had closed it, and data came afterwards"),
            "",
        ),
        OtherEndWhy::Unknown => Words::new("it has no such connection", ""),
        OtherEndWhy::NotTranslated => Words::new(
            "conntrack there took a segment for INVALID, and did not translate it back",
            "",
        ),
        OtherEndWhy::AcceptQueueFull(port) => accept_queue_full(port),
        OtherEndWhy::PortsReused => Words::new(
            "it opened a new connection with the same ports, as after a restart",
            "",
        ),
        OtherEndWhy::Exited => Words::new(format!("{program} ended, by itself or killed"), ""),
        OtherEndWhy::GaveUp => Words::new(
            format!(
                "keepalive of {program} gave up on this end, which had not answered its probes"
            ),
            "",
        ),
    };
    // The verdict on that end has the advice.
    let advised = if it.is_told { "" } else { &what.advised };
    let place = place(record, it);
    Words::new(format!("the other end is {place}: {}", what.seen), advised)
}

/// The advice for a connection that one end had closed, when a box of this host may have
/// forgotten it.
fn half_closed(record: &Record, remedy: Option<Remedy>, fit: &Fit) -> Words {
    let idle = Ms(record.ages.idle_ms.unwrap_or_default());
    let Fit { names, seconds, .. } = fit;
    let or_probe = remedy.map_or(String::new(), |it| {
        format!(", or {}", first_probe(record, it))
    });
    Words::new(
        format!(
            "one end had closed, and {names} forgets such a connection after {seconds}s; this one \
             was silent for {idle}"
        ),
        format!("raise that timeout there{or_probe}"),
    )
}

/// The advice for a peer that answered no probe.
fn unreachable(record: &Record, remedy: Option<Remedy>) -> Words {
    let settings = &record.settings;
    let probes = record.probes_out.unwrap_or_default();
    let idle = Ms(record.ages.idle_ms.unwrap_or_default());
    // If a middlebox drops silently, a late probe has the same effect.
    let late = remedy.map_or(String::new(), |remedy| {
        let time_s = settings.keepalive_time_ms.unwrap_or_default() / 1000;
        format!(
            "the first probe came only after {time_s}s: if a middlebox dropped the connection \
             before that, {}",
            first_probe(record, remedy)
        )
    });
    let sooner = match (settings.keepalive_intvl_ms, settings.keepalive_intvl_from) {
        // The minimum (`do_tcp_setsockopt`, net/ipv4/tcp.c), or not known.
        (Some(..=MIN_INTVL_MS) | None, _) => String::new(),
        (Some(ms), from) => {
            let from = match from {
                Some(Origin::Socket) => String::new(),
                _ => format!(
                    ", by net.ipv4.tcp_keepalive_intvl in netns {}",
                    netns(record)
                ),
            };
            format!(
                "to detect this sooner, lower TCP_KEEPINTVL in {} (now {}{from})",
                program(record),
                Ms(ms)
            )
        }
    };
    let silent = match probed_meanwhile_ms(record) {
        Some(ms) => format!(
            "nothing acknowledged for {idle}, but the peer's own probes came in, the last {} before: \
             what this host sends does not arrive, or the answers to it do not: a firewall, or one \
             direction of the path",
            Ms(ms)
        ),
        None => format!("silent for {idle}: the peer's host or the path to it is down"),
    };
    let rejected = rejected(record);
    let seen = format!("{probes} probes unanswered, {silent}{rejected}");
    let mut words = Words::new(seen, sooner);
    words.also_advised(&late);
    words
}

/// That a firewall may reject keepalive probes. The kernel takes no error for a probe, as its
/// sequence number is below those of data (`tcp_v4_err`, net/ipv4/tcp_ipv4.c).
fn rejected(record: &Record) -> String {
    if record
        .endpoints
        .is_none_or(|it| it.raddr.to_canonical().is_loopback())
    {
        return String::new();
    }
    format!(
        ", or a firewall rejects the probes by ICMP, which the kernel ignores and counts as \
         TcpExtOutOfWindowIcmps in netns {}",
        netns(record)
    )
}

/// The advice for a TCP_USER_TIMEOUT that passed with a probe unanswered: before all probes were
/// sent if there is a remedy, or later than they would have taken.
fn user_timeout(record: &Record, remedy: Option<Remedy>) -> Words {
    let had = Ms(record.settings.user_timeout_ms.unwrap_or_default().into());
    let probes = record.settings.keepalive_probes.unwrap_or_default();
    let program = program(record);
    if let Some(all) = remedy.and_then(|it| it.user_timeout_ms) {
        return Words::new(
            format!("TCP_USER_TIMEOUT of {had} overrides the probe count"),
            format!("to allow all {probes} probes, set it to {all}ms in {program}"),
        );
    }
    let all_ms = remedies::all_probes(&record.settings)
        .user_timeout_ms
        .unwrap_or_default();
    let seen = format!(
        "TCP_USER_TIMEOUT of {had} passed with the probes unanswered: the peer's host or the path to \
         it is down"
    );
    if all_ms >= record.settings.user_timeout_ms.unwrap_or_default().into() {
        return Words::new(seen, "");
    }
    Words::new(
        format!(
            "{seen}; all {probes} probes alone would have taken {}",
            Ms(all_ms)
        ),
        format!("to learn of it sooner, set TCP_USER_TIMEOUT={all_ms} in {program}"),
    )
}

/// The advice for a connection that a process of this host reset, as its record tells.
fn aborted_here(record: &Record, abort: Abort) -> Words {
    match record.closer() {
        Some(by) if abort == Abort::Destroyed && record.actor.by_pid.is_some() => {
            let seen = format!("{by} destroyed the connection of {}", program(record));
            Words::new(seen, "")
        }
        _ => aborted(abort, &closer(record)),
    }
}

/// The advice for a connection that one end reset.
fn aborted(abort: Abort, program: &str) -> Words {
    const READ_FIRST: &str = "a program should read to the end before it closes";
    let (what, advised) = match abort {
        Abort::DataUnread {
            exiting: Some(true),
        } => ("ended, by itself or killed, with data unread", ""),
        Abort::DataUnread {
            exiting: Some(false),
        } => ("closed it with data unread", READ_FIRST),
        Abort::DataUnread { exiting: None } => {
            ("closed it, or was killed, with data unread", READ_FIRST)
        }
        Abort::NoFinWait2 => (
            "closed it with TCP_LINGER2 below 0, which skips FIN_WAIT2",
            "",
        ),
        Abort::Memory => (
            "left an orphan over the limit net.ipv4.tcp_max_orphans or tcp_mem",
            "raise the limit, or leave fewer orphans",
        ),
        Abort::DisconnectWithData => ("disconnected it with data unsent", ""),
        Abort::LingerOrDisconnect => (
            "closed it with SO_LINGER 0, or disconnected it",
            "leave SO_LINGER unset to close with FIN",
        ),
        Abort::OrphanLinger2OrMemory => (
            "left an orphan with TCP_LINGER2 below 0, or over the limit net.ipv4.tcp_max_orphans or \
             tcp_mem",
            "",
        ),
        Abort::UnreadLingerOrDisconnect => (
            "closed it with data unread or SO_LINGER 0, or disconnected it (this kernel reports no more)",
            "",
        ),
        Abort::OrphanMemoryOrDestroyed => (
            "left an orphan over the limit net.ipv4.tcp_max_orphans or tcp_mem, or someone \
             destroyed it, as `ss -K` does",
            "",
        ),
        Abort::NeverAccepted => {
            return Words::new("its listener was closed before a program accepted it", "");
        }
        Abort::NoFinWait2Late => {
            let seen = "the program had closed it with TCP_LINGER2 below 0, which skips FIN_WAIT2";
            return Words::new(seen, "");
        }
        Abort::Destroyed => {
            let seen = format!("someone destroyed the connection of {program}, as `ss -K` does");
            return Words::new(seen, "");
        }
    };
    Words::new(format!("{program} {what}"), advised)
}

/// The words for a segment of a connection that had ended here, and the peer was not told.
fn ended_here(record: &Record, end: &SilentEnd) -> Words {
    let ago_ms = record.mono_ns.saturating_sub(end.mono_ns) / ms_to_ns(1);
    let by = end
        .by
        .as_ref()
        .map_or(String::new(), |it| format!(" of {it}"));
    Words::new(
        format!(
            "this connection{by} ended here {} before, without a FIN or a reset: the peer was not told, \
             and takes it for open",
            Ms(ago_ms)
        ),
        "see the `aborted` record of that moment for what ended it",
    )
}

/// The advice for a segment that belongs to no connection of this host.
fn stray(record: &Record, remedy: Option<Remedy>, it: &Stray) -> Words {
    let peer = record.endpoints.map_or("the peer".to_owned(), |it| {
        SocketAddr::from(it.remote()).to_string()
    });
    let seconds = remedy.and_then(|it| it.time_s).unwrap_or_default();
    let intvl = remedy.and_then(|it| it.intvl_s);
    let intvl = intvl.map_or(String::new(), |it| format!(", and TCP_KEEPINTVL={it}"));
    let mut causes = Vec::new();
    // The last segment of a handshake looks the same where the kernel gives no reason.
    let is_listening = record.state == Some(State::Listen);
    if is_listening && record.reason.is_none() && record.len == Some(0) {
        causes.push("its accept queue was full, with net.ipv4.tcp_abort_on_overflow=1".to_owned());
    }
    // A probe looks the same.
    if record.len == Some(0) {
        causes.push(format!(
            "this host has closed the connection, and {peer} has not"
        ));
    }
    causes.push(restarted(record, it.restart));
    let seems_initiated = record.endpoints.is_some_and(|it| it.seem_initiated());
    let (forgotten, who) = if seems_initiated {
        (untranslated(record), "NAT")
    } else {
        let forgotten = format!(
            "a load balancer forgot an idle connection of {peer} to another server, and sent its \
             segment here"
        );
        (forgotten, "load balancer")
    };
    causes.push(forgotten);
    let before = match it.since_ms {
        0 => "before".to_owned(),
        ms => format!("more than {} before", Ms(ms)),
    };
    Words::new(
        format!(
            "this host has no such connection now, and whether it had one {before} is not known; \
             possible causes: {}",
            causes.join("; or ")
        ),
        format!(
            "if a {who} forgot it, on {peer} set TCP_KEEPIDLE to at most half of the {who}'s idle \
             timeout: TCP_KEEPIDLE={seconds} is {}{intvl}",
            limit(&it.limit)
        ),
    )
}

/// That a restart may have ended a connection.
fn restarted(record: &Record, restart: Restart) -> String {
    match restart {
        Restart::Host(ago) => {
            format!("this host started {ago}s ago, after the connection was made")
        }
        Restart::Program(ago) => {
            format!(
                "{} started {ago}s ago, after the connection was made",
                program(record)
            )
        }
        Restart::NotSince(ago) => format!(
            "{} started {ago}s ago, and the connection is older than that",
            program(record)
        ),
        Restart::Unknown => {
            "this host or its program restarted after the connection was made".to_owned()
        }
    }
}

/// That a box forgot how to translate a connection of this host. conntrack's default for a
/// half-closed one: net/netfilter/nf_conntrack_proto_tcp.c, `tcp_timeouts`.
fn untranslated(record: &Record) -> String {
    format!(
        "a NAT between forgot an idle or half-closed connection of this host, and sent its segment \
         here without translating it: `ss -tn sport = :{}` in netns {} shows the connection; conntrack keeps a \
         half-closed one for 60s (nf_conntrack_tcp_timeout_close_wait)",
        record.endpoints.map_or(0, |it| it.lport),
        netns(record)
    )
}
