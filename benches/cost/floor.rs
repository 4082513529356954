//! The floor: programs that do nothing, attached to kaprobe's hooks.

use anyhow::{Context as _, Result, bail};
use aya::{Btf, Ebpf, programs};

use crate::object::{Program, assemble, instruction};

/// The kernel function of the keepalive timer.
const TIMER: &str = "tcp_keepalive_timer";
/// The names of the empty programs.
const NAMES: [&str; 2] = ["empty_entry", "empty_exit"];

/// The libbpf section and the target of the two programs, for a way to attach.
fn parts(way: &str) -> Result<[(&'static str, &'static str); 2]> {
    Ok(match way {
        "fentry" => [("fentry", TIMER), ("fexit", TIMER)],
        "kprobe" => [("kprobe", TIMER), ("kretprobe", TIMER)],
        "tracepoint" => [
            ("raw_tp", "timer_expire_entry"),
            ("raw_tp", "timer_expire_exit"),
        ],
        _ => bail!("no empty programs for {way}"),
    })
}

/// Attaches the empty programs to this process in one way. Detached when dropped.
pub fn attach(way: &str) -> Result<Ebpf> {
    let parts = parts(way)?;
    let programs = [0, 1].map(|n| Program {
        name: NAMES[n],
        section: format!("{}/{}", parts[n].0, parts[n].1),
        // r0 = 0; exit
        code: vec![instruction(0xb7, 0, 0, 0, 0), instruction(0x95, 0, 0, 0, 0)],
        loads_data: None,
    });
    let mut ebpf =
        Ebpf::load(&assemble(&programs, 0)?).context("cannot load the empty programs")?;
    for (name, (_, target)) in NAMES.into_iter().zip(parts) {
        let program = ebpf.program_mut(name).context("no empty program")?;
        match program {
            programs::Program::FEntry(p) => {
                p.load(target, &Btf::from_sys_fs()?)?;
                p.attach()?;
            }
            programs::Program::FExit(p) => {
                p.load(target, &Btf::from_sys_fs()?)?;
                p.attach()?;
            }
            programs::Program::KProbe(p) => {
                p.load()?;
                p.attach(target, 0)?;
            }
            programs::Program::RawTracePoint(p) => {
                p.load()?;
                p.attach(target)?;
            }
            _ => bail!("an empty program of an unknown type"),
        }
    }
    Ok(ebpf)
}
