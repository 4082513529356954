//! The command line: commands, flags, and their conversion to filters and outputs.

pub mod args;
pub mod filters;
pub mod guides;
pub mod outputs;
pub mod timeouts;
pub mod values;

use std::error::Error as _;
use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::cli::args::{
    AgentArgs, AuditArgs, CompletionsArgs, DemoArgs, DoctorArgs, ExplainArgs, ManArgs,
    RecordingArgs, ReplayArgs, ReportArgs, SocketsArgs, TopArgs, TraceArgs,
};
use crate::cli::guides::guide;
use crate::{exit, sink, version};

/// Is TCP keepalive working on this connection, and why did this idle connection die?
#[derive(Debug, Parser)]
#[command(name = "kaprobe", version = version::FULL, arg_required_else_help = true)]
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
    /// Run as a service: metrics for Prometheus, and a recorder
    Agent(Box<AgentArgs>),
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
    /// Say what a verdict or an event means, what to check, and what to set
    Explain(ExplainArgs),
    /// Write a completion script for a shell
    Completions(CompletionsArgs),
    /// Write the man pages
    Man(ManArgs),
}

/// An action parsed from the command line.
#[derive(Debug)]
pub enum Action {
    /// Run a command.
    Run(Command),
    /// Print help or the version on stdout, with colors, and exit with 0.
    Print(StyledStr),
}

/// The width of help in a pipe or file, and the greatest on a terminal.
const WIDTH: usize = 80;

/// The most values of a flag that are listed beside it.
const FEW_VALUES: usize = 6;

/// Flags that other commands have too, and that the short help of `agent` leaves out: a service
/// seldom needs them.
const SELDOM: [&str; 3] = ["localport", "addr", "pid"];

/// What `agent` refuses among the flags of a trace: with some events alone its counts would be
/// wrong, and a service does not end after some records.
const REFUSED: [&str; 2] = ["events", "count"];

/// The commands and flags. Their help fits a screen of this width.
#[must_use]
pub fn command(width: Option<usize>) -> clap::Command {
    let width = width.map_or(WIDTH, |it| it.min(WIDTH));
    let guided = |command: clap::Command, name: &str| {
        let command = with_help_flag(command).term_width(width);
        match guide(name) {
            Some(guide) => command.after_long_help(guide.text(width)),
            None => command,
        }
    };
    guided(Cli::command(), "").mut_subcommands(|it| {
        let name = it.get_name().to_owned();
        let is_agents =
            |flags: &[&str], arg: &Arg| name == "agent" && flags.contains(&arg.get_id().as_str());
        guided(it, &name)
            .mut_args(with_values_below)
            .mut_args(|arg| {
                let is_seldom = is_agents(&SELDOM, &arg) || arg.is_hide_short_help_set();
                let is_hidden = is_agents(&REFUSED, &arg) || arg.is_hide_set();
                arg.hide_short_help(is_seldom).hide(is_hidden)
            })
    })
}

/// Adds the flag for help below the last heading: short help has a line less for each heading.
fn with_help_flag(command: clap::Command) -> clap::Command {
    let last = command.get_arguments().last();
    let heading = last.and_then(Arg::get_help_heading);
    let help = Arg::new("help")
        .short('h')
        .long("help")
        .action(ArgAction::Help)
        .help("This help; --help has more, and examples");
    let help = match heading {
        Some(heading) => help.help_heading(heading.to_owned()),
        None => help,
    };
    command.disable_help_flag(true).arg(help)
}

/// Lists the values of a flag that has many in its long help only.
fn with_values_below(arg: Arg) -> Arg {
    let values = arg.get_possible_values();
    if values.len() <= FEW_VALUES || arg.is_hide_possible_values_set() {
        return arg;
    }
    let names: Vec<_> = values.iter().map(|it| it.get_name()).collect();
    let help = arg.get_long_help().or(arg.get_help());
    let help = help.map_or(String::new(), StyledStr::to_string);
    let help = format!("{help}\n\n[possible values: {}]", names.join(", "));
    arg.hide_possible_values(true).long_help(help)
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
    let command = command(sink::screen().map(|it| it.width));
    let matches = command.try_get_matches_from(args);
    match matches.and_then(|it| Cli::from_arg_matches(&it)) {
        Ok(cli) => Ok(Action::Run(cli.command)),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Action::Print(error.render())),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Err(exit::Error::usage("no command: see kaprobe --help"))
            }
            _ => Err(exit::Error::usage(one_line(&error.to_string()))),
        },
    }
}

/// Reads flags that kaprobe makes itself. `args` takes the arguments of the command that they name.
///
/// # Errors
/// Those of [`parse`]; and [`exit::Code::Failure`] if they name another command.
pub fn parse_own<I, T, A>(
    flags: I,
    args: impl FnOnce(Command) -> Option<A>,
) -> Result<A, exit::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let args = match parse(flags)? {
        Action::Run(command) => args(command),
        Action::Print(_) => None,
    };
    args.ok_or_else(|| exit::Error::failure("kaprobe does not understand its own flags"))
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagValue {
    /// Nothing: it is there, or not.
    Nothing,
    /// One value.
    One,
    /// One value or more.
    Many,
}

/// What the flag of a command takes; `None` if there is no such flag.
#[must_use]
pub fn flag_value(of: &str, flag: &str) -> Option<FlagValue> {
    let all = command(None);
    let mut flags = all.find_subcommand(of)?.get_arguments();
    let flag = flags.find(|it| it.get_long() == Some(flag))?;
    Some(match flag.get_action() {
        ArgAction::SetTrue => FlagValue::Nothing,
        ArgAction::Append => FlagValue::Many,
        _ => FlagValue::One,
    })
}

/// Checks the values of flags that were made of something else.
///
/// # Errors
/// [`exit::Code::Usage`], with the value and what is wrong, but not with the flag.
pub fn check_values<I>(flags: I) -> Result<(), exit::Error>
where
    I: IntoIterator<Item: Into<OsString> + Clone>,
{
    let checked = command(None).try_get_matches_from(flags).map(drop);
    checked.map_err(|error| exit::Error::usage(about_value(&error)))
}

/// What is wrong with a value, without the name of the flag.
fn about_value(error: &clap::Error) -> String {
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else {
        return one_line(&error.to_string());
    };
    let why = match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(why), _) => why.to_string(),
        (None, Some(ContextValue::Strings(valid))) => format!("none of {}", valid.join(", ")),
        (None, _) => "not a value that it takes".to_owned(),
    };
    format!("'{value}': {why}")
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
