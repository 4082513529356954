//! The software bill of materials: what is in kaprobe, as CycloneDX 1.6 in JSON.
//!
//! It has what the program holds: the crates of user space and of the BPF programs, Rust's
//! standard library, and the C library that it is linked with. What only builds or tests
//! kaprobe is left out. Its time is that of the commit, and it has no serial number, so the same
//! commit has the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use jsonschema::Retrieve;
use serde_json::{Value, json};
use toml::Table;

use crate::arch::Arch;
use crate::dist::crates::{Crate, Crates};
use crate::dist::files::File;
use crate::dist::program::Program;
use crate::dist::release::Release;
use crate::dist::source::Source;
use crate::{cross, pypi, rustc, workspace};

/// The folder of the schemas, in the Python package that has them, and the schema.
const SCHEMAS: &str = "cyclonedx/schema/_res";
const SCHEMA: &str = "bom-1.6.SNAPSHOT.schema.json";

/// The bill of these programs.
pub fn make(source: &Source, programs: &[Program]) -> Result<Vec<File>> {
    let arches: Vec<_> = programs.iter().map(|it| it.arch).collect();
    let bill = bill(&source.release, &arches)?;
    let name = format!("kaprobe-{}.cdx.json", source.release.version);
    let mut text = serde_json::to_string_pretty(&bill)?;
    text.push('\n');
    Ok(vec![File::new(name, text)])
}

/// Fails unless the bill of this checkout is as the schema of CycloneDX wants it.
pub fn check() -> Result<()> {
    pypi::install()?;
    let bill = bill(&Release::of_checkout()?, &[Arch::HOST])?;
    validate(&bill)?;
    let mut wrong = bill;
    wrong["componets"] = json!([]);
    ensure!(validate(&wrong).is_err(), "the schema takes any member");
    Ok(())
}

/// Fails unless a bill is as the schema wants it.
pub fn validate(bill: &Value) -> Result<()> {
    let schema = schema(SCHEMA)?;
    let validator = jsonschema::draft7::options()
        .should_validate_formats(true)
        .with_retriever(Schemas)
        .build(&schema);
    let validator = validator.context("CycloneDX's schema makes no sense")?;
    let errors: Vec<_> = validator
        .iter_errors(bill)
        .map(|it| it.to_string())
        .collect();
    if !errors.is_empty() {
        bail!("the bill is not CycloneDX:\n  {}", errors.join("\n  "));
    }
    Ok(())
}

fn schema(name: &str) -> Result<Value> {
    let path = pypi::folder()?.join(SCHEMAS).join(name);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Finds the schemas that CycloneDX's names, beside it.
struct Schemas;

impl Retrieve for Schemas {
    fn retrieve(
        &self,
        uri: &jsonschema::Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let path = uri.path().as_str();
        Ok(schema(path.rsplit('/').next().unwrap_or_default())?)
    }
}

/// The bill of kaprobe for these architectures.
fn bill(release: &Release, arches: &[Arch]) -> Result<Value> {
    let crates = Crates::linked(arches)?;
    let sums = sums(&workspace::read("Cargo.lock")?)?;

    let own = crates.licences.keys().filter(|it| !sums.contains_key(*it));
    let own: BTreeSet<_> = own.cloned().collect();
    let kaprobe = ("kaprobe".to_owned(), release.version.clone());
    let mut components = Vec::new();
    for (name, licence) in crates.licences.iter().filter(|(it, _)| **it != kaprobe) {
        components.push(component(name, licence, sums.get(name)));
    }
    let linked = linked(arches)?;
    components.extend(linked.iter().cloned());

    let mut dependencies = Vec::new();
    for name in crates.licences.keys() {
        let uses = crates.uses.get(name).into_iter().flatten();
        let mut on: Vec<_> = uses.map(|it| reference(it, &own)).collect();
        if *name == kaprobe {
            on.extend(
                linked
                    .iter()
                    .filter_map(|it| Some(it["bom-ref"].as_str()?.to_owned())),
            );
        }
        dependencies.push(json!({ "ref": reference(name, &own), "dependsOn": on }));
    }
    for library in &linked {
        dependencies.push(json!({ "ref": library["bom-ref"], "dependsOn": [] }));
    }
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": release.date()?,
            "lifecycles": [{ "phase": "build" }],
            "component": {
                "type": "application",
                "bom-ref": reference(&kaprobe, &own),
                "name": "kaprobe",
                "version": release.version,
                "licenses": [{ "expression": "MIT" }],
                "properties": [{ "name": "kaprobe:commit", "value": release.commit }],
            },
        },
        "components": components,
        "dependencies": dependencies,
        // What the standard library and the C library are made of themselves.
        "compositions": [{
            "aggregate": "unknown",
            "dependencies": linked.iter().map(|it| it["bom-ref"].clone()).collect::<Vec<_>>(),
        }],
    }))
}

/// The SHA-256 of each crate that comes from a registry.
fn sums(lock: &str) -> Result<BTreeMap<Crate, String>> {
    let lock: Table = lock.parse()?;
    let packages = lock.get("package").and_then(|it| it.as_array());
    let packages = packages.context("Cargo.lock names no packages")?;
    let sum = |package: &toml::Value| {
        let text = |key: &str| Some(package.get(key)?.as_str()?.to_owned());
        Some(((text("name")?, text("version")?), text("checksum")?))
    };
    Ok(packages.iter().filter_map(sum).collect())
}

/// How the bill names a crate: crates of the workspace are in no registry.
fn reference(name: &Crate, own: &BTreeSet<Crate>) -> String {
    let (name_of, version) = name;
    if own.contains(name) {
        format!("{name_of}@{version}")
    } else {
        purl(name)
    }
}

/// The package URL of a crate. `+` stands for itself in no URL.
fn purl((name, version): &Crate) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn component(name: &Crate, licence: &str, sum: Option<&String>) -> Value {
    let mut component = json!({
        "type": "library",
        "name": name.0,
        "version": name.1,
        "licenses": [{ "expression": licence }],
    });
    match sum {
        Some(sum) => {
            component["bom-ref"] = purl(name).into();
            component["purl"] = purl(name).into();
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
        }
        None => component["bom-ref"] = format!("{}@{}", name.0, name.1).into(),
    }
    component
}

/// What is linked into the program besides crates.
fn linked(arches: &[Arch]) -> Result<Vec<Value>> {
    let rust = rustc::pinned_rustc()?;
    let mut linked = vec![json!({
        "type": "library",
        "bom-ref": format!("rust-std@{rust}"),
        "name": "std",
        "description": "The standard library of Rust",
        "version": rust,
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    })];
    let debian = |name: &str, version: &str, package: &str, arch: Arch, licence: &str| {
        let purl = format!("pkg:deb/debian/{package}?arch={}", arch.debian());
        let origin = package.replace("%2B", "+");
        json!({
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "description": format!("Linked statically, as {origin} of Debian has it"),
            "version": version,
            "purl": purl,
            "licenses": [{ "expression": licence }],
        })
    };
    let gcc = cross::GCC;
    for &arch in arches {
        let glibc = cross::glibc(arch)?;
        let package = format!("libc6-dev@{}", glibc.replace('+', "%2B"));
        linked.push(debian("glibc", &glibc, &package, arch, "LGPL-2.1-or-later"));
        // It does not name its full version.
        let package = format!("libgcc-{gcc}-dev");
        let licence = "GPL-3.0-or-later WITH GCC-exception-3.1";
        linked.push(debian("libgcc", gcc, &package, arch, licence));
    }
    Ok(linked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_is_none_in_a_url() {
        let name = ("b".to_owned(), "2.0.0+x".to_owned());
        assert_eq!(purl(&name), "pkg:cargo/b@2.0.0%2Bx");
    }

    /// Only the crates of the workspace come from no registry.
    #[test]
    fn every_other_crate_has_a_sum() -> Result<()> {
        let sums = sums(&workspace::read("Cargo.lock")?)?;
        let crates = Crates::linked(&[Arch::HOST])?;
        let own = crates.licences.keys().filter(|it| !sums.contains_key(*it));
        let own: Vec<_> = own.map(|it| it.0.as_str()).collect();
        assert_eq!(own, ["kaprobe", "kaprobe-ebpf"]);
        Ok(())
    }
}
