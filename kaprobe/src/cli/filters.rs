//! From flags to filters.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::cli::args::{RecordArgs, SocketArgs};
use crate::exit;
use crate::filter::events::EventSet;
use crate::filter::{RecordFilter, SocketFilter};
use crate::model::header::Filters;
use crate::model::named::Named as _;
use crate::model::record::EventName;
use crate::model::values::Family;
use crate::text::escape::Escaped;

/// What the kernel keeps of a command's name, bytes: TASK_COMM_LEN less its NUL.
const COMM_LEN: usize = 15;

/// The events asked for, those of `unless_asked` where none are.
pub fn events(args: &RecordArgs, unless_asked: EventSet) -> BTreeSet<EventName> {
    match args.events.as_slice() {
        [] => unless_asked.names().collect(),
        asked => asked.iter().flat_map(|it| it.names()).collect(),
    }
}

/// The filter of sockets that the flags ask for.
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

/// What only user space can tell of a record.
pub fn records(args: RecordArgs, events: BTreeSet<EventName>) -> RecordFilter {
    RecordFilter {
        events,
        pids: pids(&args.sockets),
        comms: comms(&args.sockets),
        count: args.count,
        ..RecordFilter::default()
    }
}

/// The processes to keep; empty for all.
#[must_use]
pub fn pids(args: &SocketArgs) -> BTreeSet<u32> {
    args.pid.iter().copied().map(NonZeroU32::get).collect()
}

/// The commands to keep; empty for all.
#[must_use]
pub fn comms(args: &SocketArgs) -> BTreeSet<Escaped> {
    args.comm.iter().map(|comm| kept_comm(comm)).collect()
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

/// What the kernel keeps of that name.
pub fn kept_comm(comm: &OsStr) -> Escaped {
    let bytes = comm.as_bytes();
    Escaped::from_bytes(&bytes[..bytes.len().min(COMM_LEN)])
}

/// Checks how many values a flag has.
///
/// # Errors
/// Of [`exit::Code::Usage`], when they are more than `most`.
pub fn at_most(most: usize, flag: &str, given: usize) -> Result<(), exit::Error> {
    if given > most {
        return Err(exit::Error::usage(format!(
            "{flag} takes at most {most} values, not {given}"
        )));
    }
    Ok(())
}

/// The filters by the names of their flags.
pub fn given(args: &RecordArgs, cgroups: &[PathBuf], events: &BTreeSet<EventName>) -> Filters {
    fn all<T: ToString>(values: &[T]) -> Vec<String> {
        values.iter().map(T::to_string).collect()
    }
    let socket = &args.sockets;
    let escaped = |bytes: &[u8]| Escaped::from_bytes(bytes).to_string();
    let family = family(socket).map(|family| family.name().to_owned());
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
            events.iter().map(|event| event.name().to_owned()).collect(),
        ),
    ];
    let count = ("count", all(args.count.as_slice()));
    let set = filters.into_iter().chain([count]);
    let set = set.filter(|(_, values)| !values.is_empty());
    set.map(|(flag, values)| (flag.to_owned(), values))
        .collect()
}
