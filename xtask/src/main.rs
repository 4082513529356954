//! What a developer of kaprobe, or its CI, runs: `cargo xtask --help`.

mod apt;
mod bench;
mod ci;
mod ebpf;
mod process;
mod programs;
mod run;
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
    /// Build the BPF programs and keep the object, with a digest of what made it
    Ebpf(ebpf::Args),
    /// Build kaprobe and run it, through sudo unless root
    Run(run::Args),
    /// Pass every test: invariants, units, this host's kernel, and those of the matrix
    Test(test::Args),
    /// Check the invariants of the repository
    Tidy(tidy::Args),
    /// Check the format, lint both targets, and do all that `test` does
    Ci(test::Args),
    /// Measure what kaprobe costs, beside bpftrace and programs that do nothing
    Bench(bench::Args),
    /// Run a command on a kernel of the matrix, in QEMU
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Ebpf(args) => ebpf::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Run(args) => run::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Tidy(args) => tidy::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Ci(args) => ci::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Vm(args) => vm::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            process::say(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
