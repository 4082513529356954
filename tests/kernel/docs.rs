//! The commands that the README and the pages of `docs/` show can be run as they stand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use kaprobe_testkit::command;
use kaprobe_testkit::harness::Skip;

/// A word that stands for something of the reader's, and what it is here.
const PLACEHOLDERS: [(&str, &str); 7] = [
    ("LOG…", "run.jsonl"),
    ("LOG*", "run.jsonl*"),
    ("LOG", "run.jsonl"),
    ("COMMAND", "trace"),
    ("NAME", "kernel"),
    ("TIME", "350s"),
    ("DIR", "kept"),
];

/// The commands that run until they are stopped, and what stops them soon.
const ENDLESS: [(&str, &str); 3] = [
    ("trace", "--duration 1s"),
    ("record", "--duration 1s"),
    ("agent", "--duration 1s"),
];

/// The commands that need a terminal. Their own tests have one.
const INTERACTIVE: [&str; 1] = ["top"];

/// What a shell needs before it can run a command of the pages: no other host is there, and the
/// tests are root.
const PRELUDE: &str = r#"ssh() { shift; "$@"; }; sudo() { "$@"; }; "#;

/// Each command of the pages ends well.
pub fn commands_run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !root.join("docs").exists() {
        return Err(Skip("the pages are not on this machine".into()).into());
    }
    let scratch = tempfile::tempdir()?;
    let mut commands = BTreeMap::new();
    for page in pages(&root)? {
        let text = fs::read_to_string(&page)?;
        for command in commands_of(&text) {
            commands.entry(command).or_insert_with(|| page.clone());
        }
    }
    ensure!(commands.len() >= 10, "few commands: {commands:?}");
    // Logs for the commands that read some.
    run("kaprobe trace -o run.jsonl", scratch.path())?;
    run("kaprobe record --dir kept", scratch.path())?;
    for host in ["client", "server1", "server2"] {
        let log = scratch.path().join(format!("{host}.jsonl"));
        fs::copy(scratch.path().join("run.jsonl"), log)?;
    }
    for (command, page) in &commands {
        let here = || format!("{}: `{command}`", page.display());
        run(command, scratch.path()).with_context(here)?;
    }
    Ok(())
}

/// The README and all pages of `docs/`.
fn pages(root: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "md") {
            pages.push(path);
        }
    }
    Ok(pages)
}

/// The kaprobe commands of a page: those between backticks, and those after the prompt of a
/// sample.
fn commands_of(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut text = String::new();
    let mut is_sample = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_sample = !is_sample;
        } else if is_sample {
            let prompt = line.strip_prefix("$ ");
            commands.extend(prompt.map(str::to_owned));
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    for paragraph in text.split("\n\n") {
        // Between the first two backticks, the next two, and so on.
        let spans = paragraph.split('`').skip(1).step_by(2);
        let spans = spans.filter(|span| span.contains("kaprobe "));
        commands.extend(spans.map(|span| {
            let words: Vec<_> = span.split_whitespace().collect();
            let command = words.join(" ");
            // Two words name a command, and do not say how to run it.
            match words.len() {
                2 => format!("{command} --help"),
                _ => command.replace("\\|", "|"),
            }
        }));
    }
    commands.retain(|it| it.contains("kaprobe "));
    commands
}

/// Runs a command as the page has it, with what its placeholders stand for.
fn run(command: &str, directory: &Path) -> Result<()> {
    let pid = process::id().to_string();
    let word = |word: &str| match word {
        "PID" => pid.clone(),
        "kaprobe" => word.to_owned(),
        _ => PLACEHOLDERS
            .iter()
            .fold(word.to_owned(), |word, (name, value)| {
                if word == *name {
                    (*value).to_owned()
                } else {
                    word
                }
            }),
    };
    let words: Vec<_> = command.split_whitespace().map(word).collect();
    let mut line = words.join(" ");
    for (endless, end) in ENDLESS {
        line = line.replace(
            &format!("kaprobe {endless}"),
            &format!("kaprobe {endless} {end}"),
        );
    }
    let is_interactive = |name: &&str| line.contains(&format!("kaprobe {name}"));
    if INTERACTIVE.iter().any(is_interactive) {
        line.push_str(" --help");
    }
    let binary = command::binary()?;
    let folder = binary.parent().context("kaprobe is in no folder")?;
    let output = Command::new("bash")
        .args([
            "-c",
            &format!("{PRELUDE}PATH={}:$PATH; {line}", folder.display()),
        ])
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .context("bash")?;
    // Of `audit`: not every connection is safe.
    if !matches!(output.status.code(), Some(0 | 5)) {
        bail!(
            "{line}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
