//! The flags of each command.

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, ValueEnum};
use ipnet::IpNet;

use crate::cli::values::{from_one, network, size, tcp_state, time_span};
use crate::filter::events::EventSet;
use crate::filter::ports::PortRange;
use crate::model::attach_mode::AttachMode;
use crate::model::named::Named as _;
use crate::model::values::State;
use crate::sink::options::{ColorWhen, Format, TimeFormat};
use crate::timeout::middlebox::middleboxes;

const TRACE_HELP: &str = "\
Values of one filter add up, given as a comma list or by repeating the flag; a
record must pass every filter that is given.

Examples:
  kaprobe trace                               everything but noise
  kaprobe trace -P 5672 -e all                all that happens on port 5672
  kaprobe trace -D 5000-6000 --addr 10.0.0.0/8
  kaprobe trace -p 4242 -o keepalive.jsonl    on screen, and as a log
  kaprobe trace --json -c 100 | jq .
";

/// `kaprobe trace`.
#[derive(Args, Clone, Debug)]
#[command(after_help = TRACE_HELP)]
#[expect(missing_docs, reason = "each says in its type what it is")]
pub struct TraceArgs {
    #[command(flatten)]
    pub filters: FilterArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub running: RunningArgs,
}

const REPLAY_HELP: &str = "\
Logs are JSON lines, as `kaprobe trace -o LOG.jsonl` and `--json` write them. Several
are merged by time, and each record then names its host.

Examples:
  kaprobe replay run.jsonl                    what trace showed
  kaprobe replay run.jsonl -D 5672 -w         one service, in detail
  kaprobe replay client.jsonl server*.jsonl   one story of several hosts
  kaprobe replay --summary run.jsonl          what became of each peer's connections
  ssh host kaprobe trace --json | kaprobe replay -
";

/// `kaprobe replay`.
#[derive(Args, Clone, Debug)]
#[command(after_help = REPLAY_HELP)]
pub struct ReplayArgs {
    /// Logs to read; - is standard input
    #[arg(required = true, value_name = "LOG")]
    pub logs: Vec<PathBuf>,
    /// Sum up by remote endpoint, as text or JSON lines, instead of showing records
    #[arg(long, conflicts_with_all = ["output", "time", "wide", "color"], help_heading = "Output")]
    pub summary: bool,
    /// Which records to show.
    #[command(flatten)]
    pub filters: RecordArgs,
    /// Where they go, and what they look like.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which records to make.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Those that need no kernel.
    #[command(flatten)]
    pub records: RecordArgs,
    /// A cgroup (v2) and all below it: a path, absolute or under /sys/fs/cgroup
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<PathBuf>,
}

/// Which records to show, of those that there are.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
pub struct RecordArgs {
    /// Those of which sockets.
    #[command(flatten)]
    pub sockets: SocketArgs,
    /// Events to show, by name; `default` is all but early, data_pending and busy, and what `trace` shows unless told otherwise; `replay` shows all
    #[arg(short, long, value_delimiter = ',')]
    pub events: Vec<EventSet>,
    /// Stop after so many records
    #[arg(short, long, value_name = "N", value_parser = from_one::<NonZeroU64>, help_heading = "Running")]
    pub count: Option<NonZeroU64>,
}

/// Which sockets.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
pub struct SocketArgs {
    /// Ports, on either side: 443, 5000-6000
    #[arg(short = 'P', long, value_name = "PORTS", value_delimiter = ',')]
    pub port: Vec<PortRange>,
    /// Local ports
    #[arg(short = 'L', long, value_name = "PORTS", value_delimiter = ',')]
    pub localport: Vec<PortRange>,
    /// Remote ports
    #[arg(short = 'D', long, value_name = "PORTS", value_delimiter = ',')]
    pub remoteport: Vec<PortRange>,
    /// Addresses or networks, on either side: 10.0.0.0/8; IPv4 ones match IPv4 over IPv6 sockets too
    #[arg(long, value_name = "ADDR[/LEN]", value_delimiter = ',', value_parser = network)]
    pub addr: Vec<IpNet>,
    /// IPv4 sockets only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// IPv6 sockets only, those that carry IPv4 among them
    #[arg(short = '6', long)]
    pub ipv6: bool,
    /// Processes that hold the socket
    #[arg(short, long, value_delimiter = ',', value_parser = from_one::<NonZeroU32>)]
    pub pid: Vec<NonZeroU32>,
    /// Their commands, exactly; past the 15 bytes that the kernel keeps of a name the rest is ignored
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub comm: Vec<OsString>,
    /// Network namespaces: an inode number; of this host also a name of `ip netns`, a path, or pid:PID
    #[arg(long, value_delimiter = ',')]
    pub netns: Vec<String>,
}

/// Where records go, and what they look like.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Format of the screen; with --output, of the file
    #[arg(long)]
    pub format: Option<Format>,
    /// JSON lines on the screen
    #[arg(long)]
    pub json: bool,
    /// Write a log too, in the format of its extension: .jsonl, .json, .csv, .txt
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Let --output overwrite a file
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Clock of text lines
    #[arg(long, value_name = "CLOCK", default_value = "clock")]
    pub time: TimeFormat,
    /// Long text lines: room for IPv6, and every detail
    #[arg(short, long)]
    pub wide: bool,
    /// No heading over text and CSV
    #[arg(short = 'H', long)]
    pub no_header: bool,
    /// Color text
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorWhen,
    /// No banner, no summary
    #[arg(short, long)]
    pub quiet: bool,
}

/// How the trace runs, and for how long.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Running")]
pub struct RunningArgs {
    /// Stop after this time: 30s, 5m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = time_span)]
    pub duration: Option<Duration>,
    /// How to attach to the kernel; auto takes the cheapest that works
    #[arg(long, value_name = "WAY", default_value = "auto")]
    pub attach: Attach,
    /// See each probe's answer as it comes in, and how long it took; costs a little for every segment that this host receives
    #[arg(long)]
    pub rtt: bool,
    /// Do not look at the sockets that there are when the trace begins: none of them is told to be a zombie, and an owner that ends before its socket's first event is not known
    #[arg(long)]
    pub no_snapshot: bool,
    /// Create this file once every hook is attached
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Bytes of the buffer between kernel and kaprobe, rounded up to a power of two
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = size)]
    pub buffer_size: u32,
    /// Log on stderr what the BPF programs have to say
    #[arg(long)]
    pub debug: bool,
}

/// Which sockets a snapshot is of.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Filters")]
pub struct SnapshotArgs {
    /// Which of those of a namespace.
    #[command(flatten)]
    pub sockets: SocketArgs,
    /// All network namespaces that have a name or a process
    #[arg(long, conflicts_with = "netns")]
    pub all_netns: bool,
}

/// What the rows of a snapshot look like.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub struct RowArgs {
    /// Format of the output
    #[arg(long, default_value = "text")]
    format: Format,
    /// JSON lines
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// No heading over text and CSV
    #[arg(short = 'H', long)]
    pub no_header: bool,
}

impl RowArgs {
    /// The format that is asked for, in either way.
    #[must_use]
    pub const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

const SOCKETS_HELP: &str = "\
Examples:
  kaprobe sockets                             those of this network namespace
  kaprobe sockets --all-netns --sort idle     of the host, by idle time
  kaprobe sockets -P 5672 --state established --json | jq .
";

/// `kaprobe sockets`.
#[derive(Args, Clone, Debug)]
#[command(after_help = SOCKETS_HELP)]
pub struct SocketsArgs {
    /// Which sockets to show.
    #[command(flatten)]
    pub of: SnapshotArgs,
    /// TCP states, as the kernel names them: ESTABLISHED, listen, close_wait
    #[arg(long, value_delimiter = ',', value_parser = tcp_state, help_heading = "Filters")]
    pub state: Vec<State>,
    /// A cgroup (v2) and all below it: a path, absolute or under /sys/fs/cgroup
    #[arg(long, value_name = "PATH", help_heading = "Filters")]
    pub cgroup: Vec<PathBuf>,
    /// Sort by this, with all sockets in memory; unsorted, they are shown as they are read
    #[arg(long, value_name = "COLUMN", help_heading = "Output")]
    pub sort: Option<Sort>,
    /// Show them again and again, with this pause between; 2s unless told otherwise
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = time_span, help_heading = "Output")]
    pub watch: Option<Duration>,
    /// What it looks like.
    #[command(flatten)]
    pub rows: RowArgs,
    /// Every column: network namespace, cgroup, uid, and idle times of each direction too
    #[arg(short, long, help_heading = "Output")]
    pub wide: bool,
}

const AUDIT_HELP: &str = "\
Without --idle-timeout, --behind and --log it goes by the timeouts that this
host applies itself: IPVS and conntrack. It changes nothing. Exit code 0 when
every connection is safe, 5 when one is not, or could not be looked at. Text has
a line for each program and place; CSV and JSON have one for each connection,
JSON a summary at the end.

Examples:
  kaprobe audit --idle-timeout 350s           what a timeout of 350 s would kill
  kaprobe audit --behind aws-nlb --all-netns  likewise, of the whole host
  kaprobe audit --log keepalive.jsonl -D 5672 by what a log shows
";

/// `kaprobe audit`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AUDIT_HELP)]
pub struct AuditArgs {
    /// An idle timeout on the way: 350s, 15m; with --behind, what it is set to there
    #[arg(long, value_name = "TIME", value_parser = time_span, help_heading = "Timeouts")]
    pub idle_timeout: Option<Duration>,
    /// What is on the way, with its default timeout; of several the shortest counts
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(middleboxes().into_iter().map(|it| it.id)), help_heading = "Timeouts")]
    pub behind: Vec<String>,
    /// Logs of `kaprobe trace`: the timeouts that they show, to places they show them of; - is standard input
    #[arg(long, value_name = "LOG", help_heading = "Timeouts")]
    pub log: Vec<PathBuf>,
    /// Which connections.
    #[command(flatten)]
    pub of: SnapshotArgs,
    /// Connections of this host with itself too, which pass no middlebox
    #[arg(long, help_heading = "Filters")]
    pub loopback: bool,
    /// What it looks like.
    #[command(flatten)]
    pub rows: RowArgs,
}

/// `kaprobe demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// How to attach to the kernel; auto takes the cheapest that works
    #[arg(long, value_name = "WAY", default_value = "auto")]
    pub attach: Attach,
    /// Color the text
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

/// What sockets are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// The process.
    Pid,
    /// The local port.
    Lport,
    /// The remote port.
    Rport,
    /// The idle time, the longest first.
    Idle,
    /// The time that the timer has left.
    Timer,
    /// The time until keepalive would give up.
    Dead,
}

/// A way to attach, or `None` for the cheapest that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach(pub Option<AttachMode>);
