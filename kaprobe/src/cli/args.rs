//! The flags of each command.

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, RangedU64ValueParser};
use clap::{Args, ValueEnum};
use ipnet::IpNet;

use crate::cli::values::{
    buffer_size, file_size, network, positive, tcp_state, time_bound, time_span,
};
use crate::filter::events::EventSet;
use crate::filter::ports::PortRange;
use crate::keepalive::retransmission::STALLED_AFTER;
use crate::model::attach_mode::AttachMode;
use crate::model::named::Named as _;
use crate::model::time::{TimeBound, TimeBounds};
use crate::model::values::State;
use crate::sink::options::{ColorWhen, Format, ScreenFormat, TimeFormat};
use crate::timeout::middlebox::middleboxes;

const TRACE_HELP: &str = "\
Several values of one filter mean OR; different filters mean AND. Separate
values with commas, or repeat the flag.

Examples:
  kaprobe trace                               problems, and a status line
  kaprobe trace -v                            all events except the noise
  kaprobe trace -P 5672 -e all                all events on port 5672
  kaprobe trace -D 5000-6000 --addr 10.0.0.0/8
  kaprobe trace -p 4242 -o keepalive.jsonl    on the screen, and to a log
  kaprobe trace --json -c 100 | jq .
";

/// `kaprobe trace`.
#[derive(Args, Clone, Debug)]
#[command(after_help = TRACE_HELP)]
#[expect(missing_docs, reason = "documented at the types")]
pub struct TraceArgs {
    #[command(flatten)]
    pub filters: FilterArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub rotation: RotationArgs,
    #[command(flatten)]
    pub running: RunningArgs,
}

const RECORD_HELP: &str = "\
A probe that the peer answers has no record of its own: one `alive` record for
each connection and interval counts them. All else is kept as `trace` shows it.
`kaprobe replay DIR` and `kaprobe audit --log DIR` read the folder.

Examples:
  kaprobe record --dir /var/log/kaprobe
  kaprobe record --dir /var/log/kaprobe --max-size 2GiB -D 5672
  kaprobe replay /var/log/kaprobe --since -2h
";

/// `kaprobe record`.
#[derive(Args, Clone, Debug)]
#[command(after_help = RECORD_HELP)]
pub struct RecordingArgs {
    /// The folder. It is made if there is none, for its owner only
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub dir: PathBuf,
    /// Most that the folder may take. The oldest segments are removed before it would take more
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = file_size, help_heading = "Output")]
    pub max_size: u64,
    /// Begin a new segment once it is this old; also once it has a 32nd of --max-size
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = time_span, help_heading = "Output")]
    pub segment_age: Duration,
    /// Count the probes of a connection that the peer answers over this time
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time_span, help_heading = "Output")]
    pub alive_interval: Duration,
    /// No banner, no summary
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
    /// Filters of the records.
    #[command(flatten)]
    pub filters: FilterArgs,
    /// How it runs.
    #[command(flatten)]
    pub running: RunningArgs,
}

const REPLAY_HELP: &str = "\
Logs are JSON lines from `kaprobe trace -o LOG.jsonl` or `--json`. Several logs
are merged by time, and each record names its host.

Examples:
  kaprobe replay run.jsonl                    the records of a trace
  kaprobe replay run.jsonl -D 5672 -w         one service, in detail
  kaprobe replay client.jsonl server*.jsonl   one log from several hosts
  kaprobe replay --summary run.jsonl          a summary for each remote endpoint
  kaprobe replay /var/log/kaprobe --since -2h what was recorded in the last two hours
  ssh host kaprobe trace --json | kaprobe replay -
";

/// `kaprobe replay`.
#[derive(Args, Clone, Debug)]
#[command(after_help = REPLAY_HELP)]
pub struct ReplayArgs {
    /// Logs to read, or the folder of a recorder; - means standard input
    #[arg(required = true, value_name = "LOG")]
    pub logs: Vec<PathBuf>,
    /// Show a summary for each remote endpoint, as text or JSON lines, not records
    #[arg(long, conflicts_with_all = ["output", "time", "wide", "color"], help_heading = "Output")]
    pub summary: bool,
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

const REPORT_HELP: &str = "\
The report is one HTML file without scripts, which loads nothing: attach it to a
ticket. Names of hosts, programs and addresses are in it.

Examples:
  kaprobe report run.jsonl -o report.html
  kaprobe report client.jsonl server*.jsonl -o report.html
  kaprobe report run.jsonl -D 5672 --behind aws-nlb > report.html
";

/// `kaprobe report`.
#[derive(Args, Clone, Debug)]
#[command(after_help = REPORT_HELP)]
pub struct ReportArgs {
    /// Logs to read, or the folder of a recorder; - means standard input
    #[arg(required = true, value_name = "LOG")]
    pub logs: Vec<PathBuf>,
    /// File to write; without it, the report goes to standard output, unless that is a terminal
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Let --output overwrite a file that exists
    #[arg(long, requires = "output", help_heading = "Output")]
    pub force: bool,
    /// Idle timeout to mark among the idle ages: 350s, 15m
    #[arg(long, value_name = "TIME", value_parser = time_span, help_heading = "Timeouts")]
    pub idle_timeout: Option<Duration>,
    /// Middleboxes on the path: marks their default timeouts as certain
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(middleboxes().iter().map(|it| it.id.as_str())), help_heading = "Timeouts")]
    pub behind: Vec<String>,
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
    /// cgroup (v2), with its descendants: a path, absolute or under /sys/fs/cgroup
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<PathBuf>,
    /// Show a FIN only after this time without data; 1ms shows every one
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time_span)]
    pub fin_idle: Duration,
    /// Show a connection as stalled at this retransmission of the same data
    #[arg(long, value_name = "N", default_value_t = STALLED_AFTER, value_parser = RangedU64ValueParser::<u8>::new().range(1..=15))]
    pub stalled_after: u8,
}

/// Flags that filter records.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
pub struct RecordArgs {
    /// Filters of the sockets.
    #[command(flatten)]
    pub sockets: SocketArgs,
    /// Events to show, by name; `default` means all except early, data_pending and busy. Without this flag `trace` shows `default`, `replay` and `report` show all
    #[arg(short, long, value_delimiter = ',')]
    pub events: Vec<EventSet>,
    /// Stop after N records
    #[arg(short, long, value_name = "N", value_parser = positive::<NonZeroU64>, help_heading = "Running")]
    pub count: Option<NonZeroU64>,
}

/// Flags for the times of the records that are read.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Filters")]
pub struct WindowArgs {
    /// Leave out what is logged before this time: -2h, 2024-05-06T07:08, 2024-05-06T07:08:09Z
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = time_bound)]
    pub since: Option<TimeBound>,
    /// Leave out what is logged after this time
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = time_bound)]
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
    /// Addresses or networks, local or remote: 10.0.0.0/8. IPv4 ones also match IPv4 over IPv6 sockets
    #[arg(long, value_name = "ADDR[/LEN]", value_delimiter = ',', value_parser = network)]
    pub addr: Vec<IpNet>,
    /// IPv4 sockets only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// IPv6 sockets only, including those that carry IPv4
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// IDs of processes that hold the socket
    #[arg(short, long, value_delimiter = ',', value_parser = positive::<NonZeroU32>)]
    pub pid: Vec<NonZeroU32>,
    /// Exact command names of processes that hold the socket. Only the first 15 bytes count, as in the kernel
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub comm: Vec<OsString>,
    /// Network namespaces: an inode number, a name from `ip netns` or, on this host, a path, pid:PID, or self
    #[arg(long, value_delimiter = ',')]
    pub netns: Vec<String>,
}

/// Flags for the destination and format of records.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Output format on the screen or, with --output, in the file. A digest has the problems, each told once; it is for the screen
    #[arg(long)]
    pub format: Option<ScreenFormat>,
    /// JSON lines on the screen
    #[arg(long)]
    pub json: bool,
    /// Also write a log; the extension sets the format: .jsonl, .json, .csv, .txt. `trace` continues a log that exists
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Let --output overwrite a file that exists
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Time format in text lines
    #[arg(long, value_name = "CLOCK", default_value = "clock")]
    pub time: TimeFormat,
    /// Long text lines: columns wide enough for IPv6, and all details
    #[arg(short, long)]
    pub wide: bool,
    /// No header line in text and CSV
    #[arg(short = 'H', long)]
    pub no_header: bool,
    /// Color text
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorWhen,
    /// No banner, no summary
    #[arg(short, long)]
    pub quiet: bool,
}

/// Flags for when a log is continued in a new file.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub struct RotationArgs {
    /// Continue the log in a new file before it is longer than this: 100MiB. The file before becomes FILE.1, FILE.1 becomes FILE.2, and so on
    #[arg(long, value_name = "SIZE", value_parser = file_size, requires = "output")]
    pub rotate_size: Option<u64>,
    /// Continue the log in a new file once it is this old: 1d, 12h
    #[arg(long, value_name = "TIME", value_parser = time_span, requires = "output")]
    pub rotate_age: Option<Duration>,
    /// Number of older files to keep; 9 without this flag
    #[arg(long, value_name = "N", requires = "output")]
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
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub attach: Attach,
    /// Show each probe's answer when it arrives, with its round-trip time. Adds a small cost to every segment that this host receives
    #[arg(long)]
    pub rtt: bool,
    /// Do not read the existing sockets at the start. No zombies are reported, and an owner that exits before its socket's first event stays unknown
    #[arg(long)]
    pub no_snapshot: bool,
    /// Every event on the screen, with a banner and a summary. On a terminal, a trace without this flag, --events, --count, --wide and --format shows a digest: problems as they happen, each told once, and a status line
    #[arg(short, long, help_heading = "Output")]
    pub verbose: bool,
    /// Create this file once every hook is attached
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Size of the ring buffer, rounded up to a power of two
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = buffer_size)]
    pub buffer_size: u32,
    /// Print log messages of the BPF programs on stderr
    #[arg(long)]
    pub debug: bool,
}

/// Flags that select the sockets of a snapshot.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
pub struct SnapshotArgs {
    /// Filters of the sockets in a namespace.
    #[command(flatten)]
    pub sockets: SocketArgs,
    /// All network namespaces that have a name or a process
    #[arg(long, conflicts_with = "netns")]
    pub all_netns: bool,
}

/// Flags for the output of a snapshot.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub struct RowArgs {
    /// Format of the output
    #[arg(long, default_value = "text")]
    format: Format,
    /// JSON lines
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// No header line in text and CSV
    #[arg(short = 'H', long)]
    pub no_header: bool,
    /// Write only the first N rows, in their order
    #[arg(long, value_name = "N", value_parser = positive::<NonZeroU32>)]
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

const SOCKETS_HELP: &str = "\
Examples:
  kaprobe sockets                             all in this network namespace
  kaprobe sockets --all-netns --sort idle     all on this host, by idle time
  kaprobe sockets -P 5672 --state established --json | jq .
  kaprobe top                                 the same as a live screen
";

/// `kaprobe sockets`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SOCKETS_HELP)]
pub struct SocketsArgs {
    /// Filters of the sockets.
    #[command(flatten)]
    pub snapshot: SnapshotArgs,
    /// TCP states, as the kernel names them: ESTABLISHED, listen, close_wait
    #[arg(long, value_delimiter = ',', value_parser = tcp_state, help_heading = "Filters")]
    pub state: Vec<State>,
    /// cgroup (v2), with its descendants: a path, absolute or under /sys/fs/cgroup
    #[arg(long, value_name = "PATH", help_heading = "Filters")]
    pub cgroup: Vec<PathBuf>,
    /// One row for the connections of each program with one service: the remote port or, if they were accepted, the local one
    #[arg(long, help_heading = "Output")]
    pub group: bool,
    /// Sort by this column. Holds all sockets in memory; without it they are shown as they are read
    #[arg(long, value_name = "COLUMN", help_heading = "Output")]
    pub sort: Option<Sort>,
    /// Output format.
    #[command(flatten)]
    pub rows: RowArgs,
    /// All columns, however wide the terminal is: also network namespace, cgroup, uid, and idle time per direction
    #[arg(short, long, help_heading = "Output")]
    pub wide: bool,
}

/// Flags for the idle timeouts on the path of every connection.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Timeouts")]
pub struct TimeoutArgs {
    /// Idle timeout on the path: 350s, 15m. With --behind, replaces the middlebox's default
    #[arg(long, value_name = "TIME", value_parser = time_span)]
    pub idle_timeout: Option<Duration>,
    /// Middleboxes on the path, with their default timeouts. The shortest one applies
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(middleboxes().iter().map(|it| it.id.as_str())))]
    pub behind: Vec<String>,
}

const AUDIT_HELP: &str = "\
Without --idle-timeout, --behind and --log, audit uses the timeouts that this
host applies itself, each for the connections that are known to pass there:
conntrack of their network namespace and of those that they are routed through,
and IPVS if they are to one of its services. It changes nothing. Exit code: 0 if
every connection is safe, or kept by its traffic or by its peer's probes, 5 if one
is not, or could not be read. Text has one line per program and remote endpoint; CSV and JSON have one
per connection. JSON has a summary at the end.

Without --observe, audit knows one moment only: it does not see the heartbeats of
programs, such as those of ssh (ServerAliveInterval), AMQP and gRPC, and of the
peer's probes only the last. With it, a connection that keepalive does not protect
is kept_by_traffic if its longest silence was at most half of the timeout, and at
most a third of the time that it was observed: a minute at least, or the timeout.
It is kept_by_peer if that takes the peer's probes. A longer silence may come.

Examples:
  kaprobe audit --idle-timeout 350s           assume a timeout of 350 s
  kaprobe audit --behind aws-nlb --all-netns  assume an AWS NLB; whole host
  kaprobe audit --log keepalive.jsonl -D 5672 use timeouts seen in a log
  kaprobe audit --behind ipvs --observe 5m    count the heartbeats of programs
";

/// `kaprobe audit`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AUDIT_HELP)]
pub struct AuditArgs {
    /// Idle timeouts that connections are judged by.
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    /// Logs of `kaprobe trace`, or the folder of a recorder. A timeout seen in a log applies to the remote endpoints where it was seen; - means standard input
    #[arg(long, value_name = "LOG", help_heading = "Timeouts")]
    pub log: Vec<PathBuf>,
    /// The times of the records in the logs.
    #[command(flatten)]
    pub window: WindowArgs,
    /// First observe the connections for this time: 2m. One that its own traffic keeps alive is then `kept_by_traffic`, and one that takes the peer's probes `kept_by_peer`. A signal ends it early
    #[arg(long, value_name = "TIME", value_parser = time_span, help_heading = "Running")]
    pub observe: Option<Duration>,
    /// Filters of the connections.
    #[command(flatten)]
    pub snapshot: SnapshotArgs,
    /// Include connections within this host, which pass no middlebox
    #[arg(long, help_heading = "Filters")]
    pub loopback: bool,
    /// Output format.
    #[command(flatten)]
    pub rows: RowArgs,
    /// All columns and whole lines, however wide the terminal is
    #[arg(short, long, help_heading = "Output")]
    pub wide: bool,
}

const TOP_HELP: &str = "\
A row is a program and a remote end: a server's address and port, or a port of this
host and its clients. Keys: Enter opens a row, Esc goes back, / filters, s sorts, p
pauses, ? shows all keys, q quits. To a pipe or file, write kaprobe sockets (what is
now) or kaprobe trace (what happens).

Examples:
  kaprobe top                                 this host
  kaprobe top -P 5672 --behind aws-nlb        one service, behind an AWS NLB
  kaprobe top --idle-timeout 350s --sort idle
";

/// `kaprobe top`.
#[derive(Args, Clone, Debug)]
#[command(after_help = TOP_HELP)]
pub struct TopArgs {
    /// Filters of the sockets.
    #[command(flatten)]
    pub sockets: SocketArgs,
    /// cgroup (v2), with its descendants: a path, absolute or under /sys/fs/cgroup
    #[arg(long, value_name = "PATH", help_heading = "Filters")]
    pub cgroup: Vec<PathBuf>,
    /// Judge connections within this host too, which pass no middlebox
    #[arg(long, help_heading = "Filters")]
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
        help_heading = "Output"
    )]
    pub sort: TopSort,
    /// Color text
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Output"
    )]
    pub color: ColorWhen,
    /// How to attach to the kernel; auto uses the cheapest mode that works
    #[arg(
        long,
        value_name = "MODE",
        default_value = "auto",
        help_heading = "Running"
    )]
    pub attach: Attach,
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
    /// How to attach to the kernel; auto uses the cheapest mode that works
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub attach: Attach,
    /// Color text
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorWhen,
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
