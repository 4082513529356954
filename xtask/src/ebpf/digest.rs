//! Lists everything that determines the bytes of the BPF object.
//!
//! The list is computed from files alone. A stale object is found at once, without the
//! tools that build one.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::ebpf::toolchain::{BPF_LINKER, LINK_ARGS};
use crate::rustc::pinned_rustc;
use crate::{hash, workspace};

/// The path of the committed BPF object.
pub const OBJECT: &str = "kaprobe/bpf/kaprobe.bpf.o";

/// The path of the committed digest: the inputs of the object.
pub const DIGEST: &str = "kaprobe/bpf/kaprobe.bpf.digest";

const CRATE: &str = "kaprobe-ebpf";

/// The differences between the committed digest and the source tree, one per line.
pub fn stale() -> Result<Vec<String>> {
    let object = fs::read(workspace::root().join(OBJECT)).unwrap_or_default();
    let kept = fs::read_to_string(workspace::root().join(DIGEST)).unwrap_or_default();
    let now = compute(&object)?;
    let (kept, now): (BTreeSet<_>, BTreeSet<_>) = (kept.lines().collect(), now.lines().collect());
    let gone = kept
        .difference(&now)
        .map(|line| format!("{DIGEST}: kept: {line}"));
    let new = now
        .difference(&kept)
        .map(|line| format!("{DIGEST}: now:  {line}"));
    Ok(gone.chain(new).collect())
}

/// The digest of an object built from the current source tree.
pub fn compute(object: &[u8]) -> Result<String> {
    let manifest: Table = parse("Cargo.toml")?;
    let mut text =
        String::from("# What kaprobe.bpf.o was made from; `cargo xtask ebpf` writes both.\n");
    writeln!(text, "object      {}", hash::sha256(object))?;
    writeln!(text, "rustc       {}", pinned_rustc()?)?;
    writeln!(text, "bpf-linker  {BPF_LINKER}")?;
    writeln!(text, "link-args   {}", LINK_ARGS.join(" "))?;
    writeln!(
        text,
        "edition     {}",
        manifest["workspace"]["package"]["edition"]
    )?;
    for (name, profile) in profiles(&manifest) {
        writeln!(text, "profile     {name} = {profile}")?;
    }
    for source in sources()? {
        let bytes = fs::read(workspace::root().join(&source))
            .with_context(|| format!("cannot read {}", source.display()))?;
        writeln!(
            text,
            "source      {} {}",
            hash::sha256(&bytes),
            source.display()
        )?;
    }
    for locked in dependencies(&parse("Cargo.lock")?) {
        writeln!(text, "crate       {locked}")?;
    }
    Ok(text)
}

fn parse(path: &str) -> Result<Table> {
    workspace::read(path)?
        .parse()
        .with_context(|| format!("{path} is not TOML"))
}

/// The build profile of the object and the profiles that it inherits from.
fn profiles(manifest: &Table) -> Vec<(&str, &Value)> {
    let mut found = Vec::new();
    let mut name = Some("bpf");
    while let Some((current, profile)) =
        name.and_then(|name| Some((name, manifest.get("profile")?.get(name)?)))
    {
        found.push((current, profile));
        name = profile.get("inherits").and_then(Value::as_str);
    }
    found
}

/// The sorted paths of the manifest and sources of the BPF crate, from the root.
fn sources() -> Result<Vec<PathBuf>> {
    let mut found = vec![Path::new(CRATE).join("Cargo.toml")];
    let mut folders = vec![Path::new(CRATE).join("src")];
    while let Some(folder) = folders.pop() {
        let listing = fs::read_dir(workspace::root().join(&folder))
            .with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in listing {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The aya crates that the BPF crate depends on, as Cargo.lock pins them.
///
/// Their other dependencies are only needed at build time and do not change the object.
/// If one ever does, the rebuild of `--check` finds it.
fn dependencies(lock: &Table) -> BTreeSet<String> {
    let packages: &[Value] = lock
        .get("package")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice);
    let text = |package: &Value, field: &str| {
        package
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };

    let mut locked = BTreeSet::new();
    let mut to_visit = vec![CRATE.to_owned()];
    while let Some(name) = to_visit.pop() {
        for package in packages
            .iter()
            .filter(|package| text(package, "name") == name)
        {
            let line = ["name", "version", "checksum"]
                .map(|field| text(package, field))
                .join(" ");
            if name == CRATE || locked.insert(line) {
                let needs = package.get("dependencies").and_then(Value::as_array);
                let needs = needs.into_iter().flatten().filter_map(Value::as_str);
                to_visit.extend(
                    needs
                        .filter(|name| name.starts_with("aya-"))
                        .map(str::to_owned),
                );
            }
        }
    }
    locked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aya_crates_are_listed() -> Result<()> {
        let lock = r#"
            [[package]]
            name = "kaprobe-ebpf"
            version = "0.1.0"
            dependencies = ["aya-ebpf"]
            [[package]]
            name = "aya-ebpf"
            version = "0.2.1"
            checksum = "aa"
            dependencies = ["aya-ebpf-cty", "serde"]
            [[package]]
            name = "aya-ebpf-cty"
            version = "0.3.0"
            checksum = "bb"
            [[package]]
            name = "serde"
            version = "1.0.0"
            [[package]]
            name = "aya"
            version = "0.14.0"
        "#;
        let found = dependencies(&lock.parse()?);
        assert_eq!(
            Vec::from_iter(found),
            ["aya-ebpf 0.2.1 aa", "aya-ebpf-cty 0.3.0 bb"]
        );
        Ok(())
    }
}
