//! The flags of each command.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, RangedU64ValueParser};
use clap::{Args, ValueEnum};
use clap_complete::Shell;
use ipnet::IpNet;

use crate::cli::values::{
    buffer_size, file_size, listen_address, name_parser, named, network, positive, tcp_state,
    time_bound, time_span,
};
use crate::filter::events::EventSet;
use crate::filter::ports::PortRange;
use crate::filter::processes::PodName;
use crate::glossary::names;
use crate::keepalive::retransmission::STALLED_AFTER;
use crate::model::attach_mode::AttachMode;
use crate::model::limits::MOST_SOCKETS;
use crate::model::named::Named as _;
use crate::model::time::{TimeBound, TimeBounds};
use crate::model::values::State;
use crate::sink::options::{ColorWhen, Format, ScreenFormat, TimeFormat};
use crate::timeout::middlebox::middleboxes;

/// `kaprobe trace`.
#[derive(Args, Clone, Debug)]
#[expect(missing_docs, reason = "documented at the types")]
pub struct TraceArgs {
    #[command(flatten)]
    pub filters: FilterArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub rotation: RotationArgs,
    /// Every event on the screen
    ///
    /// With a banner and a summary. On a terminal, a trace without this flag, --events, --count, --wide and --format shows a digest: problems as they happen, each told once, and a status line.
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
    #[command(flatten)]
    pub running: RunningArgs,
}

/// Flags for how the folder of a recorder is filled.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub struct SegmentArgs {
    /// Most that the folder may take
    ///
    /// The oldest segments are removed before it would take more.
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = file_size, requires = "dir", help_heading = "Output")]
    pub max_size: u64,
    /// Begin a new segment once it is this old
    ///
    /// Also once it has a 32nd of --max-size.
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = time_span, requires = "dir", help_heading = "Output", hide_short_help = true)]
    pub segment_age: Duration,
    /// Count the probes of a connection that the peer answers over this time
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time_span, requires = "dir", help_heading = "Output", hide_short_help = true)]
    pub alive_interval: Duration,
}

/// `kaprobe record`.
#[derive(Args, Clone, Debug)]
pub struct RecordingArgs {
    /// The folder; it is made if there is none
    ///
    /// For its owner only.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub dir: PathBuf,
    /// How the folder is filled.
    #[command(flatten)]
    pub segments: SegmentArgs,
    /// No banner, no summary
    #[arg(short, long, help_heading = "Output", hide_short_help = true)]
    pub quiet: bool,
    /// Filters of the records.
    #[command(flatten)]
    pub filters: FilterArgs,
    /// How it runs.
    #[command(flatten)]
    pub running: RunningArgs,
}

/// `kaprobe agent`.
#[derive(Args, Clone, Debug)]
pub struct AgentArgs {
    /// Address of the metrics
    ///
    /// /metrics, /healthz and /readyz, without encryption. Port 0 takes a free one.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:10977",
        value_parser = listen_address,
        help_heading = "Output"
    )]
    pub listen: SocketAddr,
    /// Also record to this folder, as `kaprobe record` does
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub dir: Option<PathBuf>,
    /// How the folder is filled.
    #[command(flatten)]
    pub segments: SegmentArgs,
    /// Most series: programs and remote ends that are counted apart
    ///
    /// Those with most to count have room; all others share one, whose remote is `other`.
    #[arg(long, value_name = "N", default_value = "200", value_parser = RangedU64ValueParser::<u16>::new().range(1..=10_000), help_heading = "Output", hide_short_help = true)]
    pub series: u16,
    /// Pause between two counts of the connections
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = time_span, help_heading = "Output", hide_short_help = true)]
    pub interval: Duration,
    /// TOML file of settings that SIGHUP reads again
    ///
    /// See docs/agent.md.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub config: Option<PathBuf>,
    /// No banner, no summary
    #[arg(short, long, help_heading = "Output", hide_short_help = true)]
    pub quiet: bool,
    /// Idle timeouts that connections are judged by.
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    /// Judge connections within this host too
    ///
    /// They pass no middlebox.
    #[arg(long, help_heading = "Filters", hide_short_help = true)]
    pub loopback: bool,
    /// Filters of the records.
    #[command(flatten)]
    pub filters: FilterArgs,
    /// How it runs.
    #[command(flatten)]
    pub running: RunningArgs,
}

/// `kaprobe replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// Logs to read, or the folder of a recorder; - means standard input
    #[arg(required = true, value_name = "LOG")]
    pub logs: Vec<PathBuf>,
    /// A summary for each remote endpoint, not records
    ///
    /// It is text, or JSON lines with --json.
    #[arg(long, conflicts_with_all = ["output", "time", "wide", "color"], help_heading = "Output")]
    pub summary: bool,
    /// How much it keeps.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Filters of the records.
    #[command(flatten)]
    pub filters: RecordArgs,
    /// The times of the records.
    #[command(flatten)]
    pub window: WindowArgs,
    /// Destination and format of the records.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `kaprobe report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Logs to read, or the folder of a recorder; - means standard input
    #[arg(required = true, value_name = "LOG")]
    pub logs: Vec<PathBuf>,
    /// File to write
    ///
    /// Without it, the report goes to standard output, unless that is a terminal.
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Let --output overwrite a file that exists
    #[arg(
        long,
        requires = "output",
        help_heading = "Output",
        hide_short_help = true
    )]
    pub force: bool,
    /// Idle timeouts to mark among the idle ages.
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    /// How much it keeps.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Filters of the records.
    #[command(flatten)]
    pub filters: RecordArgs,
    /// The times of the records.
    #[command(flatten)]
    pub window: WindowArgs,
}

/// Flags that filter the records of a trace.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Filters that `replay` has too.
    #[command(flatten)]
    pub records: RecordArgs,
    /// cgroup (v2), with its descendants
    ///
    /// A path, absolute or under /sys/fs/cgroup.
    #[arg(long, value_name = "PATH", hide_short_help = true)]
    pub cgroup: Vec<PathBuf>,
    /// Show a FIN only after this time without data; 1ms shows every one
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time_span, hide_short_help = true)]
    pub fin_idle: Duration,
    /// Show a connection as stalled at this retransmission of the same data
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = STALLED_AFTER, value_parser = RangedU64ValueParser::<u8>::new().range(1..=15))]
    pub stalled_after: u8,
    /// Where the names of containers are read.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Flags that filter records.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
pub struct RecordArgs {
    /// Filters of the sockets.
    #[command(flatten)]
    pub sockets: SocketArgs,
    /// Events to show, by name, or all
    ///
    /// `default` means all except early, data_pending and busy. Without this flag, `trace` shows `default`; `replay` and `report` show all. `kaprobe explain` lists them.
    #[arg(short, long, value_delimiter = ',')]
    pub events: Vec<EventSet>,
    /// Stop after N records
    #[arg(short, long, value_name = "N", value_parser = positive::<NonZeroU64>, help_heading = "Output", hide_short_help = true)]
    pub count: Option<NonZeroU64>,
}

/// Flags for the times of the records that are read.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Filters")]
pub struct WindowArgs {
    /// Leave out what is logged before: -2h
    ///
    /// Or a point in time: 2024-05-06T07:08, 2024-05-06T07:08:09Z.
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = time_bound)]
    pub since: Option<TimeBound>,
    /// Leave out what is logged after this time
    #[arg(long, hide_short_help = true, value_name = "WHEN", allow_hyphen_values = true, value_parser = time_bound)]
    pub until: Option<TimeBound>,
}

impl From<WindowArgs> for TimeBounds {
    fn from(args: WindowArgs) -> Self {
        Self {
            since: args.since,
            until: args.until,
        }
    }
}

/// Flags that filter sockets.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
pub struct SocketArgs {
    /// Ports, local or remote: 443, 5000-6000
    #[arg(short = 'P', long, value_name = "PORTS", value_delimiter = ',')]
    pub port: Vec<PortRange>,
    /// Local ports
    #[arg(short = 'L', long, value_name = "PORTS", value_delimiter = ',')]
    pub localport: Vec<PortRange>,
    /// Remote ports
    #[arg(short = 'D', long, value_name = "PORTS", value_delimiter = ',')]
    pub remoteport: Vec<PortRange>,
    /// Addresses or networks: 10.0.0.0/8
    ///
    /// Local or remote. IPv4 ones also match IPv4 over IPv6 sockets.
    #[arg(long, value_name = "ADDR[/LEN]", value_delimiter = ',', value_parser = network)]
    pub addr: Vec<IpNet>,
    /// IPv4 sockets only
    #[arg(short = '4', long, conflicts_with = "ipv6", hide_short_help = true)]
    pub ipv4: bool,
    /// IPv6 sockets only, including those that carry IPv4
    #[arg(short = '6', long, hide_short_help = true)]
    pub ipv6: bool,
    /// Processes that hold the socket, by ID
    #[arg(short, long, value_delimiter = ',', value_parser = positive::<NonZeroU32>)]
    pub pid: Vec<NonZeroU32>,
    /// The same, by exact command name
    ///
    /// Only the first 15 bytes count, as in the kernel.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = name_parser())]
    pub comm: Vec<OsString>,
    /// systemd units of these processes, by exact name
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = name_parser(),
        hide_short_help = true
    )]
    pub unit: Vec<OsString>,
    /// Containers of these processes
    ///
    /// By exact name, by id, or by the first 12 digits of the id.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = name_parser(),
        hide_short_help = true
    )]
    pub container: Vec<OsString>,
    /// Kubernetes pods: NAME, NAMESPACE/NAME, or uid
    #[arg(
        long,
        value_name = "POD",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub pod: Vec<PodName>,
    /// Kubernetes namespaces of the pods
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = name_parser(),
        hide_short_help = true
    )]
    pub pod_namespace: Vec<OsString>,
    /// Network namespaces: a name, or pid:PID
    ///
    /// An inode number, a name from `ip netns` or, on this host, a path, pid:PID, or self.
    #[arg(long, value_delimiter = ',', hide_short_help = true, value_parser = named)]
    pub netns: Vec<String>,
}

/// Flags for what the node keeps on disk.
#[derive(Args, Clone, Debug, Default)]
pub struct NodeArgs {
    /// Read the names of containers below this directory
    ///
    /// The root directory of the host, where it is mounted. Without this flag, that of process 1 is read.
    #[arg(
        long,
        value_name = "DIR",
        help_heading = "Running",
        hide_short_help = true
    )]
    pub host_root: Option<PathBuf>,
}

/// Flags for the destination and format of records.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Output format on the screen or, with --output, in the file
    ///
    /// A digest has the problems, each told once; it is for the screen.
    #[arg(long, hide_short_help = true)]
    pub format: Option<ScreenFormat>,
    /// JSON lines on the screen
    #[arg(long)]
    pub json: bool,
    /// Also write a log: .jsonl, .csv or .txt
    ///
    /// The extension sets the format: .jsonl, .json, .csv, .txt. `trace` continues a log that exists.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Let --output overwrite a file that exists
    #[arg(long, requires = "output", hide_short_help = true)]
    pub force: bool,
    /// Time format in text lines
    #[arg(
        long,
        value_name = "CLOCK",
        default_value = "clock",
        hide_short_help = true
    )]
    pub time: TimeFormat,
    /// Long text lines, with all details
    ///
    /// Columns are wide enough for IPv6.
    #[arg(short, long, hide_short_help = true)]
    pub wide: bool,
    /// No header line in text and CSV
    #[arg(short = 'H', long, hide_short_help = true)]
    pub no_header: bool,
    /// Color text
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        hide_short_help = true
    )]
    pub color: ColorWhen,
    /// No banner, no summary
    #[arg(short, long, hide_short_help = true)]
    pub quiet: bool,
}

/// Flags for when a log is continued in a new file.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub struct RotationArgs {
    /// Continue the log in a new file before it is longer than this: 100MiB
    ///
    /// The file before becomes FILE.1, FILE.1 becomes FILE.2, and so on.
    #[arg(long, hide_short_help = true, value_name = "SIZE", value_parser = file_size, requires = "output")]
    pub rotate_size: Option<u64>,
    /// Continue the log in a new file once it is this old: 1d, 12h
    #[arg(long, hide_short_help = true, value_name = "TIME", value_parser = time_span, requires = "output")]
    pub rotate_age: Option<Duration>,
    /// Number of older files to keep; 9 without this flag
    #[arg(long, hide_short_help = true, value_name = "N", requires = "output")]
    pub rotate_keep: Option<u32>,
}

/// Flags for how a trace runs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Running")]
pub struct RunningArgs {
    /// Stop after this time: 30s, 5m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = time_span)]
    pub duration: Option<Duration>,
    /// How to attach to the kernel; auto uses the cheapest mode that works
    #[arg(
        long,
        value_name = "MODE",
        default_value = "auto",
        hide_short_help = true
    )]
    pub attach: Attach,
    /// Show each probe's answer when it arrives
    ///
    /// With its round-trip time. Adds a small cost to every segment that this host receives.
    #[arg(long, hide_short_help = true)]
    pub rtt: bool,
    /// Do not read the existing sockets at the start
    ///
    /// No zombies are reported, and an owner that exits before its socket's first event stays unknown.
    #[arg(long, hide_short_help = true)]
    pub no_snapshot: bool,
    /// Create this file once every hook is attached
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub ready_file: Option<PathBuf>,
    /// Size of the ring buffer, rounded up to a power of two
    ///
    /// Without this flag, 4 to 16 MiB: a 512th of the memory that kaprobe may use.
    #[arg(long, hide_short_help = true, value_name = "SIZE", value_parser = buffer_size)]
    pub buffer_size: Option<u32>,
    /// How much it keeps.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Print log messages of the BPF programs on stderr
    #[arg(long, hide_short_help = true)]
    pub debug: bool,
}

/// Flags for how much is kept.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct LimitArgs {
    /// Most sockets that are remembered
    ///
    /// Without this flag, 65536 to 1048576, so that they take no more than a 64th of the memory that kaprobe may use; in a replay, as many as the trace remembered. Beyond that, the sockets that have closed are forgotten first, then those that were seen least recently. The kernel forgets none: it reports events of further sockets without following them. Both are counted.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=u64::from(MOST_SOCKETS)), help_heading = "Running", hide_short_help = true)]
    pub max_sockets: Option<u32>,
}

/// Flags that select the sockets of a snapshot.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
pub struct SnapshotArgs {
    /// Filters of the sockets in a namespace.
    #[command(flatten)]
    pub sockets: SocketArgs,
    /// All network namespaces
    ///
    /// Each that has a name or a process.
    #[arg(long, conflicts_with = "netns")]
    pub all_netns: bool,
    /// Where the names of containers are read.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Flags for the output of a snapshot.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub struct RowArgs {
    /// Format of the output
    #[arg(long, default_value = "text", hide_short_help = true)]
    format: Format,
    /// JSON lines
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// No header line in text and CSV
    #[arg(short = 'H', long, hide_short_help = true)]
    pub no_header: bool,
    /// Write only the first N rows
    #[arg(long, value_name = "N", value_parser = positive::<NonZeroU32>, hide_short_help = true)]
    max_rows: Option<NonZeroU32>,
}

impl RowArgs {
    /// The most rows to write; `None` for all.
    #[must_use]
    pub fn max_rows(&self) -> Option<usize> {
        self.max_rows.map(|it| it.get() as usize)
    }

    /// The format from `--format` or `--json`.
    #[must_use]
    pub const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// `kaprobe sockets`.
#[derive(Args, Clone, Debug)]
pub struct SocketsArgs {
    /// Filters of the sockets.
    #[command(flatten)]
    pub snapshot: SnapshotArgs,
    /// TCP states: ESTABLISHED, listen
    ///
    /// As the kernel names them, in upper or lower case.
    #[arg(long, value_delimiter = ',', value_parser = tcp_state, help_heading = "Filters")]
    pub state: Vec<State>,
    /// cgroup (v2), with its descendants
    ///
    /// A path, absolute or under /sys/fs/cgroup.
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "Filters",
        hide_short_help = true
    )]
    pub cgroup: Vec<PathBuf>,
    /// One row for each program and service
    ///
    /// A service is a remote address and port or, for connections that were accepted, the local port. The largest group comes first.
    #[arg(long, help_heading = "Output")]
    pub group: bool,
    /// Sort by this column
    ///
    /// Holds all sockets in memory, or the first that --max-rows asks for. Without it, they are shown as they are read.
    #[arg(long, value_name = "COLUMN", help_heading = "Output")]
    pub sort: Option<Sort>,
    /// Output format.
    #[command(flatten)]
    pub rows: RowArgs,
    /// All columns, however wide the terminal is
    ///
    /// Also network namespace, cgroup, uid, and idle time per direction.
    #[arg(short, long, help_heading = "Output")]
    pub wide: bool,
    /// Take little CPU time at once, for the start of a trace
    #[arg(long, hide = true)]
    pub paced: bool,
}

/// Flags for the idle timeouts on the path of every connection.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Timeouts")]
pub struct TimeoutArgs {
    /// Idle timeout on the path: 350s, 15m
    ///
    /// With --behind, replaces the middlebox's default.
    #[arg(long, value_name = "TIME", value_parser = time_span)]
    pub idle_timeout: Option<Duration>,
    /// Middleboxes on the path, by name
    ///
    /// Their default timeouts apply; of several, the shortest.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(middleboxes().iter().map(|it| it.id.as_str())))]
    pub behind: Vec<String>,
}

/// `kaprobe audit`.
#[derive(Args, Clone, Debug)]
pub struct AuditArgs {
    /// Idle timeouts that connections are judged by.
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    /// Logs of `kaprobe trace` that show timeouts
    ///
    /// Or the folder of a recorder. A timeout seen in a log applies to the remote endpoints where it was seen; - means standard input.
    #[arg(long, value_name = "LOG", help_heading = "Timeouts")]
    pub log: Vec<PathBuf>,
    /// The times of the records in the logs.
    #[command(flatten)]
    pub window: WindowArgs,
    /// First observe the connections: 2m
    ///
    /// One that its own traffic keeps alive is then `kept_by_traffic`, and one that takes the peer's probes `kept_by_peer`. A signal ends it early.
    #[arg(long, value_name = "TIME", value_parser = time_span, help_heading = "Timeouts")]
    pub observe: Option<Duration>,
    /// Filters of the connections.
    #[command(flatten)]
    pub snapshot: SnapshotArgs,
    /// Include connections within this host
    ///
    /// They pass no middlebox.
    #[arg(long, help_heading = "Filters", hide_short_help = true)]
    pub loopback: bool,
    /// Output format.
    #[command(flatten)]
    pub rows: RowArgs,
    /// All columns and whole lines, however wide the terminal is
    #[arg(short, long, help_heading = "Output", hide_short_help = true)]
    pub wide: bool,
}

/// `kaprobe top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Filters of the sockets.
    #[command(flatten)]
    pub sockets: SocketArgs,
    /// cgroup (v2), with its descendants
    ///
    /// A path, absolute or under /sys/fs/cgroup.
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "Filters",
        hide_short_help = true
    )]
    pub cgroup: Vec<PathBuf>,
    /// Judge connections within this host too
    ///
    /// They pass no middlebox.
    #[arg(long, help_heading = "Filters", hide_short_help = true)]
    pub loopback: bool,
    /// Idle timeouts that connections are judged by.
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    /// Pause between two snapshots of the sockets
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time_span, help_heading = "Output")]
    pub interval: Duration,
    /// Sort the rows by this at the start
    #[arg(
        long,
        value_name = "COLUMN",
        default_value = "trouble",
        help_heading = "Output",
        hide_short_help = true
    )]
    pub sort: TopSort,
    /// How the screen looks, and where its events come from.
    #[command(flatten)]
    pub screen: ScreenArgs,
    /// Where the names of containers are read.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How much it keeps.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Take the snapshots of another kaprobe: one for each line of standard input
    #[arg(long, hide = true)]
    pub reader: bool,
}

/// A sort key for the rows of `top`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TopSort {
    /// Stalled, unanswered and dead connections first, then verdicts, then risk.
    Trouble,
    /// By number of connections.
    Connections,
    /// By the longest idle time.
    Idle,
    /// By number of probes.
    Probes,
    /// By number of verdicts.
    Verdicts,
    /// By name of the program.
    Program,
}

/// `kaprobe demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// How the screen looks, and where its events come from.
    #[command(flatten)]
    pub screen: ScreenArgs,
}

/// Flags of a command that shows a trace in a form of its own.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub struct ScreenArgs {
    /// Color text
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        hide_short_help = true
    )]
    pub color: ColorWhen,
    /// How to attach to the kernel; auto uses the cheapest mode that works
    #[arg(
        long,
        value_name = "MODE",
        default_value = "auto",
        hide_short_help = true
    )]
    pub attach: Attach,
}

/// `kaprobe doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

impl ValueEnum for ScreenFormat {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: &[ScreenFormat] = &[
            ScreenFormat::Digest,
            ScreenFormat::Every(Format::Text),
            ScreenFormat::Every(Format::Json),
            ScreenFormat::Every(Format::Csv),
        ];
        ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Auto => None,
            Self::Digest => Some(PossibleValue::new("digest")),
            Self::Every(format) => format.to_possible_value(),
        }
    }
}

/// `kaprobe explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// A verdict or an event; without it, all are listed
    #[arg(value_name = "VERDICT|EVENT", hide_possible_values = true, value_parser = PossibleValuesParser::new(names()))]
    pub name: Option<String>,
}

/// `kaprobe completions`.
#[derive(Args, Clone, Copy, Debug)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// `kaprobe man`.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// A folder for all pages; without it, the first is written to standard output
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

impl ValueEnum for EventSet {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Default => "default",
            Self::All => "all",
            Self::One(event) => event.name(),
        }))
    }
}

impl ValueEnum for Attach {
    fn value_variants<'a>() -> &'a [Self] {
        const VARIANTS: &[Attach] = &[
            Attach(None),
            Attach(Some(AttachMode::Fentry)),
            Attach(Some(AttachMode::Kprobe)),
            Attach(Some(AttachMode::Tracepoint)),
        ];
        VARIANTS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.map_or("auto", AttachMode::name)))
    }
}

/// A sort key for sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// By process ID.
    Pid,
    /// By local port.
    Lport,
    /// By remote port.
    Rport,
    /// By idle time, longest first.
    Idle,
    /// By time until the timer fires.
    Timer,
    /// By time until keepalive gives up.
    Dead,
}

/// A value of `--attach`. `None` means the cheapest mode that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach(pub Option<AttachMode>);
