//! The plan of `kaprobe top`: its checked arguments. Makes no system calls.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Result;

use crate::census::plan::{CensusArgs, CensusPlan, socket_flags};
use crate::cli::args::{TopArgs, TopSort};
use crate::cli::filters::host_root;
use crate::cli::{self, Command};
use crate::model::named::Named as _;
use crate::sink::options::ColorWhen;
use crate::trace::plan::TracePlan;

/// The checked arguments of `kaprobe top`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopPlan {
    /// The trace that the events come from.
    pub trace: TracePlan,
    /// Which connections are counted, and how they are judged.
    pub census: CensusPlan,
    /// Pause between two snapshots.
    pub interval: Duration,
    /// What rows are sorted by at the start.
    pub sort: TopSort,
    /// Whether to color text.
    pub color: ColorWhen,
    /// This process takes the snapshots of another kaprobe.
    pub is_reader: bool,
}

impl TopPlan {
    /// Checks the arguments of `kaprobe top`.
    ///
    /// # Errors
    /// [`crate::exit::Code::Usage`] if an argument is not valid.
    pub fn new(args: TopArgs) -> Result<Self> {
        let census = CensusPlan::new(CensusArgs {
            sockets: &args.sockets,
            cgroups: &args.cgroup,
            node: &args.node,
            loopback: args.loopback,
            timeouts: &args.timeouts,
        })?;
        Ok(Self {
            trace: trace(&args)?,
            census,
            interval: args.interval,
            sort: args.sort,
            color: args.screen.color,
            is_reader: args.reader,
        })
    }
}

/// The plan of the trace, from the flags that a user would type.
fn trace(args: &TopArgs) -> Result<TracePlan> {
    let mut flags: Vec<OsString> = ["kaprobe", "trace", "--quiet"].map(Into::into).into();
    flags.extend(socket_flags(&args.sockets, &args.cgroup));
    flags.extend(host_root(&args.node));
    if let Some(way) = args.screen.attach.0 {
        flags.push(format!("--attach={}", way.name()).into());
    }
    if let Some(max) = args.limits.max_sockets {
        flags.push(format!("--max-sockets={max}").into());
    }
    let args = cli::parse_own(flags, |command| match command {
        Command::Trace(args) => Some(*args),
        _ => None,
    })?;
    Ok(TracePlan::new(args)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(words: impl IntoIterator<Item = OsString>) -> Result<TopPlan> {
        let words = std::iter::once("kaprobe".into()).chain(words);
        TopPlan::new(cli::parse_own(words, |command| match command {
            Command::Top(args) => Some(*args),
            _ => None,
        })?)
    }

    #[test]
    fn the_reader_selects_and_judges_the_same_connections() -> Result<()> {
        for args in [
            "",
            "-P 80,90-92 -L 1 -D 2 -4 --addr 10.0.0.0/8,::1 --cgroup /x",
            "-6 --netns a,b -p 7,8 --comm nginx,java --loopback",
            "--unit a.service --container web --pod x/y,z --pod-namespace x --host-root /host",
            "--idle-timeout 350s",
            "--behind aws-nlb --idle-timeout 1500ms",
            "--behind ipvs,aws-nlb",
        ] {
            let args = format!("top {args}");
            let given = plan(args.split_whitespace().map(OsString::from))?;
            let reader = plan(given.census.reader.clone())?;
            assert!(reader.is_reader && !given.is_reader);
            let as_given = TopPlan {
                is_reader: false,
                ..reader
            };
            assert_eq!(as_given, given, "{args}");
        }
        Ok(())
    }

    #[test]
    fn the_trace_has_the_same_filters() -> Result<()> {
        let words = "top -P 80 -p 7 --netns a --cgroup /x --attach tracepoint";
        let TopPlan { trace, census, .. } = plan(words.split_whitespace().map(OsString::from))?;
        assert_eq!(trace.kernel.sockets, census.keep);
        assert_eq!(trace.kernel.netns, ["a"]);
        assert_eq!(trace.kernel.cgroups.len(), 1);
        assert_eq!(trace.records.processes.pids, [7].into());
        assert!(trace.quiet && trace.attach.is_some() && trace.snapshot.is_some());
        Ok(())
    }
}
