//! Says what to do about a group of connections. Pure.

use std::borrow::Cow;

use crate::audit::group::{Group, GroupKey};
use crate::model::fate::{Fate, Why};
use crate::model::remedy::{ProgramAdvice, Reach, SetIn};
use crate::text::cell::{NOTHING, UNSEEN, word};
use crate::text::escape::Escaped;
use crate::text::units::Ms;

/// The program and its process, or the number of its processes.
pub(super) fn program(key: &GroupKey, group: &Group) -> String {
    let Some(program) = name(key) else {
        return if key.ownerless { UNSEEN } else { NOTHING }.to_owned();
    };
    match (group.pids.first(), group.pids.len()) {
        (Some(pid), 1) => format!("{program}[{pid}]"),
        (_, count) if group.more_pids => format!("{program} ({count}+ processes)"),
        (_, count) => format!("{program} ({count} processes)"),
    }
}

/// What a runtime runs, or the command name.
fn name(key: &GroupKey) -> Option<Cow<'_, str>> {
    let cmdline = key.cmdline.as_ref().map(|it| it.as_str().into());
    cmdline.or_else(|| key.comm.as_ref().map(|it| word(it.as_str())))
}

/// The network namespace: its name and, for advice, its number.
pub(super) fn netns(key: &GroupKey) -> Cow<'_, str> {
    match &key.netns_name {
        Some(name) => word(name.as_str()),
        None => key.netns.to_string().into(),
    }
}

/// What to do, a line for each way.
pub(super) fn remedy(key: &GroupKey, group: &Group) -> Vec<String> {
    let timeout = Ms(key.timeout_ms.unwrap_or_default());
    let place = place(key, group);
    let Some(why) = key.why else {
        return Vec::new();
    };
    let mut lines = match (why, &key.set) {
        (Why::NoTimeout, _) => {
            vec!["no idle timeout is known on the way: see --idle-timeout".to_owned()]
        }
        (Why::NoSettings, _) => vec!["its settings can't be read".to_owned()],
        (Why::NotRefreshed, _) => vec![format!(
            "keepalive can't help: raise the timeout of {timeout}, or let {place} send data sooner"
        )],
        (Why::ProbesUnanswered, _) => vec!["the peer is gone: keepalive will end it".to_owned()],
        (Why::NoProbes, _) => vec![format!(
            "nothing saves it, unless the peer sends probes of its own: end it in {place} or by \
             `ss -K`, and turn on SO_KEEPALIVE there"
        )],
        (_, None) => vec![format!(
            "no probe can be sent before {timeout}: raise that timeout"
        )],
        (Why::LateTimer, Some(set)) => vec![format!(
            "its timer was set before: in {place} set {set} again, or connect anew"
        )],
        (_, Some(set)) => ways(key, group, set, &place),
    };
    if group.past > 0 && key.fate == Fate::AtRisk {
        let past = group.past;
        lines.push(format!("{past} silent for longer than {timeout} already"));
    }
    lines
}

/// The program, and where it is: its unit or its process.
fn place(key: &GroupKey, group: &Group) -> String {
    match (name(key), &key.unit) {
        (Some(name), Some(unit)) => format!("{name} of {unit}"),
        (Some(_), None) => program(key, group),
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
        (Some(sysctls), _) => format!("and {}", sysctl_way(key, group, sysctls)),
        (None, _) if key.why == Some(Why::KeepaliveOff) => "no sysctl turns it on".to_owned(),
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
    let number = match key.netns_name {
        Some(_) => format!(" ({})", key.netns),
        None => String::new(),
    };
    format!(
        "in netns {}{number}: {set}: reaches every program there that sets none of its own: new \
         connections at once, open ones when their timers next fire{fires}",
        netns(key),
    )
}
