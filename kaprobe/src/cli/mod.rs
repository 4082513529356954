//! The command line: definitions of flags, and what they say in common.

pub mod args;
pub mod filters;
pub mod outputs;
pub mod values;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::cli::args::{AuditArgs, DemoArgs, DoctorArgs, ReplayArgs, SocketsArgs, TraceArgs};
use crate::exit;

/// Is TCP keepalive working on this connection, and why did this idle connection die?
#[derive(Debug, Parser)]
#[command(
    name = "kaprobe",
    version,
    arg_required_else_help = true,
    max_term_width = 80
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show keepalive timers and resets of this host's TCP connections as they happen
    Trace(Box<TraceArgs>),
    /// Show what logs have recorded, of one host or of several
    Replay(Box<ReplayArgs>),
    /// Show every TCP socket as it is now: its timer, its keepalive settings, its end
    Sockets(Box<SocketsArgs>),
    /// Say which connections an idle timeout would kill, and what setting saves each
    Audit(Box<AuditArgs>),
    /// Make loopback connections that live, go silent and vanish, and trace them
    Demo(DemoArgs),
    /// Say what this kernel and these privileges allow
    Doctor(DoctorArgs),
}

/// What the arguments ask for.
#[derive(Debug)]
pub enum Asked {
    /// A command to run.
    Run(Command),
    /// Help or the version: text for stdout, with its colors; then exit 0.
    Print(clap::builder::StyledStr),
}

/// Reads the command line.
///
/// # Errors
/// Of [`exit::Code::Usage`], in one line.
pub fn parse<I, T>(args: I) -> Result<Asked, exit::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    use clap::error::ErrorKind;
    match Cli::try_parse_from(args) {
        Ok(cli) => Ok(Asked::Run(cli.command)),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Asked::Print(error.render())),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Err(exit::Error::usage(
                "no command: it is trace, replay, sockets, audit, demo or doctor; see kaprobe --help",
            )),
            _ => Err(exit::Error::usage(one_line(&error.to_string()))),
        },
    }
}

/// What clap says over several lines, less the usage that follows it.
fn one_line(error: &str) -> String {
    let said = error
        .strip_prefix("error: ")
        .unwrap_or(error)
        .lines()
        .map(str::trim);
    let said = said.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let mut line = String::new();
    for part in said.filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push_str(if part.starts_with("tip:") { "; " } else { " " });
        }
        line.push_str(part);
    }
    line
}
