//! Tasks for developers of kaprobe and for CI: `cargo xtask --help`.

mod apt;
mod arch;
mod bench;
mod build;
mod changelog;
mod chroot;
mod ci;
mod cross;
mod debian;
mod deny;
mod dist;
mod ebpf;
mod git;
mod hash;
mod packages;
mod process;
mod programs;
mod pypi;
mod release;
mod remap;
mod run;
mod rustc;
mod test;
mod tidy;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, runs and tests kaprobe.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the BPF programs, and write the object and a digest of its inputs
    Ebpf(ebpf::Args),
    /// Build a static kaprobe for this architecture or another, and say where it is
    Build(build::Args),
    /// Make what is published of a release, with its sums, in target/dist
    Dist(dist::Args),
    /// Check, test, build and try a release, tag its commit, and say what to publish
    Release(release::Args),
    /// Build kaprobe and run it, with sudo unless you are root
    Run(run::Args),
    /// Run all tests: invariants, units, and on this host's and the matrix's kernels
    Test(test::Args),
    /// Check the invariants of the repository
    Tidy(tidy::Args),
    /// Check the format, lint both targets, check the dependencies, and run all tests
    Ci(test::Args),
    /// Check the licences and sources of the dependencies, and the advisories on them
    Deny,
    /// Measure kaprobe's cost next to bpftrace and to BPF programs that do nothing
    Bench(bench::Args),
    /// Run a command on a kernel of the matrix, in QEMU
    Vm(vm::Args),
    /// Ask ClickHouse and DuckDB about the logs of many simulated hosts, and write the figures
    /// of docs/fleet.md
    Fleet(test::FleetArgs),
    /// Render a report in a browser, and write the picture docs/report.png
    Screenshot,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Ebpf(args) => ebpf::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Build(args) => build::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Dist(args) => dist::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Release(args) => release::run(&args),
        Task::Run(args) => run::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Tidy(args) => tidy::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Ci(args) => ci::run(&args),
        Task::Deny => deny::run().map(|()| ExitCode::SUCCESS),
        Task::Bench(args) => bench::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Fleet(args) => test::fleet(&args).map(|()| ExitCode::SUCCESS),
        Task::Screenshot => test::screenshot().map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            process::say(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use anyhow::Result;
    use clap::Parser as _;

    use crate::Cli;
    use crate::workspace;

    /// The README, CONTRIBUTING and the pages of `docs/` show commands of this program that
    /// it takes.
    #[test]
    fn documented_commands_are_taken() -> Result<()> {
        let root = workspace::root();
        let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
        for entry in fs::read_dir(root.join("docs"))? {
            pages.push(entry?.path());
        }
        let mut seen = 0;
        for page in pages
            .iter()
            .filter(|it| it.extension().is_some_and(|it| it == "md"))
        {
            let text = fs::read_to_string(page)?;
            for (start, _) in text.match_indices("cargo xtask ") {
                // A command ends with its span of code, its line if it is a sample, or before
                // a comment. A span may go on in the next line.
                let line = text[start..].split(['`', '#']).next().unwrap_or_default();
                let is_span = text[..start].ends_with('`');
                let line = if is_span {
                    line
                } else {
                    line.split('\n').next().unwrap_or_default()
                };
                let words = line.split_whitespace().skip(1);
                seen += 1;
                if let Err(why) = Cli::try_parse_from(words) {
                    let is_help = why.kind() == clap::error::ErrorKind::DisplayHelp;
                    assert!(is_help, "{}: {line}: {why}", page.display());
                }
            }
        }
        assert!(seen > 10, "{seen} commands");
        Ok(())
    }
}
