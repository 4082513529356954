//! Compares the arguments that each BPF program documents with this kernel's BTF.

use anyhow::{Context, Result, bail, ensure};
use kaprobe::kernel::types::{Bytes, Type, TypeKind, Types};

const PROGRAMS: &str = include_str!("../../kaprobe-ebpf/src/main.rs");

/// A function or tracepoint, and its arguments.
struct Prototype<'a> {
    kind: &'a str,
    name: &'a str,
    arguments: Vec<&'a str>,
}

/// Parses a prototype such as `fn tcp_send_active_reset(sk, [priority], [reason])`. Some
/// kernels lack the arguments in brackets. Unused arguments at the end are left out.
fn parse(text: &str) -> Option<Prototype<'_>> {
    let (kind, rest) = text.split_once(' ')?;
    let (name, arguments) = rest.strip_suffix(')')?.split_once('(')?;
    Some(Prototype {
        kind,
        name,
        arguments: arguments.split(", ").collect(),
    })
}

/// Every documented prototype matches this kernel.
pub fn prototypes_match_this_kernel() -> Result<()> {
    let types = Types::parse(Bytes::read("/sys/kernel/btf/vmlinux")?)?;
    let documented = PROGRAMS
        .lines()
        .filter_map(|line| line.strip_prefix("/// match-proto: "));
    let mut checked = 0;
    for text in documented {
        let prototype = parse(text).with_context(|| format!("not a prototype: {text}"))?;
        let Some(actual) = parameters(&types, &prototype)? else {
            // Not every kernel has every tracepoint; `doctor` reports them.
            ensure!(prototype.kind == "tracepoint", "no {}", prototype.name);
            continue;
        };
        check(&prototype, &actual).with_context(|| format!("{text}; here {actual:?}"))?;
        checked += 1;
    }
    ensure!(checked > 10, "only {checked} prototypes were checked");
    Ok(())
}

/// The names of the parameters. A name is empty if BTF has none, as for tracepoints.
fn parameters(types: &Types, prototype: &Prototype<'_>) -> Result<Option<Vec<String>>> {
    let (kind, name, own) = match prototype.kind {
        "fn" => (TypeKind::Func, prototype.name.to_owned(), 0),
        // The first argument is the tracepoint's own data.
        "tracepoint" => (
            TypeKind::Typedef,
            format!("btf_trace_{}", prototype.name),
            1,
        ),
        kind => bail!("{kind} is neither fn nor tracepoint"),
    };
    let numbers = types.numbers(&[(kind, &name)]);
    let start = numbers[0].and_then(|number| types.get(number));
    let mut links = start.into_iter().flat_map(Type::chain);
    let function = links.find(|it| it.kind == TypeKind::FuncProto);
    Ok(function.map(|function| {
        let names = function.entries().skip(own);
        names.map(|it| it.name().to_owned()).collect()
    }))
}

fn check(prototype: &Prototype<'_>, actual: &[String]) -> Result<()> {
    let mut actual = actual.iter().peekable();
    for argument in &prototype.arguments {
        let optional = argument.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
        let name = optional.unwrap_or(argument);
        let found = actual.next_if(|it| it.is_empty() || *it == name).is_some();
        ensure!(
            found || optional.is_some(),
            "{name} is missing or at another position"
        );
    }
    Ok(())
}
