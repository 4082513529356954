//! bpftrace scripts comparable to kaprobe, adapted to this kernel.

use anyhow::{Context as _, Result};

use crate::output_folder::OutputFolder;
use crate::tracer::TracerProcess;

/// A bpftrace script.
#[derive(Clone, Copy)]
pub enum Script {
    /// Prints the facts of a record in this form, gathered at entry and exit.
    Facts(Form),
    /// Prints a line of text for each probe.
    Line,
}

/// The form in which facts are printed.
#[derive(Clone, Copy)]
pub enum Form {
    /// Comma-separated.
    Csv,
    /// One JSON object per line.
    Json,
}

impl Script {
    /// Starts bpftrace with the first variant of the script that works on this kernel.
    /// Returns once it has reported a firing.
    pub fn start(
        self,
        way: &str,
        options: &[&str],
        folder: &OutputFolder,
    ) -> Result<TracerProcess> {
        let mut refused = None;
        for timer in TIMERS {
            for cgroup in CGROUPS {
                let script = self.text(way, timer, cgroup);
                let mut tracer = TracerProcess::bpftrace(options, &script, folder.stdout()?)?;
                // With -q, bpftrace writes nothing else.
                match tracer.until(|| Ok((folder.written()? > 0).then_some(()))) {
                    Ok(()) => return Ok(tracer),
                    Err(why) => refused = Some(why),
                }
            }
        }
        Err(refused.context("no script")?)
    }

    fn text(self, way: &str, timer: &str, cgroup: &str) -> String {
        let (text, format) = match self {
            Self::Facts(form) => (include_str!("facts.bt"), form.format()),
            Self::Line => (include_str!("line.bt"), String::new()),
        };
        let words = hooks(way).into_iter().chain([
            ("TIMER", timer.to_owned()),
            ("CGROUP", cgroup.to_owned()),
            ("FORMAT", format),
        ]);
        words.fold(text.to_owned(), |text, (word, replacement)| {
            text.replace(word, &replacement)
        })
    }
}

/// The offset of the keepalive timer. The new place is tried first: in kernels that have
/// it, the old name is another timer's.
const TIMERS: [&str; 2] = [
    "offsetof(struct inet_connection_sock, icsk_keepalive_timer)",
    "offsetof(struct sock, sk_timer)",
];

/// The id of a socket's cgroup: by pointer, or by 5.10's tagged value.
const CGROUPS: [&str; 2] = [
    "$sock->sk_cgrp_data.cgroup->kn->id",
    "((struct cgroup *)$sock->sk_cgrp_data.val)->kn->id",
];

/// The words of a script that depend on the way to attach, and their replacements.
fn hooks(way: &str) -> [(&'static str, String); 6] {
    let (entry, exit, argument, firing) = match way {
        "fentry" => (
            "fentry:tcp_keepalive_timer",
            "fexit:tcp_keepalive_timer",
            "(uint64)args.t",
            "(uint64)args.t",
        ),
        "kprobe" => (
            "kprobe:tcp_keepalive_timer",
            "kretprobe:tcp_keepalive_timer",
            "arg0",
            // A kretprobe sees no argument.
            "(cpu, tid)",
        ),
        _ => (
            "rawtracepoint:timer_expire_entry",
            "rawtracepoint:timer_expire_exit",
            "arg0",
            "arg0",
        ),
    };
    // The tracepoint fires for every timer.
    let (open, close) = if way == "tracepoint" {
        (
            r#"if ((uint64)$timer->function == kaddr("tcp_keepalive_timer")) {"#,
            "}",
        )
    } else {
        ("", "")
    };
    [
        ("ENTRY", entry),
        ("EXIT", exit),
        ("ARGUMENT", argument),
        ("END_IF", close),
        ("IF_KEEPALIVE", open),
        ("FIRING", firing),
    ]
    .map(|(word, replacement)| (word, replacement.to_owned()))
}

/// The names and printf formats of the facts, in the order in which facts.bt prints them.
const FACTS: [(&str, &str); 36] = [
    ("mono_ns", "%lu"),
    ("jiffies", "%lu"),
    ("expires", "%lu"),
    ("state", "%d"),
    ("family", "%d"),
    ("laddr", "%s"),
    ("lport", "%d"),
    ("raddr", "%s"),
    ("rport", "%d"),
    ("netns", "%u"),
    ("cookie", "%lu"),
    ("inode", "%lu"),
    ("cgroup", "%lu"),
    ("flags", "%lx"),
    ("owned", "%d"),
    ("write_queue", "%lx"),
    ("uid", "%u"),
    ("probes_out", "%d"),
    ("user_timeout", "%u"),
    ("retransmits", "%d"),
    ("lrcvtime", "%u"),
    ("rcv_tstamp", "%u"),
    ("lsndtime", "%u"),
    ("packets_out", "%u"),
    ("keepalive_time", "%u"),
    ("keepalive_intvl", "%u"),
    ("keepalive_probes", "%u"),
    ("sysctl_time", "%d"),
    ("sysctl_intvl", "%d"),
    ("sysctl_probes", "%d"),
    ("jiffies_after", "%lu"),
    ("expires_after", "%lu"),
    ("pending_after", "%lx"),
    ("state_after", "%d"),
    ("probes_out_after", "%d"),
    ("err", "%d"),
];

impl Form {
    /// The format string of printf.
    fn format(self) -> String {
        let facts = FACTS.map(|(name, form)| match self {
            Self::Csv => form.to_owned(),
            // Text and hexadecimal numbers are quoted.
            Self::Json if matches!(form, "%s" | "%lx") => format!(r#"\"{name}\":\"{form}\""#),
            Self::Json => format!(r#"\"{name}\":{form}"#),
        });
        match self {
            Self::Csv => facts.join(","),
            Self::Json => format!("{{{}}}", facts.join(",")),
        }
    }
}
