//! Says what to do about a group of connections. Pure.

use std::fmt::Write as _;
use std::iter;

use crate::audit::group::{Group, GroupKey};
use crate::audit::silence::ObservedSilence;
use crate::model::fate::{Fate, Why};
use crate::model::remedy::{ProgramAdvice, Reach, SetIn};
use crate::text::cell;
use crate::text::escape::Escaped;
use crate::text::units::{Ms, span};

/// What to do, a line for each way.
pub(super) fn remedy(key: &GroupKey, group: &Group) -> Vec<String> {
    let timeout = Ms(key.timeout_ms.unwrap_or_default());
    let place = place(key, group);
    let Some(why) = key.why else {
        return Vec::new();
    };
    if matches!(key.fate, Fate::KeptByTraffic | Fate::KeptByPeer) {
        let options = unused_options(key);
        let switch = options.map(|it| format!("{it}; turn it on in {place}"));
        return kept(key, group).into_iter().chain(switch).collect();
    }
    let mut lines: Vec<_> = unused_options(key).into_iter().collect();
    lines.extend(match (why, &key.set) {
        (Why::NoTimeout, set) => {
            let unknown = "no idle timeout is known on the way: see --idle-timeout".to_owned();
            let ways = set.iter().flat_map(|set| ways(key, group, set, &place));
            iter::once(unknown).chain(ways).collect()
        }
        (Why::NoSettings, _) => vec!["its settings can't be read".to_owned()],
        (Why::Unacknowledged, _) => vec![dying("its data was retransmitted", "times", group)],
        (Why::ZeroWindow, _) => vec![dying("its peer's window is closed:", "probes", group)],
        (Why::NotRefreshed, _) => vec![format!(
            "keepalive can't help: raise the timeout of {timeout}, or let {place} send data sooner"
        )],
        (Why::ProbesUnanswered, _) => vec![format!(
            "its probes are not answered: keepalive ends it{}",
            group
                .dead_in_ms
                .map_or(String::new(), |it| format!(" in {}", span(it)))
        )],
        (Why::NoProbes, _) => vec![format!(
            "silent for more than twice its idle timeout: it is dead, unless the peer sends probes \
             of its own; end it in {place}, or by `ss -K` with its addresses and ports, and turn on \
             SO_KEEPALIVE there"
        )],
        (_, None) => vec![format!(
            "no probe can be sent before {timeout}: raise that timeout"
        )],
        (Why::LateTimer, Some(set)) => vec![format!(
            "its timer was set before: in {place} set {set} again, or connect anew"
        )],
        (_, Some(set)) => ways(key, group, set, &place),
    });
    if let Some(range) = group.user_timeout_ms {
        lines.push(format!(
            "TCP_USER_TIMEOUT of {} ends a connection whose data is not acknowledged, not an \
             idle one",
            span(range)
        ));
    }
    if group.past > 0 && key.fate == Fate::AtRisk {
        let past = group.past;
        lines.push(format!("{past} silent for longer than {timeout} already"));
    }
    if group.outlived > 0 {
        let outlived = group.outlived;
        lines.push(format!(
            "{outlived} silent for longer than {timeout} and heard again: that timeout is not on \
             the path, or probes of the peer keep such a connection alive"
        ));
    }
    lines.extend(not_kept(key, group));
    lines
}

/// The keepalive options that were set without SO_KEEPALIVE.
fn unused_options(key: &GroupKey) -> Option<String> {
    let options = key.unused_options.as_ref()?;
    let are = match options.as_str().contains(' ') {
        true => "are",
        false => "is",
    };
    Some(format!(
        "{options} {are} set, but SO_KEEPALIVE is off: the kernel sends no probe"
    ))
}

/// What was sent in vain, and when the kernel gives up on it.
fn dying(what: &str, times: &str, group: &Group) -> String {
    let mut text = what.to_owned();
    if let Some((least, most)) = group.again {
        let again = match least == most {
            true => least.to_string(),
            false => format!("{least}..{most}"),
        };
        // Writing to a String cannot fail.
        let _ = write!(text, " {again} {times}");
    }
    text.push_str(" without an answer");
    if let Some(range) = group.stalled_ms {
        let _ = write!(text, " for {}", span(range));
    }
    text.push_str(match group.dead_in_ms {
        Some(_) => "; unless the peer answers, the kernel gives up in ",
        None => "; when the kernel gives up is not known",
    });
    text.push_str(&group.dead_in_ms.map_or(String::new(), span));
    text.push_str(": the peer or the path to it is down, or a box between forgot the connection");
    text
}

/// What keeps the connections alive, and for how long that is known.
fn kept(key: &GroupKey, group: &Group) -> Option<String> {
    let timeout = Ms(key.timeout_ms.unwrap_or_default());
    let (by, limit) = if key.fate == Fate::KeptByPeer {
        ("probes of the peer", "they may stop")
    } else {
        ("its own traffic", "a longer one may come")
    };
    let observed = group.observed_ms.zip(group.observed_silence_ms);
    let Some(((observed_ms, _), (_, silence_ms))) = observed else {
        let (_, after_ms) = group.peer_probes_after_ms?;
        return Some(format!(
            "kept alive by {by}: the last ended a silence of {} at most, of {timeout}; {limit}: \
             --observe TIME shows more",
            Ms(after_ms),
        ));
    };
    Some(format!(
        "kept alive by {by}: longest silence seen in {}: {}, of {timeout}; {limit}",
        Ms(observed_ms),
        Ms(silence_ms),
    ))
}

/// Why the traffic that was observed does not keep the connections alive, or how long they
/// have to be observed to tell.
fn not_kept(key: &GroupKey, group: &Group) -> Option<String> {
    if !matches!(key.fate, Fate::Unprotected | Fate::AtRisk) {
        return None;
    }
    let ((observed_ms, _), (_, silence_ms)) = group.observed_ms.zip(group.observed_silence_ms)?;
    let observed = ObservedSilence {
        observed_ms: Some(observed_ms),
        observed_silence_max_ms: Some(silence_ms),
        ..ObservedSilence::default()
    };
    let needed_ms = observed.needed_ms(key.timeout_ms?);
    let more = needed_ms.map_or(String::new(), |needed_ms| {
        let needed = Ms(needed_ms);
        format!("; --observe {needed} or more may show that its own traffic or the peer's probes keep it alive")
    });
    Some(format!(
        "longest silence seen in {}: {}{more}",
        Ms(observed_ms),
        Ms(silence_ms)
    ))
}

/// The program, and where it is: its unit or container, or its process.
fn place(key: &GroupKey, group: &Group) -> String {
    let workload = &key.peer.workload;
    match (key.peer.name(), workload.name()) {
        (Some(name), Some(_)) => format!("{name}{}", workload.suffix()),
        (Some(_), None) => key.peer.program(&group.pids),
        (None, _) => "the program".to_owned(),
    }
}

/// The ways to change the settings, with the connections that each reaches.
fn ways(key: &GroupKey, group: &Group, set: &Escaped, place: &str) -> Vec<String> {
    let own = &key.own;
    let options = key.socket_set.as_ref().unwrap_or(set);
    let mut lines = vec![match (&own.program, &own.program_set) {
        (None, _) => {
            format!("in {place}: {options} by setsockopt: reaches the sockets it is set on")
        }
        (Some(program), None) => format!("{program} has no setting of its own for {options}"),
        (Some(_), Some(set)) => own_way(own, set, options, place),
    }];
    lines.extend(
        own.program_or
            .iter()
            .map(|it| format!("or in {place}: {it}")),
    );
    lines.push(match (&own.program_sysctl, key.set_in) {
        (_, Some(SetIn::Sysctl)) if own.program_set.is_some() || own.program.is_none() => {
            format!("or {}", sysctl_way(key, group, set))
        }
        (_, Some(SetIn::Sysctl)) => sysctl_way(key, group, set),
        (Some(sysctls), _) => {
            let and = own.program_set.as_ref().map_or("", |_| "and ");
            let place = in_netns(key, sysctls);
            format!("{and}{place}: reaches every program there that sets none of its own; of these, new connections only")
        }
        (None, _) if matches!(key.why, Some(Why::KeepaliveOff | Why::NoTimeout)) => {
            "no sysctl turns it on".to_owned()
        }
        (None, _) => "it has set its own: a sysctl changes nothing".to_owned(),
    });
    lines
}

/// The settings of the program, and what they reach.
fn own_way(own: &ProgramAdvice, set: &Escaped, options: &Escaped, place: &str) -> String {
    let apply = own.program_apply.as_ref().map_or("", Escaped::as_str);
    let reaches = match own.program_reaches {
        Some(Reach::NextUse) => "new connections, and open ones when they are next used",
        _ => "new connections only",
    };
    format!("in {place}: {set} ({options}) {apply}: reaches {reaches}")
}

/// The sysctls, and what they reach.
fn sysctl_way(key: &GroupKey, group: &Group, set: &Escaped) -> String {
    let fires = group
        .next_ms
        .map_or(String::new(), |(_, most)| format!(", within {}", Ms(most)));
    format!(
        "{}: reaches every program there that sets none of its own: new connections at once, \
         open ones when their timers next fire{fires}",
        in_netns(key, set),
    )
}

/// The sysctls, and the namespace to set them in.
fn in_netns(key: &GroupKey, set: &Escaped) -> String {
    let netns = cell::netns(key.peer.netns_name.as_ref(), key.peer.netns);
    format!("in netns {netns}: {set}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::assessment::Assessment;
    use crate::audit::group::Groups;
    use crate::model::row::{Row, RowSource};
    use crate::model::socket::{Ages, Endpoints, Process, Settings};
    use crate::model::values::{Origin, State};
    use crate::sample::at;
    use crate::timeout::timeouts::{Timeout, Timeouts};

    /// The lines for an accepted connection of a program, with the keepalive times of the
    /// socket, s: `None` for the sysctl's.
    fn lines(comm: &str, cmdline: Option<&str>, on: bool, own: Option<(u64, u64)>) -> Vec<String> {
        let from = own.map_or(Origin::Sysctl, |_| Origin::Socket);
        let (time_s, intvl_s) = own.unwrap_or((7_200, 75));
        let mut row = Row::new(
            at(0),
            Endpoints {
                netns: 7,
                ..Endpoints::default()
            },
            State::Established,
            RowSource::IterTcp,
        );
        row.process = Process {
            pid: Some(42),
            comm: Some(Escaped::from(comm)),
            cmdline: cmdline.map(Escaped::from),
            ..Process::default()
        }
        .into();
        row.settings = Settings {
            keepalive: Some(on),
            keepalive_time_ms: Some(time_s * 1_000),
            keepalive_time_from: Some(from),
            keepalive_intvl_ms: Some(intvl_s * 1_000),
            keepalive_intvl_from: Some(from),
            keepalive_probes: Some(9),
            keepalive_probes_from: Some(Origin::Sysctl),
            ..Settings::default()
        };
        row.ages = Ages::new(0, 0, 0);
        row.keepalive_next_ms = on.then_some(time_s * 1_000);
        (row.probes_out, row.unacked) = (Some(0), Some(0));
        let timeouts = Timeouts::new(vec![Timeout::given(300_000)], Vec::new());
        let mut groups = Groups::default();
        groups.add(&Assessment::of(&row, true, &timeouts, None));
        let sorted = groups.sorted();
        let all = sorted
            .into_iter()
            .flat_map(|(key, group)| remedy(key, group));
        all.collect()
    }

    /// Options that were set show that keepalive is wanted, even where no timeout is known.
    #[test]
    fn a_forgotten_switch_needs_no_timeout() {
        let timeouts = Timeouts::new(Vec::new(), Vec::new());
        let it = Assessment::of(&forgotten(), true, &timeouts, None);
        assert_eq!(it.set.as_ref().map(Escaped::as_str), Some("SO_KEEPALIVE=1"));
        let mut groups = Groups::default();
        groups.add(&it);
        assert_eq!(groups.unused_options, 1);
        let lines: Vec<_> = groups
            .sorted()
            .into_iter()
            .flat_map(|(key, group)| remedy(key, group))
            .collect();
        assert_eq!(
            lines,
            [
                "TCP_KEEPIDLE=60 is set, but SO_KEEPALIVE is off: the kernel sends no probe",
                "no idle timeout is known on the way: see --idle-timeout",
                "in broker[42]: SO_KEEPALIVE=1 by setsockopt: reaches the sockets it is set on",
                "no sysctl turns it on",
            ]
        );
    }

    /// A connection with TCP_KEEPIDLE set, and SO_KEEPALIVE not.
    fn forgotten() -> Row {
        let mut row = Row::new(
            at(0),
            Endpoints::default(),
            State::Established,
            RowSource::IterTcp,
        );
        row.process.pid = Some(42);
        row.process.comm = Some(Escaped::from("broker"));
        row.settings = Settings {
            keepalive: Some(false),
            keepalive_time_ms: Some(60_000),
            keepalive_time_from: Some(Origin::Socket),
            keepalive_intvl_ms: Some(75_000),
            keepalive_intvl_from: Some(Origin::Sysctl),
            keepalive_probes: Some(9),
            keepalive_probes_from: Some(Origin::Sysctl),
            ..Settings::default()
        };
        row.ages = Ages::new(0, 0, 0);
        (row.probes_out, row.unacked) = (Some(0), Some(0));
        row
    }

    #[test]
    fn each_way_says_what_it_reaches() {
        let every = "in netns 7: net.ipv4.tcp_keepalive_time=150: reaches every program there \
                     that sets none of its own";
        let postgres = "in postgres[42]: tcp_keepalives_idle = 150 (TCP_KEEPIDLE=150) in \
                        postgresql.conf, then `SELECT pg_reload_conf()`: reaches new \
                        connections, and open ones when they are next used";
        let rabbit = "in beam.smp -s rabbit[42]: tcp_listen_options.keepalive = true \
                      (SO_KEEPALIVE=1 TCP_KEEPIDLE=150) in rabbitmq.conf, then restart the \
                      node: reaches new connections only";
        let fires =
            ": new connections at once, open ones when their timers next fire, within 7200s";
        let only_new = "; of these, new connections only";
        let redis = "in redis-server[42]: tcp-keepalive 150 (TCP_KEEPIDLE=150) by `CONFIG SET` at \
                     once, and in redis.conf: reaches new connections only";
        for (comm, cmdline, on, own, expected) in [
            (
                "postgres",
                None,
                true,
                None,
                vec![postgres.to_owned(), format!("or {every}{fires}")],
            ),
            (
                "mariadbd",
                None,
                true,
                None,
                vec![
                    "MariaDB or MySQL has no setting of its own for TCP_KEEPIDLE=150".to_owned(),
                    format!("{every}{fires}"),
                ],
            ),
            (
                "beam.smp",
                Some("beam.smp -s rabbit"),
                false,
                None,
                vec![rabbit.to_owned(), format!("and {every}{only_new}")],
            ),
            (
                "redis-server",
                None,
                true,
                Some((900, 100)),
                vec![
                    redis.to_owned(),
                    "it has set its own: a sysctl changes nothing".to_owned(),
                ],
            ),
            (
                "mongod",
                None,
                true,
                Some((300, 1)),
                vec![
                    "MongoDB has no setting of its own for TCP_KEEPIDLE=150".to_owned(),
                    format!("{every}{only_new}"),
                ],
            ),
        ] {
            assert_eq!(lines(comm, cmdline, on, own), expected, "{comm}");
        }
    }
}
