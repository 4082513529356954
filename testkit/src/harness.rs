//! Runs each test on its own thread, so that it can enter its own network namespace.

use std::collections::HashSet;
use std::env::{self, VarError};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::{fmt, thread};

use anyhow::{Context as _, Result, bail};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::process_one::SkippedPrograms;

/// The reason why a test cannot run here. A test that returns it as an error is skipped.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The reason why a run of a test shows nothing. A test that returns it as an error runs
/// again, [`ATTEMPTS`] times at most.
#[derive(Debug)]
pub struct Inconclusive(pub String);

impl fmt::Display for Inconclusive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Inconclusive {}

/// How often a test runs whose runs show nothing. It fails with the last one.
const ATTEMPTS: u32 = 4;

/// Where an ordinary run has a test. A full run has every test on every kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runs {
    /// Only in a guest that systemd has started: it is about the service.
    Systemd,
    /// On this host: it is about kaprobe in user space, whichever way its programs attach.
    Host,
    /// On this host and on one other kernel: it is about kaprobe alone.
    HostAndOne,
    /// On this host and on each kernel that is not between two others: what it is about differs
    /// between kernels.
    EachKernel,
    /// Also on variants of a kernel, such as one with PREEMPT_RT, and on a kernel between two
    /// others: it is about who runs when, or is the first to tell a change of the kernel.
    Everywhere,
    /// Also on a kernel of another architecture: it tells whether kaprobe was built rightly for
    /// that, and whether its programs read there what they should.
    Architectures,
}

/// Where a test runs, its name, and its function.
pub type Test = (Runs, &'static str, fn() -> Result<()>);

/// Runs the tests that the command line and the environment select. A run that skips every
/// test fails: it shows nothing.
pub fn main(tests: &[Test]) -> ExitCode {
    let arguments = Arguments::from_args();
    match select(tests) {
        Ok((trials, left)) => {
            if left > 0 && !arguments.list {
                println!("{left} tests are left for a full run");
            }
            let conclusion = libtest_mimic::run(&arguments, trials);
            if conclusion.num_ignored > 0 && conclusion.num_passed == 0 && !arguments.list {
                eprintln!("every test was skipped: this run shows nothing");
                return ExitCode::FAILURE;
            }
            conclusion.exit_code()
        }
        Err(why) => {
            eprintln!("{why:#}");
            ExitCode::FAILURE
        }
    }
}

/// The tests of this run, and how many tests no part of this run has.
fn select(tests: &[Test]) -> Result<(Vec<Trial>, usize)> {
    let ((part, of), chosen) = (share()?, chosen()?);
    let mut names = HashSet::new();
    let mut twice = tests.iter().filter(|(_, name, _)| !names.insert(name));
    if let Some((_, name, _)) = twice.next() {
        bail!("two tests have the name {name}");
    }
    let (here, left): (Vec<&Test>, Vec<_>) =
        tests.iter().partition(|(runs, ..)| chosen.contains(runs));
    // Tests of the other kind are in a guest of their own, whatever the run.
    let is_of_service = |runs: &Runs| *runs == Runs::Systemd;
    let of_kind = left
        .iter()
        .filter(|(runs, ..)| is_of_service(runs) == is_of_service(chosen.start()));
    let left = of_kind.count();
    let trials = here.iter().skip(part).step_by(of);
    let trials = trials.map(|&&(_, name, test)| trial(name, test)).collect();
    // One of the parts counts them.
    Ok((trials, if part == 0 { left } else { 0 }))
}

/// Selects tests by where they run: `all` of them, those for `one` kernel beside the host, for
/// each `kernel`, for a `variant` of one, or for another `architecture`; or those of the service,
/// under `systemd`.
const SCOPE: &str = "KAPROBE_SCOPE";

/// How the tests that run here are marked.
fn chosen() -> Result<RangeInclusive<Runs>> {
    let least = match env::var(SCOPE).as_deref() {
        Err(VarError::NotPresent) | Ok("all") => Runs::Host,
        Ok("one") => Runs::HostAndOne,
        Ok("kernel") => Runs::EachKernel,
        Ok("variant") => Runs::Everywhere,
        Ok("architecture") => Runs::Architectures,
        Ok("systemd") => return Ok(Runs::Systemd..=Runs::Systemd),
        other => {
            bail!("{SCOPE} is none of all, one, kernel, variant, architecture, systemd: {other:?}")
        }
    };
    Ok(least..=Runs::Architectures)
}

/// Selects a share of the tests; other runs take the rest. `1/2` is every second test,
/// starting with the second.
const SHARE: &str = "KAPROBE_SHARE";

fn share() -> Result<(usize, usize)> {
    let share = env::var(SHARE).unwrap_or_else(|_| "0/1".into());
    let numbers = || {
        let (part, of) = share.split_once('/')?;
        let (part, of) = (part.parse().ok()?, of.parse().ok()?);
        (part < of).then_some((part, of))
    };
    numbers().with_context(|| format!("{SHARE} does not look like 0/2: {share}"))
}

/// Runs a test on a thread of its own: one that entered another namespace must not run
/// another test.
fn run(name: &'static str, test: fn() -> Result<()>) -> Result<()> {
    let running = thread::Builder::new().name(name.into()).spawn(test)?;
    running
        .join()
        .unwrap_or_else(|_| bail!("the test panicked"))
}

/// Runs a test. A failure shows nothing if the kernel skipped programs of kaprobe meanwhile.
fn run_watched(name: &'static str, test: fn() -> Result<()>) -> Result<()> {
    let skipped = SkippedPrograms::count();
    let result = run(name, test);
    let is_failure = |why: &anyhow::Error| !why.is::<Skip>() && !why.is::<Inconclusive>();
    if result.as_ref().is_err_and(is_failure)
        && let Ok(mut skipped) = skipped
        && let Ok(skipped @ 1..) = skipped.total()
    {
        let why = format!("{skipped} hooks may have been skipped while process 1 ran");
        return result.context(Inconclusive(why));
    }
    result
}

fn trial(name: &'static str, test: fn() -> Result<()>) -> Trial {
    Trial::ignorable_test(name, move || {
        if !rustix::process::geteuid().is_root() {
            return Ok(Completion::ignored_with("needs root"));
        }
        let mut result = run_watched(name, test);
        for _ in 1..ATTEMPTS {
            match &result {
                Err(why) if why.is::<Inconclusive>() => {
                    eprintln!("test {name} runs again: {why:#}");
                    result = run_watched(name, test);
                }
                _ => break,
            }
        }
        match result.map_err(|why| why.downcast::<Skip>()) {
            Ok(()) => Ok(Completion::Completed),
            Err(Ok(Skip(why))) => Ok(Completion::ignored_with(why)),
            Err(Err(why)) => Err(Failed::from(format!("{why:#}"))),
        }
    })
}
