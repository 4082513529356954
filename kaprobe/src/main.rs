//! Parses, plans, runs, exits.

use std::{env, process::ExitCode};

use kaprobe::{
    cli::{self, Asked, Command},
    exit,
    plan::TracePlan,
    trace,
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => exit::Code::Ok.into(),
        Err(why) => {
            eprintln!("{}", exit::line(&why));
            exit::code_of(&why).into()
        }
    }
}

fn run() -> anyhow::Result<()> {
    match cli::parse(env::args_os())? {
        Asked::Print(text) => anstream::print!("{}", text.ansi()),
        Asked::Run(Command::Trace(args)) => trace::run(&TracePlan::new(*args)?)?,
        Asked::Run(Command::Demo(_) | Command::Doctor(_)) => anyhow::bail!("not there yet"),
    }
    Ok(())
}
