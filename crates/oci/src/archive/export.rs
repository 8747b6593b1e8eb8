//! Writing images: one tar that `docker load` and OCI tools both read.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;

use serde::Serialize;

use crate::layout::{Layout, REF_NAME};
use crate::{Digest, ImageError};

/// An image to write, with the names to give it.
pub(crate) struct Exported {
    pub(crate) manifest: Digest,
    pub(crate) names: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

pub(crate) fn export(layout: &Layout, images: &[Exported], writer: &mut impl Write) -> Result<(), ImageError> {
    let mut tar = tar::Builder::new(writer);
    let mut written = BTreeSet::new();
    let mut docker = Vec::new();
    let mut entries = Vec::new();
    for image in images {
        let manifest = layout.manifest(&image.manifest)?;
        let mut digests = vec![image.manifest.clone()];
        for digest in std::iter::once(&manifest.config).chain(&manifest.layers).map(|descriptor| &descriptor.digest) {
            let bad = |error: crate::digest::DigestError| ImageError::BadDocument {
                what: "the manifest",
                name: image.manifest.to_string(),
                detail: error.to_string(),
            };
            digests.push(digest.parse().map_err(bad)?);
        }
        for digest in &digests {
            if written.insert(digest.clone()) {
                blob(layout, &mut tar, digest)?;
            }
        }
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        docker.push(DockerImage {
            config: digests.get(1).map(path).unwrap_or_default(),
            repo_tags: image.names.clone(),
            layers: digests.iter().skip(2).map(path).collect(),
        });
        let media_type = manifest.media_type.unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned());
        let size = layout.size_of(&image.manifest).unwrap_or_default();
        let names: Vec<Option<&String>> =
            if image.names.is_empty() { vec![None] } else { image.names.iter().map(Some).collect() };
        for name in names {
            let annotations = name.map(|name| serde_json::json!({ REF_NAME: name, "io.containerd.image.name": name }));
            entries.push(serde_json::json!({
                "mediaType": media_type, "digest": image.manifest, "size": size,
                "annotations": annotations.unwrap_or_else(|| serde_json::json!({})),
            }));
        }
    }
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
    });
    file(&mut tar, "index.json", index.to_string().as_bytes())?;
    file(&mut tar, "manifest.json", serde_json::to_string(&docker).unwrap_or_default().as_bytes())?;
    file(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.finish().map_err(ImageError::WriteArchive)
}

fn blob(layout: &Layout, tar: &mut tar::Builder<&mut impl Write>, digest: &Digest) -> Result<(), ImageError> {
    let path = layout.blob(digest);
    let blob = File::open(&path).map_err(ImageError::io("open", &path))?;
    let size = blob.metadata().map_err(ImageError::io("look at", &path))?.len();
    tar.append_data(&mut header(size), format!("blobs/sha256/{}", digest.hex()), blob).map_err(ImageError::WriteArchive)
}

fn file(tar: &mut tar::Builder<&mut impl Write>, name: &str, content: &[u8]) -> Result<(), ImageError> {
    tar.append_data(&mut header(content.len() as u64), name, content).map_err(ImageError::WriteArchive)
}

/// The same for the same image: no time, no owner.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}
