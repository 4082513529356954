//! Runs all tests: `cargo xtask test`.
//!
//! The fastest come first: the invariants, the committed BPF object, unit tests, this
//! host's kernel, and the kernels of the matrix.

mod tally;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::num::NonZero;
use std::process::{ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;
use std::{fmt, iter, panic};

use anyhow::{Context, Result, bail};

use crate::process::say;
use crate::test::tally::{OutputFilter, Tally};
use crate::vm::{Guest, Machine, PreparedGuest, Verdict, kernel};
use crate::{apt, ebpf, programs, tidy, workspace};

/// Options of `cargo xtask test`. Without options, every part runs.
#[derive(clap::Args)]
pub struct Args {
    /// Run the integration tests on this host's kernel
    #[arg(long)]
    host: bool,
    #[command(flatten)]
    kernels: kernel::Choice,
    /// Run no virtual machine
    #[arg(long, conflicts_with = "names")]
    no_vm: bool,
    #[command(flatten)]
    machine: Machine,
    /// Arguments for the test programs, such as a part of a test's name
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Programs that the tests run besides kaprobe: a Debian package, and a path in it.
///
/// Guests get only these files; tests on this host get the unpacked packages.
const PROGRAMS: [(&str, &str); 10] = [
    ("iproute2", "usr/bin/ip"),
    ("iproute2", "usr/bin/ss"),
    ("ipvsadm", "usr/sbin/ipvsadm"),
    ("nftables", "usr/sbin/nft"),
    ("nginx", "usr/sbin/nginx"),
    ("redis-server", "usr/bin/redis-server"),
    ("openssh-server", "usr/bin/ssh-keygen"),
    ("openssh-server", "usr/sbin/sshd"),
    ("openssh-server", "usr/lib/openssh/sshd-session"),
    ("openssh-server", "usr/lib/openssh/sshd-auth"),
];

/// Packages that only the tests on this host run: they are too big for a guest.
const HOST_PACKAGES: [&str; 6] = [
    "haproxy",
    "mariadb-server",
    "pgbouncer",
    "postgresql-17",
    "rabbitmq-server",
    "rhino",
];

/// The result of one part.
enum Outcome {
    Ran(Tally),
    Skipped(String),
    Failed(String),
}

/// A line of the final table.
struct Row {
    name: String,
    outcome: Outcome,
    seconds: f64,
}

/// Runs the chosen parts. Fails if a test fails or if none ran.
pub fn run(args: &Args) -> Result<ExitCode> {
    let all = !args.host && !args.kernels.is_given();
    let mut rows = Vec::new();
    if all {
        rows.push(row("invariants", || one_test(tidy::check())));
        rows.push(row("kept BPF object", || one_test(ebpf::check())));
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

fn row(name: &str, part: impl FnOnce() -> Result<Outcome>) -> Row {
    say(format_args!("testing {name}"));
    let start = Instant::now();
    let outcome = part().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    if let Outcome::Failed(why) = &outcome {
        say(format_args!("{name}: {why}"));
    }
    Row {
        name: name.to_owned(),
        outcome,
        seconds: start.elapsed().as_secs_f64(),
    }
}

/// Counts a check as one test.
fn one_test(check: Result<()>) -> Result<Outcome> {
    check.map(|()| {
        Outcome::Ran(Tally {
            passed: 1,
            ..Tally::default()
        })
    })
}

/// Runs the integration tests on this host, as root because they trace.
fn host(args: &Args) -> Result<Outcome> {
    let programs = PROGRAMS.iter().map(|(package, _)| *package);
    let packages: BTreeSet<_> = programs.chain(HOST_PACKAGES).collect();
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

fn cargo_test(targets: &[&str], args: &Args) -> Result<Outcome> {
    let mut cargo = workspace::cargo();
    cargo
        .env("KAPROBE_PACKAGES", apt::trees())
        .args(["test", "--no-fail-fast"])
        .args(targets)
        .arg("--")
        .args(&args.arguments);
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut output = OutputFilter::new(io::stdout(), "");
    let mut stdout = child.stdout.take().context("cargo has no output")?;
    io::copy(&mut stdout, &mut output).context("cannot read the tests' output")?;
    let status = child.wait().context("cannot wait for cargo")?;
    judge(output.finish()?, status.success(), || {
        format!("cargo test ended with {status}")
    })
}

/// Fails if no test failed but the program did: it did not build, or it crashed.
fn judge(tally: Tally, success: bool, why: impl FnOnce() -> String) -> Result<Outcome> {
    if !success && tally.failed == 0 {
        bail!(why());
    }
    Ok(Outcome::Ran(tally))
}

/// A guest that runs the integration tests whose file names begin with `kernel`.
fn guest(args: &Args) -> Result<Guest> {
    say("building the tests for the guests");
    let mut cargo = programs::static_cargo("test");
    let programs = programs::build(cargo.args(["--no-run", "--test", "kernel*"]))?;

    let mut files = vec![(programs::find_kaprobe(&programs)?, "/bin/kaprobe".into())];
    let tests = programs.into_iter().filter(|program| program.is_test);
    files.extend(tests.map(|test| (test.path, format!("/tests/{}", test.name).into())));

    let each = r#"code=0; for test in /tests/*; do "$test" --test-threads=1 "$@" || code=$?; done; exit $code"#;
    let words = ["sh", "-c", each, "sh"].map(str::to_owned);
    Ok(Guest {
        files,
        // tcp_diag: for `ss`, and for kaprobe if it may not load BPF programs. The
        // others: for networks with a load balancer, and with a router that tracks. ip_vs needs
        // libcrc32c, which asks for crc32c by name: no table of modules says so.
        modules: [
            "tcp_diag",
            "crc32c_generic",
            "ip_vs_rr",
            "bridge",
            "veth",
            "nft_ct",
        ]
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

/// Runs the guest on each kernel, one guest per host processor at a time.
///
/// A guest's clock does not depend on the load of the host.
fn boot_all(args: &Args, guest: &Guest) -> Vec<Row> {
    let at_once = thread::available_parallelism().map_or(1, NonZero::get);
    // If tests are chosen by name, a part may have none of them.
    let max_parts = if args.arguments.is_empty() {
        at_once
    } else {
        1
    };
    let kernels: Vec<_> = args.kernels.series().collect();
    // Who names a kernel gets all of its tests.
    let (variants, full): (Vec<_>, Vec<_>) = kernels
        .into_iter()
        .partition(|series| !args.kernels.is_given() && series.is_variant());
    let essential = variants.into_iter().map(Share::essential);
    let prepared: Vec<_> = shares(&full, max_parts)
        .into_iter()
        .chain(essential)
        .map(|share| (share.to_string(), prepare(&share, guest, &args.machine)))
        .collect();
    let next = Mutex::new(prepared.into_iter().enumerate());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Vec<(usize, Row)> {
        iter::from_fn(take)
            .map(|(index, (share, prepared))| (index, boot(&share, prepared)))
            .collect()
    };
    let mut rows: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(ScopedJoinHandle::join);
        joined
            .flat_map(|rows| rows.unwrap_or_else(|why| panic::resume_unwind(why)))
            .collect()
    });
    rows.sort_by_key(|&(index, _)| index);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// The tests that one guest runs: every `parts`-th one, starting at number `part`.
struct Share {
    series: &'static kernel::Series,
    part: usize,
    parts: usize,
    /// Only the tests that a variant of another kernel needs.
    essential: bool,
}

impl Share {
    const fn whole(series: &'static kernel::Series) -> Self {
        Self {
            series,
            part: 0,
            parts: 1,
            essential: false,
        }
    }

    const fn essential(series: &'static kernel::Series) -> Self {
        Self {
            essential: true,
            ..Self::whole(series)
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.series.name)?;
        if self.essential {
            f.write_str(", essential tests")?;
        }
        if self.parts > 1 {
            write!(f, ", part {} of {}", self.part + 1, self.parts)?;
        }
        Ok(())
    }
}

/// The most parts that a kernel's tests are split into.
///
/// With more parts, a kernel might skip every test of one part.
const MAX_PARTS: usize = 4;

/// One share per kernel. If the last kernel would run alone, its tests are split.
fn shares(kernels: &[&'static kernel::Series], at_once: usize) -> Vec<Share> {
    let whole = |&series| Share::whole(series);
    match kernels.split_last() {
        Some((&series, others)) if kernels.len() % at_once == 1 => {
            let parts = at_once.min(MAX_PARTS);
            let split = (0..parts).map(|part| Share {
                series,
                part,
                parts,
                essential: false,
            });
            others.iter().map(whole).chain(split).collect()
        }
        _ => kernels.iter().map(whole).collect(),
    }
}

/// Prepares the guest for a kernel, and returns the kernel's full name with it.
///
/// `None` if Debian's archive no longer has the kernel.
fn prepare(
    share: &Share,
    guest: &Guest,
    machine: &Machine,
) -> Result<Option<(String, PreparedGuest)>> {
    let Some(kernel) = share.series.kernel()? else {
        return Ok(None);
    };
    let mut guest = guest.clone();
    let variable = format!("KAPROBE_SHARE={}/{}", share.part, share.parts);
    guest.command.splice(0..0, ["env".to_owned(), variable]);
    if share.essential {
        guest.environment.push(("KAPROBE_ESSENTIAL", "1"));
    }
    let prepared = guest.prepare(&kernel, &share.to_string(), machine)?;
    Ok(Some((kernel.to_string(), prepared)))
}

/// Runs a prepared guest, and counts its tests.
fn boot(share: &str, prepared: Result<Option<(String, PreparedGuest)>>) -> Row {
    match prepared {
        Ok(Some((kernel, guest))) => row(&format!("{share}: {kernel}"), || {
            let mut output = OutputFilter::new(io::stdout(), &format!("{share}: "));
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

/// Prints the table and the totals.
fn report(rows: &[Row]) -> ExitCode {
    let mut total = Tally::default();
    let mut table = format!(
        "\n{:7}{:7}{:8}{:8}\n",
        "passed", "failed", "skipped", "seconds"
    );
    for Row {
        name,
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
        table += &format!("{passed:6} {failed:6} {skipped:7} {seconds:8.1}  {name}{why}\n");
    }
    // A closed stdout must not change the exit code.
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
    fn only_a_kernel_that_would_run_alone_is_split() {
        let [a, b, c, ..] = &kernel::MATRIX;
        for (kernels, at_once, expected) in [
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
            assert_eq!(shares.join(" + "), expected, "{at_once}");
        }
    }
}
