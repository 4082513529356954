//! Debian's package, in a guest that systemd has started: what dpkg and its scripts do to the
//! service.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use anyhow::{Context as _, Result, ensure};
use kaprobe_testkit::command::binary;
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::systemd::{NAME, RECORDS, Service, systemctl};
use kaprobe_testkit::wait::wait_until;

/// The variable that names the folder with a package of an older version and one of this:
/// `old.deb` and `new.deb`.
const DEBS: &str = "KAPROBE_DEBS";

/// Where packages install files.
const PLACES: [&str; 3] = ["/etc", "/usr", "/var"];

/// kaprobe of this guest, which lies where the package installs its own. Put back when dropped.
struct KeptBinary {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl KeptBinary {
    fn take() -> Result<Self> {
        let path = binary()?;
        let bytes = fs::read(&path)?;
        fs::remove_file(&path)?;
        Ok(Self { path, bytes })
    }
}

impl Drop for KeptBinary {
    fn drop(&mut self) {
        use std::os::unix::fs::PermissionsExt as _;

        // An error becomes one of the next test.
        let _ = fs::write(&self.path, &self.bytes)
            .and_then(|()| fs::set_permissions(&self.path, fs::Permissions::from_mode(0o755)));
    }
}

/// The package neither enables nor starts the service; an upgrade restarts it if it runs, and
/// only then; a removal stops it; and a purge leaves nothing.
pub fn dpkg_does_to_the_service_what_it_should() -> Result<()> {
    let Some(folder) = env::var_os(DEBS) else {
        return Err(Skip("no packages were made for this run".to_owned()).into());
    };
    let service = Service::of_package()?;
    let _kept = KeptBinary::take()?;
    let before = own_files()?;
    let package = |name: &str| {
        let path = Path::new(&folder).join(name);
        path.to_str().map(str::to_owned).context("no path")
    };
    let (old, new) = (package("old.deb")?, package("new.deb")?);

    dpkg(&["--install", &old])?;
    is_in_state(&service, ["loaded", "disabled", "inactive"])?;
    systemctl(&["enable", "--now", NAME])?;
    service.wait_ready()?;
    let first = service.pid()?;

    dpkg(&["--install", &new])?;
    is_in_state(&service, ["loaded", "enabled", "active"])?;
    service.wait_ready()?;
    let second = service.pid()?;
    ensure!(second != first, "it was not restarted");

    systemctl(&["stop", NAME])?;
    dpkg(&["--install", &new])?;
    is_in_state(&service, ["loaded", "enabled", "inactive"])?;

    systemctl(&["start", NAME])?;
    service.wait_ready()?;
    let last = service.pid()?;
    dpkg(&["--remove", "kaprobe"])?;
    ensure!(service.show("ActiveState")? == "inactive", "it runs on");
    ensure!(!Path::new(&format!("/proc/{last}")).exists(), "it is left");
    ensure!(service.get("/healthz").is_err(), "its port is open");
    ensure!(service.show("LoadState")? == "not-found", "its unit stays");
    ensure!(
        fs::read_dir(RECORDS)?.next().is_some(),
        "what was recorded does not stay"
    );

    dpkg(&["--purge", "kaprobe"])?;
    let after = own_files()?;
    let left: Vec<_> = after.difference(&before).collect();
    ensure!(left.is_empty(), "a purge leaves {left:?}");
    Ok(())
}

/// The scripts of the RPM package restart a service that runs after an upgrade, and disable and
/// stop it before it goes.
pub fn rpm_scripts_do_to_the_service_what_they_should() -> Result<()> {
    let script = |text: &str, left: &str| -> Result<()> {
        let status = Command::new("sh").args(["-c", text, "sh", left]).status()?;
        ensure!(status.success(), "{status}");
        Ok(())
    };
    let service = Service::install(&[])?;
    service.start()?;
    let first = service.pid()?;
    script(include_str!("../../contrib/rpm/post"), "2")?;
    script(include_str!("../../contrib/rpm/preun"), "1")?;
    ensure!(service.pid()? == first, "it was restarted too early");
    script(include_str!("../../contrib/rpm/postun"), "1")?;
    service.wait_ready()?;
    ensure!(service.pid()? != first, "it was not restarted");
    is_in_state(&service, ["loaded", "enabled", "active"])?;

    script(include_str!("../../contrib/rpm/preun"), "0")?;
    wait_until("the service ends", || {
        Ok(service.show("ActiveState")? == "inactive")
    })?;
    // systemd looks at the links again when it is told to.
    script(include_str!("../../contrib/rpm/postun"), "0")?;
    is_in_state(&service, ["loaded", "disabled", "inactive"])
}

/// Fails unless systemd has loaded it, has it enabled, and runs it, as these say.
fn is_in_state(service: &Service, expected: [&str; 3]) -> Result<()> {
    let [load, file, active] =
        ["LoadState", "UnitFileState", "ActiveState"].map(|it| service.show(it));
    let found = [load?, file?, active?];
    ensure!(found == expected, "it is {found:?}, not {expected:?}");
    Ok(())
}

/// Runs dpkg, whose questions have their usual answers.
fn dpkg(arguments: &[&str]) -> Result<()> {
    let mut dpkg = Command::new("dpkg");
    let output = dpkg
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(arguments)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "dpkg {arguments:?}: {said}");
    // What a script says of a failure that it lets pass. Folders of other packages are not known
    // to this dpkg as theirs.
    let mut lines = said.lines();
    let is_fine = lines.all(|it| it.ends_with("not empty so not removed"));
    ensure!(is_fine, "dpkg {arguments:?} says: {said}");
    Ok(())
}

/// Files and folders of kaprobe, by their names.
fn own_files() -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for place in PLACES {
        add_own_files(Path::new(place), &mut found)?;
    }
    Ok(found)
}

fn add_own_files(folder: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains("kaprobe") {
            found.insert(entry.path());
        }
        if entry.file_type()?.is_dir() {
            add_own_files(&entry.path(), found)?;
        }
    }
    Ok(())
}
