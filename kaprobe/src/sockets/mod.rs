//! `kaprobe sockets`: every TCP socket as it is now, older ones than kaprobe included.

pub mod forecast;
mod output;
pub mod row;

use std::{collections::BTreeSet, io, os::fd::AsFd as _, thread, time::Instant};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use self::{output::Output, row::Row};
use crate::{
    escape::Escaped,
    exit,
    filter::passes,
    host::{
        netns::{self, Netns},
        owner::Owners,
        privilege::{Privileges, raise_memlock},
    },
    kernel::{SocketIterator, Wanted},
    plan::{SocketsPlan, Sort},
};

/// Rows whose owners are looked up together.
const BATCH: usize = 1024;
/// How many namespaces are entered: each takes a descriptor.
const MOST_NETNS: usize = 512;
/// Bytes of the ring buffer, which is not used here: as few as can be.
const NO_BUFFER: u32 = 4096;

/// Runs `kaprobe sockets`.
///
/// # Errors
/// When the sockets can't be read, or not written. A closed pipe is no failure.
pub fn run(plan: &SocketsPlan) -> Result<()> {
    let mut output = Output::new(plan.format, plan.heading);
    let mut shown = output.head().map_err(Into::into);
    if shown.is_ok() {
        shown = each(plan, &mut |rows| {
            for row in rows {
                output.row(row)?;
            }
            Ok(output.flush()?)
        });
    }
    match shown {
        Err(why) if is_closed_pipe(&why) => Ok(()),
        other => other,
    }
}

/// Takes a snapshot, and shows it to `see` row by row in batches; in one where the plan
/// sorts.
///
/// # Errors
/// When the sockets can't be read, or `see` fails.
pub fn each(plan: &SocketsPlan, see: &mut (dyn FnMut(&[Row]) -> Result<()> + Send)) -> Result<()> {
    let privileges = Privileges::read().context("cannot read this process's privileges")?;
    privileges.check_trace()?;
    raise_memlock();
    let wanted = Wanted {
        filter: plan.kernel.clone(),
        buffer_bytes: NO_BUFFER,
        ..Wanted::default()
    };
    let iterator = SocketIterator::load(&wanted).context(exit::Error::kernel(
        "cannot take a snapshot of the TCP sockets",
    ))?;
    let places: Result<BTreeSet<u32>> = plan
        .kernel
        .netns
        .iter()
        .map(|name| name.parse::<Netns>()?.resolve())
        .collect();
    let places = places?;
    let mut snapshot = Snapshot::new(plan, see)?;
    // A thread of its own, as it goes from one namespace to the next.
    let taken = thread::scope(|scope| {
        let reader = scope.spawn(|| snapshot.take(iterator, &places));
        reader.join()
    });
    taken.map_err(|_| anyhow!("the thread that reads the sockets has died"))?
}

/// Whether nobody reads the output any more.
pub(crate) fn is_closed_pipe(why: &anyhow::Error) -> bool {
    let io = why.downcast_ref::<io::Error>();
    io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

/// A snapshot on its way from the kernel to whoever wants it.
struct Snapshot<'a> {
    plan: &'a SocketsPlan,
    owners: Owners,
    see: &'a mut (dyn FnMut(&[Row]) -> Result<()> + Send),
    waiting: Vec<Row>,
}

impl<'a> Snapshot<'a> {
    fn new(
        plan: &'a SocketsPlan,
        see: &'a mut (dyn FnMut(&[Row]) -> Result<()> + Send),
    ) -> Result<Self> {
        Ok(Self {
            plan,
            owners: Owners::new().context("cannot read /proc")?,
            see,
            waiting: Vec::new(),
        })
    }

    /// Shows the sockets of these namespaces; of all with `--all-netns`, of this
    /// thread's where none are named.
    fn take(&mut self, mut iterator: SocketIterator, places: &BTreeSet<u32>) -> Result<()> {
        if places.is_empty() && !self.plan.all_netns {
            self.here(&mut iterator)?;
        } else {
            let all = netns::all(MOST_NETNS);
            if all.len() == MOST_NETNS {
                eprintln!("kaprobe: more than {MOST_NETNS} network namespaces: not all are shown");
            }
            for place in places.iter().filter(|place| !all.contains_key(place)) {
                eprintln!("kaprobe: network namespace {place} cannot be entered: left out");
            }
            for (place, file) in all {
                if !places.is_empty() && !places.contains(&place) {
                    continue;
                }
                let kind = Some(LinkNameSpaceType::Network);
                match move_into_link_name_space(file.as_fd(), kind) {
                    Ok(()) => self.here(&mut iterator)?,
                    Err(why) => eprintln!(
                        "kaprobe: network namespace {place} cannot be entered ({why}): left out"
                    ),
                }
            }
        }
        self.pass_on()?;
        let unreadable = self.owners.unreadable();
        if unreadable > 0 {
            eprintln!(
                "kaprobe: owners may be missing: the descriptors of {unreadable} of the host's \
                 processes cannot be read; CAP_SYS_PTRACE allows it"
            );
        }
        Ok(())
    }

    /// Shows the sockets of the namespace that this thread is in.
    fn here(&mut self, iterator: &mut SocketIterator) -> Result<()> {
        let names = netns::names();
        iterator.each(|row| {
            if !self.plan.states.is_empty() && !self.plan.states.contains(&row.state) {
                return Ok(());
            }
            let name = names
                .get(&row.netns)
                .map(|name| Escaped::from(name.as_str()));
            self.waiting.push(Row {
                netns_name: name,
                ..row
            });
            // What is sorted waits for the rest.
            if self.plan.sort.is_none() && self.waiting.len() >= BATCH {
                self.pass_on()?;
            }
            Ok(())
        })
    }

    /// Writes what waits.
    fn pass_on(&mut self) -> Result<()> {
        let mut rows = std::mem::take(&mut self.waiting);
        let now = Instant::now();
        self.owners
            .find(rows.iter().filter_map(|row| row.inode), now);
        for row in &mut rows {
            let owner = row.inode.and_then(|inode| self.owners.owner(inode, now));
            row.pid = owner.as_ref().map(|owner| owner.pid);
            row.comm = owner.map(|owner| Escaped::from_bytes(&owner.comm));
        }
        rows.retain(|row| passes(&self.plan.pids, row.pid.as_ref()));
        rows.retain(|row| passes(&self.plan.comms, row.comm.as_ref()));
        if let Some(sort) = self.plan.sort {
            order(&mut rows, sort);
        }
        (self.see)(&rows)
    }
}

/// Sorts by a column; what has no value there comes last.
fn order(rows: &mut [Row], by: Sort) {
    let last = |value: Option<u64>| value.unwrap_or(u64::MAX);
    rows.sort_by_key(|row| match by {
        Sort::Pid => last(row.pid.map(u64::from)),
        Sort::Lport => row.lport.into(),
        Sort::Rport => row.rport.into(),
        // The longest first.
        Sort::Idle => row.idle_ms.map_or(u64::MAX, |idle| u64::MAX - 1 - idle),
        Sort::Timer => last(row.timer_ms),
        Sort::Dead => last(row.dead_in_ms),
    });
}
