//! Passes every test there is: `cargo xtask test`.
//!
//! In the order of what fails fastest: the invariants, the kept object, units,
//! the kernel of this host, and the kernels of the matrix.

mod tally;

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};
use std::iter;
use std::num::NonZero;
use std::panic;
use std::process::{ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::process::say;
use crate::test::tally::{Filter, Tally};
use crate::vm::{Guest, Machine, Prepared, Verdict, kernel};
use crate::{apt, ebpf, programs, tidy, workspace};

/// Options of `cargo xtask test`; with no part chosen, all are run.
#[derive(clap::Args)]
pub struct Args {
    /// Run the tests that need a kernel on that of this host
    #[arg(long)]
    host: bool,
    #[command(flatten)]
    kernels: kernel::Choice,
    /// Run no virtual machine
    #[arg(long, conflicts_with = "names")]
    no_vm: bool,
    #[command(flatten)]
    machine: Machine,
    /// What the tests' programs are told, such as a part of a test's name
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// What the tests run beside kaprobe: programs of Debian's packages, by their paths in
/// there. Guests have these alone, this host's tests the unpacked packages.
const PROGRAMS: [(&str, &str); 9] = [
    ("iproute2", "usr/bin/ip"),
    ("iproute2", "usr/bin/ss"),
    ("ipvsadm", "usr/sbin/ipvsadm"),
    ("nginx", "usr/sbin/nginx"),
    ("redis-server", "usr/bin/redis-server"),
    ("openssh-server", "usr/bin/ssh-keygen"),
    ("openssh-server", "usr/sbin/sshd"),
    ("openssh-server", "usr/lib/openssh/sshd-session"),
    ("openssh-server", "usr/lib/openssh/sshd-auth"),
];

/// What came of one part.
enum Outcome {
    Ran(Tally),
    Skipped(String),
    Failed(String),
}

/// A line of the table at the end.
struct Row {
    what: String,
    outcome: Outcome,
    seconds: f64,
}

/// Runs what is chosen; fails when a test fails, or when none ran.
pub fn run(args: &Args) -> Result<ExitCode> {
    let all = !args.host && !args.kernels.is_given();
    let mut rows = Vec::new();
    if all {
        rows.push(row("invariants", || one(tidy::check())));
        rows.push(row("kept BPF object", || one(ebpf::check())));
        rows.push(row("units", || {
            cargo_test(&["--workspace", "--lib", "--bins"], args)
        }));
    }
    if all || args.host {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        rows.push(row(&format!("this host: Linux {release}"), || host(args)));
    }
    if (all && !args.no_vm) || args.kernels.is_given() {
        match guest(args) {
            Ok(guest) => rows.extend(boot_all(args, &guest)),
            Err(error) => rows.push(row("the matrix", || Err(error))),
        }
    }
    Ok(report(&rows))
}

fn row(what: &str, part: impl FnOnce() -> Result<Outcome>) -> Row {
    say(format_args!("testing {what}"));
    let start = Instant::now();
    let outcome = part().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    if let Outcome::Failed(why) = &outcome {
        say(format_args!("{what}: {why}"));
    }
    Row {
        what: what.to_owned(),
        outcome,
        seconds: start.elapsed().as_secs_f64(),
    }
}

/// A check counts as one test.
fn one(check: Result<()>) -> Result<Outcome> {
    check.map(|()| {
        Outcome::Ran(Tally {
            passed: 1,
            ..Tally::default()
        })
    })
}

/// The integration tests, as root, since they trace.
fn host(args: &Args) -> Result<Outcome> {
    let packages: BTreeSet<_> = PROGRAMS.iter().map(|(package, _)| *package).collect();
    for package in packages {
        if let Err(why) = apt::tree(package) {
            say(format_args!(
                "no {package}, tests that need it are skipped: {why:#}"
            ));
        }
    }
    let mut cargo = vec!["--package", "kaprobe", "--test", "*"];
    if !rustix::process::geteuid().is_root() {
        cargo.extend(["--config", r#"target."cfg(all())".runner = ["sudo", "-E"]"#]);
    }
    cargo_test(&cargo, args)
}

fn cargo_test(what: &[&str], args: &Args) -> Result<Outcome> {
    let mut cargo = workspace::cargo();
    cargo
        .env("KAPROBE_PACKAGES", apt::trees())
        .args(["test", "--no-fail-fast"])
        .args(what)
        .arg("--")
        .args(&args.arguments);
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut output = Filter::new(io::stdout(), "");
    let mut stdout = child.stdout.take().context("cargo has no output")?;
    io::copy(&mut stdout, &mut output).context("cannot read the tests' output")?;
    let status = child.wait().context("cannot wait for cargo")?;
    judge(output.finish()?, status.success(), || {
        format!("cargo test ended with {status}")
    })
}

/// A program may fail without a failed test, when it does not build or dies.
fn judge(tally: Tally, success: bool, why: impl FnOnce() -> String) -> Result<Outcome> {
    if !success && tally.failed == 0 {
        bail!(why());
    }
    Ok(Outcome::Ran(tally))
}

/// A guest that runs the tests whose names begin with `kernel`.
fn guest(args: &Args) -> Result<Guest> {
    say("building the tests for the guests");
    let mut cargo = programs::static_cargo("test");
    let programs = programs::build(cargo.args(["--no-run", "--test", "kernel*"]))?;

    let mut files = vec![(programs::only_kaprobe(&programs)?, "/bin/kaprobe".into())];
    let tests = programs.into_iter().filter(|program| program.is_test);
    files.extend(tests.map(|test| (test.path, format!("/tests/{}", test.name).into())));

    let each = r#"code=0; for test in /tests/*; do "$test" --test-threads=1 "$@" || code=$?; done; exit $code"#;
    let words = ["sh", "-c", each, "sh"].map(str::to_owned);
    Ok(Guest {
        files,
        // What `ss` asks, and kaprobe where it may not load BPF programs; and a network
        // with a balancer in it.
        modules: ["tcp_diag", "ip_vs_rr", "bridge", "veth"]
            .map(str::to_owned)
            .into(),
        programs: PROGRAMS.into(),
        environment: vec![("KAPROBE_BIN", "/bin/kaprobe"), ("KAPROBE_IN_VM", "1")],
        command: words
            .into_iter()
            .chain(args.arguments.iter().cloned())
            .collect(),
        ..Guest::default()
    })
}

/// Runs the guest on each kernel, as many at once as there are processors: each takes
/// one, and its clock does not feel the others.
fn boot_all(args: &Args, guest: &Guest) -> Vec<Row> {
    let at_once = thread::available_parallelism().map_or(1, NonZero::get);
    // Of tests chosen by name a part may have none.
    let in_parts = if args.arguments.is_empty() {
        at_once
    } else {
        1
    };
    let kernels: Vec<_> = args.kernels.series().collect();
    let prepared: Vec<_> = shares(&kernels, in_parts)
        .into_iter()
        .map(|share| (share.to_string(), prepare(&share, guest, &args.machine)))
        .collect();
    let next = Mutex::new(prepared.into_iter().enumerate());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Vec<(usize, Row)> {
        iter::from_fn(take)
            .map(|(place, (share, prepared))| (place, boot(&share, prepared)))
            .collect()
    };
    let mut rows: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(ScopedJoinHandle::join);
        done.flat_map(|rows| rows.unwrap_or_else(|why| panic::resume_unwind(why)))
            .collect()
    });
    rows.sort_by_key(|&(place, _)| place);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// What one guest runs: the tests on a kernel, or every `of`-th of them, from `part`.
struct Share {
    series: &'static kernel::Series,
    part: usize,
    of: usize,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.series.name)?;
        if self.of > 1 {
            write!(f, ", part {} of {}", self.part + 1, self.of)?;
        }
        Ok(())
    }
}

/// The most parts that a kernel's tests are run in: with fewer in each, all of one could
/// be such as that kernel skips.
const PARTS: usize = 4;

/// The last kernel, when it would run alone, is run in parts, one to a processor.
fn shares(kernels: &[&'static kernel::Series], at_once: usize) -> Vec<Share> {
    let whole = |&series| Share {
        series,
        part: 0,
        of: 1,
    };
    match kernels.split_last() {
        Some((&series, others)) if kernels.len() % at_once == 1 => {
            let of = at_once.min(PARTS);
            let parts = (0..of).map(|part| Share { series, part, of });
            others.iter().map(whole).chain(parts).collect()
        }
        _ => kernels.iter().map(whole).collect(),
    }
}

/// The kernel's full name, and the guest ready to boot on it; nothing when the archive
/// has no such kernel.
fn prepare(share: &Share, guest: &Guest, machine: &Machine) -> Result<Option<(String, Prepared)>> {
    let Some(kernel) = share.series.kernel()? else {
        return Ok(None);
    };
    let mut guest = guest.clone();
    let variable = format!("KAPROBE_SHARE={}/{}", share.part, share.of);
    guest.command.splice(0..0, ["env".to_owned(), variable]);
    let prepared = guest.prepare(&kernel, &share.to_string(), machine)?;
    Ok(Some((kernel.to_string(), prepared)))
}

/// Runs a guest.
fn boot(share: &str, prepared: Result<Option<(String, Prepared)>>) -> Row {
    match prepared {
        Ok(Some((kernel, guest))) => row(&format!("{share}: {kernel}"), || {
            let mut output = Filter::new(io::stdout(), &format!("{share}: "));
            let verdict = guest.boot(&mut output, &mut io::stderr())?;
            judge(output.finish()?, verdict == Verdict::Exited(0), || {
                verdict.to_string()
            })
        }),
        Ok(None) => row(share, || {
            Ok(Outcome::Skipped("Debian's archive no longer has it".into()))
        }),
        Err(error) => row(share, || Err(error)),
    }
}

/// Prints the table and the closing line.
fn report(rows: &[Row]) -> ExitCode {
    let mut total = Tally::default();
    let mut table = format!(
        "\n{:7}{:7}{:8}{:8}\n",
        "passed", "failed", "skipped", "seconds"
    );
    for Row {
        what,
        outcome,
        seconds,
    } in rows
    {
        let (tally, why) = match outcome {
            Outcome::Ran(tally) => (*tally, String::new()),
            Outcome::Skipped(why) => (
                Tally {
                    skipped: 1,
                    ..Tally::default()
                },
                format!(": skipped, {why}"),
            ),
            Outcome::Failed(_) => (
                Tally {
                    failed: 1,
                    ..Tally::default()
                },
                ": failed, see above".to_owned(),
            ),
        };
        total += tally;
        let Tally {
            passed,
            failed,
            skipped,
        } = tally;
        table += &format!("{passed:6} {failed:6} {skipped:7} {seconds:8.1}  {what}{why}\n");
    }
    // A closed stdout is no reason to hide the result.
    let _ = writeln!(io::stdout(), "{table}\n{total}");
    if total.failed == 0 && total.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_that_would_run_alone_is_run_in_parts() {
        let [a, b, c, ..] = &kernel::MATRIX;
        for (kernels, at_once, shares_of_them) in [
            (&[][..], 2, ""),
            (&[a], 1, "5.10"),
            (&[a], 2, "5.10, part 1 of 2 + 5.10, part 2 of 2"),
            (&[a, b], 2, "5.10 + 6.1"),
            (&[a, b], 4, "5.10 + 6.1"),
            (&[a, b, c], 1, "5.10 + 6.1 + 6.12"),
            (
                &[a, b, c],
                2,
                "5.10 + 6.1 + 6.12, part 1 of 2 + 6.12, part 2 of 2",
            ),
        ] {
            let shares: Vec<_> = shares(kernels, at_once)
                .iter()
                .map(Share::to_string)
                .collect();
            assert_eq!(shares.join(" + "), shares_of_them, "{at_once}");
        }
    }
}
