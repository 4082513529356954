//! What tracing costs, measured side by side on the kernel it runs on, as root.
//! `cargo xtask bench` builds this, runs it here and in virtual machines, and makes
//! a table of the samples that it prints: a JSON object a line.

mod floor;
mod in_kernel;
mod load;
mod stats;
mod subject;

use std::env;

use anyhow::{Result, bail};
use serde::Serialize;

/// One measurement of one subject. `cargo xtask bench` reads these.
#[derive(Serialize)]
struct Sample<'a> {
    /// What was measured, and how it was attached.
    measure: &'a str,
    /// Who was measured; `floor` is what the others are compared with.
    subject: &'a str,
    /// What `value` counts.
    unit: &'a str,
    /// The number, or nothing where the subject can't do it.
    value: Option<f64>,
    /// Why there is no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Sample<'_> {
    fn print(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["load", address, connections] => load::hold(address.parse()?, connections.parse()?),
        ["measure", connections, rounds] => {
            in_kernel::measure(connections.parse()?, rounds.parse()?)
        }
        _ => bail!("this is run by `cargo xtask bench`"),
    }
}
