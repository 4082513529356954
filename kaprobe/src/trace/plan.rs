//! The plan of `kaprobe trace`: everything that the arguments decide, checked, before
//! anything is done. Makes no system call.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use kaprobe_ebpf::config::{MAX_CGROUPS, MAX_NETNS};

use crate::cli::args::{FilterArgs, TraceArgs};
use crate::cli::filters::{by_flag, check_count, events, family, records, sockets};
use crate::cli::outputs::outputs;
use crate::exit;
use crate::filter::RecordFilter;
use crate::filter::events::{EventSet, event_mask};
use crate::filter::kernel::KernelFilter;
use crate::model::attach_mode::AttachMode;
use crate::model::header::Filters;
use crate::model::values::Family;
use crate::sink::options::Outputs;

/// What `kaprobe trace` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracePlan {
    /// What the BPF programs keep.
    pub kernel: KernelFilter,
    /// What is kept of their records; user space alone can tell.
    pub records: RecordFilter,
    /// Every filter as it was given, for the log's header.
    pub given: Filters,
    /// Where records go.
    pub outputs: Outputs,
    /// When to stop.
    pub duration: Option<Duration>,
    /// The way to attach that was asked for; `None` takes the cheapest that works.
    pub attach: Option<AttachMode>,
    /// See answers as they come in.
    pub rtt: bool,
    /// The arguments by which kaprobe tells of the sockets that there are, and that the
    /// BPF programs keep: the snapshot to start from. `None` to do without.
    pub snapshot: Option<Vec<OsString>>,
    /// File to create once every hook is attached.
    pub ready_file: Option<PathBuf>,
    /// Bytes of the ring buffer: a power of two, 4096 or more. A kernel with larger
    /// pages needs at least one of them.
    pub buffer_bytes: u32,
    /// Log what the BPF programs have to say.
    pub debug: bool,
    /// Neither banner nor summary.
    pub quiet: bool,
}

impl TracePlan {
    /// Checks the arguments of `kaprobe trace` and makes them a plan.
    ///
    /// # Errors
    /// Of [`exit::Code::Usage`], naming the argument that can't be.
    pub fn new(args: TraceArgs) -> Result<Self, exit::Error> {
        let TraceArgs {
            filters,
            output,
            running,
        } = args;
        let outputs = outputs(&output)?;
        check_count(MAX_NETNS, "--netns", filters.records.sockets.netns.len())?;
        check_count(MAX_CGROUPS, "--cgroup", filters.cgroup.len())?;
        if running.ready_file.is_some() && running.ready_file == output.output {
            return Err(exit::Error::usage(
                "--ready-file and --output name the same file",
            ));
        }
        let events = events(&filters.records, EventSet::Default);
        Ok(Self {
            given: by_flag(&filters.records, &filters.cgroup, &events),
            outputs,
            duration: running.duration,
            attach: running.attach.0,
            rtt: running.rtt,
            snapshot: (!running.no_snapshot).then(|| snapshot(&filters)),
            ready_file: running.ready_file,
            buffer_bytes: running.buffer_size,
            debug: running.debug,
            quiet: output.quiet,
            kernel: KernelFilter {
                event_mask: event_mask(&events),
                sockets: sockets(&filters.records.sockets),
                netns: filters.records.sockets.netns.clone(),
                cgroups: filters.cgroup,
            },
            records: records(filters.records, events),
        })
    }
}

/// The command that shows the sockets which pass these filters, as the kernel knows
/// them. Who holds them, the trace looks at itself.
fn snapshot(filters: &FilterArgs) -> Vec<OsString> {
    fn list<T: ToString>(flag: &str, values: &[T]) -> Option<OsString> {
        let values: Vec<_> = values.iter().map(T::to_string).collect();
        (!values.is_empty()).then(|| format!("--{flag}={}", values.join(",")).into())
    }
    let sockets = &filters.records.sockets;
    let family = family(sockets).map(|family| match family {
        Family::Inet => "--ipv4".into(),
        Family::Inet6 => "--ipv6".into(),
    });
    let cgroups = filters.cgroup.iter().map(|path| {
        let mut flag = OsString::from("--cgroup=");
        flag.push(path);
        flag
    });
    let given = [
        list("port", &sockets.port),
        list("localport", &sockets.localport),
        list("remoteport", &sockets.remoteport),
        list("addr", &sockets.addr),
        family,
        Some(list("netns", &sockets.netns).unwrap_or_else(|| "--all-netns".into())),
    ];
    let command = ["sockets", "--json"].map(OsString::from);
    let filters = given.into_iter().flatten().chain(cgroups);
    command.into_iter().chain(filters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Action, Command};
    use crate::filter::events::NOISE;
    use crate::model::named::Named as _;
    use crate::model::record::EventName;
    use crate::sink::options::Format;
    use crate::sockets::plan::{Selection, SocketsPlan};
    use crate::text::escape::Escaped;
    use kaprobe_ebpf::wire::kind;

    /// The plan of `kaprobe trace` with these arguments, or the one line that says
    /// why there is none.
    fn plan(args: &str) -> Result<TracePlan, String> {
        let words = ["kaprobe", "trace"]
            .into_iter()
            .chain(args.split_whitespace());
        match cli::parse(words).map_err(|why| why.to_string())? {
            Action::Run(Command::Trace(args)) => {
                TracePlan::new(*args).map_err(|why| why.to_string())
            }
            other => Err(format!("{other:?}")),
        }
    }

    fn kernel(args: &str) -> Result<KernelFilter, String> {
        plan(args).map(|plan| plan.kernel)
    }

    fn outputs(args: &str) -> Result<(Format, Option<Format>), String> {
        plan(args).map(|plan| (plan.outputs.screen, plan.outputs.file.map(|log| log.format)))
    }

    #[test]
    fn nothing_asked_is_everything_but_noise() -> Result<(), String> {
        let plan = plan("")?;
        let noise = 1 << kind::EARLY | 1 << kind::DATA_PENDING | 1 << kind::BUSY;
        let all = (1 << kind::COUNT) - 1;
        let kernel = KernelFilter {
            event_mask: all & !noise,
            ..KernelFilter::default()
        };
        assert_eq!(plan.kernel, kernel);
        assert_eq!(
            plan.records.events.len(),
            EventName::ALL.len() - NOISE.len()
        );
        assert_eq!(plan.given.keys().collect::<Vec<_>>(), ["events"]);
        assert_eq!(
            (plan.attach, plan.duration, plan.buffer_bytes),
            (None, None, 4 << 20)
        );
        assert_eq!(
            (plan.outputs.screen, plan.outputs.file),
            (Format::Text, None)
        );
        Ok(())
    }

    #[test]
    fn events_are_made_of_kinds() -> Result<(), String> {
        let closed = 1 << kind::CLOSED;
        let probe = 1 << kind::PROBE;
        for (events, mask) in [
            ("-e probe", probe),
            ("-e answered", probe),
            ("-e lost", 0),
            ("-e zombie", 0),
            ("-e closed", kernel("")?.event_mask),
            ("-e timeout,early", 1 << kind::TIMEOUT | 1 << kind::EARLY),
            ("-e timeout -e early", 1 << kind::TIMEOUT | 1 << kind::EARLY),
            ("-e all", (1 << kind::COUNT) - 1),
            ("-e default,busy", kernel("")?.event_mask | 1 << kind::BUSY),
        ] {
            assert_eq!(kernel(events)?.event_mask, mask | closed, "{events}");
        }
        Ok(())
    }

    #[test]
    fn repeated_flags_and_lists_add_up() -> Result<(), String> {
        let kernel = kernel("-P 80,90-92 -P 443 -L 1 -D 2,3 --addr 10.0.0.0/8,::1 --netns a,b -6")?;
        let sockets = &kernel.sockets;
        let in_ports = |port| sockets.ports.contains(port);
        assert!([80, 90, 92, 443].into_iter().all(in_ports));
        assert!(![79, 81, 93, 1, 2].into_iter().any(in_ports));
        assert!(sockets.local_ports.contains(1) && !sockets.local_ports.contains(2));
        assert!(sockets.remote_ports.contains(3) && !sockets.remote_ports.contains(1));
        let networks: Vec<_> = sockets.networks.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/8", "::1/128"]);
        assert_eq!(kernel.netns, ["a", "b"]);
        assert_eq!(sockets.family, Some(Family::Inet6));
        let records = plan("-p 1,2 -p 3 --comm a-name-of-more-than-15-bytes,nginx")?.records;
        assert_eq!(records.pids, [1, 2, 3].into());
        assert_eq!(
            records.comms,
            ["a-name-of-more-", "nginx"].map(Escaped::from).into()
        );
        Ok(())
    }

    #[test]
    fn the_snapshot_is_of_the_sockets_that_are_traced() -> Result<(), String> {
        for (args, all_netns) in [
            ("", true),
            ("-P 80,90-92 -P 443 -4 --addr 10.0.0.0/8,::1", true),
            (
                "-L 1 -D 2 -6 --netns a,b --netns pid:7 --cgroup /x --cgroup -y",
                false,
            ),
            ("-p 7 --comm nginx -e probe", true),
        ] {
            let plan = plan(&args.replace("--cgroup -y", "--cgroup=-y"))?;
            let words = plan.snapshot.clone().unwrap_or_default();
            let words = std::iter::once("kaprobe".into()).chain(words);
            let snapshot = match cli::parse(words).map_err(|why| why.to_string())? {
                Action::Run(Command::Sockets(args)) => SocketsPlan::new(*args),
                other => return Err(format!("{other:?}")),
            };
            let snapshot = snapshot.map_err(|why| why.to_string())?;
            let selection = Selection {
                kernel: KernelFilter {
                    event_mask: 0,
                    ..plan.kernel
                },
                all_netns,
                ..Selection::default()
            };
            assert_eq!(snapshot.selection, selection, "{args}");
            assert_eq!(snapshot.format, Format::Json);
        }
        assert_eq!(plan("--no-snapshot")?.snapshot, None);
        Ok(())
    }

    #[test]
    fn filters_are_told_as_they_were_given() -> Result<(), String> {
        let given = plan("-P 80,90-92 -4 --comm a,b --cgroup /x -e probe")?.given;
        let told: Vec<_> = given
            .iter()
            .map(|(flag, it)| format!("{flag}={}", it.join(",")))
            .collect();
        assert_eq!(
            told,
            [
                "cgroup=/x",
                "comm=a,b",
                "events=probe",
                "family=inet",
                "port=80,90-92"
            ]
        );
        Ok(())
    }

    #[test]
    fn formats_of_screen_and_file() {
        use Format::{Csv, Json, Text};
        for (args, screen, file) in [
            ("--json", Json, None),
            ("--format json", Json, None),
            ("--format csv", Csv, None),
            ("--json --format json", Json, None),
            ("-o x.jsonl", Text, Some(Json)),
            ("-o x.json", Text, Some(Json)),
            ("-o x.csv", Text, Some(Csv)),
            ("-o x.txt", Text, Some(Text)),
            ("-o x --format csv", Text, Some(Csv)),
            ("-o x.csv --format json", Text, Some(Json)),
            ("-o x.csv --json", Json, Some(Csv)),
            ("-o x --format csv --json", Json, Some(Csv)),
        ] {
            assert_eq!(outputs(args), Ok((screen, file)), "{args}");
        }
    }

    #[test]
    fn what_can_not_be_is_told() {
        for (args, told) in [
            ("--json --format csv", "--json and --format disagree"),
            ("-o x", "--output x: no format goes by that extension"),
            (
                "-o x.pcap",
                "--output x.pcap: no format goes by that extension",
            ),
            ("-o -", "--output names a file"),
            ("-o logs/", "--output logs/: not the name of a file"),
            ("-o ..", "--output ..: not the name of a file"),
            (
                "-o x.csv --ready-file x.csv",
                "--ready-file and --output name the same file",
            ),
            (
                "--netns 1,2,3,4,5,6,7,8,9",
                "--netns takes at most 8 values, not 9",
            ),
            ("--force", "--output"),
            ("-4 -6", "cannot be used with"),
            ("-e prob", "tip: a similar value exists: 'probe'"),
        ] {
            let why = plan(args).err().unwrap_or_default();
            assert!(why.contains(told), "{args}: {why}");
            assert!(!why.contains('\n'), "{args}: {why}");
        }
    }
}
