//! Writes the findings on stalls, give-ups by retransmission, and closes for idleness.

use crate::model::record::Record;
use crate::model::values::{Cause, Errno, State};
use crate::text::units::{Ms, plural};
use crate::verdict::finding::{Finding, IdleClose, LateData, OtherEnd, Stuck, StuckWhy};
use crate::verdict::phrases::{self, Words};
use crate::verdict::remedies;
use crate::verdict::undelivered;

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
    let acknowledged = if it.gave_up {
        "never acknowledged"
    } else {
        "not acknowledged so far"
    };
    let sent = format!("{bytes} retransmitted {retransmits} times in {stalled}");
    let mut words = match it.why {
        StuckWhy::Icmp(err) => Words::new(format!("{sent}, and {}", rejected(err)), ""),
        StuckWhy::Silence => {
            let gone = if it.others_work {
                ""
            } else {
                ", or the peer's host is gone"
            };
            let seen = format!(
                "after {silent} of silence, {sent}, {acknowledged}: a box between may have forgotten \
                 the connection, and drops its segments{gone}; the peer learns of it only if its \
                 program sends, or has keepalive on too"
            );
            Words::new(seen, "")
        }
        StuckWhy::Outage { survived_ms } => {
            let before = match survived_ms {
                Some(ms) => format!("the connection had survived {} of silence", Ms(ms)),
                None => format!("{silent} of silence before is too short for an idle timeout"),
            };
            let seen = format!(
                "{sent}, {acknowledged}; {before}: {}, which no keepalive setting prevents: \
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
            match phrases::is_orphan(record) {
                true => String::new(),
                false => format!(
                    "to wait longer for it, set a longer TCP_USER_TIMEOUT in {}",
                    phrases::program(record)
                ),
            },
        ),
        StuckWhy::ZeroWindow => Words::new(zero_window(record), ""),
    };
    let others = if it.others_work {
        "another connection to the same address was heard meanwhile, so the peer's host is up"
    } else {
        ""
    };
    words.also_seen(others);
    if phrases::is_orphan(record) {
        words.also_seen("its program has closed it, and no process holds it any more");
    }
    if let Some(limit) = it.limit.as_ref().filter(|_| it.why != StuckWhy::ZeroWindow) {
        let before = match (finding.is_settled(), it.others_work) {
            (true, _) => "against a box, ",
            (false, true) => {
                "first see whether the data arrives at the peer's host; if not, against a box: "
            }
            (false, false) => {
                "first see whether the peer's host is up, and whether another connection to it \
                 works; if so, against a box: "
            }
        };
        words.also(&phrases::against_a_box(
            record,
            finding.remedy,
            before,
            limit,
        ));
    }
    words.also(&end(record, finding, it));
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
    let rejected = rejected(err);
    let seen = format!("{probes} probes unanswered, silent for {idle}, and {rejected}");
    Words::new(seen, "")
}

fn bytes(count: Option<u32>) -> String {
    plural(count.unwrap_or_default().into(), "byte", "bytes")
}

/// Who may have sent an ICMP error (`icmp_err_convert`, net/ipv4/icmp.c).
fn rejected(err: Errno) -> String {
    const ECONNREFUSED: Errno = Errno(libc::ECONNREFUSED.cast_unsigned());
    let who = if err == ECONNREFUSED {
        "a firewall rejects the segments, at the peer's host or before it"
    } else {
        "a router found no way to the peer's host, or a firewall rejects the segments"
    };
    format!("the network answered {err} (ICMP): {who}, which no keepalive setting prevents")
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

/// When the kernel gives up, and how a program learns of it sooner.
fn end(record: &Record, finding: &Finding, it: &Stuck) -> Words {
    let is_set = record.settings.user_timeout_ms.is_some_and(|ms| ms > 0);
    let stalled_ms = record.transfer.stalled_ms.unwrap_or_default();
    let left_ms = record.dead_in_ms.or(it.gave_up.then_some(0));
    let Some(left_ms) = left_ms.filter(|_| !is_set && it.why != StuckWhy::ZeroWindow) else {
        return Words::default();
    };
    let all_ms = stalled_ms.saturating_add(left_ms);
    let netns = phrases::netns(record);
    let verb = if it.gave_up { "gave" } else { "gives" };
    // `tcp_write_timeout`, net/ipv4/tcp_timer.c.
    let retries = match phrases::is_orphan(record) {
        true => "tcp_orphan_retries",
        false => "tcp_retries2",
    };
    let after = format!(
        "the kernel {verb} up {} after the data was first sent, by net.ipv4.{retries} in netns {netns}",
        Ms(all_ms)
    );
    if phrases::is_orphan(record) {
        return Words::new(after, "");
    }
    let timeout_ms = remedies::sooner_user_timeout(&record.settings, finding.remedy, all_ms);
    let advised = timeout_ms.map_or(String::new(), |ms| {
        format!(
            "to learn of it sooner, set TCP_USER_TIMEOUT={ms} in {}",
            phrases::program(record)
        )
    });
    Words::new(after, advised)
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
        // The verdict on the other end has the rest.
        None if it.is_told() => Words::new(start, ""),
        None => Words::new(
            format!("{start}; {keepalive}"),
            format!(
                "to keep such connections, raise the idle timeout of {}, or send data more often",
                if it.by_peer { peer(it) } else { own(it) }
            ),
        ),
        Some(late) => {
            let (became, advised) = late_data(it, late);
            let keepalive = match it.is_told() {
                true => String::new(),
                false => format!("; {keepalive}"),
            };
            Words::new(format!("{start}, {became}{keepalive}"), advised)
        }
    }
}

/// The words for a process at the other end that ended.
pub(super) fn peer_exited(record: &Record, other_end: &OtherEnd) -> Words {
    let program = other_end.program.as_deref().unwrap_or("the process");
    let place = phrases::place(record, other_end);
    let quiet = record.ages.lastrcv_ms.min(record.ages.lastsnd_ms);
    Words::new(
        format!(
            "{program} {place} held the other end, and ended, by itself or killed: the kernel closed \
             its connections, this one after {} without data",
            Ms(quiet.unwrap_or_default())
        ),
        format!("see why {program} ended: its log, the journal, `dmesg` for lack of memory"),
    )
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
