//! `kaprobe doctor`: tries and reports what this kernel and these privileges allow.

use std::fmt::{self, Display};
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use serde::{Serialize, Serializer};

use crate::exit;
use crate::host::privilege::{Privilege, Privileges, raise_memlock};
use crate::host::proc;
use crate::kernel::{self, AttachProbe, Capabilities, OwnerHooks};
use crate::model::attach_mode::AttachMode;
use crate::model::named::Named as _;
use crate::model::row::RowSource;
use crate::model::values::Hook;
use crate::owners::descriptors;
use crate::sink::SinkError;
use crate::text::escape;
use crate::version;

/// Runs `kaprobe doctor`: tries all hooks and sources, detaches them, and reports the
/// results on stdout. The exit code shows whether tracing is possible, or why not.
///
/// # Errors
/// If the privileges or /proc can't be read, or stdout can't be written.
pub fn run(json: bool) -> Result<exit::Code> {
    let privileges = Privileges::read().context("cannot read this process's privileges")?;
    let tried = match privileges.check_trace() {
        Ok(()) => {
            raise_memlock();
            let proc = proc::open_proc().context("cannot open /proc")?;
            let matches_proc = descriptors::matches_proc(proc.as_fd()).map_err(str::to_owned);
            let is_own = descriptors::is_of_own_namespace(proc.as_fd()).map_err(str::to_owned);
            Capabilities::probe().map(|found| Capabilities {
                descriptors: found.descriptors.and(matches_proc),
                owner_hooks: found.owner_hooks.and_then(|hooks| is_own.map(|()| hooks)),
                ..found
            })
        }
        Err(why) => Err(why.into()),
    };
    let uname = rustix::system::uname();
    let report = Report::new(
        uname.release().to_string_lossy().into_owned(),
        fs::File::open(kernel::BTF_PATH).err(),
        privileges.used().collect(),
        tried,
    );
    let text = if json {
        serde_json::to_string(&report)? + "\n"
    } else {
        report.to_string()
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|why| exit::unread(SinkError::stdout(why).into(), report.code))?;
    Ok(report.code)
}

/// Version of the JSON format, which `schema/kaprobe-doctor.schema.json` documents. The major
/// number changes when a reader of the old format would misread the new one.
const VERSION: &str = "1.0";

/// The report. JSON omits unknown fields.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    kaprobe: &'static str,
    kernel: String,
    /// Timer ticks per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    hz: Option<u32>,
    /// Whether `kaprobe trace` can work.
    possible: bool,
    /// Why tracing is not possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip)]
    code: exit::Code,
    btf: Btf,
    privileges: Vec<Privilege>,
    /// Which hooks could not be tested for whether they see anything, and why; absent if all
    /// were tested.
    #[serde(skip_serializing_if = "Option::is_none")]
    untested: Option<String>,
    /// The hooks; empty if nothing could be tried.
    hooks: Vec<HookReport>,
    /// How existing sockets are read; absent if nothing could be tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    sockets: Option<SourceReport>,
    /// How the owners of sockets are found; absent if nothing could be tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    owners: Option<SourceReport>,
    /// How changes of owners are noticed; absent if nothing could be tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_changes: Option<SourceReport>,
}

/// The kernel's own description of its types.
#[derive(Debug, Serialize)]
struct Btf {
    readable: bool,
    /// Why it is not readable.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// The source that kaprobe reads some facts from.
#[derive(Debug, Serialize)]
struct SourceReport {
    /// The facts.
    #[serde(skip)]
    of: &'static str,
    source: &'static str,
    /// The best source.
    #[serde(skip)]
    best: &'static str,
    /// The reason why the best source is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The features lost with this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    loses: Option<&'static str>,
}

/// A hook and its tried modes.
#[derive(Debug, Serialize)]
struct HookReport {
    #[serde(serialize_with = "by_name")]
    hook: Hook,
    /// The mode that `trace` uses by default.
    #[serde(skip_serializing_if = "Option::is_none", rename = "way")]
    mode: Option<ModeName>,
    /// The features lost with this mode, or without the hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    loses: Option<&'static str>,
    tried: Vec<Trial>,
}

/// The result of trying one mode of a hook.
#[derive(Debug, Serialize)]
struct Trial {
    #[serde(rename = "way")]
    mode: ModeName,
    works: bool,
    /// Why it does not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// The events that a working mode does not show on this kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    misses: Option<&'static str>,
}

/// A mode that is serialized as its name.
#[derive(Clone, Copy, Debug, Serialize)]
struct ModeName(#[serde(serialize_with = "by_name")] AttachMode);

fn by_name<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

impl Report {
    /// Makes a report from the results, or from the reason why nothing could be tried.
    fn new(
        kernel: String,
        unreadable: Option<io::Error>,
        privileges: Vec<Privilege>,
        tried: Result<Capabilities>,
    ) -> Self {
        let mut untested = None;
        let (hooks, hz, sources, failure) = match tried {
            Ok(Capabilities {
                hooks: tried,
                hz,
                untested: unseen,
                iterator,
                descriptors,
                owner_hooks,
            }) => {
                untested = unseen;
                let hooks: Vec<_> = Hook::ALL
                    .iter()
                    .copied()
                    .filter(|&hook| tried.iter().any(|tried| tried.hook == hook))
                    .map(|hook| HookReport::new(hook, &tried))
                    .collect();
                let failure = hooks.iter().find_map(HookReport::failure);
                let sources = [
                    SourceReport::of_sockets(iterator),
                    SourceReport::of_owners(descriptors),
                    SourceReport::of_owner_changes(owner_hooks),
                ];
                let sources = sources.map(Some);
                (hooks, Some(hz).filter(|&hz| hz > 0), sources, failure)
            }
            Err(why) => (Vec::new(), None, [None, None, None], Some(why)),
        };
        let [sockets, owners, owner_changes] = sources;
        Self {
            version: VERSION,
            kaprobe: version::FULL,
            kernel,
            hz,
            possible: failure.is_none(),
            why: failure.as_ref().map(|why| format!("{why:#}")),
            code: failure.as_ref().map_or(exit::Code::Ok, code_of),
            btf: Btf {
                readable: unreadable.is_none(),
                why: unreadable.map(|why| why.to_string()),
            },
            privileges,
            untested,
            hooks,
            sockets,
            owners,
            owner_changes,
        }
    }
}

/// The exit code of a reason why tracing is not possible.
fn code_of(why: &anyhow::Error) -> exit::Code {
    match exit::code_of(why) {
        // All privileges are held, so the kernel lacks something.
        exit::Code::Failure if exit::exhausted(why).is_none() => exit::Code::Kernel,
        code => code,
    }
}

impl SourceReport {
    fn of_sockets(iterator: Result<(), String>) -> Self {
        let loses = "keepalive settings in sockets, all of audit, the snapshot of trace";
        let [best, other] = [RowSource::IterTcp, RowSource::SockDiag].map(RowSource::name);
        Self::new("existing sockets", best, iterator.err(), (other, loses))
    }

    fn of_owners(iterator: Result<(), String>) -> Self {
        let loses = "only time: finding them takes nine times as long";
        let other = ("/proc", loses);
        Self::new("owners of sockets", "iter/task_file", iterator.err(), other)
    }

    fn of_owner_changes(hooks: Result<OwnerHooks, String>) -> Self {
        let (of, best) = ("changes of owners", "tracepoints and fentry");
        match hooks.map(|hooks| hooks.received) {
            Ok(received) => {
                let loses = "for up to a minute, that a process passed its socket to another";
                Self::new(of, best, received.err(), ("tracepoints", loses))
            }
            Err(why) => {
                let loses = "only time: all owners are checked every five seconds";
                Self::new(of, best, Some(why), ("/proc", loses))
            }
        }
    }

    /// Takes the best source, or the other one if `why` says why the best can't be used.
    fn new(
        of: &'static str,
        best: &'static str,
        why: Option<String>,
        (other, loses): (&'static str, &'static str),
    ) -> Self {
        Self {
            of,
            source: why.as_ref().map_or(best, |_| other),
            best,
            loses: why.as_ref().map(|_| loses),
            why,
        }
    }
}

impl HookReport {
    fn new(hook: Hook, tried: &[AttachProbe]) -> Self {
        let tried: Vec<_> = tried.iter().filter(|tried| tried.hook == hook).collect();
        let tried: Vec<_> = tried
            .iter()
            .map(|tried| Trial {
                mode: ModeName(tried.mode),
                works: tried.outcome.is_ok(),
                why: tried.outcome.clone().err(),
                misses: tried.misses,
            })
            .collect();
        let chosen = tried.iter().find(|trial| trial.works);
        let mode = chosen.map(|trial| trial.mode);
        let misses = chosen.and_then(|trial| trial.misses);
        Self {
            hook,
            mode,
            loses: misses.or_else(|| loses(hook, mode.map(|mode| mode.0))),
            tried,
        }
    }

    /// The error if tracing is impossible without this hook.
    fn failure(&self) -> Option<anyhow::Error> {
        let vital = matches!(self.hook, Hook::KeepaliveTimer | Hook::DestroySock);
        (vital && self.mode.is_none()).then(|| {
            let hook = self.hook;
            exit::Error::kernel(format!("this kernel has no way to hook {hook}")).into()
        })
    }
}

/// The features lost with a hook in this mode, or without the hook.
fn loses(hook: Hook, mode: Option<AttachMode>) -> Option<&'static str> {
    match (hook, mode) {
        (Hook::Reset, Some(_)) => None,
        // The kernel skips such a probe: `kprobes_inc_nmissed_count`, kernel/kprobes.c, and
        // `trace_call_bpf`, kernel/trace/bpf_trace.c.
        (_, Some(AttachMode::Kprobe)) => {
            Some("events while the CPU is in another probe, counted if the kernel counts them")
        }
        // Timers run one after the other on a CPU. A reset can interrupt another one: the
        // kernel skips a program that runs there already (`__bpf_prog_enter`,
        // kernel/bpf/trampoline.c), and counts that since 5.12.
        (Hook::SendActiveReset | Hook::SendReset, Some(AttachMode::Fentry)) => {
            Some("resets while the CPU is in the same program, counted if the kernel counts them")
        }
        (_, Some(AttachMode::Fentry | AttachMode::Tracepoint)) => None,
        (Hook::SendActiveReset, None) => {
            Some("rst_sent records, and whether a fin_wait2 timer sent a reset")
        }
        (Hook::SendReset, None) => Some("rst_sent records of passive resets"),
        (Hook::ReceiveReset, None) => Some("rst_received records"),
        (Hook::Reset, None) => {
            Some("the TTL of received resets, and whether this host itself sent them")
        }
        (Hook::SetState, None) => Some(
            "fin_received, fin_sent and aborted records, timeout records other than keepalive's, \
             and the state in which a connection was reset",
        ),
        (Hook::Retransmit, None) => Some("stalled records"),
        (Hook::Probe, None) => Some("--rtt: answers are then known from the next firing"),
        (Hook::KeepaliveTimer | Hook::DestroySock, None) => Some("everything"),
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = escape::message(&self.kernel);
        write!(f, "kaprobe {} on Linux {kernel}", self.kaprobe)?;
        if let Some(hz) = self.hz {
            write!(f, ", {hz} timer ticks a second")?;
        }
        match &self.btf.why {
            None => writeln!(f, "\nkernel types (BTF): readable")?,
            Some(why) => writeln!(f, "\nkernel types (BTF): unreadable: {why}")?,
        }
        writeln!(f, "\nprivileges")?;
        for Privilege {
            name,
            purpose,
            held,
            ..
        } in &self.privileges
        {
            let held = if *held { "yes" } else { "no" };
            writeln!(f, "  {name:<19}  {held:<3}  {purpose}")?;
        }
        if let Some(why) = &self.untested {
            let why = escape::message(why);
            writeln!(f, "\nnot tested whether they see anything: {why}")?;
        }
        for hook in &self.hooks {
            write!(f, "\n{hook}")?;
        }
        let sources = [&self.sockets, &self.owners, &self.owner_changes];
        for source in sources.into_iter().flatten() {
            write!(f, "\n{source}")?;
        }
        match &self.why {
            None => writeln!(f, "\nTracing is possible."),
            Some(why) => writeln!(f, "\nTracing is not possible: {}.", escape::message(why)),
        }
    }
}

impl Display for HookReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            Some(ModeName(mode)) => writeln!(f, "{}: by {mode}", self.hook)?,
            None => writeln!(f, "{}: not at all", self.hook)?,
        }
        for Trial {
            mode: ModeName(mode),
            why,
            misses,
            ..
        } in &self.tried
        {
            match (why, misses) {
                (None, None) => writeln!(f, "  {mode:<10}  works")?,
                (None, Some(misses)) => writeln!(f, "  {mode:<10}  works, but misses {misses}")?,
                (Some(why), _) => {
                    writeln!(f, "  {mode:<10}  refused: {}", escape::message(why))?;
                }
            }
        }
        match self.loses {
            Some(loses) => writeln!(f, "  lost: {loses}"),
            None => Ok(()),
        }
    }
}

impl Display for SourceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: by {}", self.of, self.source)?;
        if let Some(why) = &self.why {
            writeln!(f, "  {:<10}  refused: {}", self.best, escape::message(why))?;
        }
        match self.loses {
            Some(loses) => writeln!(f, "  lost: {loses}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use kaprobe_testkit::schema;

    use super::*;

    const NOT_PERMITTED: Result<(), &str> = Err("Operation not permitted (os error 1)");
    const NO_KPROBES: Result<(), &str> = Err("no such device: kprobe");

    /// Results for the three modes of the timer and reset hooks, and for the one mode of
    /// the destroy hook, `end`.
    fn tried(modes: [Result<(), &str>; 3], end: Result<(), &str>, hz: u32) -> Capabilities {
        let probe = |hook, mode, outcome: Result<(), &str>| AttachProbe {
            hook,
            mode,
            outcome: outcome.map_err(str::to_owned),
            misses: None,
        };
        let mut all = Vec::new();
        for hook in [Hook::KeepaliveTimer, Hook::SendActiveReset] {
            all.extend(
                AttachMode::ALL
                    .iter()
                    .zip(modes)
                    .map(|(&mode, outcome)| probe(hook, mode, outcome)),
            );
        }
        all.push(probe(Hook::DestroySock, AttachMode::Tracepoint, end));
        Capabilities {
            hooks: all,
            hz,
            untested: None,
            iterator: end.map_err(str::to_owned),
            descriptors: end.map_err(str::to_owned),
            owner_hooks: end
                .map_err(str::to_owned)
                .map(|()| OwnerHooks { received: Ok(()) }),
        }
    }

    fn report(held: bool, found: Result<Capabilities>) -> Report {
        let privilege = |name, purpose, needed| Privilege {
            name,
            purpose,
            needed,
            held,
        };
        let privileges = vec![
            privilege("CAP_BPF", "to load BPF programs", true),
            privilege("CAP_DAC_READ_SEARCH", "to find owners", false),
        ];
        let mut report = Report::new("6.1.0-test".to_owned(), None, privileges, found);
        report.kaprobe = "0.0.0";
        report
    }

    /// The report as JSON, which is as the schema says.
    fn json(report: &Report) -> Result<String> {
        let schema = include_str!("../../schema/kaprobe-doctor.schema.json");
        let text = serde_json::to_string_pretty(report)?;
        let checked = schema::validator(schema).and_then(|it| schema::check(&it, &text));
        checked.map_err(anyhow::Error::msg)?;
        Ok(text)
    }

    #[test]
    fn everything_works() {
        let report = report(true, Ok(tried([Ok(()); 3], Ok(()), 1000)));
        assert_eq!(report.code, exit::Code::Ok);
        assert_snapshot!(report, @r"
        kaprobe 0.0.0 on Linux 6.1.0-test, 1000 timer ticks a second
        kernel types (BTF): readable

        privileges
          CAP_BPF              yes  to load BPF programs
          CAP_DAC_READ_SEARCH  yes  to find owners

        tcp_keepalive_timer: by fentry
          fentry      works
          kprobe      works
          tracepoint  works

        tcp_send_active_reset: by fentry
          fentry      works
          kprobe      works
          tracepoint  works
          lost: resets while the CPU is in the same program, counted if the kernel counts them

        tcp_destroy_sock: by tracepoint
          tracepoint  works

        existing sockets: by iter/tcp

        owners of sockets: by iter/task_file

        changes of owners: by tracepoints and fentry

        Tracing is possible.
        ");
    }

    #[test]
    fn no_kprobes_and_fentry_refused() -> Result<()> {
        let mut found = tried([NOT_PERMITTED, NO_KPROBES, Ok(())], Ok(()), 250);
        found.descriptors = Err("no such function".to_owned());
        let received = NOT_PERMITTED.map_err(str::to_owned);
        found.owner_hooks = Ok(OwnerHooks { received });
        let report = report(true, Ok(found));
        assert_eq!(report.code, exit::Code::Ok);
        assert_snapshot!(report, @r"
        kaprobe 0.0.0 on Linux 6.1.0-test, 250 timer ticks a second
        kernel types (BTF): readable

        privileges
          CAP_BPF              yes  to load BPF programs
          CAP_DAC_READ_SEARCH  yes  to find owners

        tcp_keepalive_timer: by tracepoint
          fentry      refused: Operation not permitted (os error 1)
          kprobe      refused: no such device: kprobe
          tracepoint  works

        tcp_send_active_reset: by tracepoint
          fentry      refused: Operation not permitted (os error 1)
          kprobe      refused: no such device: kprobe
          tracepoint  works

        tcp_destroy_sock: by tracepoint
          tracepoint  works

        existing sockets: by iter/tcp

        owners of sockets: by /proc
          iter/task_file  refused: no such function
          lost: only time: finding them takes nine times as long

        changes of owners: by tracepoints
          tracepoints and fentry  refused: Operation not permitted (os error 1)
          lost: for up to a minute, that a process passed its socket to another

        Tracing is possible.
        ");
        assert_snapshot!(json(&report)?, @r#"
        {
          "version": "1.0",
          "kaprobe": "0.0.0",
          "kernel": "6.1.0-test",
          "hz": 250,
          "possible": true,
          "btf": {
            "readable": true
          },
          "privileges": [
            {
              "name": "CAP_BPF",
              "purpose": "to load BPF programs",
              "needed": true,
              "held": true
            },
            {
              "name": "CAP_DAC_READ_SEARCH",
              "purpose": "to find owners",
              "needed": false,
              "held": true
            }
          ],
          "hooks": [
            {
              "hook": "tcp_keepalive_timer",
              "way": "tracepoint",
              "tried": [
                {
                  "way": "fentry",
                  "works": false,
                  "why": "Operation not permitted (os error 1)"
                },
                {
                  "way": "kprobe",
                  "works": false,
                  "why": "no such device: kprobe"
                },
                {
                  "way": "tracepoint",
                  "works": true
                }
              ]
            },
            {
              "hook": "tcp_send_active_reset",
              "way": "tracepoint",
              "tried": [
                {
                  "way": "fentry",
                  "works": false,
                  "why": "Operation not permitted (os error 1)"
                },
                {
                  "way": "kprobe",
                  "works": false,
                  "why": "no such device: kprobe"
                },
                {
                  "way": "tracepoint",
                  "works": true
                }
              ]
            },
            {
              "hook": "tcp_destroy_sock",
              "way": "tracepoint",
              "tried": [
                {
                  "way": "tracepoint",
                  "works": true
                }
              ]
            }
          ],
          "sockets": {
            "source": "iter/tcp"
          },
          "owners": {
            "source": "/proc",
            "why": "no such function",
            "loses": "only time: finding them takes nine times as long"
          },
          "owner_changes": {
            "source": "tracepoints",
            "why": "Operation not permitted (os error 1)",
            "loses": "for up to a minute, that a process passed its socket to another"
          }
        }
        "#);
        Ok(())
    }

    #[test]
    fn tracing_works_without_the_reset_hook() {
        let mut found = tried([NOT_PERMITTED, Ok(()), Ok(())], Ok(()), 250);
        for trial in &mut found.hooks {
            if trial.hook == Hook::SendActiveReset {
                trial.outcome = Err("no such function\n\u{1b}[2J".to_owned());
            }
        }
        let report = report(true, Ok(found));
        assert_eq!(report.code, exit::Code::Ok);
        assert_snapshot!(report, @r"
        kaprobe 0.0.0 on Linux 6.1.0-test, 250 timer ticks a second
        kernel types (BTF): readable

        privileges
          CAP_BPF              yes  to load BPF programs
          CAP_DAC_READ_SEARCH  yes  to find owners

        tcp_keepalive_timer: by kprobe
          fentry      refused: Operation not permitted (os error 1)
          kprobe      works
          tracepoint  works
          lost: events while the CPU is in another probe, counted if the kernel counts them

        tcp_send_active_reset: not at all
          fentry      refused: no such function\n\u{1b}[2J
          kprobe      refused: no such function\n\u{1b}[2J
          tracepoint  refused: no such function\n\u{1b}[2J
          lost: rst_sent records, and whether a fin_wait2 timer sent a reset

        tcp_destroy_sock: by tracepoint
          tracepoint  works

        existing sockets: by iter/tcp

        owners of sockets: by iter/task_file

        changes of owners: by tracepoints and fentry

        Tracing is possible.
        ");
    }

    #[test]
    fn a_working_mode_may_miss_events() -> Result<()> {
        let mut found = tried([Ok(()), Ok(()), Ok(())], Ok(()), 250);
        for trial in &mut found.hooks {
            if (trial.hook, trial.mode) == (Hook::SendActiveReset, AttachMode::Tracepoint) {
                trial.misses = Some("some");
            }
        }
        let first = report(true, Ok(found.clone()));
        let reset = first
            .hooks
            .iter()
            .find(|it| it.hook == Hook::SendActiveReset);
        let reset = reset.context("no hook")?;
        assert_snapshot!(reset, @r"
        tcp_send_active_reset: by fentry
          fentry      works
          kprobe      works
          tracepoint  works, but misses some
          lost: resets while the CPU is in the same program, counted if the kernel counts them
        ");
        found.hooks.retain(|it| it.mode == AttachMode::Tracepoint);
        let report = report(true, Ok(found));
        let loses: Vec<_> = report.hooks.iter().map(|it| it.loses).collect();
        assert_eq!(loses, [None, Some("some"), None]);
        Ok(())
    }

    #[test]
    fn a_mode_that_sees_nothing_is_not_chosen() {
        let blind = "attached, but blind: /proc/sys/kernel/ftrace_enabled is 0";
        let found = tried([Err(blind), Err(blind), Ok(())], Ok(()), 250);
        let without_test = Capabilities {
            untested: Some("the hook of timers: no loopback".to_owned()),
            ..found.clone()
        };
        let shown = report(true, Ok(found));
        assert_eq!(shown.code, exit::Code::Ok);
        assert_snapshot!(shown.hooks[0], @r"
        tcp_keepalive_timer: by tracepoint
          fentry      refused: attached, but blind: /proc/sys/kernel/ftrace_enabled is 0
          kprobe      refused: attached, but blind: /proc/sys/kernel/ftrace_enabled is 0
          tracepoint  works
        ");
        let all_blind = report(true, Ok(tried([Err(blind); 3], Ok(()), 250)));
        assert_eq!(all_blind.code, exit::Code::Kernel);
        let untested = report(true, Ok(without_test)).to_string();
        assert!(
            untested
                .contains("not tested whether they see anything: the hook of timers: no loopback"),
            "{untested}"
        );
    }

    #[test]
    fn nothing_works() {
        let report = report(true, Ok(tried([NOT_PERMITTED; 3], NOT_PERMITTED, 0)));
        assert_eq!(report.code, exit::Code::Kernel);
        assert_snapshot!(report, @r"
        kaprobe 0.0.0 on Linux 6.1.0-test
        kernel types (BTF): readable

        privileges
          CAP_BPF              yes  to load BPF programs
          CAP_DAC_READ_SEARCH  yes  to find owners

        tcp_keepalive_timer: not at all
          fentry      refused: Operation not permitted (os error 1)
          kprobe      refused: Operation not permitted (os error 1)
          tracepoint  refused: Operation not permitted (os error 1)
          lost: everything

        tcp_send_active_reset: not at all
          fentry      refused: Operation not permitted (os error 1)
          kprobe      refused: Operation not permitted (os error 1)
          tracepoint  refused: Operation not permitted (os error 1)
          lost: rst_sent records, and whether a fin_wait2 timer sent a reset

        tcp_destroy_sock: not at all
          tracepoint  refused: Operation not permitted (os error 1)
          lost: everything

        existing sockets: by sock_diag
          iter/tcp    refused: Operation not permitted (os error 1)
          lost: keepalive settings in sockets, all of audit, the snapshot of trace

        owners of sockets: by /proc
          iter/task_file  refused: Operation not permitted (os error 1)
          lost: only time: finding them takes nine times as long

        changes of owners: by /proc
          tracepoints and fentry  refused: Operation not permitted (os error 1)
          lost: only time: all owners are checked every five seconds

        Tracing is not possible: this kernel has no way to hook tcp_keepalive_timer.
        ");
    }

    #[test]
    fn no_types() {
        let why = anyhow::anyhow!("this kernel publishes no types");
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let report = Report::new("6.1.0".to_owned(), Some(missing), Vec::new(), Err(why));
        assert_eq!(report.code, exit::Code::Kernel);
        let text = report.to_string();
        assert!(
            text.contains("kernel types (BTF): unreadable: entity not found"),
            "{text}"
        );
        assert!(
            text.ends_with("not possible: this kernel publishes no types.\n"),
            "{text}"
        );
    }

    #[test]
    fn no_privilege() -> Result<()> {
        let missing = exit::Error::privilege("tracing needs CAP_BPF: run it with sudo");
        let report = report(false, Err(missing.into()));
        assert_eq!(report.code, exit::Code::Privilege);
        assert_snapshot!(report, @r"
        kaprobe 0.0.0 on Linux 6.1.0-test
        kernel types (BTF): readable

        privileges
          CAP_BPF              no   to load BPF programs
          CAP_DAC_READ_SEARCH  no   to find owners

        Tracing is not possible: tracing needs CAP_BPF: run it with sudo.
        ");
        assert_snapshot!(json(&report)?, @r#"
        {
          "version": "1.0",
          "kaprobe": "0.0.0",
          "kernel": "6.1.0-test",
          "possible": false,
          "why": "tracing needs CAP_BPF: run it with sudo",
          "btf": {
            "readable": true
          },
          "privileges": [
            {
              "name": "CAP_BPF",
              "purpose": "to load BPF programs",
              "needed": true,
              "held": false
            },
            {
              "name": "CAP_DAC_READ_SEARCH",
              "purpose": "to find owners",
              "needed": false,
              "held": false
            }
          ],
          "hooks": []
        }
        "#);
        Ok(())
    }
}
