//! What a person with bpftrace would write, made to fit this kernel.

use anyhow::{Context as _, Result};

use crate::output_folder::OutputFolder;
use crate::tracer::Tracer;

/// Which script.
#[derive(Clone, Copy)]
pub enum Script {
    /// The facts of a record, gathered before and after, printed in this form.
    Facts(Form),
    /// What a line of text has, of the probes.
    Line,
}

/// What facts are printed as.
#[derive(Clone, Copy)]
pub enum Form {
    /// Comma-separated.
    Csv,
    /// An object a line.
    Json,
}

impl Script {
    /// Starts bpftrace with it, with the first form of it that this kernel takes;
    /// returns once it has told of a firing.
    pub fn start(self, way: &str, options: &[&str], folder: &OutputFolder) -> Result<Tracer> {
        let mut refused = None;
        for timer in TIMERS {
            for cgroup in CGROUPS {
                let script = self.text(way, timer, cgroup);
                let mut tracer = Tracer::bpftrace(options, &script, folder.stdout()?)?;
                // Quiet, it writes nothing else.
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
        words.fold(text.to_owned(), |text, (word, put)| {
            text.replace(word, &put)
        })
    }
}

/// Where the keepalive timer lies: where it moved to first, as the name that it left
/// behind is another timer's.
const TIMERS: [&str; 2] = [
    "offsetof(struct inet_connection_sock, icsk_keepalive_timer)",
    "offsetof(struct sock, sk_timer)",
];

/// A socket's cgroup: a pointer, or 5.10's tagged value.
const CGROUPS: [&str; 2] = [
    "$sock->sk_cgrp_data.cgroup->kn->id",
    "((struct cgroup *)$sock->sk_cgrp_data.val)->kn->id",
];

/// What stands for the hooks, and for what they know.
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
    // By tracepoint every timer passes.
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
    .map(|(word, put)| (word, put.to_owned()))
}

/// The facts, in the order in which facts.bt prints them, and how each is printed.
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
    /// What printf is told.
    fn format(self) -> String {
        let facts = FACTS.map(|(name, form)| match self {
            Self::Csv => form.to_owned(),
            // Text, and hexadecimal numbers, in quotes.
            Self::Json if matches!(form, "%s" | "%lx") => format!(r#"\"{name}\":\"{form}\""#),
            Self::Json => format!(r#"\"{name}\":{form}"#),
        });
        match self {
            Self::Csv => facts.join(","),
            Self::Json => format!("{{{}}}", facts.join(",")),
        }
    }
}
