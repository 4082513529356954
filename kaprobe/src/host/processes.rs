//! Tells which of the processes that a user names do not exist.

use std::collections::BTreeSet;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::{exit, stderr};

/// Checks the process IDs of `-p`. Names those that do not exist: a process ID is given by the
/// kernel, so nothing is gained by waiting for one.
///
/// # Errors
/// [`exit::Code::Usage`] if there are some, and none exists.
pub fn check(pids: &BTreeSet<u32>) -> Result<(), exit::Error> {
    let gone: Vec<_> = pids.iter().filter(|&&pid| is_gone(pid)).collect();
    let named: Vec<_> = gone.iter().map(|it| it.to_string()).collect();
    let named = named.join(", ");
    match gone.len() {
        0 => Ok(()),
        count if count == pids.len() => {
            Err(exit::Error::usage(format!("-p: no such process: {named}")))
        }
        _ => {
            stderr::line(format_args!("-p: no such process: {named}"));
            Ok(())
        }
    }
}

/// Whether no process has this ID, neither in /proc nor in this process's pid namespace. Of
/// one that `hidepid` hides, a signal is refused otherwise.
fn is_gone(pid: u32) -> bool {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let answer = raw.map_or(Err(Errno::SRCH), test_kill_process);
    // Owners are found in /proc, which may be that of another pid namespace.
    answer == Err(Errno::SRCH) && rustix::fs::stat(format!("/proc/{pid}")).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No pid is that large (`PID_MAX_LIMIT`, include/linux/threads.h).
    const NONE: u32 = 4_194_305;

    #[test]
    fn a_process_that_does_not_exist_is_named() {
        let own = std::process::id();
        for (pids, expected) in [
            (&[][..], Ok(())),
            (&[own], Ok(())),
            (&[own, NONE], Ok(())),
            (&[1], Ok(())),
            (&[NONE], Err("-p: no such process: 4194305".to_owned())),
            (
                &[NONE, u32::MAX],
                Err("-p: no such process: 4194305, 4294967295".to_owned()),
            ),
        ] {
            let pids = pids.iter().copied().collect();
            assert_eq!(check(&pids).map_err(|why| why.to_string()), expected);
        }
    }
}
