//! The command line: commands, flags, and their conversion to filters and outputs.

pub mod args;
pub mod filters;
pub mod outputs;
pub mod timeouts;
pub mod values;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::cli::args::{
    AuditArgs, DemoArgs, DoctorArgs, RecordingArgs, ReplayArgs, ReportArgs, SocketsArgs, TopArgs,
    TraceArgs,
};
use crate::exit;

/// Is TCP keepalive working on this connection, and why did this idle connection die?
#[derive(Debug, Parser)]
#[command(
    name = "kaprobe",
    version,
    arg_required_else_help = true,
    max_term_width = 80
)]
struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show keepalive timers and resets of this host's TCP connections as they happen
    Trace(Box<TraceArgs>),
    /// Show connections and their keepalive by program and remote endpoint, live
    Top(Box<TopArgs>),
    /// Keep the last days of a trace in a folder, in little room
    Record(Box<RecordingArgs>),
    /// Show the records of logs, from one host or several
    Replay(Box<ReplayArgs>),
    /// Write what logs show as one HTML file, to attach to a ticket
    Report(Box<ReportArgs>),
    /// Show every TCP socket now: its timer, its keepalive settings, when it gives up
    Sockets(Box<SocketsArgs>),
    /// Show which connections an idle timeout would kill, and what setting saves each
    Audit(Box<AuditArgs>),
    /// Make loopback connections that answer, go silent or vanish, and trace them
    Demo(DemoArgs),
    /// Show what this kernel and these privileges allow
    Doctor(DoctorArgs),
}

/// An action parsed from the command line.
#[derive(Debug)]
pub enum Action {
    /// Run a command.
    Run(Command),
    /// Print help or the version on stdout, with colors, and exit with 0.
    Print(clap::builder::StyledStr),
}

/// Reads the command line.
///
/// # Errors
/// [`exit::Code::Usage`], with a message of one line.
pub fn parse<I, T>(args: I) -> Result<Action, exit::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    use clap::error::ErrorKind;
    match Cli::try_parse_from(args) {
        Ok(cli) => Ok(Action::Run(cli.command)),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Action::Print(error.render())),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Err(exit::Error::usage(
                "no command: it is trace, top, record, replay, report, sockets, audit, demo or doctor; see kaprobe --help",
            )),
            _ => Err(exit::Error::usage(one_line(&error.to_string()))),
        },
    }
}

/// Joins the lines of a clap error, without the usage at its end.
fn one_line(error: &str) -> String {
    let lines = error
        .strip_prefix("error: ")
        .unwrap_or(error)
        .lines()
        .map(str::trim);
    let lines =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let mut line = String::new();
    for part in lines.filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push_str(if part.starts_with("tip:") { "; " } else { " " });
        }
        line.push_str(part);
    }
    line
}
