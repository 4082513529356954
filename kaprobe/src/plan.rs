//! The validated plan of a command: everything that the arguments decide, checked,
//! before anything is done. Makes no system call.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use kaprobe_ebpf::config::{MAX_CGROUPS, MAX_NETNS};
use kaprobe_ebpf::wire::kind;

use crate::cli::{
    AuditArgs, FilterArgs, OutputArgs, RecordArgs, ReplayArgs, SocketArgs, SocketsArgs, TraceArgs,
};
use crate::exit;
use crate::filter::{RecordFilter, SocketFilter, passes};
use crate::model::attach_mode::Way;
use crate::model::named::Word as _;
use crate::model::record::{EventName, Family, Filters, State};
use crate::model::row::Row;
use crate::text::escape::Escaped;
use crate::timeout::middlebox::middleboxes;
use crate::timeout::timeouts::Timeout;

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
    pub attach: Option<Way>,
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

/// What `kaprobe replay` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayPlan {
    /// Logs to read.
    pub logs: Vec<Input>,
    /// What is kept of their records.
    pub records: RecordFilter,
    /// Every filter as it was given, for the header of a log.
    pub given: Filters,
    /// Where records go.
    pub outputs: Outputs,
    /// Sum records up by remote endpoint instead of showing them.
    pub summary: bool,
    /// No summary on stderr.
    pub quiet: bool,
}

/// What `kaprobe sockets` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketsPlan {
    /// Which sockets.
    pub selection: Selection,
    /// What to sort by.
    pub sort: Option<Sort>,
    /// Show them again and again, with such a pause between.
    pub watch: Option<Duration>,
    /// Format of standard output.
    pub format: Format,
    /// A heading over text and CSV.
    pub heading: bool,
    /// Every column.
    pub wide: bool,
}

/// Which of the sockets that there are. What is empty is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// What the BPF program keeps; but for `netns`, which is where it is sent to.
    pub kernel: KernelFilter,
    /// Processes, any of which holds the socket.
    pub pids: BTreeSet<u32>,
    /// Commands, likewise.
    pub comms: BTreeSet<Escaped>,
    /// States.
    pub states: Vec<State>,
    /// Every network namespace.
    pub all_netns: bool,
}

/// What `kaprobe audit` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPlan {
    /// The snapshot: of whole namespaces, since listeners tell who accepted.
    pub sockets: Selection,
    /// Connections to keep.
    pub keep: SocketFilter,
    /// Processes to keep; empty for all.
    pub pids: BTreeSet<u32>,
    /// Commands to keep; empty for all.
    pub comms: BTreeSet<Escaped>,
    /// Idle timeouts on every way. With no log either, those of the host are read.
    pub timeouts: Vec<Timeout>,
    /// Logs that show others.
    pub logs: Vec<Input>,
    /// Connections of the host with itself too.
    pub loopback: bool,
    /// Format of standard output.
    pub format: Format,
    /// A heading over text and CSV.
    pub heading: bool,
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

/// A log to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// What the BPF programs keep: a socket that passes every filter that is set. What is
/// empty or `None` is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFilter {
    /// One bit for each [`kind`] to send up.
    pub event_mask: u32,
    /// Ports, networks and address family.
    pub sockets: SocketFilter,
    /// Network namespaces to keep, as they were named; at most [`MAX_NETNS`].
    pub netns: Vec<String>,
    /// cgroups to keep, as they were named; at most [`MAX_CGROUPS`].
    pub cgroups: Vec<PathBuf>,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// Format of standard output.
    pub screen: Format,
    /// The log, where one is asked for.
    pub file: Option<LogFile>,
    /// How text looks, on the screen and in a file; a file is never colored.
    pub text: TextStyle,
}

/// A log to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Where.
    pub path: PathBuf,
    /// In which format.
    pub format: Format,
    /// Overwrite what is there.
    pub overwrite: bool,
}

/// How text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextStyle {
    /// Clock in the first column.
    pub time: TimeFormat,
    /// Long lines with every detail.
    pub wide: bool,
    /// A heading over the columns; CSV's too.
    pub heading: bool,
    /// Color on the screen.
    pub color: ColorWhen,
}

/// Form of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One object a line; of a trace, the log that can be replayed.
    Json,
    /// For spreadsheets.
    Csv,
}

/// Clock of text lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimeFormat {
    /// Local time of day, to the ms.
    Clock,
    /// Date and time in UTC, to the ns.
    Rfc3339,
    /// Seconds since 1970 in UTC.
    Unix,
    /// Seconds of CLOCK_MONOTONIC.
    Mono,
    /// Seconds since the first line.
    Relative,
}

/// When to color text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A way to attach, or `None` for the cheapest that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach(pub Option<Way>);

/// One or more events, as `--events` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// All but the noise.
    Default,
    /// All.
    All,
    /// This one.
    One(EventName),
}

impl Events {
    /// Every value.
    pub const ALL: &'static [Self] = &{
        let mut all = [Self::Default; 2 + EventName::ALL.len()];
        all[1] = Self::All;
        let mut index = 0;
        while index < EventName::ALL.len() {
            all[2 + index] = Self::One(EventName::ALL[index]);
            index += 1;
        }
        all
    };

    fn names(self) -> impl Iterator<Item = EventName> {
        EventName::ALL
            .iter()
            .copied()
            .filter(move |name| match self {
                Self::Default => !NOISE.contains(name),
                Self::All => true,
                Self::One(one) => one == *name,
            })
    }
}

/// Firings that say that there is nothing to say. Dropped in the kernel unless asked
/// for.
const NOISE: [EventName; 3] = [EventName::Early, EventName::DataPending, EventName::Busy];

/// What the kernel keeps of a command's name, bytes: TASK_COMM_LEN less its NUL.
const COMM_LEN: usize = 15;

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
        at_most(MAX_NETNS, "--netns", filters.records.sockets.netns.len())?;
        at_most(MAX_CGROUPS, "--cgroup", filters.cgroup.len())?;
        if running.ready_file.is_some() && running.ready_file == output.output {
            return Err(exit::Error::usage(
                "--ready-file and --output name the same file",
            ));
        }
        let events = events(&filters.records, Events::Default);
        Ok(Self {
            given: given(&filters.records, &filters.cgroup, &events),
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

impl ReplayPlan {
    /// Checks the arguments of `kaprobe replay` and makes them a plan.
    ///
    /// # Errors
    /// Of [`exit::Code::Usage`], naming the argument that can't be.
    pub fn new(args: ReplayArgs) -> Result<Self, exit::Error> {
        let ReplayArgs {
            logs,
            summary,
            filters,
            output,
        } = args;
        let outputs = outputs(&output)?;
        if summary && outputs.screen == Format::Csv {
            return Err(exit::Error::usage(
                "--summary is text or JSON lines, not CSV",
            ));
        }
        let logs: Vec<_> = logs.into_iter().map(input).collect();
        if logs.iter().filter(|log| **log == Input::Stdin).count() > 1 {
            return Err(exit::Error::usage("standard input can be read only once"));
        }
        // What the log has was asked for when it was made.
        let events = events(&filters, Events::All);
        let given = match filters.events.as_slice() {
            [] => given(&filters, &[], &BTreeSet::new()),
            _ => given(&filters, &[], &events),
        };
        let sockets = sockets(&filters.sockets);
        let netns: Result<_, _> = filters.sockets.netns.iter().map(|it| inode(it)).collect();
        Ok(Self {
            logs,
            given,
            outputs,
            summary,
            quiet: output.quiet,
            records: RecordFilter {
                sockets,
                netns: netns?,
                ..records(filters, events)
            },
        })
    }
}

impl SocketsPlan {
    /// Checks the arguments of `kaprobe sockets` and makes them a plan.
    ///
    /// # Errors
    /// Of [`exit::Code::Usage`], naming the argument that can't be.
    pub fn new(args: SocketsArgs) -> Result<Self, exit::Error> {
        at_most(MAX_CGROUPS, "--cgroup", args.cgroup.len())?;
        Ok(Self {
            selection: Selection {
                kernel: KernelFilter {
                    sockets: sockets(&args.of.sockets),
                    netns: args.of.sockets.netns.clone(),
                    cgroups: args.cgroup,
                    ..KernelFilter::default()
                },
                pids: pids(&args.of.sockets),
                comms: comms(&args.of.sockets),
                states: args.state,
                all_netns: args.of.all_netns,
            },
            sort: args.sort,
            watch: args.watch,
            format: args.rows.format(),
            heading: !args.rows.no_header,
            wide: args.wide,
        })
    }
}

impl AuditPlan {
    /// Checks the arguments of `kaprobe audit` and makes them a plan.
    ///
    /// # Errors
    /// Of [`exit::Code::Usage`], naming the arguments that can't be together.
    pub fn new(args: AuditArgs) -> Result<Self, exit::Error> {
        let logs: Vec<_> = args.log.into_iter().map(input).collect();
        if logs.iter().filter(|log| **log == Input::Stdin).count() > 1 {
            return Err(exit::Error::usage("standard input can be read only once"));
        }
        if args.idle_timeout.is_some() && args.behind.len() > 1 {
            return Err(exit::Error::usage(
                "--idle-timeout goes with one --behind: whose is it?",
            ));
        }
        let given_ms = args
            .idle_timeout
            .map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
        let behind = middleboxes().into_iter();
        let behind = behind.filter(|it| args.behind.contains(&it.id));
        let mut timeouts: Vec<_> = behind
            .map(|it| Timeout::of_middlebox(&it, given_ms))
            .collect();
        if timeouts.is_empty() {
            timeouts.extend(given_ms.map(Timeout::given));
        }
        Ok(Self {
            sockets: Selection {
                kernel: KernelFilter {
                    netns: args.of.sockets.netns.clone(),
                    ..KernelFilter::default()
                },
                states: vec![State::Listen, State::Established],
                all_netns: args.of.all_netns,
                ..Selection::default()
            },
            keep: sockets(&args.of.sockets),
            pids: pids(&args.of.sockets),
            comms: comms(&args.of.sockets),
            timeouts,
            logs,
            loopback: args.loopback,
            format: args.rows.format(),
            heading: !args.rows.no_header,
        })
    }

    /// Whether this connection is asked for.
    #[must_use]
    pub fn keeps(&self, row: &Row) -> bool {
        let local = (Some(row.laddr), Some(row.lport));
        let remote = (Some(row.raddr), Some(row.rport));
        self.keep.keeps_ends(Some(row.family), local, remote)
            && passes(&self.pids, row.pid.as_ref())
            && passes(&self.comms, row.comm.as_ref())
    }
}

fn input(log: PathBuf) -> Input {
    if log == Path::new("-") {
        Input::Stdin
    } else {
        Input::File(log)
    }
}

/// The inode number of a network namespace, which is all that a log knows of it.
fn inode(netns: &str) -> Result<u32, exit::Error> {
    netns.parse().map_err(|_| {
        let shown = Escaped::from(netns);
        exit::Error::usage(format!(
            "--netns {shown}: a log knows a network namespace by its inode number only"
        ))
    })
}

/// The events asked for, those of `unless_asked` where none are.
fn events(args: &RecordArgs, unless_asked: Events) -> BTreeSet<EventName> {
    match args.events.as_slice() {
        [] => unless_asked.names().collect(),
        asked => asked.iter().flat_map(|it| it.names()).collect(),
    }
}

fn sockets(args: &SocketArgs) -> SocketFilter {
    SocketFilter {
        local_ports: args.localport.clone().into(),
        remote_ports: args.remoteport.clone().into(),
        ports: args.port.clone().into(),
        networks: args.addr.clone(),
        family: family(args),
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

/// What only user space can tell of a record.
fn records(args: RecordArgs, events: BTreeSet<EventName>) -> RecordFilter {
    RecordFilter {
        events,
        pids: pids(&args.sockets),
        comms: comms(&args.sockets),
        count: args.count,
        ..RecordFilter::default()
    }
}

fn pids(args: &SocketArgs) -> BTreeSet<u32> {
    args.pid.iter().copied().map(NonZeroU32::get).collect()
}

fn comms(args: &SocketArgs) -> BTreeSet<Escaped> {
    args.comm.iter().map(|comm| kept_comm(comm)).collect()
}

/// The kinds of [`kind`] that these records are made of.
///
/// `closed` is always among them: it is what lets user space forget a socket.
fn event_mask(events: &BTreeSet<EventName>) -> u32 {
    let bits = events.iter().map(|event| match event {
        // An answer is derived from its probe and the firing after it, which the
        // kernel sends unasked (`flag::NEWS`).
        EventName::Probe | EventName::Answered => 1 << kind::PROBE,
        EventName::ProbeCongested => 1 << kind::PROBE_CONGESTED,
        EventName::Early => 1 << kind::EARLY,
        EventName::DataPending => 1 << kind::DATA_PENDING,
        EventName::Busy => 1 << kind::BUSY,
        EventName::Timeout => 1 << kind::TIMEOUT,
        EventName::FinWait2 => 1 << kind::FIN_WAIT2,
        EventName::NotRearmed => 1 << kind::NOT_REARMED,
        EventName::Unclassified => 1 << kind::UNCLASSIFIED,
        EventName::RstSent => 1 << kind::RST_SENT | 1 << kind::RST_PASSIVE,
        // It is told of sockets that were spoken of: the same ones, whatever else is
        // shown.
        EventName::Closed => SPOKEN_OF,
        EventName::RstReceived => 1 << kind::RST_RECEIVED,
        EventName::Verdict => VERDICT_KINDS,
        // Told of by no hook.
        EventName::Lost | EventName::Zombie => 0,
    });
    bits.fold(1 << kind::CLOSED, |mask, bit| mask | bit)
}

/// The kinds that make a socket one that `closed` is told of: all but noise.
const SPOKEN_OF: u32 =
    (1 << kind::COUNT) - 1 - (1 << kind::EARLY) - (1 << kind::DATA_PENDING) - (1 << kind::BUSY);

/// The kinds that verdicts rest on.
const VERDICT_KINDS: u32 = 1 << kind::PROBE
    | 1 << kind::TIMEOUT
    | 1 << kind::FIN_WAIT2
    | 1 << kind::RST_SENT
    | 1 << kind::RST_PASSIVE
    | 1 << kind::RST_RECEIVED;

fn family(args: &SocketArgs) -> Option<Family> {
    match (args.ipv4, args.ipv6) {
        (true, false) => Some(Family::Inet),
        (false, true) => Some(Family::Inet6),
        _ => None,
    }
}

/// What the kernel keeps of that name.
fn kept_comm(comm: &OsStr) -> Escaped {
    let bytes = comm.as_bytes();
    Escaped::from_bytes(&bytes[..bytes.len().min(COMM_LEN)])
}

fn at_most(most: usize, flag: &str, given: usize) -> Result<(), exit::Error> {
    if given > most {
        return Err(exit::Error::usage(format!(
            "{flag} takes at most {most} values, not {given}"
        )));
    }
    Ok(())
}

fn outputs(args: &OutputArgs) -> Result<Outputs, exit::Error> {
    let file = args
        .output
        .as_deref()
        .map(|path| log_file(path, args))
        .transpose()?;
    let screen = match (args.json, args.format, &file) {
        (true, Some(Format::Text | Format::Csv), None) => {
            return Err(exit::Error::usage(
                "--json and --format disagree about the screen",
            ));
        }
        (true, ..) => Format::Json,
        (false, Some(format), None) => format,
        (false, ..) => Format::Text,
    };
    let text = TextStyle {
        time: args.time,
        wide: args.wide,
        heading: !args.no_header,
        color: args.color,
    };
    Ok(Outputs { screen, file, text })
}

fn log_file(path: &Path, args: &OutputArgs) -> Result<LogFile, exit::Error> {
    let shown = Escaped::from_bytes(path.as_os_str().as_bytes());
    if path == Path::new("-") {
        return Err(exit::Error::usage(
            "--output names a file; --format and --json are for the screen",
        ));
    }
    if path.file_name().is_none() || path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(exit::Error::usage(format!(
            "--output {shown}: not the name of a file"
        )));
    }
    let format = args.format.or_else(|| by_extension(path)).ok_or_else(|| {
        exit::Error::usage(format!(
            "--output {shown}: no format goes by that extension; use .jsonl, .json, .csv or .txt, or add --format"
        ))
    })?;
    Ok(LogFile {
        path: path.to_owned(),
        format,
        overwrite: args.force,
    })
}

fn by_extension(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "jsonl" | "json" | "ndjson" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        "txt" | "log" => Some(Format::Text),
        _ => None,
    }
}

/// The filters by the names of their flags.
fn given(args: &RecordArgs, cgroups: &[PathBuf], events: &BTreeSet<EventName>) -> Filters {
    fn all<T: ToString>(values: &[T]) -> Vec<String> {
        values.iter().map(T::to_string).collect()
    }
    let socket = &args.sockets;
    let escaped = |bytes: &[u8]| Escaped::from_bytes(bytes).to_string();
    let family = family(socket).map(|family| family.word().to_owned());
    let comms = socket
        .comm
        .iter()
        .map(|comm| escaped(comm.as_bytes()))
        .collect();
    let cgroups = cgroups
        .iter()
        .map(|path| escaped(path.as_os_str().as_bytes()))
        .collect();
    let netns = socket
        .netns
        .iter()
        .map(|name| escaped(name.as_bytes()))
        .collect();
    let filters = [
        ("port", all(&socket.port)),
        ("localport", all(&socket.localport)),
        ("remoteport", all(&socket.remoteport)),
        ("addr", all(&socket.addr)),
        ("family", family.into_iter().collect()),
        ("pid", all(&socket.pid)),
        ("comm", comms),
        ("netns", netns),
        ("cgroup", cgroups),
        (
            "events",
            events.iter().map(|event| event.word().to_owned()).collect(),
        ),
    ];
    let count = ("count", all(args.count.as_slice()));
    let set = filters.into_iter().chain([count]);
    let set = set.filter(|(_, values)| !values.is_empty());
    set.map(|(flag, values)| (flag.to_owned(), values))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Asked, Command};

    /// The plan of `kaprobe trace` with these arguments, or the one line that says
    /// why there is none.
    fn plan(args: &str) -> Result<TracePlan, String> {
        let words = ["kaprobe", "trace"]
            .into_iter()
            .chain(args.split_whitespace());
        match cli::parse(words).map_err(|why| why.to_string())? {
            Asked::Run(Command::Trace(args)) => {
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
                Asked::Run(Command::Sockets(args)) => SocketsPlan::new(*args),
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
