//! How a guest ended.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Lines of the console that an error shows.
const TAIL: usize = 40;

/// What is known of a machine that is gone.
pub enum Report {
    /// What its init wrote to the verdict's port.
    Said(String),
    /// It was stopped, since the time was up.
    TimedOut(Duration),
    /// It was stopped, since nobody reads its output any more.
    Unread,
}

/// How the command, or the machine under it, ended.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// The command ended with this code.
    Exited(u8),
    /// There is no exit code; why, and where the console's log lies.
    Failed(Failure, PathBuf),
}

/// Why there is no exit code.
#[derive(Debug, PartialEq)]
pub enum Failure {
    /// The kernel panicked.
    Panicked,
    /// The time was up.
    TimedOut(Duration),
    /// Nobody read its output.
    Unread,
    /// The guest could not be set up.
    Broken(String),
    /// The machine ended without a word.
    Died,
}

/// Judges a machine by its report and its console.
pub fn judge(report: Report, console: &Path) -> Verdict {
    let text = fs::read(console).unwrap_or_default();
    match weigh(report, &String::from_utf8_lossy(&text)) {
        Ok(code) => Verdict::Exited(code),
        Err(failure) => Verdict::Failed(failure, console.to_owned()),
    }
}

/// Only a report of exactly one line counts: whatever the command itself wrote
/// to that port would make it two.
fn weigh(report: Report, console: &str) -> Result<u8, Failure> {
    let said = match report {
        Report::TimedOut(limit) => return Err(Failure::TimedOut(limit)),
        Report::Unread => return Err(Failure::Unread),
        Report::Said(said) => said,
    };
    if console.contains("Kernel panic - not syncing") {
        return Err(Failure::Panicked);
    }
    if let Some(reason) = said.strip_prefix("broken: ") {
        return Err(Failure::Broken(reason.trim_end().to_owned()));
    }
    let code = said
        .strip_prefix("exit ")
        .and_then(|code| code.strip_suffix('\n'));
    code.and_then(|code| code.parse().ok()).ok_or(Failure::Died)
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "the command ended with code {code}"),
            Self::Failed(failure, console) => {
                match failure {
                    Failure::Panicked => write!(f, "the guest's kernel panicked")?,
                    Failure::TimedOut(limit) => {
                        write!(f, "the guest was not done after {} s", limit.as_secs())?;
                    }
                    Failure::Unread => write!(f, "nobody reads the guest's output")?,
                    Failure::Broken(why) => write!(f, "the guest could not be set up: {why}")?,
                    Failure::Died => write!(f, "the guest ended without a verdict")?,
                }
                let text = fs::read(console).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let lines: Vec<_> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n  ");
                write!(f, "; its console, from {}:\n  {tail}", console.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_plain_line_is_an_exit_code() {
        let panic = "[ 1.0] Kernel panic - not syncing: Attempted to kill init!";
        for (said, console, verdict) in [
            ("exit 0\n", "", Ok(0)),
            ("exit 137\n", "noise", Ok(137)),
            ("exit 0\nexit 1\n", "", Err(Failure::Died)),
            ("exit 0", "", Err(Failure::Died)),
            ("exit 256\n", "", Err(Failure::Died)),
            ("", "", Err(Failure::Died)),
            ("", panic, Err(Failure::Panicked)),
            ("exit 0\n", panic, Err(Failure::Panicked)),
            (
                "broken: a module does not load\n",
                "",
                Err(Failure::Broken("a module does not load".into())),
            ),
        ] {
            assert_eq!(
                weigh(Report::Said(said.into()), console),
                verdict,
                "{said:?}"
            );
        }
    }

    #[test]
    fn a_timeout_wins() {
        let limit = Duration::from_secs(5);
        assert_eq!(
            weigh(Report::TimedOut(limit), ""),
            Err(Failure::TimedOut(limit))
        );
    }
}
