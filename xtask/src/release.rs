//! Makes a release: `cargo xtask release VERSION`.
//!
//! It checks what a release has to have, runs everything, makes the artifacts in two checkouts,
//! and tries them. Then the commit gets its tag. Nothing is published: the commands for that are
//! printed.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::dist::chart;
use crate::process::say;
use crate::test::notes::Notes;
use crate::{changelog, ci, dist, git, test, workspace};

/// The branch that releases are made of.
const BRANCH: &str = "main";

/// Options of `cargo xtask release`.
#[derive(clap::Args)]
pub struct Args {
    /// The version, such as 0.2.0
    version: String,
    /// Do everything, but make no tag
    #[arg(long)]
    dry_run: bool,
    /// In a dry run, run the tests that `cargo xtask ci` runs: those of --full take hours
    #[arg(long, requires = "dry_run")]
    quick: bool,
}

/// Makes the release. Fails before anything is run if the checkout is not ready for it. What of
/// the tests passed in an earlier run, for the very commit, is not run again.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut steps = Steps::default();
    let made = make(args, &mut steps);
    // A closed stdout must not change the exit code.
    let _ = io::stdout().write_all(steps.table().as_bytes());
    let Some(digest) = made? else {
        say("a test failed: there is no release");
        return Ok(ExitCode::FAILURE);
    };
    let _ = io::stdout().write_all(publish(&args.version, &digest).as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// Does the steps of a release. Returns the digest of the image, or nothing if a test failed.
fn make(args: &Args, steps: &mut Steps) -> Result<Option<String>> {
    let version = args.version.as_str();
    steps.step("checkout", || Ok(((), is_ready(version)?)))?;

    let notes = Arc::new(Notes::of(workspace::root())?);
    let tests = test::Args::of_release(args.quick, Arc::clone(&notes))?;
    let passed = steps.step("lints and tests", || {
        let is_passed = ci::run(&tests)? == ExitCode::SUCCESS;
        let result = match (is_passed, args.quick) {
            (true, false) => "passed",
            (true, true) => "passed, without those of --full",
            (false, _) => "FAILED",
        };
        let before = match notes.used() {
            0 => String::new(),
            used => format!(", {used} parts of the tests in an earlier run"),
        };
        Ok((is_passed, format!("{result}{before}")))
    })?;
    if !passed {
        return Ok(None);
    }
    let digest = steps.step("artifacts", || {
        let digest = dist::everything()?;
        let result = "in target/dist, the same from two checkouts, verified";
        Ok((digest, result.to_owned()))
    })?;
    // The tests may have taken hours.
    steps.step("checkout again", || Ok(((), is_ready(version)?)))?;
    steps.step("tag", || Ok(((), put_tag(version, args.dry_run)?)))?;
    Ok(Some(digest))
}

/// Fails unless the checkout is ready for a release. Returns its commit, in words.
fn is_ready(version: &str) -> Result<String> {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let findings = findings(version, today, &Checkout::read(workspace::root())?);
    if !findings.is_empty() {
        bail!("{version} can't be released:\n  {}", findings.join("\n  "));
    }
    let commit = git::read(workspace::root(), &["rev-parse", "HEAD"])?;
    Ok(format!("ready: commit {commit}"))
}

/// Makes the tag, unless it is a dry run. Says which.
fn put_tag(version: &str, dry_run: bool) -> Result<String> {
    let tag = tag(version);
    if dry_run {
        return Ok(format!("a dry run: {tag} was not made"));
    }
    let message = format!("kaprobe {version}");
    git::read(
        workspace::root(),
        &["tag", "--annotate", "--message", &message, &tag],
    )?;
    Ok(format!("{tag} was made"))
}

/// What a release has done: how long each step took, its name, and its result.
#[derive(Debug, Default)]
struct Steps(Vec<(Duration, &'static str, String)>);

impl Steps {
    /// Does a step, which returns a value and its result in words.
    fn step<T>(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Result<(T, String)>,
    ) -> Result<T> {
        let start = Instant::now();
        let done = step();
        let result = match &done {
            Ok((_, result)) => result.clone(),
            Err(_) => "FAILED".to_owned(),
        };
        self.0.push((start.elapsed(), name, result));
        Ok(done?.0)
    }

    /// A line for each step.
    fn table(&self) -> String {
        let line = |(time, name, result): &(Duration, &str, String)| {
            format!("{:8.1}  {name:15}  {result}\n", time.as_secs_f64())
        };
        let lines: String = self.0.iter().map(line).collect();
        format!("\n seconds  step             result\n{lines}")
    }
}

/// What a checkout has of a release.
#[derive(Clone, Debug)]
struct Checkout {
    branch: String,
    /// What differs from the last commit, as git prints it.
    changes: String,
    tags: Vec<String>,
    /// The version in Cargo.toml.
    version: String,
    /// The text of Chart.yaml.
    chart: String,
    changelog: String,
}

impl Checkout {
    /// Reads the checkout in a folder.
    fn read(root: &Path) -> Result<Self> {
        let read = |path: &str| {
            let path = root.join(path);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let tags = git::read(root, &["tag", "--list"])?;
        Ok(Self {
            // Empty if no branch is checked out.
            branch: git::read(root, &["branch", "--show-current"])?,
            changes: git::read(root, &["status", "--porcelain"])?,
            tags: tags.lines().map(str::to_owned).collect(),
            version: workspace::version_in(&read("Cargo.toml")?)?,
            chart: read(chart::FILE)?,
            changelog: read(changelog::FILE)?,
        })
    }
}

/// The tag of a version.
fn tag(version: &str) -> String {
    format!("v{version}")
}

/// Why a version can't be released on this day.
fn findings(version: &str, today: Date, checkout: &Checkout) -> Vec<String> {
    let mut findings = Vec::new();
    let mut require = |is_so: bool, what: String| {
        if !is_so {
            findings.push(what);
        }
    };
    let Checkout {
        branch,
        changes,
        tags,
        ..
    } = checkout;
    require(
        branch == BRANCH,
        format!("the branch is {branch:?}, not {BRANCH}"),
    );
    require(
        changes.is_empty(),
        format!("files differ from the commit: {changes}"),
    );
    let has_tag = tags.contains(&tag(version));
    require(!has_tag, format!("there is a tag {}", tag(version)));
    let workspace = &checkout.version;
    require(
        workspace == version,
        format!("the version in Cargo.toml is {workspace}"),
    );
    let chart = chart::versions(&checkout.chart);
    require(
        chart == [Some(version); 2],
        format!("the versions of the chart are {chart:?}"),
    );
    findings.extend(changes_missing(version, today, &checkout.changelog));
    findings
}

/// What the changelog lacks.
fn changes_missing(version: &str, today: Date, text: &str) -> Option<String> {
    let file = changelog::FILE;
    let all = match changelog::read(text) {
        Ok(all) => all,
        Err(why) => return Some(format!("{file}: {why:#}")),
    };
    let newest = all.first()?;
    match (newest.version.as_deref(), newest.day) {
        (None, _) => Some(format!(
            "{file} has changes of no version: {}",
            changelog::UNRELEASED
        )),
        (Some(other), _) if other != version => Some(format!("the newest in {file} is {other}")),
        (_, Some(day)) if day <= today => None,
        (_, day) => Some(format!("{file}: the day is {day:?}, and it is {today}")),
    }
}

/// The commands that publish a release, for a person to run.
fn publish(version: &str, digest: &str) -> String {
    let tag = tag(version);
    format!(
        "\nTo publish, with your names of the repository, the registry and the page of releases:\n\n\
         git push REMOTE {tag}\n\
         skopeo copy --all oci-archive:target/dist/kaprobe-{version}-oci.tar \\\n  \
         docker://REGISTRY/kaprobe:{version}\n\
         # its digest there: {digest}\n\
         helm push target/dist/kaprobe-chart-{version}.tgz oci://REGISTRY/charts\n\
         # and all files of target/dist, with SHA256SUMS, to the page of the release\n"
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::CommandExt as _;

    const CHANGES: &str = "# Changes\n\n## 1.2.3 - 2026-02-03\n- x\n## 1.2.2 - 2026-01-01\n";

    fn today() -> Date {
        Date::constant(2026, 2, 3)
    }

    fn ready() -> Checkout {
        Checkout {
            branch: "main".to_owned(),
            changes: String::new(),
            tags: vec!["v1.2.2".to_owned()],
            version: "1.2.3".to_owned(),
            chart: "version: 1.2.3\nappVersion: 1.2.3\n".to_owned(),
            changelog: CHANGES.to_owned(),
        }
    }

    #[test]
    fn only_what_is_ready_is_released() {
        type Change = fn(&mut Checkout);
        let rows: &[(Change, &str)] = &[
            (|it| it.branch = "fix".to_owned(), "the branch"),
            (|it| it.branch = String::new(), "the branch"),
            (|it| it.changes = " M a".to_owned(), "files differ"),
            (|it| it.tags.push("v1.2.3".to_owned()), "there is a tag"),
            (|it| it.version = "1.2.4".to_owned(), "Cargo.toml is 1.2.4"),
            (|it| it.chart = "version: 1.2.3\n".to_owned(), "the chart"),
            (
                |it| it.changelog = it.changelog.replacen("##", "## Unreleased\n##", 1),
                "of no version",
            ),
            (
                |it| it.changelog = "## 1.2.2 - 2026-01-01\n".to_owned(),
                "is 1.2.2",
            ),
            (
                |it| it.changelog = it.changelog.replace("02-03", "02-04"),
                "the day",
            ),
            (
                |it| it.changelog = it.changelog.replace(" - 2026-02-03", ""),
                "a heading is",
            ),
        ];
        assert_eq!(findings("1.2.3", today(), &ready()), [""; 0]);
        for (change, what) in rows {
            let mut checkout = ready();
            change(&mut checkout);
            let found = findings("1.2.3", today(), &checkout);
            assert!(
                matches!(&found[..], [one] if one.contains(what)),
                "{what}: {found:?}"
            );
        }
        // A version that is not this one: of Cargo.toml, of the chart, and of the changelog.
        assert_eq!(findings("1.3.0", today(), &ready()).len(), 3);
    }

    /// git says of a real repository what the checks read.
    #[test]
    fn a_checkout_is_read() -> Result<()> {
        let scratch = workspace::scratch()?;
        let root = scratch.path();
        workspace::write(
            &root.join("Cargo.toml"),
            "[workspace.package]\nversion = \"1.2.3\"\n",
        )?;
        workspace::write(&root.join(chart::FILE), ready().chart)?;
        workspace::write(&root.join(changelog::FILE), CHANGES)?;
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.args(["-c", "user.name=a", "-c", "user.email=a@example.invalid"]);
            git.args(arguments).current_dir(root).read()
        };
        git(&["init", "--quiet", "--initial-branch=main"])?;
        git(&["add", "."])?;
        git(&["commit", "--quiet", "--message=all"])?;
        let found = || Ok::<_, anyhow::Error>(findings("1.2.3", today(), &Checkout::read(root)?));
        assert_eq!(found()?, [""; 0]);

        git(&["tag", "--annotate", "--message=x", "v1.2.3"])?;
        workspace::write(&root.join("new"), "")?;
        git(&["checkout", "--quiet", "--detach"])?;
        let found = found()?.join("\n");
        for what in ["the branch is \"\"", "?? new", "there is a tag v1.2.3"] {
            assert!(found.contains(what), "{what}: {found}");
        }
        Ok(())
    }

    #[test]
    fn the_table_has_what_was_done_and_what_failed() {
        let mut steps = Steps::default();
        let done = steps.step("one", || Ok((7, "well".to_owned())));
        assert!(done.is_ok_and(|it| it == 7));
        let failed: Result<()> = steps.step("two", || bail!("no"));
        assert!(failed.is_err());
        let table = steps.table();
        let ends: Vec<_> = table.lines().skip(2).map(str::trim_end).collect();
        assert!(ends[0].ends_with("one              well"), "{table}");
        assert!(ends[1].ends_with("two              FAILED"), "{table}");
    }

    #[test]
    fn the_commands_name_what_is_published() {
        let commands = publish("1.2.3", "sha256:aa");
        for what in [
            "git push REMOTE v1.2.3",
            "kaprobe-1.2.3-oci.tar",
            "sha256:aa",
        ] {
            assert!(commands.contains(what), "{commands}");
        }
    }
}
