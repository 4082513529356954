//! Says a remedy in the words of a program: `tcp_keepalives_idle = 175`. Pure.

use crate::model::remedy::{ProgramAdvice, Remedy, SetIn};
use crate::model::socket::Settings;
use crate::model::values::Origin;
use crate::programs::table::{ALWAYS, Program};
use crate::text::escape::Escaped;

/// The longest TCP_KEEPIDLE and TCP_KEEPINTVL that the kernel accepts, s
/// (MAX_TCP_KEEPIDLE, include/net/tcp.h).
const MAX_S: u64 = 32_767;

/// Values that a setting of a program can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Idle,
    Interval,
    Count,
    UserTimeout,
}

/// The placeholders of the table: the value, and the unit in ms.
const PLACEHOLDERS: [(&str, Slot, u64); 5] = [
    ("<idle_s>", Slot::Idle, 1_000),
    ("<idle_ms>", Slot::Idle, 1),
    ("<interval_s>", Slot::Interval, 1_000),
    ("<count>", Slot::Count, 1),
    ("<user_timeout_ms>", Slot::UserTimeout, 1),
];

/// Says a remedy in the words of a program. `None` if neither a setting of the program
/// nor a sysctl can do it.
#[must_use]
pub fn in_words_of(
    program: &Program,
    remedy: &Remedy,
    current: &Settings,
) -> Option<ProgramAdvice> {
    Wanted::new(program, remedy, current).words()
}

/// The values to set in a program.
struct Wanted<'a> {
    program: &'a Program,
    current: &'a Settings,
    /// SO_KEEPALIVE is to be turned on.
    on: bool,
    idle_s: Option<u64>,
    interval_s: Option<u64>,
    user_timeout_ms: Option<u64>,
}

impl<'a> Wanted<'a> {
    fn new(program: &'a Program, remedy: &Remedy, current: &'a Settings) -> Self {
        let mut it = Self {
            program,
            current,
            on: remedy.keepalive,
            idle_s: remedy.time_s,
            interval_s: remedy.intvl_s,
            user_timeout_ms: remedy.user_timeout_ms,
        };
        if it.on && program.keepalive.is_none() {
            // Its settings turn it on, and they need a value.
            it.idle_s = it.idle_s.or(seconds(current.keepalive_time_ms));
        }
        if !it.has(Slot::Idle) {
            return it;
        }
        if let (Some(wanted_s), Some(share)) = (it.interval_s, program.interval_of_idle) {
            let longest_s = wanted_s.saturating_mul(share);
            let idle_s = it.idle_s.or(seconds(current.keepalive_time_ms));
            it.idle_s = Some(idle_s.map_or(longest_s, |it| it.min(longest_s)));
            it.interval_s = None;
        } else if let (Some(wanted_s), Some(fixed_s)) = (it.interval_s, program.interval_s)
            && fixed_s <= wanted_s
        {
            it.idle_s = it.idle_s.or(seconds(current.keepalive_time_ms));
            it.interval_s = None;
        }
        it
    }

    fn words(&self) -> Option<ProgramAdvice> {
        let too_long = |it: Option<u64>| it.is_some_and(|it| !(1..=MAX_S).contains(&it));
        if too_long(self.idle_s) || too_long(self.interval_s) {
            return None;
        }
        let used = self.program.settings.iter().filter(|it| self.is_used(it));
        let mut settings: Vec<_> = used.map(|it| self.fill(it)).collect();
        let is_implied = self.program.implies_switch && !settings.is_empty();
        if self.on && !is_implied {
            let switch = self.program.keepalive.as_deref();
            settings.insert(0, switch.filter(|it| *it != ALWAYS)?.to_owned());
        }
        let program = self.program;
        let has_own = !settings.is_empty();
        let text = |it: &str| Some(Escaped::from(it));
        let or_else = program.or_else.as_ref().zip(self.idle_s);
        Some(ProgramAdvice {
            program: text(&program.name),
            program_set: has_own.then(|| settings.join(&program.separator).as_str().into()),
            program_apply: text(&program.apply).filter(|_| has_own),
            program_reaches: has_own.then_some(program.reaches),
            program_sysctl: self.sysctls()?.and_then(|it| text(&it.to_string())),
            program_or: or_else
                .and_then(|(it, idle_s)| text(&it.replace("<idle_s>", &idle_s.to_string()))),
        })
    }

    /// What no setting of the program does: the sysctls must. `None` if they can't.
    fn sysctls(&self) -> Option<Option<Remedy>> {
        let left = |slot, wanted: Option<u64>| wanted.filter(|_| !self.has(slot));
        let limits = self.program.follows_sysctl_below;
        let (idle_s, interval_s) = (
            left(Slot::Idle, self.idle_s),
            left(Slot::Interval, self.interval_s),
        );
        let follows = |wanted: Option<u64>, from: Option<Origin>, below_s: u64| {
            wanted.is_none_or(|it| from != Some(Origin::Socket) || it <= below_s)
        };
        let can = follows(idle_s, self.current.keepalive_time_from, limits.idle_s)
            && follows(
                interval_s,
                self.current.keepalive_intvl_from,
                limits.interval_s,
            )
            && left(Slot::UserTimeout, self.user_timeout_ms).is_none();
        let remedy = Remedy {
            set_in: SetIn::Sysctl,
            keepalive: false,
            intvl_s: interval_s,
            time_s: idle_s,
            user_timeout_ms: None,
        };
        let is_empty = idle_s.is_none() && interval_s.is_none();
        can.then(|| (!is_empty).then_some(remedy))
    }

    fn has(&self, slot: Slot) -> bool {
        let settings = &self.program.settings;
        settings.iter().any(|it| slots(it).any(|has| has.1 == slot))
    }

    /// Whether a setting is for one of the values to set.
    fn is_used(&self, setting: &str) -> bool {
        slots(setting).any(|(_, slot, _)| self.new_value_ms(slot).is_some())
    }

    /// Fills in the new values and, where a setting has several, those that the socket
    /// has now.
    fn fill(&self, setting: &str) -> String {
        let mut text = setting.to_owned();
        for (placeholder, slot, unit) in slots(setting) {
            let value = self.new_value_ms(slot).or_else(|| self.own_value_ms(slot));
            let value = value.map_or(String::new(), |it| (it / unit).to_string());
            text = text.replace(placeholder, &value);
        }
        text
    }

    /// The new value; a count as it is, others in ms.
    fn new_value_ms(&self, slot: Slot) -> Option<u64> {
        match slot {
            Slot::Idle => self.idle_s.map(|it| it * 1_000),
            Slot::Interval => self.interval_s.map(|it| it * 1_000),
            Slot::Count => None,
            Slot::UserTimeout => self.user_timeout_ms,
        }
    }

    /// The value that the program has set now.
    fn own_value_ms(&self, slot: Slot) -> Option<u64> {
        let it = self.current;
        let (value, from) = match slot {
            Slot::Idle => (it.keepalive_time_ms, it.keepalive_time_from),
            Slot::Interval => (it.keepalive_intvl_ms, it.keepalive_intvl_from),
            Slot::Count => (it.keepalive_probes, it.keepalive_probes_from),
            Slot::UserTimeout => (it.user_timeout_ms.map(u64::from), it.user_timeout_from),
        };
        value.filter(|_| from == Some(Origin::Socket))
    }
}

/// The placeholders in a setting.
fn slots(setting: &str) -> impl Iterator<Item = (&'static str, Slot, u64)> {
    let all = PLACEHOLDERS.into_iter();
    all.filter(move |(placeholder, ..)| setting.contains(placeholder))
}

fn seconds(ms: Option<u64>) -> Option<u64> {
    ms.map(|it| (it / 1_000).max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::socket::Process;
    use crate::programs::table::{ConnectionSide, find, programs};

    /// The kernel's defaults.
    const SYSCTLS: Settings = Settings {
        keepalive: Some(true),
        keepalive_time_ms: Some(7_200_000),
        keepalive_time_from: Some(Origin::Sysctl),
        keepalive_intvl_ms: Some(75_000),
        keepalive_intvl_from: Some(Origin::Sysctl),
        keepalive_probes: Some(9),
        keepalive_probes_from: Some(Origin::Sysctl),
        user_timeout_ms: None,
        user_timeout_from: None,
    };

    /// What the program sets by itself: time, interval (s) and count.
    fn own(time_s: u64, intvl_s: u64, probes: u64) -> Settings {
        Settings {
            keepalive_time_ms: Some(time_s * 1_000),
            keepalive_time_from: Some(Origin::Socket),
            keepalive_intvl_ms: Some(intvl_s * 1_000),
            keepalive_intvl_from: Some(Origin::Socket),
            keepalive_probes: Some(probes),
            keepalive_probes_from: Some(Origin::Socket),
            ..SYSCTLS
        }
    }

    const ON: bool = true;

    fn remedy(keepalive: bool, time_s: Option<u64>, intvl_s: Option<u64>) -> Remedy {
        Remedy {
            set_in: SetIn::Program,
            keepalive,
            intvl_s,
            time_s,
            user_timeout_ms: None,
        }
    }

    /// The program's settings, and the sysctls after a `+`.
    fn said(comm: &str, side: ConnectionSide, remedy: &Remedy, current: &Settings) -> String {
        let process = Process {
            comm: Some(Escaped::from(comm)),
            cmdline: match comm {
                "beam.smp" => Some(Escaped::from("beam.smp -s rabbit")),
                "java" | "node" | "python3" => Some(Escaped::from(comm)),
                _ => None,
            },
            ..Process::default()
        };
        let program = find(&process, side, 1);
        let said = program.and_then(|it| in_words_of(it, remedy, current));
        let Some(said) = said else {
            return "nothing".to_owned();
        };
        let set = said.program_set.as_ref().map_or("", Escaped::as_str);
        let sysctl = said.program_sysctl.map(|it| format!(" + {it}"));
        format!("{set}{}", sysctl.unwrap_or_default())
    }

    #[test]
    fn a_remedy_is_said_in_the_words_of_the_program() {
        let (accepted, initiated) = (ConnectionSide::Accepted, ConnectionSide::Initiated);
        let first = remedy(false, Some(175), None);
        let both = remedy(false, Some(30), Some(15));
        let intvl = remedy(false, None, Some(15));
        let on = remedy(ON, Some(175), None);
        let only_on = remedy(ON, None, None);
        #[rustfmt::skip]
        let rows = [
            ("postgres", accepted, first, SYSCTLS, "tcp_keepalives_idle = 175"),
            ("postgres", accepted, both, SYSCTLS, "tcp_keepalives_idle = 30; tcp_keepalives_interval = 15"),
            // It turns keepalive on by itself: this is another program of the name.
            ("postgres", accepted, on, SYSCTLS, "nothing"),
            ("psql", initiated, on, SYSCTLS, "keepalives=1 keepalives_idle=175"),
            ("pgbouncer", initiated, on, SYSCTLS, "tcp_keepalive = 1; tcp_keepidle = 175"),
            ("haproxy", accepted, on, SYSCTLS, "option clitcpka; clitcpka-idle 175s"),
            ("haproxy", initiated, only_on, SYSCTLS, "option srvtcpka"),
            ("nginx", accepted, on, SYSCTLS, "so_keepalive=175::"),
            ("nginx", accepted, only_on, SYSCTLS, "so_keepalive=on"),
            // What the listener has already must stay.
            ("nginx", accepted, first, own(900, 20, 5), "so_keepalive=175:20:5"),
            ("nginx", accepted, intvl, own(30, 75, 5), "so_keepalive=30:15:5"),
            ("nginx", initiated, on, SYSCTLS, "proxy_socket_keepalive on + net.ipv4.tcp_keepalive_time=175"),
            ("redis-server", accepted, first, own(300, 100, 3), "tcp-keepalive 175"),
            ("redis-server", accepted, on, SYSCTLS, "tcp-keepalive 175"),
            ("redis-server", accepted, both, own(300, 100, 3), "tcp-keepalive 30"),
            ("redis-server", accepted, intvl, own(300, 100, 3), "tcp-keepalive 45"),
            ("redis-server", accepted, only_on, Settings { keepalive_time_ms: Some(120_000), ..SYSCTLS }, "tcp-keepalive 120"),
            ("beam.smp", accepted, on, SYSCTLS, "tcp_listen_options.keepalive = true + net.ipv4.tcp_keepalive_time=175"),
            ("beam.smp", accepted, first, SYSCTLS, " + net.ipv4.tcp_keepalive_time=175"),
            // A sysctl changes nothing, and there is no setting.
            ("beam.smp", accepted, first, own(900, 20, 5), "nothing"),
            ("mariadbd", accepted, first, SYSCTLS, " + net.ipv4.tcp_keepalive_time=175"),
            ("mongod", accepted, first, own(300, 1, 9), " + net.ipv4.tcp_keepalive_time=175"),
            ("mongod", accepted, remedy(false, Some(1_000), None), own(3_000, 1, 9), "nothing"),
            ("curl", initiated, both, own(60, 60, 9), "--keepalive-time 15"),
            ("node", accepted, both, own(60, 75, 9), "setKeepAlive(true, 30000)"),
            ("java", initiated, first, SYSCTLS, "setOption(ExtendedSocketOptions.TCP_KEEPIDLE, 175)"),
            // Above what TCP_KEEPIDLE takes.
            ("postgres", accepted, remedy(false, Some(32_768), None), SYSCTLS, "nothing"),
            ("unknown", accepted, first, SYSCTLS, "nothing"),
        ];
        for (comm, side, remedy, current, expected) in rows {
            assert_eq!(
                said(comm, side, &remedy, &current),
                expected,
                "{comm} {remedy}"
            );
        }
    }

    #[test]
    fn a_user_timeout_and_another_way_are_said() {
        let row = |name: &str| programs().iter().find(|it| it.name == name);
        let user_timeout = Remedy {
            user_timeout_ms: Some(75_000),
            ..remedy(false, None, None)
        };
        let said = row("PostgreSQL").and_then(|it| in_words_of(it, &user_timeout, &SYSCTLS));
        let set = said.and_then(|it| it.program_set).map(|it| it.to_string());
        assert_eq!(set.as_deref(), Some("tcp_user_timeout = 75000"));
        let memcached = row("memcached").and_then(|it| in_words_of(it, &user_timeout, &SYSCTLS));
        assert_eq!(memcached, None);
        let first = remedy(false, Some(175), None);
        let said = row("OpenSSH").and_then(|it| in_words_of(it, &first, &SYSCTLS));
        let or_else = said.and_then(|it| it.program_or).map(|it| it.to_string());
        assert_eq!(
            or_else.as_deref(),
            Some("ClientAliveInterval 175, which sends data")
        );
    }

    proptest! {
        /// No placeholder is left, every number is one that was asked for or is there now,
        /// and all of it is said: by a setting, or by a sysctl.
        #[test]
        fn nothing_is_made_up(
            row in 0..programs().len(),
            on in any::<bool>(),
            time_s in proptest::option::of(1..=7_200_u64),
            intvl_s in proptest::option::of(1..=7_200_u64),
            time_own in any::<bool>(),
        ) {
            let program = &programs()[row];
            let current = if time_own { own(9_999, 8_888, 77) } else { SYSCTLS };
            let remedy = remedy(on, time_s, intvl_s);
            let Some(said) = in_words_of(program, &remedy, &current) else {
                return Ok(());
            };
            let all = [said.program_set, said.program_sysctl].map(|it| it.map(|it| it.to_string()));
            let text = all.map(Option::unwrap_or_default).join("; ");
            prop_assert!(!PLACEHOLDERS.iter().any(|it| text.contains(it.0)), "{text}");
            let has = |s: u64| text.contains(&s.to_string());
            let by_idle = program.interval_of_idle.or(program.interval_s).is_some();
            prop_assert!(by_idle || time_s.is_none_or(has), "{text} {remedy}");
            prop_assert!(by_idle || intvl_s.is_none_or(has), "{text} {remedy}");
            prop_assert!(!on || !text.is_empty());
        }
    }
}
