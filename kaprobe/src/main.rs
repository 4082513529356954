//! Reads the command line, runs the command, and exits with its code.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::{env, fmt};

use kaprobe::agent::plan::AgentPlan;
use kaprobe::audit::plan::AuditPlan;
use kaprobe::cli::{self, Action, Command};
use kaprobe::host::privilege;
use kaprobe::record::plan::RecordPlan;
use kaprobe::replay::plan::ReplayPlan;
use kaprobe::report::plan::ReportPlan;
use kaprobe::sink::SinkError;
use kaprobe::sockets::plan::SocketsPlan;
use kaprobe::top::plan::TopPlan;
use kaprobe::trace::plan::TracePlan;
use kaprobe::{
    agent, audit, demo, doctor, exit, explain, manual, memory, record, replay, report, sockets,
    stderr, top, trace,
};

fn main() -> ExitCode {
    memory::tune_allocator();
    privilege::raise_descriptors();
    let code = run().unwrap_or_else(|why| {
        if has_no_reader(&why) {
            return exit::code_if_unread(&why);
        }
        stderr::line(format_args!("{why:#}"));
        exit::code_of(&why)
    });
    stderr::finish();
    code.into()
}

fn run() -> anyhow::Result<exit::Code> {
    match cli::parse(env::args_os())? {
        Action::Print(text) => print(text.ansi())?,
        Action::Run(Command::Trace(args)) => trace::run(&TracePlan::new(*args)?)?,
        Action::Run(Command::Top(args)) => top::run(&TopPlan::new(*args)?)?,
        Action::Run(Command::Record(args)) => record::run(&RecordPlan::new(*args)?)?,
        Action::Run(Command::Agent(args)) => agent::run(&AgentPlan::new(*args)?)?,
        Action::Run(Command::Replay(args)) => replay::run(&ReplayPlan::new(*args)?)?,
        Action::Run(Command::Report(args)) => report::run(&ReportPlan::new(*args)?)?,
        Action::Run(Command::Sockets(args)) => sockets::run(&SocketsPlan::new(*args)?)?,
        Action::Run(Command::Audit(args)) => return audit::run(&AuditPlan::new(*args)?),
        Action::Run(Command::Doctor(args)) => return doctor::run(args.json),
        Action::Run(Command::Demo(args)) => demo::run(&args)?,
        Action::Run(Command::Explain(args)) => explain::run(args.name.as_deref())?,
        Action::Run(Command::Completions(args)) => manual::completions(args.shell)?,
        Action::Run(Command::Man(args)) => manual::man(args.folder.as_deref())?,
    }
    Ok(exit::Code::Ok)
}

/// Prints text with colors, where standard output is a terminal that shows them.
fn print(text: impl fmt::Display) -> Result<(), SinkError> {
    let mut out = anstream::stdout();
    write!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(SinkError::stdout)
}

/// Whether an error means that the reader of an output has gone, which is not a failure.
fn has_no_reader(why: &anyhow::Error) -> bool {
    let mut errors = why.chain().filter_map(|it| it.downcast_ref::<io::Error>());
    errors.any(|it| it.kind() == io::ErrorKind::BrokenPipe)
}
