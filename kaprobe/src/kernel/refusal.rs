//! Why the kernel refused a program, in one line.

use aya::programs::ProgramError;
use aya::sys::SyscallError;

/// Why the kernel refused a program, in one line: aya's own text contains the whole log of
/// the verifier.
pub fn reason(why: &anyhow::Error) -> String {
    match why.downcast_ref() {
        Some(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) => {
            let log = verifier_log.to_string();
            match objection(&log) {
                Some(line) => format!("{io_error}: {line}"),
                None => io_error.to_string(),
            }
        }
        Some(ProgramError::SyscallError(SyscallError { call, io_error })) => {
            format!("{call}: {io_error}")
        }
        _ => format!("{why:#}"),
    }
}

/// What the verifier objects to: the last line of its log before its statistics.
fn objection(log: &str) -> Option<&str> {
    let is_statistic = |line: &&str| STATISTICS.iter().any(|start| line.starts_with(start));
    let said = log.lines().take_while(|line| !is_statistic(line));
    let line = said.map(str::trim).filter(|line| !line.is_empty()).last()?;
    // `bpf_base_func_proto`, kernel/bpf/helpers.c, asks security_locked_down alone.
    let is_locked = READ_KERNEL.iter().any(|it| line.contains(it))
        && (line.contains("unknown func") || line.contains("cannot use helper"));
    Some(if is_locked { LOCKED_DOWN } else { line })
}

/// The beginnings of the lines that the verifier ends its log with, whatever it found: what
/// follows the first of them are statistics too (`print_verification_stats`,
/// kernel/bpf/verifier.c).
const STATISTICS: [&str; 4] = [
    "verification time",
    "stack depth",
    "insns processed",
    "processed",
];

/// The helpers that read kernel memory. Where the kernel lacks bpf_probe_read_kernel, aya
/// calls the older bpf_probe_read instead.
const READ_KERNEL: [&str; 2] = ["bpf_probe_read_kernel#", "bpf_probe_read#"];
/// The only reason why the kernel does not have them for a privileged program.
const LOCKED_DOWN: &str = "this kernel is locked down (confidentiality) and lets no BPF program call bpf_probe_read_kernel: boot it with lockdown=integrity or without";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objection_comes_before_the_statistics() {
        let unknown = "12: (85) call bpf_probe_read_kernel#113\nunknown func bpf_probe_read_kernel#113\nprocessed 13 insns (limit 1000000)\n";
        let cannot = "12: (85) call bpf_probe_read_kernel#113\nprogram of this type cannot use helper bpf_probe_read_kernel#113\nverification time 20 usec\n";
        let older =
            "program of this type cannot use helper bpf_probe_read#4\nverification time 20 usec\n";
        let rows = [
            (older, Some(LOCKED_DOWN)),
            (
                "R1 invalid mem access 'scalar'\nverification time 9 usec\nstack depth 16+0\nsomething new 7\nprocessed 2 insns (limit 1000000)\n\n",
                Some("R1 invalid mem access 'scalar'"),
            ),
            (unknown, Some(LOCKED_DOWN)),
            (cannot, Some(LOCKED_DOWN)),
            ("processed 0 insns (limit 1000000)\n", None),
            ("", None),
        ];
        for (log, expected) in rows {
            assert_eq!(objection(log), expected, "{log}");
        }
    }
}
