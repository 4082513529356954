//! Measures the cost of kaprobe and of its peers on the running kernel, as root. `cargo
//! xtask bench` builds this program, runs it here and in virtual machines, and makes a
//! table of the samples that it prints, one JSON object per line.

mod agent;
mod burst;
mod firing;
mod floor;
mod host_load;
mod in_kernel;
mod load;
mod loss;
mod memory;
mod object;
mod output_folder;
mod replay;
mod response;
mod run;
mod sample;
mod script;
mod sockets;
mod start;
mod stats;
mod top;
mod tracer;
mod usage;
mod user_space;

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};
use kaprobe_testkit::{netns, process};

use crate::host_load::HostLoad;

/// The size of the measurements.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Connections whose keepalive timers fire each second. Some measurements use their
    /// own number.
    connections: u32,
    /// How often each subject is measured, alternating with the others.
    rounds: u32,
}

fn main() -> Result<ExitCode> {
    if let Some(ended) = process::run_if_task() {
        return Ok(ended);
    }
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["play", load] => host_load::play(load)?,
        ["measure", connections, rounds, ref names @ ..] => {
            let plan = Plan {
                connections: connections.parse()?,
                rounds: rounds.parse()?,
            };
            // A new namespace has its own counters.
            netns::enter_new()?;
            names.iter().try_for_each(|name| measure(name, plan))?;
        }
        // `cargo bench` without xtask measures nothing.
        [.., "--bench"] => {}
        _ => bail!("run this with `cargo xtask bench`"),
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(name: &str, plan: Plan) -> Result<()> {
    match name {
        "in_kernel" => in_kernel::measure(plan),
        "user_space" => user_space::measure(plan),
        "memory" => memory::measure(plan),
        "loss" => loss::measure(plan),
        "burst" => burst::measure(plan),
        "start" => start::measure(plan),
        "response" => response::measure(plan),
        "connections" => response::measure_ordinary(HostLoad::Connections, plan),
        "lossy" => response::measure_ordinary(HostLoad::Lossy, plan),
        "replay" => replay::measure(plan),
        "sockets" => sockets::measure(plan),
        "top" => top::measure(plan),
        "agent" => agent::measure(plan),
        _ => bail!("no measurement {name}"),
    }
}
