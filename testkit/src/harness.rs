//! Runs the tests: each on a thread of its own, which it may move into a network
//! namespace of its own.

use std::env;
use std::fmt;
use std::process::ExitCode;
use std::thread;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// Why a test cannot run here. Returned as an error, it makes the test a skipped one.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// A test and its name.
pub type Test = (&'static str, fn() -> Result<()>);

/// Runs what the command line asks for. A run in which everything was skipped fails:
/// it has shown nothing.
pub fn main(tests: &[Test]) -> ExitCode {
    let arguments = Arguments::from_args();
    let Some((part, of)) = share() else {
        eprintln!("{SHARE} is not such as 0/2");
        return ExitCode::FAILURE;
    };
    let trials = tests
        .iter()
        .skip(part)
        .step_by(of)
        .map(|&(name, test)| trial(name, test))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.num_ignored > 0 && conclusion.num_passed == 0 && !arguments.list {
        eprintln!("every test was skipped: this run has shown nothing");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Which tests are this run's, when another has the others: `1/2` is every second one,
/// from the second.
const SHARE: &str = "KAPROBE_SHARE";

fn share() -> Option<(usize, usize)> {
    let share = env::var(SHARE).unwrap_or_else(|_| "0/1".into());
    let (part, of) = share.split_once('/')?;
    let (part, of) = (part.parse().ok()?, of.parse().ok()?);
    (part < of).then_some((part, of))
}

fn trial(name: &'static str, test: fn() -> Result<()>) -> Trial {
    Trial::ignorable_test(name, move || {
        if !rustix::process::geteuid().is_root() {
            return Ok(Completion::ignored_with("needs root"));
        }
        // A thread that went into another namespace must not run another test.
        let result = match thread::Builder::new().name(name.into()).spawn(test) {
            Ok(running) => running.join(),
            Err(e) => return Err(Failed::from(e)),
        };
        match result {
            Ok(Ok(())) => Ok(Completion::Completed),
            Ok(Err(e)) => match e.downcast::<Skip>() {
                Ok(Skip(why)) => Ok(Completion::ignored_with(why)),
                Err(e) => Err(Failed::from(format!("{e:#}"))),
            },
            Err(_) => Err(Failed::from("it panicked")),
        }
    })
}
