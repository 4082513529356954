//! Man pages and completions, as the programs of Debian that read them take them.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::command;
use kaprobe_testkit::package::{self, Root};

/// Each page passes mandoc's checks, and shows the flags of its command.
pub fn pages_pass_mandoc() -> Result<()> {
    package::on_host_only()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_str().context("the path is not UTF-8")?;
    let output = command::run(&["man", path])?;
    ensure!(output.status.success(), "{output:?}");
    let mandoc = Root::of("mandoc")?;
    let mut pages = 0;
    for entry in fs::read_dir(folder.path())? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a name")?;
        let in_root = format!("tmp/{name}");
        mandoc.write(&in_root, &fs::read_to_string(entry.path())?)?;
        let file = format!("/{in_root}");
        let lint = mandoc
            .command("usr/bin/mandoc")
            .args(["-T", "lint", "-W", "warning", &file])
            .output()?;
        let found = String::from_utf8(lint.stdout)?;
        ensure!(lint.status.success() && found.is_empty(), "{found}");
        let shown = mandoc.run("usr/bin/mandoc", &["-T", "utf8", &file])?;
        let shown = String::from_utf8(shown.stdout)?;
        ensure!(shown.contains("kaprobe"), "{shown}");
        pages += 1;
    }
    ensure!(pages > 6, "{pages} pages");
    Ok(())
}

/// fish completes flags and values by the script.
pub fn fish_completes() -> Result<()> {
    package::on_host_only()?;
    let fish = Root::of("fish")?;
    fish.write("tmp/kaprobe.fish", &script("fish")?)?;
    for (typed, expected) in [
        ("kaprobe trace --remotep", "--remoteport"),
        ("kaprobe sockets --sort id", "--sort idle"),
        ("kaprobe trace --events probe_c", "probe_congested"),
    ] {
        let complete = format!("source /tmp/kaprobe.fish; complete --do-complete '{typed}'");
        let mut command = fish.command("usr/bin/fish");
        command
            .env("HOME", "/tmp")
            .args(["--no-config", "-c", &complete]);
        let output = command.output()?;
        let shown = String::from_utf8(output.stdout)?;
        let last = expected.rsplit(' ').next().unwrap_or_default();
        ensure!(shown.contains(last), "{typed}: {shown:?}");
    }
    Ok(())
}

/// zsh takes the script for the completion of `kaprobe`.
pub fn zsh_takes_the_script() -> Result<()> {
    package::on_host_only()?;
    let zsh = Root::of("zsh")?;
    zsh.write("tmp/_kaprobe", &script("zsh")?)?;
    let check = "autoload -Uz compinit && compinit -u -D && source /tmp/_kaprobe && \
                 print ${_comps[kaprobe]} ${+functions[_kaprobe]}";
    let output = zsh
        .command("usr/bin/zsh")
        .args(["-f", "-c", check])
        .output()?;
    let (stdout, stderr) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    );
    ensure!(stdout.trim() == "_kaprobe 1", "{stdout}{stderr}");
    Ok(())
}

/// The completion script for a shell.
fn script(shell: &str) -> Result<String> {
    let output = command::run(&["completions", shell])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}
