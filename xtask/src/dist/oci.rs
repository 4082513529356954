//! The container image: an OCI image layout in a tar archive, made without a daemon.
//!
//! It holds the static program of each architecture, and nothing else. Every byte follows from
//! the release and the programs, so the digest of an image is the same wherever it is made.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail};
use oci_spec::image::{
    self, ANNOTATION_AUTHORS, ANNOTATION_CREATED, ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES,
    ANNOTATION_REF_NAME, ANNOTATION_REVISION, ANNOTATION_TITLE, ANNOTATION_VERSION, ConfigBuilder,
    Descriptor, HistoryBuilder, ImageConfigurationBuilder, ImageIndex, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, PlatformBuilder, RootFsBuilder,
    Sha256Digest,
};
use serde::Serialize;
use serde_json::Value;

use crate::arch::Arch;
use crate::dist::files::{self, File};
use crate::dist::installed::NAME;
use crate::dist::notices;
use crate::dist::program::Program;
use crate::dist::release::Release;
use crate::dist::source::Source;
use crate::hash;

/// The label that names the file of the release with the notices of others: the image holds the
/// program alone.
pub const NOTICES: &str = "kaprobe.notices";

/// The folder of the program in the image. Its PATH is this folder.
const BIN: &str = "usr/bin";

/// One archive, with an image for each program.
pub fn make(source: &Source, programs: &[Program]) -> Result<Vec<File>> {
    Ok(vec![archive(source, programs)?])
}

/// The archive of these programs.
pub fn archive(source: &Source, programs: &[Program]) -> Result<File> {
    let layout = layout(source, programs)?;
    let archive = files::tar(&layout, "", source.release.epoch)?;
    Ok(File::new(file(&source.release), archive))
}

/// The name of the archive.
pub fn file(release: &Release) -> String {
    format!("kaprobe-{}-oci.tar", release.version)
}

/// The files of the layout. Its index names one index, which names the image of each
/// architecture: tools that are asked for the only image of a layout find all of them.
fn layout(source: &Source, programs: &[Program]) -> Result<Vec<File>> {
    let mut blobs = Blobs::default();
    let mut images = Vec::new();
    for program in programs {
        images.push(image(source, program, &mut blobs)?);
    }
    let images = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests(images)
        .annotations(annotations(source)?)
        .build()?;
    let mut all = blobs.put(MediaType::ImageIndex, json(&images)?)?;
    let version = [(
        ANNOTATION_REF_NAME.to_owned(),
        source.release.version.clone(),
    )];
    all.set_annotations(Some(HashMap::from(version)));
    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests([all])
        .build()?;
    let layout = OciLayoutBuilder::default().image_layout_version("1.0.0");
    let mut files = blobs.files();
    files.push(File::new("index.json", json(&index)?));
    files.push(File::new("oci-layout", json(&layout.build()?)?));
    Ok(files)
}

/// The digest of the image in an archive, which a registry will know it by.
pub fn digest(archive: &[u8]) -> Result<String> {
    for entry in tar::Archive::new(archive).entries()? {
        let entry = entry?;
        if entry.path_bytes().as_ref() == b"index.json" {
            let index = ImageIndex::from_reader(entry)?;
            let image = index.manifests().first().context("no image")?;
            return Ok(image.digest().to_string());
        }
    }
    bail!("the archive has no index.json")
}

/// The image of a program.
fn image(source: &Source, program: &Program, blobs: &mut Blobs) -> Result<Descriptor> {
    let file = File::program(format!("{BIN}/kaprobe"), program.bytes.clone());
    let layer = files::tar(&[file], "", source.release.epoch)?;
    let id = format!("sha256:{}", hash::sha256(&layer));
    let layer = blobs.put(MediaType::ImageLayerGzip, files::gzip(&layer)?)?;

    let annotations = annotations(source)?;
    let created = &annotations[ANNOTATION_CREATED];
    let config = ConfigBuilder::default()
        .entrypoint([format!("/{BIN}/kaprobe")])
        .env([format!("PATH=/{BIN}")])
        .working_dir("/")
        .labels(annotations.clone());
    let history = HistoryBuilder::default()
        .created(created.clone())
        .created_by("cargo xtask dist");
    let config = ImageConfigurationBuilder::default()
        .created(created.clone())
        .architecture(architecture(program.arch))
        .os(Os::Linux)
        .config(config.build()?)
        .rootfs(
            RootFsBuilder::default()
                .typ("layers")
                .diff_ids([id])
                .build()?,
        )
        .history([history.build()?])
        .build()?;
    let config = blobs.put(MediaType::ImageConfig, json(&config)?)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers([layer])
        .annotations(annotations)
        .build()?;
    let mut manifest = blobs.put(MediaType::ImageManifest, json(&manifest)?)?;
    let platform = PlatformBuilder::default()
        .architecture(architecture(program.arch))
        .os(Os::Linux);
    manifest.set_platform(Some(platform.build()?));
    Ok(manifest)
}

/// What the image says of itself, to `docker inspect` as labels.
fn annotations(source: &Source) -> Result<HashMap<String, String>> {
    let release = &source.release;
    let notices = format!("{NAME}-{}-{}", release.version, notices::FILE);
    let created = release.date()?;
    let texts = [
        (ANNOTATION_TITLE, "kaprobe"),
        (
            ANNOTATION_DESCRIPTION,
            "Traces TCP keepalive timers and resets: why did this idle connection die?",
        ),
        (ANNOTATION_LICENSES, &source.notices.licences),
        (ANNOTATION_VERSION, &release.version),
        (ANNOTATION_REVISION, &release.commit),
        (ANNOTATION_CREATED, &created),
        (ANNOTATION_AUTHORS, &release.maintainer),
        (NOTICES, &notices),
    ];
    Ok(texts
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into())
}

/// The name of an architecture for Go, which images use.
pub const fn architecture(arch: Arch) -> image::Arch {
    match arch {
        Arch::X86_64 => image::Arch::Amd64,
        Arch::Aarch64 => image::Arch::ARM64,
    }
}

/// JSON whose keys are sorted. The maps of the crate have no order.
fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let value: Value = serde_json::to_value(value)?;
    Ok(serde_json::to_vec(&value)?)
}

/// The blobs of a layout, by their digests.
#[derive(Default)]
struct Blobs(BTreeMap<String, Vec<u8>>);

impl Blobs {
    /// Adds a blob, and describes it.
    fn put(&mut self, kind: MediaType, bytes: Vec<u8>) -> Result<Descriptor> {
        let digest = hash::sha256(&bytes);
        let found: Sha256Digest = digest.parse().context("no digest")?;
        let described = Descriptor::new(kind, bytes.len() as u64, found);
        self.0.insert(digest, bytes);
        Ok(described)
    }

    fn files(self) -> Vec<File> {
        let file = |(digest, bytes)| File::new(format!("blobs/sha256/{digest}"), bytes);
        self.0.into_iter().map(file).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use anyhow::bail;
    use flate2::read::GzDecoder;
    use oci_spec::image::{ImageConfiguration, ImageManifest};

    use super::*;

    fn programs() -> Vec<Program> {
        let program = |arch: Arch| Program {
            arch,
            bytes: arch.name().into(),
        };
        vec![program(Arch::X86_64), program(Arch::Aarch64)]
    }

    /// The blob that a descriptor names. It has the size and the digest that the descriptor has.
    fn blob<'f>(files: &'f [File], described: &Descriptor) -> Result<&'f [u8]> {
        let path = format!("blobs/sha256/{}", described.digest().digest());
        let file = files.iter().find(|it| it.path == path).context(path)?;
        assert_eq!(described.size(), file.bytes.len() as u64);
        assert_eq!(described.digest().digest(), hash::sha256(&file.bytes));
        Ok(&file.bytes)
    }

    #[test]
    fn every_blob_is_described_and_holds_the_program() -> Result<()> {
        let files = layout(&Source::sample(), &programs())?;
        let index = files.iter().find(|it| it.path == "index.json");
        let index = ImageIndex::from_reader(&*index.context("no index")?.bytes)?;
        let [all] = index.manifests().as_slice() else {
            bail!("not one image: {index:?}");
        };
        let archive = files::tar(&files, "", Release::sample().epoch)?;
        assert_eq!(digest(&archive)?, all.digest().to_string());
        let images = ImageIndex::from_reader(blob(&files, all)?)?;
        assert_eq!(images.manifests().len(), 2);
        for (described, program) in images.manifests().iter().zip(programs()) {
            let manifest = ImageManifest::from_reader(blob(&files, described)?)?;
            let config = ImageConfiguration::from_reader(blob(&files, manifest.config())?)?;
            let platform = described.platform().clone().context("no platform")?;
            assert_eq!(config.architecture(), platform.architecture());
            assert_eq!(*config.architecture(), architecture(program.arch));
            assert_eq!(config.created().as_deref(), Some("2023-11-14T22:13:20Z"));

            let mut layer = Vec::new();
            let [described] = manifest.layers().as_slice() else {
                bail!("not one layer: {manifest:?}");
            };
            GzDecoder::new(blob(&files, described)?).read_to_end(&mut layer)?;
            let id = format!("sha256:{}", hash::sha256(&layer));
            assert_eq!(*config.rootfs().diff_ids(), [id]);
            let mut found = Vec::new();
            for entry in tar::Archive::new(&*layer).entries()? {
                let mut entry = entry?;
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                let path = entry.path()?.display().to_string();
                found.push((path, entry.header().mode()?, bytes));
            }
            let folder = |path: &str| (path.to_owned(), 0o755, Vec::new());
            let file = ("usr/bin/kaprobe".to_owned(), 0o755, program.bytes);
            assert_eq!(found, [folder("usr/"), folder("usr/bin/"), file]);
        }
        // One index, two images of three blobs each, and the two files of the layout.
        assert_eq!(files.len(), 1 + 2 * 3 + 2);
        Ok(())
    }

    #[test]
    fn the_same_release_has_the_same_bytes() -> Result<()> {
        let all = |source: &Source| -> Result<Vec<u8>> {
            let files = layout(source, &programs())?;
            files::tar(&files, "", source.release.epoch)
        };
        let first = all(&Source::sample())?;
        // Maps of the crate differ in their order from one to the next.
        for _ in 0..8 {
            assert!(all(&Source::sample())? == first);
        }
        let mut other = Source::sample();
        other.release.epoch += 1;
        assert!(all(&other)? != first);
        Ok(())
    }
}
