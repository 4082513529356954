//! Runs each test on its own thread, so that it can enter its own network namespace.

use std::process::ExitCode;
use std::{env, fmt, thread};

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// The reason why a test cannot run here. A test that returns it as an error is skipped.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The name of a test, and its function.
pub type Test = (&'static str, fn() -> Result<()>);

/// Runs the tests that the command line selects. A run that skips every test fails: it
/// shows nothing. `essential` names the tests that a variant of a kernel needs, such as one
/// with PREEMPT_RT.
pub fn main(tests: &[Test], essential: &[&str]) -> ExitCode {
    let arguments = Arguments::from_args();
    let Some((part, of)) = share() else {
        eprintln!("{SHARE} does not look like 0/2");
        return ExitCode::FAILURE;
    };
    let unknown = essential
        .iter()
        .find(|name| !tests.iter().any(|(test, _)| test == *name));
    if let Some(name) = unknown {
        eprintln!("there is no essential test {name}");
        return ExitCode::FAILURE;
    }
    let only_essential = env::var_os(ESSENTIAL).is_some();
    let trials = tests
        .iter()
        .filter(|(name, _)| !only_essential || essential.contains(name))
        .skip(part)
        .step_by(of)
        .map(|&(name, test)| trial(name, test))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.num_ignored > 0 && conclusion.num_passed == 0 && !arguments.list {
        eprintln!("every test was skipped: this run shows nothing");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// If set, only the essential tests run.
const ESSENTIAL: &str = "KAPROBE_ESSENTIAL";

/// Selects a share of the tests; other runs take the rest. `1/2` is every second test,
/// starting with the second.
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
        // A thread that entered another namespace must not run another test.
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
            Err(_) => Err(Failed::from("the test panicked")),
        }
    })
}
