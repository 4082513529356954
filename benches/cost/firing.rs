//! Measures the whole time of a keepalive timer's firing, with all attached programs.
//!
//! Two programs of the bench read the clock: one before every other program at entry, one
//! after every other program at exit. Programs of a tracepoint run in the order in which
//! they were attached (`func_add`, kernel/tracepoint.c). Programs attached to the
//! function itself run in between.

use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;
use aya::maps::Array;
use aya::programs::RawTracePoint;

use crate::object::{Instruction, Program, assemble, instruction};

/// The name of a program, and the tracepoint that it attaches to.
const ENTRY: (&str, &str) = ("before", "timer_expire_entry");
const EXIT: (&str, &str) = ("behind", "timer_expire_exit");

/// Offsets of a CPU's data: the start of its current firing, the sum of ns, the count.
const OFFSETS: [i16; 3] = [0, 8, 16];
/// The size of a CPU's data as a shift, and the largest number of CPUs.
const CPU_SHIFT: i32 = 5;
const CPUS: usize = 256;
const WORDS: usize = 1 << CPU_SHIFT >> 3;

/// `timer_list.function`, include/linux/timer_types.h, on every 64-bit kernel.
const FUNCTION: i32 = 24;

/// The two programs that read the clock. Detached when dropped.
pub struct Stopwatch(Ebpf);

impl Stopwatch {
    /// Attaches the start. Programs attached later run after it.
    pub fn new() -> Result<Self> {
        let timer = address("tcp_keepalive_timer")?;
        let programs = [
            program(ENTRY, timer, &begin()),
            program(EXIT, timer, &end()),
        ];
        let data = CPUS << CPU_SHIFT;
        let object = assemble(&programs, data as u64)?;
        let ebpf = Ebpf::load(&object).context("cannot load the stopwatch")?;
        let mut watch = Self(ebpf);
        watch.attach(ENTRY)?;
        Ok(watch)
    }

    /// Attaches the stop, which runs after every program attached so far. Returns the ns
    /// per firing over a time.
    pub fn ns_per_firing(mut self, watched: Duration) -> Result<f64> {
        self.attach(EXIT)?;
        let before = self.sums()?;
        thread::sleep(watched);
        let after = self.sums()?;
        ensure!(after.1 > before.1, "no timer fired");
        Ok((after.0 - before.0) as f64 / (after.1 - before.1) as f64)
    }

    fn attach(&mut self, (name, target): (&str, &str)) -> Result<()> {
        let program = self.0.program_mut(name).context("no stopwatch")?;
        let program: &mut RawTracePoint = program.try_into()?;
        program.load()?;
        program.attach(target)?;
        Ok(())
    }

    /// The sum of ns and the number of all firings so far.
    fn sums(&self) -> Result<(u64, u64)> {
        let data = self.0.map(".bss").context("no data")?;
        let data: Array<_, [u64; CPUS * WORDS]> = Array::try_from(data)?;
        let data = data.get(&0, 0)?;
        let sum = |n: usize| data.chunks(WORDS).map(|cpu| cpu[n]).sum();
        Ok((sum(1), sum(2)))
    }
}

/// A program that runs `act` for firings of one function. r7 points to this CPU's data.
fn program<'a>((name, target): (&'a str, &str), timer: u64, act: &[Instruction]) -> Program<'a> {
    let [low, high] = [timer, timer >> 32].map(|half| half as u32 as i32);
    let mut code = vec![
        // r3 = &timer->function; r1 = r10 - 8; r2 = 8; bpf_probe_read_kernel
        instruction(0x79, 3, 1, 0, 0),
        instruction(0x07, 3, 0, 0, FUNCTION),
        instruction(0xbf, 1, 10, 0, 0),
        instruction(0x07, 1, 0, 0, -8),
        instruction(0xb7, 2, 0, 0, 8),
        instruction(0x85, 0, 0, 0, 113),
        // r1 = what was read; r2 = the function
        instruction(0x79, 1, 10, -8, 0),
        instruction(0x18, 2, 0, 0, low),
        instruction(0, 0, 0, 0, high),
    ];
    let rest = [
        // bpf_get_smp_processor_id; r6 = data of that CPU
        instruction(0x85, 0, 0, 0, 8),
        instruction(0x57, 0, 0, 0, CPUS as i32 - 1),
        instruction(0x67, 0, 0, 0, CPU_SHIFT),
        instruction(0xbf, 6, 0, 0, 0),
    ];
    let end = [
        // r0 = 0; exit
        instruction(0xb7, 0, 0, 0, 0),
        instruction(0x95, 0, 0, 0, 0),
    ];
    let skipped = rest.len() + 3 + act.len();
    code.push(instruction(0x5d, 1, 2, skipped as i16, 0));
    code.extend(rest);
    let loads_data = code.len();
    code.extend([
        // r7 = data; r7 += r6
        instruction(0x18, 7, 0, 0, 0),
        instruction(0, 0, 0, 0, 0),
        instruction(0x0f, 7, 6, 0, 0),
    ]);
    code.extend(act);
    code.extend(end);
    Program {
        name,
        section: format!("raw_tp/{target}"),
        code,
        loads_data: Some(loads_data),
    }
}

/// Calls bpf_ktime_get_ns.
const CLOCK: Instruction = [0x85, 0, 0, 0, 5, 0, 0, 0];

fn begin() -> Vec<Instruction> {
    let [started, ..] = OFFSETS;
    vec![CLOCK, instruction(0x7b, 7, 0, started, 0)]
}

fn end() -> Vec<Instruction> {
    let [started, ns, count] = OFFSETS;
    vec![
        CLOCK,
        // r0 -= started; ns += r0
        instruction(0x79, 1, 7, started, 0),
        instruction(0x1f, 0, 1, 0, 0),
        instruction(0x79, 1, 7, ns, 0),
        instruction(0x0f, 1, 0, 0, 0),
        instruction(0x7b, 7, 1, ns, 0),
        // count += 1
        instruction(0x79, 1, 7, count, 0),
        instruction(0x07, 1, 0, 0, 1),
        instruction(0x7b, 7, 1, count, 0),
    ]
}

/// The address of a kernel function.
fn address(name: &str) -> Result<u64> {
    for line in fs::read_to_string("/proc/kallsyms")?.lines() {
        let mut words = line.split(' ');
        let address = words.next().unwrap_or_default();
        if words.nth(1) == Some(name) {
            return Ok(u64::from_str_radix(address, 16)?);
        }
    }
    bail!("/proc/kallsyms does not have {name}")
}
