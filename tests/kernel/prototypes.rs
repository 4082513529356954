//! Each BPF program says in its documentation which arguments it relies on; this
//! kernel's BTF says which there are.

use anyhow::{Context, Result, bail, ensure};
use btf_rs::{Btf, Type};

const PROGRAMS: &str = include_str!("../../kaprobe-ebpf/src/main.rs");

/// A function, or a tracepoint, and its arguments.
struct Prototype<'a> {
    kind: &'a str,
    name: &'a str,
    arguments: Vec<&'a str>,
}

/// As written: `fn tcp_send_active_reset(sk, [priority], [reason])`, what some kernels
/// lack in brackets, and what is not relied on left out at the end.
fn parse(text: &str) -> Option<Prototype<'_>> {
    let (kind, rest) = text.split_once(' ')?;
    let (name, arguments) = rest.strip_suffix(')')?.split_once('(')?;
    Some(Prototype {
        kind,
        name,
        arguments: arguments.split(", ").collect(),
    })
}

/// Every prototype is what this kernel has.
pub fn are_this_kernels() -> Result<()> {
    let types = Btf::from_file("/sys/kernel/btf/vmlinux")?;
    let written = PROGRAMS
        .lines()
        .filter_map(|line| line.strip_prefix("/// match-proto: "));
    let mut checked = 0;
    for text in written {
        let prototype = parse(text).with_context(|| format!("not understood: {text}"))?;
        let Some(there) = parameters(&types, &prototype)? else {
            // Tracepoints come and go; `doctor` tells which are there.
            ensure!(prototype.kind == "tracepoint", "no {}", prototype.name);
            continue;
        };
        check(&prototype, &there).with_context(|| format!("{text}; here {there:?}"))?;
        checked += 1;
    }
    ensure!(checked > 10, "only {checked} prototypes were checked");
    Ok(())
}

/// The names of the parameters; empty where BTF keeps none, as for tracepoints.
fn parameters(types: &Btf, prototype: &Prototype<'_>) -> Result<Option<Vec<String>>> {
    let (name, own) = match prototype.kind {
        "fn" => (prototype.name.to_owned(), 0),
        // Before the arguments stands the tracepoint's own data.
        "tracepoint" => (format!("btf_trace_{}", prototype.name), 1),
        kind => bail!("{kind} is neither fn nor tracepoint"),
    };
    let Ok(named) = types.resolve_types_by_name(&name) else {
        return Ok(None);
    };
    let starts = named
        .iter()
        .filter(|t| matches!(t, Type::Func(_) | Type::Typedef(_)));
    let function = starts
        .filter_map(|start| start.as_btf_type())
        .flat_map(|start| types.chained_type_iter(start))
        .find_map(|t| match t {
            Type::FuncProto(function) => Some(function),
            _ => None,
        });
    let Some(function) = function else {
        return Ok(None);
    };
    let names = function.parameters.iter().skip(own);
    Ok(Some(
        names
            .map(|p| types.resolve_name(p))
            .collect::<Result<_, _>>()?,
    ))
}

fn check(prototype: &Prototype<'_>, there: &[String]) -> Result<()> {
    let mut there = there.iter().peekable();
    for argument in &prototype.arguments {
        let optional = argument.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
        let name = optional.unwrap_or(argument);
        let found = there.next_if(|it| it.is_empty() || *it == name).is_some();
        ensure!(
            found || optional.is_some(),
            "{name} is not where it is looked for"
        );
    }
    Ok(())
}
