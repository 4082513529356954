//! The validated plan of a command: everything that the arguments decide, checked,
//! before anything is done. Makes no system call.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use ipnet::IpNet;
use jiff::SignedDuration;
use kaprobe_ebpf::config::{MAX_CGROUPS, MAX_NETNS};
use kaprobe_ebpf::wire::kind;

use crate::cli::TraceArgs;
use crate::escape::Escaped;
use crate::exit;
use crate::filter::RecordFilter;
use crate::ports::PortSet;
use crate::record::{EventName, Family};
use crate::way::Way;
use crate::words::Word as _;

/// What `kaprobe trace` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracePlan {
    /// What the BPF programs keep.
    pub kernel: KernelFilter,
    /// What is kept of their records; user space alone can tell.
    pub records: RecordFilter,
    /// Every filter as it was given, for the log's header.
    pub given: BTreeMap<String, Vec<String>>,
    /// Where records go.
    pub outputs: Outputs,
    /// When to stop.
    pub duration: Option<Duration>,
    /// The way to attach that was asked for; `None` takes the cheapest that works.
    pub attach: Option<Way>,
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

/// What the BPF programs keep: a socket that passes every filter that is set. What is
/// empty or `None` is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFilter {
    /// One bit for each [`kind`] to send up.
    pub event_mask: u32,
    /// Local ports to keep.
    pub local_ports: PortSet,
    /// Remote ports to keep.
    pub remote_ports: PortSet,
    /// Ports to keep on either side.
    pub ports: PortSet,
    /// Networks to keep on either side. IPv4 ones hold IPv4-mapped addresses too, and
    /// none is itself IPv4-mapped.
    pub networks: Vec<IpNet>,
    /// Address family of the sockets to keep.
    pub family: Option<Family>,
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
    /// One object a line: the log that can be replayed.
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
        let outputs = outputs(&args)?;
        let events: BTreeSet<_> = args
            .events
            .iter()
            .flat_map(|events| events.names())
            .collect();
        at_most(MAX_NETNS, "--netns", args.netns.len())?;
        at_most(MAX_CGROUPS, "--cgroup", args.cgroup.len())?;
        if args.ready_file.is_some() && args.ready_file == args.output {
            return Err(exit::Error::usage(
                "--ready-file and --output name the same file",
            ));
        }
        Ok(Self {
            given: given(&args, &events),
            outputs,
            duration: args.duration.map(positive).transpose()?,
            attach: args.attach.0,
            ready_file: args.ready_file,
            buffer_bytes: args.buffer_size,
            debug: args.debug,
            quiet: args.quiet,
            kernel: KernelFilter {
                event_mask: event_mask(&events),
                local_ports: args.localport.into(),
                remote_ports: args.remoteport.into(),
                ports: args.port.into(),
                networks: args.addr,
                family: family(args.ipv4, args.ipv6),
                netns: args.netns,
                cgroups: args.cgroup,
            },
            records: RecordFilter {
                events,
                pids: args.pid.into_iter().collect(),
                comms: args.comm.iter().map(|comm| kept_comm(comm)).collect(),
                count: args.count,
            },
        })
    }
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
        EventName::RstSent => 1 << kind::RST_SENT,
        EventName::Closed => 1 << kind::CLOSED,
        EventName::Lost => 0,
    });
    bits.fold(1 << kind::CLOSED, |mask, bit| mask | bit)
}

fn family(ipv4: bool, ipv6: bool) -> Option<Family> {
    match (ipv4, ipv6) {
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

fn positive(duration: SignedDuration) -> Result<Duration, exit::Error> {
    let positive = Duration::try_from(duration).ok().filter(|it| !it.is_zero());
    positive.ok_or_else(|| exit::Error::usage("--duration must be longer than nothing"))
}

fn outputs(args: &TraceArgs) -> Result<Outputs, exit::Error> {
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

fn log_file(path: &Path, args: &TraceArgs) -> Result<LogFile, exit::Error> {
    let shown = path.display();
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

/// The filters by the names of their flags; events always, for they always filter.
fn given(args: &TraceArgs, events: &BTreeSet<EventName>) -> BTreeMap<String, Vec<String>> {
    fn all<T: ToString>(values: &[T]) -> Vec<String> {
        values.iter().map(T::to_string).collect()
    }
    let escaped = |bytes: &[u8]| Escaped::from_bytes(bytes).to_string();
    let family = family(args.ipv4, args.ipv6).map(|family| family.word().to_owned());
    let comms = args
        .comm
        .iter()
        .map(|comm| escaped(comm.as_bytes()))
        .collect();
    let cgroups = args
        .cgroup
        .iter()
        .map(|path| escaped(path.as_os_str().as_bytes()))
        .collect();
    let netns = args
        .netns
        .iter()
        .map(|name| escaped(name.as_bytes()))
        .collect();
    let filters = [
        ("port", all(&args.port)),
        ("localport", all(&args.localport)),
        ("remoteport", all(&args.remoteport)),
        ("addr", all(&args.addr)),
        ("family", family.into_iter().collect()),
        ("pid", all(&args.pid)),
        ("comm", comms),
        ("netns", netns),
        ("cgroup", cgroups),
        (
            "events",
            events.iter().map(|event| event.word().to_owned()).collect(),
        ),
    ];
    let set = filters.into_iter().filter(|(_, values)| !values.is_empty());
    set.map(|(flag, values)| (flag.to_owned(), values))
        .collect()
}

/// Reads `ADDR` or `ADDR/LEN`. Bits past the length are dropped; an IPv4-mapped
/// network becomes the IPv4 one that it is.
///
/// # Errors
/// When the text is neither.
pub fn network(text: &str) -> Result<IpNet, &'static str> {
    const WRONG: &str = "neither an address nor a network such as 10.0.0.0/8 or fd00::/8";
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| WRONG)?,
    };
    let unmapped = match network {
        IpNet::V6(mapped) if mapped.prefix_len() >= 96 => mapped
            .addr()
            .to_ipv4_mapped()
            .and_then(|addr| IpNet::new(addr.into(), mapped.prefix_len() - 96).ok()),
        _ => None,
    };
    Ok(unmapped.unwrap_or(network).trunc())
}

/// Reads a size of the ring buffer, such as `4MiB`, and rounds it up to a power of
/// two, 4096 at least.
///
/// # Errors
/// When it is no size, nothing, or more than 1 GiB.
pub fn size(text: &str) -> Result<u32, &'static str> {
    const MOST: u64 = 1 << 30;
    let ByteSize(bytes) = text
        .parse()
        .map_err(|_| "no size such as 65536, 256KiB or 4MiB")?;
    match bytes {
        0 => Err("a buffer of nothing holds nothing"),
        1..=MOST => Ok(u32::try_from(bytes.next_power_of_two().max(4096)).unwrap_or(1 << 30)),
        _ => Err("more than 1GiB"),
    }
}
