//! Parses, plans, runs, exits.

use std::env;
use std::process::ExitCode;

use kaprobe::audit::plan::AuditPlan;
use kaprobe::cli::{self, Asked, Command};
use kaprobe::replay::plan::ReplayPlan;
use kaprobe::sockets::plan::SocketsPlan;
use kaprobe::trace::plan::TracePlan;
use kaprobe::{audit, demo, doctor, exit, memory, replay, sockets, stderr, trace};

fn main() -> ExitCode {
    memory::use_little();
    match run() {
        Ok(code) => code.into(),
        Err(why) => {
            stderr::line(format_args!("{why:#}"));
            exit::code_of(&why).into()
        }
    }
}

fn run() -> anyhow::Result<exit::Code> {
    match cli::parse(env::args_os())? {
        Asked::Print(text) => anstream::print!("{}", text.ansi()),
        Asked::Run(Command::Trace(args)) => trace::run(&TracePlan::new(*args)?)?,
        Asked::Run(Command::Replay(args)) => replay::run(&ReplayPlan::new(*args)?)?,
        Asked::Run(Command::Sockets(args)) => sockets::run(&SocketsPlan::new(*args)?)?,
        Asked::Run(Command::Audit(args)) => return audit::run(&AuditPlan::new(*args)?),
        Asked::Run(Command::Doctor(args)) => return doctor::run(args.json),
        Asked::Run(Command::Demo(args)) => demo::run(&args)?,
    }
    Ok(exit::Code::Ok)
}
