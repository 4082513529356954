//! What `replay` and `report` show of fixed logs, byte for byte: one has every kind of record
//! with every field, one draws every verdict, and three are of the hosts of one story.

use std::path::Path;
use std::process::Command;

use anstyle_svg::Term;
use kaprobe_testkit::{golden, page};

/// A command in a folder of the logs.
fn kaprobe(arguments: &str, folder: &str) -> Command {
    let logs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kaprobe"));
    command
        .args(arguments.split_whitespace())
        .env("TZ", "UTC")
        .env_remove("NO_COLOR")
        .current_dir(logs.join(folder));
    command
}

/// What a command shows, run where the logs are; its exit code is appended.
fn shown(arguments: &str) -> Result<String, String> {
    let output = kaprobe(arguments, "")
        .output()
        .map_err(|why| format!("cannot run kaprobe: {why}"))?;
    let code = output.status.code();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).map_err(|why| why.to_string())?;
    Ok(format!("{text}exit {code:?}\n"))
}

/// The picture of the README: what a terminal shows of the story.
#[test]
fn the_picture_shows_what_a_terminal_shows() -> Result<(), String> {
    let command = "replay --format digest client.jsonl server1.jsonl server2.jsonl";
    let output = kaprobe(command, "story")
        .args(["--color", "always", "--quiet"])
        .output()
        .map_err(|why| format!("cannot run kaprobe: {why}"))?;
    let text = String::from_utf8(output.stdout).map_err(|why| why.to_string())?;
    let picture = Term::new().render_svg(&format!("$ kaprobe {command}\n{text}"));
    golden::check("../../../docs/terminal.svg", &picture)
}

/// The sample of a summary in the page on `replay`.
#[test]
fn the_page_on_replay_shows_a_summary() -> Result<(), String> {
    const PAGE: &str = include_str!("../docs/replay.md");
    let command = "replay --summary client.jsonl server1.jsonl server2.jsonl";
    let output = kaprobe(command, "story")
        .output()
        .map_err(|why| format!("cannot run kaprobe: {why}"))?;
    let text = String::from_utf8(output.stdout).map_err(|why| why.to_string())?;
    let (before, _, after) = page::split(PAGE, "summary").ok_or("no sample")?;
    let made = format!("{before}$ kaprobe {command}\n{text}{after}");
    golden::check("../../../docs/replay.md", &made)
}

#[test]
fn output_is_what_it_was() -> Result<(), String> {
    let mut wrong = Vec::new();
    let story = "story/client.jsonl story/server1.jsonl story/server2.jsonl";
    for (name, text) in [
        ("report.html", shown(&format!("report {story}"))?),
        (
            "report-records.html",
            shown("report records.jsonl --behind ipvs")?,
        ),
    ] {
        wrong.extend(golden::check(name, &text).err());
    }
    for (name, arguments) in [
        ("records.txt", "records.jsonl"),
        ("records-wide.txt", "records.jsonl -w --color always"),
        ("records-rfc3339.txt", "records.jsonl --time rfc3339"),
        ("records-unix.txt", "records.jsonl --time unix -H"),
        ("records-mono.txt", "records.jsonl --time mono -e probe"),
        ("records-relative.txt", "records.jsonl --time relative -q"),
        ("records.json", "records.jsonl --json"),
        ("records.csv", "records.jsonl --format csv"),
        ("verdicts.txt", "verdicts.jsonl -e verdict"),
        ("verdicts.json", "verdicts.jsonl -e verdict --json -q"),
        ("verdicts-digest.txt", "verdicts.jsonl --format digest"),
        ("records-digest.txt", "records.jsonl --format digest -q"),
        (
            "merged.txt",
            "records.jsonl verdicts.jsonl -P 5672 -e default",
        ),
        (
            "merged.csv",
            "records.jsonl verdicts.jsonl -p 666 --format csv",
        ),
        ("summary.txt", "verdicts.jsonl --summary"),
        (
            "summary.json",
            "verdicts.jsonl records.jsonl --summary --json",
        ),
    ] {
        let text = shown(&format!("replay {arguments}"))?;
        wrong.extend(golden::check(name, &text).err());
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n"))
    }
}
