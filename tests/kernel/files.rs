//! Files that kaprobe writes as root in a folder that others write to.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::unprivileged::NOBODY;
use kaprobe_testkit::{command, netns};

/// What another user has prepared under the names of a log and a ready file is not written
/// to, and the trace says why.
pub fn prepared_files_are_refused() -> Result<()> {
    netns::enter_new()?;
    for mode in [0o1777, 0o777] {
        let folder = tempfile::tempdir()?;
        let (shared, precious) = (folder.path().join("shared"), folder.path().join("precious"));
        fs::write(&precious, "precious")?;
        fs::create_dir(&shared)?;
        fs::set_permissions(&shared, Permissions::from_mode(mode))?;
        let (link, hard) = (shared.join("link.jsonl"), shared.join("hard.jsonl"));
        symlink(&precious, &link)?;
        lchown(&link, Some(NOBODY), Some(NOBODY))?;
        fs::hard_link(&precious, &hard)?;
        let theirs = shared.join("theirs.jsonl");
        fs::write(&theirs, "")?;
        chown(&theirs, Some(NOBODY), Some(NOBODY))?;
        for file in [&link, &hard, &theirs] {
            let name = file.to_str().context("the path is not UTF-8")?;
            for flags in [&["--output", name, "--force"][..], &["--ready-file", name]] {
                let trace = ["trace", "--duration", "1s", "--quiet", "--no-snapshot"];
                let output = command::run(&[&trace[..], flags].concat())?;
                let stderr = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.code() == Some(1), "{flags:?}: {stderr}");
                let is_said = stderr.contains("in a folder that others can write to");
                ensure!(
                    is_said && stderr.lines().count() == 1,
                    "{flags:?}: {stderr}"
                );
            }
            ensure!(fs::read_to_string(&theirs)?.is_empty(), "written to {name}");
        }
        ensure!(fs::read_to_string(&precious)? == "precious", "{mode:o}");
    }
    Ok(())
}

/// A log is for its owner only, and a ready file keeps what it holds.
pub fn files_are_private() -> Result<()> {
    netns::enter_new()?;
    let folder = tempfile::tempdir()?;
    let (log, ready) = (folder.path().join("a.jsonl"), folder.path().join("ready"));
    fs::write(&ready, "kept")?;
    let names = [&log, &ready].map(|path| path.to_str());
    let [Some(log_name), Some(ready_name)] = names else {
        return Err(anyhow::anyhow!("a path is not UTF-8"));
    };
    let trace = ["trace", "--duration", "1s", "--no-snapshot", "-o", log_name];
    let output = command::run(&[&trace[..], &["--ready-file", ready_name]].concat())?;
    ensure!(output.status.success(), "{output:?}");
    let mode = fs::metadata(&log)?.permissions().mode() & 0o7777;
    ensure!(mode == 0o600, "mode {mode:o}");
    ensure!(
        fs::read_to_string(&ready)? == "kept",
        "the ready file was emptied"
    );
    Ok(())
}
