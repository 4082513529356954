//! Why a guest ended: its exit code, or the failure.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs};

/// The number of last console lines that an error shows.
const TAIL: usize = 40;

/// How the machine ended, without its console.
pub enum Report {
    /// The text that its init wrote to the verdict port.
    Said(String),
    /// xtask stopped the machine at the time limit.
    TimedOut(Duration),
    /// xtask stopped the machine because its output can no longer be written.
    OutputClosed,
}

/// How the command, or the machine under it, ended.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// The command ended with this code.
    Exited(u8),
    /// There is no exit code; the reason, and the path of the console log.
    Failed(Failure, PathBuf),
}

/// Why there is no exit code.
#[derive(Debug, PartialEq)]
pub enum Failure {
    /// The kernel panicked.
    Panicked,
    /// The guest reached the time limit.
    TimedOut(Duration),
    /// The output could no longer be written.
    OutputClosed,
    /// The guest could not be set up.
    Broken(String),
    /// The machine ended without a verdict.
    Died,
}

/// Finds the verdict from the report and the console log.
pub fn judge(report: Report, console: &Path) -> Verdict {
    let text = fs::read(console).unwrap_or_default();
    match exit_code(report, &String::from_utf8_lossy(&text)) {
        Ok(code) => Verdict::Exited(code),
        Err(failure) => Verdict::Failed(failure, console.to_owned()),
    }
}

/// The exit code in a report of exactly one line.
///
/// If the command wrote to the verdict port too, there is more than one line.
fn exit_code(report: Report, console: &str) -> Result<u8, Failure> {
    let said = match report {
        Report::TimedOut(limit) => return Err(Failure::TimedOut(limit)),
        Report::OutputClosed => return Err(Failure::OutputClosed),
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
                    Failure::OutputClosed => {
                        write!(f, "the guest's output can no longer be written")?
                    }
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
                exit_code(Report::Said(said.into()), console),
                verdict,
                "{said:?}"
            );
        }
    }

    #[test]
    fn a_timeout_has_no_exit_code() {
        let limit = Duration::from_secs(5);
        assert_eq!(
            exit_code(Report::TimedOut(limit), ""),
            Err(Failure::TimedOut(limit))
        );
    }
}
