//! Writes the findings on stalls, give-ups by retransmission, and closes for idleness.

use crate::model::record::Record;
use crate::model::values::{Cause, Errno, State};
use crate::text::units::{Ms, plural};
use crate::verdict::finding::{Finding, IdleClose, LateData, Stuck, StuckWhy};
use crate::verdict::phrases::{self, Words};
use crate::verdict::undelivered;

/// The shortest TCP_USER_TIMEOUT that is advised, s. A shorter outage ends no connection.
const MIN_USER_TIMEOUT_S: u64 = 30;

/// How often a probe may be lost before the advised TCP_USER_TIMEOUT passes.
const LOST_PROBES: u64 = 2;

/// The advice for data that is not acknowledged, or never was.
pub(super) fn stuck(record: &Record, finding: &Finding, it: &Stuck) -> Words {
    let transfer = &record.transfer;
    let stalled = Ms(transfer.stalled_ms.unwrap_or_default());
    let bytes = match (transfer.unacked_bytes, record.state) {
        (Some(0), Some(State::FinWait1 | State::Closing | State::LastAck)) => "a FIN".to_owned(),
        (count, _) => bytes(count),
    };
    let silent = Ms(transfer.silent_ms.unwrap_or_default());
    let retransmits = record.retransmits.unwrap_or_default();
    let sent = format!("{bytes} sent {retransmits} times again in {stalled}");
    let mut words = match it.why {
        StuckWhy::Icmp(err) => {
            let (who, advised) = rejected(err);
            Words::new(format!("{sent}, and {who}"), advised)
        }
        StuckWhy::Silence => {
            let gone = if it.others_work {
                ""
            } else {
                ", or the peer's host is gone"
            };
            let seen = format!(
                "after {silent} of silence, {sent}, never acknowledged: a box between forgot the \
                 connection without a word{gone}; the peer learns of it only if its program sends, \
                 or has keepalive on too"
            );
            Words::new(seen, "")
        }
        StuckWhy::Outage { survived_ms } => {
            let before = match survived_ms {
                Some(ms) => format!("the connection had survived {} of silence", Ms(ms)),
                None => format!("{silent} of silence before is too short for an idle timeout"),
            };
            let seen = format!(
                "{sent}, never acknowledged; {before}: {}, which no keepalive setting prevents: \
                 keepalive waits while data is out",
                lost(it)
            );
            Words::new(seen, "")
        }
        StuckWhy::UserTimeout => Words::new(
            format!(
                "TCP_USER_TIMEOUT of {} passed with {bytes} not acknowledged for {stalled}, after \
                 {silent} of silence: {}",
                Ms(record.settings.user_timeout_ms.unwrap_or_default().into()),
                lost(it)
            ),
            format!(
                "a longer TCP_USER_TIMEOUT in {} waits longer for it",
                phrases::program(record)
            ),
        ),
        StuckWhy::ZeroWindow => Words::new(zero_window(record), ""),
    };
    let others = if it.others_work {
        "another connection to the same address was heard meanwhile, so the peer's host is up"
    } else {
        ""
    };
    let first_probe = it.limit.as_ref().filter(|_| it.why != StuckWhy::ZeroWindow);
    let earlier = first_probe.map_or(String::new(), |limit| {
        let probe = phrases::first_probe(record, finding.remedy);
        match finding.remedy {
            Some(_) => format!("against a box, {probe} ({})", phrases::limit(limit)),
            None => probe,
        }
    });
    words.also_seen(others);
    words.also_advised(&earlier);
    words.also_advised(&sooner(record, finding, it));
    words
}

/// What may have lost the data.
const fn lost(it: &Stuck) -> &'static str {
    match (&it.limit, it.others_work) {
        (Some(_), _) => {
            "the path or the peer's host is down, or a box between forgot the connection"
        }
        (None, true) => "something on its way drops this connection alone",
        (None, false) => "the path or the peer's host is down",
    }
}

/// The advice for keepalive probes to which ICMP answered with an error.
pub(super) fn probes_rejected(record: &Record, err: Errno) -> Words {
    let probes = record.probes_out.unwrap_or_default();
    let idle = Ms(record.ages.idle_ms.unwrap_or_default());
    let (who, advised) = rejected(err);
    let seen = format!("{probes} probes unanswered, silent for {idle}, and {who}");
    Words::new(seen, advised)
}

fn bytes(count: Option<u32>) -> String {
    plural(count.unwrap_or_default().into(), "byte", "bytes")
}

/// Who may have sent an ICMP error (`icmp_err_convert`, net/ipv4/icmp.c), and what to do.
fn rejected(err: Errno) -> (String, &'static str) {
    const ECONNREFUSED: Errno = Errno(libc::ECONNREFUSED.cast_unsigned());
    let who = if err == ECONNREFUSED {
        "a firewall rejects the segments, at the peer's host or before it"
    } else {
        "a router found no way to the peer's host, or a firewall rejects the segments"
    };
    let seen = format!("the network answered {err} (ICMP): {who}");
    (seen, "no keepalive setting prevents that")
}

/// Why data waited behind a closed window until the kernel gave up.
fn zero_window(record: &Record) -> String {
    let waiting = bytes(record.transfer.unsent_bytes);
    let heard = record.ages.idle_ms.unwrap_or_default();
    if !undelivered::acknowledges(record) {
        return format!(
            "the peer's window was closed, and its host stopped answering {} ago: the path or the \
             host is down, which no keepalive setting prevents; {waiting} waited here",
            Ms(heard)
        );
    }
    let limit = match (record.cause, record.settings.user_timeout_ms) {
        (Some(Cause::UserTimeout), Some(ms)) => format!("TCP_USER_TIMEOUT of {}", Ms(ms.into())),
        _ => format!(
            "the limit net.ipv4.tcp_orphan_retries in netns {}",
            phrases::netns(record)
        ),
    };
    format!(
        "{limit} passed while the peer's window was closed: its host acknowledges (heard {} ago), \
         its program does not read; {waiting} waited here",
        Ms(heard)
    )
}

/// How to learn of it sooner, if the kernel sends for minutes before it gives up.
fn sooner(record: &Record, finding: &Finding, it: &Stuck) -> String {
    if record.settings.user_timeout_ms.is_some() || it.why == StuckWhy::ZeroWindow {
        return String::new();
    }
    let all_ms = record
        .transfer
        .stalled_ms
        .unwrap_or_default()
        .saturating_add(record.dead_in_ms.unwrap_or_default());
    let settings = &record.settings;
    let advised_s = finding.remedy.and_then(|it| it.time_s);
    let probing_s = if settings.keepalive == Some(true) || advised_s.is_some() {
        let time_s = settings.keepalive_time_ms.unwrap_or_default() / 1_000;
        let intvl_s = settings.keepalive_intvl_ms.unwrap_or_default() / 1_000;
        let intvl_s = finding.remedy.and_then(|it| it.intvl_s).unwrap_or(intvl_s);
        advised_s.unwrap_or(time_s) + LOST_PROBES * intvl_s
    } else {
        0
    };
    let seconds = probing_s.max(MIN_USER_TIMEOUT_S);
    let (program, netns) = (phrases::program(record), phrases::netns(record));
    let retries = match record.identity.orphan {
        // The program has closed it (`tcp_write_timeout`, net/ipv4/tcp_timer.c).
        Some(true) => format!("net.ipv4.tcp_orphan_retries in netns {netns}"),
        _ => format!("net.ipv4.tcp_retries2 in netns {netns}"),
    };
    let after = if it.gave_up { "came" } else { "comes" };
    if seconds.saturating_mul(1_000) >= all_ms {
        return format!(
            "the end {after} after {}, which TCP_USER_TIMEOUT in {program} or {retries} sets",
            Ms(all_ms)
        );
    }
    format!(
        "the end {after} after {}: to learn of it sooner, set TCP_USER_TIMEOUT={} in {program}, or \
         lower {retries}",
        Ms(all_ms),
        seconds.saturating_mul(1_000),
    )
}

/// The advice for a close after a time without data.
pub(super) fn idle_close(record: &Record, it: &IdleClose) -> Words {
    let quiet = Ms(it.quiet_ms);
    let closer = match &it.other_end {
        _ if !it.by_peer => own(it).to_owned(),
        Some(end) => format!("{} {}", peer(it), phrases::place(record, end)),
        None => peer(it).to_owned(),
    };
    let keepalive = match (it.keepalive, it.answered) {
        (true, true) => {
            "TCP keepalive was on, and probes were answered: they are no data, so they made no \
             difference"
        }
        (true, false) => "TCP keepalive was on: its probes are no data, so they do not count",
        (false, _) => {
            "TCP keepalive was off, and would have made no difference: its probes are no data"
        }
    };
    let start = format!("{closer} closed the connection after {quiet} without data");
    match it.late {
        None => Words::new(
            format!("{start}; {keepalive}"),
            format!(
                "to keep such connections, raise the idle timeout of {}, or send data more often",
                if it.by_peer { peer(it) } else { own(it) }
            ),
        ),
        Some(late) => {
            let (became, advised) = late_data(it, late);
            Words::new(
                format!("{start}, {became}"),
                format!("{advised}; {keepalive}"),
            )
        }
    }
}

/// The program of this host.
fn own(it: &IdleClose) -> &str {
    it.program.as_deref().unwrap_or("the program")
}

/// The program of the peer.
fn peer(it: &IdleClose) -> &str {
    let known = it.other_end.as_ref().and_then(|end| end.program.as_deref());
    known.unwrap_or("the peer's program")
}

/// What became of data that came too late, and what prevents it.
fn late_data(it: &IdleClose, late: LateData) -> (String, String) {
    let quiet = Ms(it.quiet_ms);
    let (program, peer) = (own(it), peer(it));
    match (it.by_peer, late) {
        (true, LateData::After(ms)) => (
            format!(
                "and {program} wrote to it {} later, without having read its end",
                Ms(ms)
            ),
            format!(
                "keep idle connections in {program} for less than {quiet}, or raise the idle timeout \
                 of {peer}"
            ),
        ),
        (true, _) => (
            format!("while data of {program} was on its way, which nobody answers"),
            format!(
                "keep idle connections in {program} for less than {quiet}, or raise the idle timeout \
                 of {peer} above that of {program}"
            ),
        ),
        (false, LateData::After(ms)) => (
            format!(
                "and its client wrote to it {} later, without having read its end",
                Ms(ms)
            ),
            format!(
                "the client should keep idle connections for less than {quiet}, or raise the idle \
                 timeout of {program}"
            ),
        ),
        (false, on_its_way) => {
            let fate = match on_its_way {
                LateData::Lingered => "which nobody answered",
                _ => "which drew a reset",
            };
            (
                format!(
                    "while data of its client was on its way, {fate} (a proxy in front shows a 502)"
                ),
                format!(
                    "raise the idle timeout of {program} above that of its clients and of the proxy \
                     in front"
                ),
            )
        }
    }
}
