//! Reads logs for what they show of idle timeouts.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};

use crate::correlate::MAX_SOCKETS;
use crate::replay::input::Input;
use crate::replay::{Item, Log};
use crate::text::escape::Escaped;
use crate::timeout::estimate::Bracket;
use crate::timeout::timeouts::Learned;
use crate::verdict::Judge;

impl Learned for Judge {
    fn bracket(&self, remote: (IpAddr, u16)) -> Option<Bracket> {
        Self::bracket(self, remote)
    }
}

/// What these logs show. A line that is no record is told on stderr, and left out.
///
/// # Errors
/// When a log can't be read.
pub fn read(logs: &[Input]) -> Result<Vec<Box<dyn Learned>>> {
    let mut learned: Vec<Box<dyn Learned>> = Vec::new();
    for log in logs {
        let (name, file) = open(log)?;
        let mut log = Log::new(file);
        let mut judge = Judge::new(MAX_SOCKETS, &[]);
        let mut tell = |remark| {
            // Nobody may be there to read it, which is no reason to fail.
            let _unread = writeln!(io::stderr(), "kaprobe: {name}:{remark}");
        };
        loop {
            let next = log.next(&mut tell);
            match next.with_context(|| format!("cannot read {name}"))? {
                Some(Item::Record(record)) => drop(judge.push(&record)),
                // Another trace: its sockets and its clock are others.
                Some(Item::Header(_)) => {
                    let new = Judge::new(MAX_SOCKETS, &[]);
                    learned.push(Box::new(std::mem::replace(&mut judge, new)));
                }
                None => break,
            }
        }
        learned.push(Box::new(judge));
    }
    Ok(learned)
}

fn open(log: &Input) -> Result<(String, File)> {
    let (name, file) = match log {
        Input::Stdin => (
            "standard input".to_owned(),
            io::stdin().as_fd().try_clone_to_owned().map(File::from),
        ),
        Input::File(path) => (
            Escaped::from_bytes(path.as_os_str().as_encoded_bytes()).to_string(),
            File::open(path),
        ),
    };
    let file = file.with_context(|| format!("cannot read {name}"))?;
    Ok((name, file))
}
