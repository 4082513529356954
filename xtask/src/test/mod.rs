//! Runs all tests: `cargo xtask test`.
//!
//! The fastest come first: the invariants, the committed BPF object, unit tests, this
//! host's kernel, and the kernels of the matrix.

pub mod notes;
mod shares;
mod tally;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};
use std::{iter, panic};

use anyhow::{Context, Result, bail};

use crate::arch::Arch;
use crate::dist::trial::{Pair, Trial};
use crate::process::{CommandExt as _, say};
use crate::test::notes::Notes;
use crate::test::shares::{Scope, Share};
use crate::test::tally::{OutputFilter, Tally, TimedTest};
use crate::vm::series::{self, Missing};
use crate::vm::{Guest, Machine, PreparedGuest, Verdict};
use crate::{apt, dist, ebpf, packages, programs, pypi, tidy, vm, workspace};

/// Options of `cargo xtask test`. Without options, every part runs.
#[derive(clap::Args)]
pub struct Args {
    /// Run every test on every kernel; otherwise each kernel has those of what differs
    /// between kernels
    #[arg(long, conflicts_with = "no_vm")]
    full: bool,
    /// Run the integration tests on this host's kernel
    #[arg(long)]
    host: bool,
    /// Install, run, upgrade and remove the packages on three releases of Debian, and by RPM
    #[arg(long)]
    packages: bool,
    #[command(flatten)]
    kernels: series::Choice,
    /// Run the tests of the service: systemd starts it, in guests with these kernels
    #[arg(long, conflicts_with_all = ["no_vm", "full"])]
    systemd: bool,
    /// Run no virtual machine
    #[arg(long, conflicts_with = "names")]
    no_vm: bool,
    #[command(flatten)]
    machine: Machine,
    /// Arguments for the test programs, such as a part of a test's name
    #[arg(last = true)]
    arguments: Vec<String>,
    /// Notes of what passed before, which is not run again.
    #[arg(skip)]
    notes: Option<Arc<Notes>>,
}

impl Args {
    /// The options of `cargo xtask test --full` for a release, or without `--full` for a quick
    /// one.
    pub fn of_release(quick: bool, notes: Arc<Notes>) -> Result<Self> {
        let command = <Self as clap::Args>::augment_args(clap::Command::new("test"));
        let words = ["test"].into_iter().chain((!quick).then_some("--full"));
        let matches = command.try_get_matches_from(words)?;
        let args = <Self as clap::FromArgMatches>::from_arg_matches(&matches)?;
        Ok(Self {
            notes: Some(notes),
            ..args
        })
    }
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

/// Packages that tests run on this host, and in guests that have all tests of kaprobe alone.
const BIG_PACKAGES: [&str; 1] = ["prometheus"];

/// Packages that only the tests on this host run.
const HOST_PACKAGES: [&str; 18] = [
    "apache2-bin",
    "chromium",
    "crun",
    "fish",
    "golang-github-containers-common",
    "gunicorn",
    "haproxy",
    "mandoc",
    "mariadb-server",
    "nodejs",
    "pgbouncer",
    "postgresql-17",
    "rabbitmq-server",
    "rhino",
    "syslog-ng-mod-http",
    "tidy",
    "tmux",
    "zsh",
];

/// The result of one part.
enum Outcome {
    Ran(Tally),
    /// It passed before, and was not run again.
    Passed(Tally),
    Skipped(String),
    Failed(String),
}

/// A line of the final table.
struct Row {
    name: String,
    outcome: Outcome,
    seconds: f64,
    /// The tests that ran one after another.
    times: Vec<TimedTest>,
}

/// Most tests that are listed with their times.
const SLOWEST: usize = 12;

/// Runs the chosen parts. Fails if a test fails or if none ran.
pub fn run(args: &Args) -> Result<ExitCode> {
    let is_chosen = args.kernels.is_given() || args.systemd;
    let all = !args.host && !args.packages && !is_chosen;
    let mut rows = Vec::new();
    if all {
        rows.push(row(args, "invariants", || one_test(tidy::check())));
        rows.push(row(args, "kept BPF object", || one_test(ebpf::check())));
        rows.push(row(args, "SBOM", || one_test(dist::sbom::check())));
        rows.push(row(args, "units", || {
            cargo_test(&["--workspace", "--lib", "--bins"], args)
        }));
    }
    let boots = (all && !args.no_vm) || is_chosen;
    let on_host = all || args.host;
    thread::scope(|scope| {
        let in_guests = boots.then(|| scope.spawn(|| matrices(args, all, on_host)));
        if on_host {
            let release = rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned();
            rows.push(row(args, &format!("this host: Linux {release}"), || {
                host(args)
            }));
        }
        if all {
            rows.push(row(args, "container image", image));
        }
        if all || args.packages {
            rows.extend(packages(args));
        }
        rows.extend(in_guests.map(join).into_iter().flatten());
    });
    Ok(report(&rows))
}

/// What a thread returns.
fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|why| panic::resume_unwind(why))
}

/// The tests in guests of every architecture of the run.
///
/// The tests on this host wait for timers most of the time. Beside them, guests and their builds
/// take only the time that is left.
fn matrices(args: &Args, all: bool, beside_host: bool) -> Vec<Row> {
    if beside_host {
        // Linux has a nice value for each thread; threads and processes inherit it (nice(2)).
        if let Err(why) = rustix::process::nice(19) {
            say(format_args!("cannot lower the priority of guests: {why}"));
        }
    }
    let mut rows = Vec::new();
    if all {
        // First, as one guest leaves a processor to the tests on this host.
        for arch in Arch::FOREIGN {
            rows.extend(matrix(args, arch, |at_once| match args.full {
                true => Share::foreign_full(arch, at_once),
                false => Share::foreign(arch),
            }));
        }
    }
    rows.extend(matrix(args, args.kernels.arch, |at_once| {
        shares(args, at_once)
    }));
    rows
}

fn row(args: &Args, name: &str, part: impl FnOnce() -> Result<Outcome>) -> Row {
    let start = Instant::now();
    let notes = args.notes.as_ref();
    let outcome = match notes.and_then(|it| it.passed(name)) {
        Some(tally) => {
            say(format_args!("{name} passed before, for this commit"));
            Outcome::Passed(tally)
        }
        None => {
            say(format_args!("testing {name}"));
            part().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
        }
    };
    match (&outcome, notes) {
        (Outcome::Failed(why), _) => say(format_args!("{name}: {why}")),
        (Outcome::Ran(tally), Some(notes)) => notes.note(name, *tally),
        _ => {}
    }
    Row {
        name: name.to_owned(),
        outcome,
        seconds: start.elapsed().as_secs_f64(),
        times: Vec::new(),
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
    let packages: BTreeSet<_> = programs.chain(BIG_PACKAGES).chain(HOST_PACKAGES).collect();
    for package in packages {
        if let Err(why) = apt::tree(package) {
            say(format_args!(
                "no {package}, tests that need it are skipped: {why:#}"
            ));
        }
    }
    if let Err(why) = pypi::install() {
        say(format_args!(
            "no databases, no Helm, tests that need them are skipped: {why:#}"
        ));
    }
    cargo_test(&[&["--test", "*"], as_root()].concat(), args)
}

/// Tests the container image. Who unpacks it and runs it in an empty root is root.
fn image() -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::Skipped("an image is unpacked as root".to_owned()));
    }
    one_test(dist::check_image())
}

/// Tests the packages. They are installed as root, and so is what they start run.
fn packages(args: &Args) -> Vec<Row> {
    if !rustix::process::geteuid().is_root() {
        let why = "packages are installed as root".to_owned();
        return vec![row(args, "packages", || Ok(Outcome::Skipped(why)))];
    }
    let trial = match Trial::make() {
        Ok(trial) => trial,
        Err(why) => return vec![row(args, "packages", || Err(why))],
    };
    let mut checks = packages::fast();
    if args.full || args.packages {
        checks.extend(packages::full());
    }
    let rows = checks.iter().map(|(name, check)| {
        row(args, &format!("packages: {name}"), || {
            one_test(check(&trial))
        })
    });
    rows.collect()
}

/// Arguments of cargo that run tests as root.
fn as_root() -> &'static [&'static str] {
    if rustix::process::geteuid().is_root() {
        &["--package", "kaprobe"]
    } else {
        const SUDO: &str = r#"target."cfg(all())".runner = ["sudo", "-E"]"#;
        &["--package", "kaprobe", "--config", SUDO]
    }
}

/// A command that runs these tests, with the packages that they need.
fn test_command(targets: &[&str]) -> Command {
    let mut cargo = workspace::cargo();
    if let Ok(folder) = pypi::folder() {
        cargo.env("KAPROBE_PYPI", folder);
    }
    cargo
        .env("KAPROBE_PACKAGES", apt::trees())
        .args(["test", "--no-fail-fast"])
        .args(targets)
        .arg("--");
    cargo
}

/// Runs the test that renders a report in a browser, and keeps the picture in `docs/`.
pub fn screenshot() -> Result<()> {
    apt::tree("chromium")?;
    let mut cargo = test_command(&[&["--test", "kernel"], as_root()].concat());
    let test = cargo.arg("report_browser").env("KAPROBE_BLESS", "1");
    test.check()?;
    say("written: docs/report.png");
    Ok(())
}

/// Options of `cargo xtask fleet`.
#[derive(clap::Args)]
pub struct FleetArgs {
    /// The number of hosts
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(40..=10_000))]
    hosts: u32,
}

/// Runs the test that asks databases about a fleet, with many hosts, and keeps the figures in
/// `docs/`.
pub fn fleet(args: &FleetArgs) -> Result<()> {
    pypi::install()?;
    let mut cargo = test_command(&[&["--test", "kernel"], as_root()].concat());
    let test = cargo.args(["fleet_answers", "--nocapture"]);
    let test = test.env("KAPROBE_FLEET_HOSTS", args.hosts.to_string());
    test.env("KAPROBE_BLESS", "1").check()?;
    say("written: docs/fleet.md");
    Ok(())
}

fn cargo_test(targets: &[&str], args: &Args) -> Result<Outcome> {
    let mut cargo = test_command(targets);
    cargo.args(&args.arguments);
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut output = OutputFilter::new(io::stdout(), "");
    let mut stdout = child.stdout.take().context("cargo has no output")?;
    io::copy(&mut stdout, &mut output).context("cannot read the tests' output")?;
    let status = child.wait().context("cannot wait for cargo")?;
    judge(output.finish()?.tally, status.success(), || {
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

/// The tests in guests of one architecture.
fn matrix(args: &Args, arch: Arch, shares: impl Fn(usize) -> Vec<Share>) -> Vec<Row> {
    let at_once = thread::available_parallelism().map_or(1, NonZero::get);
    match guest(args, arch) {
        Ok(guest) => boot_all(args, &guest, &shares(at_once), at_once),
        Err(error) => {
            let name = format!("the matrix of {}", arch.name());
            vec![row(args, &name, || Err(error))]
        }
    }
}

/// A guest that runs the integration tests whose file names begin with `kernel`.
fn guest(args: &Args, arch: Arch) -> Result<Guest> {
    say(format_args!(
        "building the tests for the guests of {}",
        arch.name()
    ));
    let targets = ["--no-run", "--test", "kernel*"];
    let (kaprobe, programs) = programs::beside_kaprobe("test", &targets, arch)?;
    let mut files = vec![(kaprobe, "/bin/kaprobe".into())];
    let tests = programs.into_iter().filter(|program| program.is_test);
    files.extend(tests.map(|test| (test.path, format!("/tests/{}", test.name).into())));

    let each = r#"code=0; for test in /tests/*; do "$test" --test-threads=1 "$@" || code=$?; done; exit $code"#;
    let words = ["sh", "-c", each, "sh"].map(str::to_owned);
    Ok(Guest {
        files,
        // tcp_diag: for `ss`, and for kaprobe if it may not load BPF programs. The
        // others: for networks with a load balancer, and with a router that tracks, translates
        // and rejects. ip_vs needs
        // libcrc32c, which asks for crc32c by name: no table of modules says so.
        modules: [
            "tcp_diag",
            "crc32c_generic",
            "ip_vs_rr",
            "bridge",
            "veth",
            "nft_ct",
            "nft_chain_nat",
            "nft_masq",
            "nft_nat",
            "nft_redir",
            "nft_reject_inet",
            "nft_reject_ipv4",
        ]
        .map(str::to_owned)
        .into(),
        programs: PROGRAMS.into(),
        environment: vec![
            ("KAPROBE_BIN", "/bin/kaprobe"),
            ("KAPROBE_IN_VM", "1"),
            ("KAPROBE_PACKAGES", vm::PACKAGES),
        ],
        command: words
            .into_iter()
            .chain(args.arguments.iter().cloned())
            .collect(),
        ..Guest::default()
    })
}

/// Which guests the command line asks for.
fn shares(args: &Args, at_once: usize) -> Vec<Share> {
    let kernels = args.kernels.series();
    let is_chosen = !args.arguments.is_empty();
    if args.systemd {
        Share::service(kernels)
    } else if is_chosen {
        Share::chosen(kernels)
    } else if args.full || args.kernels.is_given() {
        Share::full(kernels, at_once)
    } else {
        Share::ordinary(kernels, at_once)
    }
}

/// Runs the guest of each share, `at_once` of them at a time.
///
/// A guest's clock does not depend on the load of the host.
fn boot_all(args: &Args, guest: &Guest, shares: &[Share], at_once: usize) -> Vec<Row> {
    let prepared: Vec<_> = shares
        .iter()
        .map(|share| (share.to_string(), prepare(share, guest, &args.machine)))
        .collect();
    let next = Mutex::new(prepared.into_iter().enumerate());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Vec<(usize, Row)> {
        iter::from_fn(take)
            .map(|(index, (share, prepared))| (index, boot(args, &share, prepared)))
            .collect()
    };
    let mut rows: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(join).collect()
    });
    rows.sort_by_key(|&(index, _)| index);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Prepares the guest for a kernel, and returns the kernel's full name with it.
fn prepare(share: &Share, guest: &Guest, machine: &Machine) -> Result<(String, PreparedGuest)> {
    let kernel = share.series.kernel()?;
    let mut guest = guest.clone();
    let variable = format!("KAPROBE_SHARE={}/{}", share.part, share.parts);
    guest.command.splice(0..0, ["env".to_owned(), variable]);
    guest.systemd = share.scope == Scope::Systemd;
    let scratch = workspace::scratch()?;
    if guest.systemd {
        add_packages(&mut guest, share.series.arch, scratch.path())?;
    }
    if matches!(share.scope, Scope::All | Scope::One) {
        guest.disks.extend(BIG_PACKAGES);
    }
    guest
        .environment
        .push(("KAPROBE_SCOPE", share.scope.name()));
    let prepared = guest.prepare(&kernel, &share.to_string(), machine)?;
    Ok((kernel.to_string(), prepared))
}

/// Adds Debian's packages of kaprobe to a guest. They are written to a folder of this host, until
/// the guest is prepared.
fn add_packages(guest: &mut Guest, arch: Arch, folder: &Path) -> Result<()> {
    let Pair { old, new } = Pair::for_debian(arch)?;
    for (name, package) in [("old.deb", old), ("new.deb", new)] {
        let path = folder.join(name);
        workspace::write(&path, package.bytes)?;
        guest.files.push((path, Path::new(DEBS).join(name)));
    }
    guest.environment.push(("KAPROBE_DEBS", DEBS));
    Ok(())
}

/// Where a guest has Debian's packages of kaprobe.
const DEBS: &str = "/debs";

/// Runs a prepared guest, and counts its tests.
fn boot(args: &Args, share: &str, prepared: Result<(String, PreparedGuest)>) -> Row {
    match prepared {
        Ok((kernel, guest)) => {
            let mut times = Vec::new();
            let row = row(args, &format!("{share}: {kernel}"), || {
                let mut output = OutputFilter::new(io::stdout(), &format!("{share}: "));
                let verdict = guest.boot(&mut output, &mut io::stderr())?;
                let counted = output.finish()?;
                times = counted.times;
                judge(counted.tally, verdict == Verdict::Exited(0), || {
                    verdict.to_string()
                })
            });
            Row { times, ..row }
        }
        Err(why) if why.is::<Missing>() => {
            row(args, share, || Ok(Outcome::Skipped(why.to_string())))
        }
        Err(error) => row(args, share, || Err(error)),
    }
}

/// The tests that take longest in the guests, all kernels together.
fn slowest(rows: &[Row]) -> String {
    let mut times = BTreeMap::<_, (Duration, u32)>::new();
    for test in rows.iter().flat_map(|it| &it.times) {
        let (time, guests) = times.entry(&test.name).or_default();
        *time += test.time;
        *guests += 1;
    }
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_by_key(|(_, (time, _))| Reverse(*time));
    let lines = times.iter().take(SLOWEST).map(|(name, (time, guests))| {
        let seconds = time.as_secs_f64();
        format!("{seconds:8.1}  {name}, in {guests}\n")
    });
    let lines: String = lines.collect();
    match lines.as_str() {
        "" => lines,
        _ => format!("\nseconds of the slowest tests, and in how many guests they ran\n{lines}"),
    }
}

/// Prints the table and the totals.
fn report(rows: &[Row]) -> ExitCode {
    let mut total = Tally::default();
    let mut table = format!(
        "\n{:7}{:7}{:8}{:5}{:8}\n",
        "passed", "failed", "skipped", "left", "seconds"
    );
    for Row {
        name,
        outcome,
        seconds,
        ..
    } in rows
    {
        let (tally, why) = match outcome {
            Outcome::Ran(tally) => (*tally, String::new()),
            Outcome::Passed(tally) => (*tally, ": passed before".to_owned()),
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
            left,
        } = tally;
        table +=
            &format!("{passed:6} {failed:6} {skipped:7} {left:4} {seconds:8.1}  {name}{why}\n");
    }
    if total.passed + total.failed == 0 {
        say("no test ran");
    }
    // A closed stdout must not change the exit code.
    let _ = writeln!(io::stdout(), "{}{table}\n{total}", slowest(rows));
    if total.failed == 0 && total.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
