//! What a firing costs in the kernel, entry and exit together.

use std::env;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use serde_json::Value;

use crate::Sample;
use crate::load::Holders;
use crate::subject::Subject;

/// How long each subject is watched in a round.
const WATCHED: Duration = Duration::from_secs(3);

/// A port that no connection of the load has: such are given away from 32768 on.
const NO_PORT: &str = "1";

/// Measures each subject once a round, by each way to attach.
pub fn measure(connections: u32, rounds: u32) -> Result<()> {
    let _counted = enable_stats(Stats::RunTime).context("cannot turn BPF statistics on")?;
    let _load = Holders::start(connections)?;
    let ways = ways()?;
    for _ in 0..rounds {
        for way in &ways {
            let measure = format!("in_kernel.{way}");
            let print = |subject, made: Result<Subject>| {
                let value = made.and_then(|made| made.ns_per_firing(WATCHED));
                Sample {
                    measure: &measure,
                    subject,
                    unit: "ns/firing",
                    why: value.as_ref().err().map(|why| format!("{why:#}")),
                    value: value.ok(),
                }
                .print()
            };
            print("floor", Subject::floor(way))?;
            print("kaprobe", Subject::kaprobe(way, &[]))?;
            print(
                "kaprobe, event not asked for",
                Subject::kaprobe(way, &["-e", "timeout"]),
            )?;
            print(
                "kaprobe, filtered out",
                Subject::kaprobe(way, &["-P", NO_PORT]),
            )?;
            print("bpftrace", bpftrace(way))?;
        }
    }
    Ok(())
}

/// The ways that this kernel has, as doctor tells them.
fn ways() -> Result<Vec<String>> {
    let kaprobe = env::var_os("KAPROBE_BIN").context("KAPROBE_BIN is not set")?;
    let output = Command::new(kaprobe).args(["doctor", "--json"]).output()?;
    let told: Value = serde_json::from_slice(&output.stdout).context("doctor says no JSON")?;
    let hooks = told["hooks"].as_array().context("doctor: no hooks")?;
    let timer = hooks.iter().find(|h| h["hook"] == "tcp_keepalive_timer");
    let tried = timer.and_then(|hook| hook["tried"].as_array());
    let works = tried.into_iter().flatten().filter(|w| w["works"] == true);
    Ok(works
        .filter_map(|way| way["way"].as_str().map(Into::into))
        .collect())
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

/// bpftrace, with the first script that it takes on this kernel.
fn bpftrace(way: &str) -> Result<Subject> {
    let mut refused = None;
    for timer in TIMERS {
        for cgroup in CGROUPS {
            match Subject::bpftrace(&script(way, timer, cgroup)) {
                Ok(subject) => return Ok(subject),
                Err(why) => refused = Some(why),
            }
        }
    }
    Err(refused.context("no script")?)
}

fn script(way: &str, timer: &str, cgroup: &str) -> String {
    let (entry, exit, firing) = match way {
        "fentry" => (
            "fentry:tcp_keepalive_timer",
            "fexit:tcp_keepalive_timer",
            "(uint64)args.t",
        ),
        "kprobe" => (
            "kprobe:tcp_keepalive_timer",
            "kretprobe:tcp_keepalive_timer",
            // A kretprobe sees no argument.
            "(cpu, tid)",
        ),
        _ => (
            "rawtracepoint:timer_expire_entry",
            "rawtracepoint:timer_expire_exit",
            "arg0",
        ),
    };
    let argument = if way == "fentry" {
        "(uint64)args.t"
    } else {
        "arg0"
    };
    let (open, close) = if way == "tracepoint" {
        // Every timer passes here.
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
        ("TIMER", timer),
        ("CGROUP", cgroup),
    ]
    .into_iter()
    .fold(include_str!("facts.bt").to_owned(), |text, (word, put)| {
        text.replace(word, put)
    })
}
