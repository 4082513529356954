//! Converts flags to filters.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::cli::args::{NodeArgs, RecordArgs, SocketArgs};
use crate::exit;
use crate::filter::events::EventSet;
use crate::filter::processes::ProcessFilter;
use crate::filter::{RecordFilter, SocketFilter};
use crate::model::header::Filters;
use crate::model::named::Named as _;
use crate::model::record::EventName;
use crate::model::values::Family;
use crate::text::escape::Escaped;

/// Length of a command name in the kernel, bytes: TASK_COMM_LEN minus its NUL.
const COMM_LEN: usize = 15;

/// The events from `--events`, or `default` without it.
pub fn events(args: &RecordArgs, default: EventSet) -> BTreeSet<EventName> {
    match args.events.as_slice() {
        [] => default.names().collect(),
        values => values.iter().flat_map(|it| it.names()).collect(),
    }
}

/// The socket filter from the flags.
#[must_use]
pub fn sockets(args: &SocketArgs) -> SocketFilter {
    SocketFilter {
        local_ports: args.localport.clone().into(),
        remote_ports: args.remoteport.clone().into(),
        ports: args.port.clone().into(),
        networks: args.addr.clone(),
        family: family(args),
    }
}

/// The record filter for the conditions that only user space can check.
pub fn records(args: RecordArgs, events: BTreeSet<EventName>) -> RecordFilter {
    RecordFilter {
        events,
        processes: processes(&args.sockets),
        count: args.count,
        ..RecordFilter::default()
    }
}

/// The filter of processes from the flags.
#[must_use]
pub fn processes(args: &SocketArgs) -> ProcessFilter {
    let names = |all: &[OsString]| all.iter().map(|it| escaped(it)).collect();
    ProcessFilter {
        pids: args.pid.iter().copied().map(NonZeroU32::get).collect(),
        comms: args.comm.iter().map(|comm| truncated_comm(comm)).collect(),
        units: names(&args.unit),
        containers: names(&args.container),
        pods: args.pod.iter().cloned().collect(),
        pod_namespaces: names(&args.pod_namespace),
    }
}

fn escaped(text: &OsStr) -> Escaped {
    Escaped::from_bytes(text.as_bytes())
}

/// The address family to keep; `None` for both.
#[must_use]
pub fn family(args: &SocketArgs) -> Option<Family> {
    match (args.ipv4, args.ipv6) {
        (true, false) => Some(Family::Inet),
        (false, true) => Some(Family::Inet6),
        _ => None,
    }
}

/// A command name, cut to the length that the kernel keeps.
pub fn truncated_comm(comm: &OsStr) -> Escaped {
    let bytes = comm.as_bytes();
    Escaped::from_bytes(&bytes[..bytes.len().min(COMM_LEN)])
}

/// The flags that select the same sockets, without those on processes.
#[must_use]
pub fn as_flags(sockets: &SocketArgs, cgroups: &[PathBuf]) -> Vec<OsString> {
    let family = family(sockets).map(|family| match family {
        Family::Inet => "--ipv4".into(),
        Family::Inet6 => "--ipv6".into(),
    });
    let given = [
        flag("port", &sockets.port),
        flag("localport", &sockets.localport),
        flag("remoteport", &sockets.remoteport),
        flag("addr", &sockets.addr),
        family,
        flag("netns", &sockets.netns),
    ];
    let cgroups = cgroups.iter().map(|path| with_value("--cgroup=", path));
    given.into_iter().flatten().chain(cgroups).collect()
}

/// The flags that select the same processes.
#[must_use]
pub fn process_flags(sockets: &SocketArgs) -> Vec<OsString> {
    let names = [
        ("--comm=", &sockets.comm),
        ("--unit=", &sockets.unit),
        ("--container=", &sockets.container),
        ("--pod-namespace=", &sockets.pod_namespace),
    ];
    let names = names
        .into_iter()
        .flat_map(|(flag, names)| names.iter().map(move |it| with_value(flag, it)));
    let given = [flag("pid", &sockets.pid), flag("pod", &sockets.pod)];
    given.into_iter().flatten().chain(names).collect()
}

/// The flag that names the root directory of the host.
#[must_use]
pub fn host_root(node: &NodeArgs) -> Option<OsString> {
    let root = node.host_root.as_ref();
    root.map(|it| with_value("--host-root=", it))
}

/// A flag with these values. `None` if there are none.
fn flag<T: ToString>(name: &str, values: &[T]) -> Option<OsString> {
    let values: Vec<_> = values.iter().map(T::to_string).collect();
    (!values.is_empty()).then(|| format!("--{name}={}", values.join(",")).into())
}

fn with_value(flag: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut text = OsString::from(flag);
    text.push(value);
    text
}

/// Checks the number of a flag's values.
///
/// # Errors
/// [`exit::Code::Usage`] if there are more than `max`.
pub fn check_count(max: usize, flag: &str, count: usize) -> Result<(), exit::Error> {
    if count > max {
        return Err(exit::Error::usage(format!(
            "{flag} takes at most {max} values, not {count}"
        )));
    }
    Ok(())
}

/// The filters of the command line, by flag name.
pub fn by_flag(args: &RecordArgs, cgroups: &[PathBuf], events: &BTreeSet<EventName>) -> Filters {
    fn all<T: ToString>(values: &[T]) -> Vec<String> {
        values.iter().map(T::to_string).collect()
    }
    let socket = &args.sockets;
    let names = |all: &[OsString]| all.iter().map(|it| escaped(it).to_string()).collect();
    let family = family(socket).map(|family| family.name().to_owned());
    let cgroups = cgroups
        .iter()
        .map(|path| Escaped::from_path(path).to_string())
        .collect();
    let netns = socket.netns.iter();
    let netns = netns.map(|it| Escaped::from(it.as_str()).to_string());
    let filters = [
        ("port", all(&socket.port)),
        ("localport", all(&socket.localport)),
        ("remoteport", all(&socket.remoteport)),
        ("addr", all(&socket.addr)),
        ("family", family.into_iter().collect()),
        ("pid", all(&socket.pid)),
        ("comm", names(&socket.comm)),
        ("unit", names(&socket.unit)),
        ("container", names(&socket.container)),
        ("pod", all(&socket.pod)),
        ("pod_namespace", names(&socket.pod_namespace)),
        ("netns", netns.collect()),
        ("cgroup", cgroups),
        (
            "events",
            events.iter().map(|event| event.name().to_owned()).collect(),
        ),
    ];
    let count = ("count", all(args.count.as_slice()));
    let set = filters.into_iter().chain([count]);
    let set = set.filter(|(_, values)| !values.is_empty());
    set.map(|(flag, values)| (flag.to_owned(), values))
        .collect()
}
