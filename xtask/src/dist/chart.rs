//! The Helm chart, as `helm package` would make it.

use anyhow::{Context, Result};

use crate::dist::files::{self, File};
use crate::dist::program::Program;
use crate::dist::source::Source;
use crate::workspace;

/// The chart, in the checkout.
const FOLDER: &str = "contrib/helm/kaprobe";

/// The file of the chart with its versions.
pub const FILE: &str = "contrib/helm/kaprobe/Chart.yaml";

/// The archive of the chart. Helm wants its files in a folder with the name of the chart.
pub fn make(source: &Source, _: &[Program]) -> Result<Vec<File>> {
    let mut files = files::tracked(FOLDER)?;
    for file in &mut files {
        if file.path == FILE {
            file.bytes.extend(maintainers(&source.release.maintainer)?);
        }
        let path = file.path.strip_prefix("contrib/helm/");
        file.path = path.context("no chart")?.to_owned();
    }
    let archive = files::tar(&files, "", source.release.epoch)?;
    let name = format!("kaprobe-chart-{}.tgz", source.release.version);
    Ok(vec![File::new(name, files::gzip(&archive)?)])
}

/// The end of Chart.yaml that names the maintainer. JSON strings are YAML.
fn maintainers(maintainer: &str) -> Result<Vec<u8>> {
    let (name, address) = workspace::mailbox(maintainer).context("no maintainer")?;
    let name = serde_json::to_string(name)?;
    let address = serde_json::to_string(address)?;
    Ok(format!("maintainers:\n  - name: {name}\n    email: {address}\n").into())
}

/// The version of the chart and that of kaprobe which a Chart.yaml names.
pub fn versions(text: &str) -> [Option<&str>; 2] {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    [value("version: "), value("appVersion: ")]
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn the_chart_names_the_maintainer() -> Result<()> {
        let made = make(&Source::sample(), &[])?;
        let mut archive = tar::Archive::new(GzDecoder::new(made[0].bytes.as_slice()));
        let mut text = String::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            if entry.path()?.ends_with("Chart.yaml") {
                entry.read_to_string(&mut text)?;
            }
        }
        let end = "\nmaintainers:\n  - name: \"A B\"\n    email: \"a@example.invalid\"\n";
        assert!(
            text.ends_with(end) && text.starts_with("apiVersion: "),
            "{text}"
        );
        Ok(())
    }
}
