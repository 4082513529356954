//! The checked arguments of `kaprobe trace`. Makes no system call.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use kaprobe_ebpf::config::{MAX_CGROUPS, MAX_NETNS};

use crate::cli::args::{FilterArgs, RunningArgs, TraceArgs};
use crate::cli::filters::{as_flags, by_flag, check_count, events, host_root, records, sockets};
use crate::cli::outputs::outputs;
use crate::exit;
use crate::filter::RecordFilter;
use crate::filter::events::{EventSet, event_mask};
use crate::filter::kernel::{KernelFilter, MAX_NETWORKS};
use crate::model::attach_mode::AttachMode;
use crate::model::header::Filters;
use crate::sink::options::{Existing, Format, Outputs, Rotation, ScreenFormat};

/// Number of older files of a log that are kept by default.
const KEEP: u32 = 9;

/// The checked arguments of `kaprobe trace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracePlan {
    /// The filter of the BPF programs.
    pub kernel: KernelFilter,
    /// The filter in user space, for conditions that the kernel can't check.
    pub records: RecordFilter,
    /// The filters as given, for the header of a log.
    pub given: Filters,
    /// Where records go, unless they go to the folder of a recorder.
    pub outputs: Outputs,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// The mode to attach in; `None` takes the cheapest that works.
    pub attach: Option<AttachMode>,
    /// Report a FIN only after this time without data.
    pub fin_idle: Duration,
    /// Report a connection as stalled at this retransmission of the same data.
    pub stalled_after: u8,
    /// Report answers when they arrive.
    pub rtt: bool,
    /// The arguments of the `kaprobe sockets` command that takes the snapshot. It shows
    /// the sockets that the BPF programs trace. `None`: no snapshot.
    pub snapshot: Option<Vec<OsString>>,
    /// File to create once every hook is attached.
    pub ready_file: Option<PathBuf>,
    /// Size of the ring buffer, bytes: a power of two, 4096 or more, and at least one
    /// page of the kernel. `None` makes it fit the host.
    pub buffer_bytes: Option<u32>,
    /// Most sockets that are remembered; `None` makes it fit the host.
    pub max_sockets: Option<u32>,
    /// Log the debug messages of the BPF programs.
    pub debug: bool,
    /// No banner and no summary.
    pub quiet: bool,
    /// Sum the probes that peers answer over this time.
    pub alive: Option<Duration>,
    /// The root directory of the host; `None` for that of process 1.
    pub host_root: Option<PathBuf>,
}

impl TracePlan {
    /// Makes a plan from the arguments of `kaprobe trace`.
    ///
    /// # Errors
    /// [`exit::Code::Usage`], with the name of the invalid argument.
    pub fn new(args: TraceArgs) -> Result<Self, exit::Error> {
        let TraceArgs {
            filters,
            output,
            rotation,
            verbose,
            running,
        } = args;
        let wants_every = verbose
            || output.wide
            || !filters.records.events.is_empty()
            || filters.records.count.is_some();
        let screen = match wants_every {
            true => ScreenFormat::Every(Format::Text),
            false => ScreenFormat::Auto,
        };
        let mut outputs = outputs(&output, Existing::Append, screen)?;
        if let Some(log) = &mut outputs.file {
            log.rotation = Rotation {
                size: rotation.rotate_size,
                age: rotation.rotate_age,
                keep: rotation.rotate_keep.unwrap_or(KEEP),
            };
        }
        if running.ready_file.is_some() && running.ready_file == output.output {
            return Err(exit::Error::usage(
                "--ready-file and --output name the same file",
            ));
        }
        Self::of(filters, running, outputs, output.quiet)
    }

    /// Makes a plan from the flags that other commands have too.
    ///
    /// # Errors
    /// [`exit::Code::Usage`], with the name of the invalid argument.
    pub fn of(
        filters: FilterArgs,
        running: RunningArgs,
        outputs: Outputs,
        quiet: bool,
    ) -> Result<Self, exit::Error> {
        check_count(MAX_NETNS, "--netns", filters.records.sockets.netns.len())?;
        check_count(MAX_CGROUPS, "--cgroup", filters.cgroup.len())?;
        check_count(MAX_NETWORKS, "--addr", filters.records.sockets.addr.len())?;
        let events = events(&filters.records, EventSet::Default);
        Ok(Self {
            given: by_flag(&filters.records, &filters.cgroup, &events),
            outputs,
            duration: running.duration,
            attach: running.attach.0,
            fin_idle: filters.fin_idle,
            stalled_after: filters.stalled_after,
            rtt: running.rtt,
            snapshot: (!running.no_snapshot).then(|| snapshot(&filters)),
            ready_file: running.ready_file,
            buffer_bytes: running.buffer_size,
            max_sockets: running.limits.max_sockets,
            debug: running.debug,
            quiet,
            alive: None,
            host_root: filters.node.host_root,
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

/// The arguments of `kaprobe` that show the sockets passing the kernel filters. The trace
/// itself applies the process filters.
fn snapshot(filters: &FilterArgs) -> Vec<OsString> {
    let sockets = &filters.records.sockets;
    let command = ["sockets", "--json", "--paced"].map(OsString::from);
    let all = sockets.netns.is_empty().then(|| "--all-netns".into());
    let given = as_flags(sockets, &filters.cgroup);
    let root = host_root(&filters.node);
    command
        .into_iter()
        .chain(all)
        .chain(given)
        .chain(root)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Action, Command};
    use crate::filter::events::NOISE;
    use crate::model::named::Named as _;
    use crate::model::record::EventName;
    use crate::model::values::Family;
    use crate::sockets::plan::{Selection, SocketsPlan};
    use crate::text::escape::Escaped;
    use kaprobe_ebpf::wire::kind;

    /// The plan of `kaprobe trace` with these arguments, or the error message.
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

    fn outputs(args: &str) -> Result<(ScreenFormat, Option<Format>), String> {
        plan(args).map(|plan| (plan.outputs.screen, plan.outputs.file.map(|log| log.format)))
    }

    #[test]
    fn without_arguments_everything_but_noise_is_traced() -> Result<(), String> {
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
            (None, None, None)
        );
        assert_eq!(plan.max_sockets, None);
        assert_eq!(
            (plan.outputs.screen, plan.outputs.file),
            (ScreenFormat::Auto, None)
        );
        Ok(())
    }

    #[test]
    fn event_names_select_kinds() -> Result<(), String> {
        let closed = 1 << kind::CLOSED;
        let probe = 1 << kind::PROBE;
        let timeout = 1 << kind::TIMEOUT | 1 << kind::GAVE_UP;
        for (events, mask) in [
            ("-e probe", probe),
            ("-e answered", probe),
            ("-e lost", 0),
            ("-e zombie", 0),
            ("-e closed", kernel("")?.event_mask),
            ("-e timeout,early", timeout | 1 << kind::EARLY),
            ("-e timeout -e early", timeout | 1 << kind::EARLY),
            (
                "-e fin_sent,aborted",
                1 << kind::FIN_SENT | 1 << kind::ABORTED,
            ),
            ("-e all", (1 << kind::COUNT) - 1),
            ("-e default,busy", kernel("")?.event_mask | 1 << kind::BUSY),
        ] {
            assert_eq!(kernel(events)?.event_mask, mask | closed, "{events}");
        }
        Ok(())
    }

    #[test]
    fn values_of_repeated_flags_and_lists_are_combined() -> Result<(), String> {
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
        assert_eq!(records.processes.pids, [1, 2, 3].into());
        assert_eq!(
            records.processes.comms,
            ["a-name-of-more-", "nginx"].map(Escaped::from).into()
        );
        Ok(())
    }

    #[test]
    fn the_snapshot_selects_the_traced_sockets() -> Result<(), String> {
        for (args, all_netns) in [
            ("", true),
            ("-P 80,90-92 -P 443 -4 --addr 10.0.0.0/8,::1", true),
            (
                "-L 1 -D 2 -6 --netns a,b --netns pid:7 --cgroup /x --cgroup -y",
                false,
            ),
            ("-p 7 --comm nginx -e probe", true),
            (
                "--unit a --container b --pod c/d --pod-namespace e --host-root /f",
                true,
            ),
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
                host_root: plan.host_root,
                is_paced: true,
                ..Selection::default()
            };
            assert_eq!(snapshot.selection, selection, "{args}");
            assert_eq!(snapshot.format, Format::Json);
        }
        assert_eq!(plan("--no-snapshot")?.snapshot, None);
        Ok(())
    }

    #[test]
    fn the_header_has_the_filters_as_given() -> Result<(), String> {
        let given = plan("-P 80,90-92 -4 --comm a,b --cgroup /x -e probe")?.given;
        let given: Vec<_> = given
            .iter()
            .map(|(flag, it)| format!("{flag}={}", it.join(",")))
            .collect();
        assert_eq!(
            given,
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
        use ScreenFormat::{Auto, Digest, Every};
        for (args, screen, file) in [
            ("-v", Every(Text), None),
            ("-e probe", Every(Text), None),
            ("-c 3", Every(Text), None),
            ("-w -o x.csv", Every(Text), Some(Csv)),
            ("-p 1 --comm x -P 1", Auto, None),
            ("--format digest", Digest, None),
            ("--format text", Every(Text), None),
            ("--json", Every(Json), None),
            ("--format json", Every(Json), None),
            ("--format csv", Every(Csv), None),
            ("--json --format json", Every(Json), None),
            ("-o x.jsonl", Auto, Some(Json)),
            ("-o x.json", Auto, Some(Json)),
            ("-o x.csv", Auto, Some(Csv)),
            ("-o x.txt", Auto, Some(Text)),
            ("-o x --format csv", Auto, Some(Csv)),
            ("-o x.csv --format csv", Auto, Some(Csv)),
            ("-o x.log --format json", Auto, Some(Json)),
            ("-o x.csv --json", Every(Json), Some(Csv)),
            ("-o x --format csv --json", Every(Json), Some(Csv)),
        ] {
            assert_eq!(outputs(args), Ok((screen, file)), "{args}");
        }
    }

    #[test]
    fn invalid_arguments_are_usage_errors() {
        for (args, message) in [
            ("--json --format csv", "--json and --format disagree"),
            ("-o x", "--output x: no format goes by that extension"),
            (
                "-o x.pcap",
                "--output x.pcap: no format goes by that extension",
            ),
            (
                "-o x.csv --format json",
                "--output x.csv: --format and the extension disagree",
            ),
            (
                "-o y.jsonl --format csv",
                "--output y.jsonl: --format and the extension disagree",
            ),
            (
                "-o x.txt --format digest",
                "--output x.txt: a digest is for the screen, not for a file",
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
            assert!(why.contains(message), "{args}: {why}");
            assert!(!why.contains('\n'), "{args}: {why}");
        }
    }
}
