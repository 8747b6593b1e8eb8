//! The node's image in the engine: the layers of the userland and, on top, the binary. Streamed in docker-save's format,
//! named by what is in it, so that an image the engine has is not sent again.

use std::collections::HashMap;
use std::io::Write;

use bollard::Docker;
use bollard::query_parameters::{ImportImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder};
use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::drivers::Userland;
use crate::engine::found;
use crate::ops::node_image;
use crate::reason::{DRV_CREATE, MK_INTERNAL, OrFail, Outcome};

pub(super) const REPOSITORY: &str = "kminik/node";
const CHUNK_BYTES: usize = 256 << 10;
const PIPE_CHUNKS: usize = 8;
const FAIL: &str = "cannot give the node's image to the engine";

/// The image's name, loaded if the engine does not have it.
pub async fn ensure(docker: &Docker, userland: &Userland) -> Outcome<String> {
    let layers = match userland {
        Userland::BuiltIn => Vec::new(),
        Userland::Pulled { layers } => layers.iter().map(|layer| layer.diff_id.clone()).collect(),
    };
    let name = format!("{REPOSITORY}:{}", node_image::identity(&layers)?);
    if found(docker.inspect_image(&name).await).or_fail(&DRV_CREATE, FAIL)?.is_some() {
        return Ok(name);
    }
    let (sender, receiver) = mpsc::channel(PIPE_CHUNKS);
    let (tag, userland) = (name.clone(), userland.clone());
    let writing = tokio::task::spawn_blocking(move || {
        write_archive(std::io::BufWriter::with_capacity(CHUNK_BYTES, Pipe(sender)), &tag, &userland)
    });
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    let body = bollard::body_stream(futures::stream::unfold(receiver, async |mut receiver| {
        Some((receiver.recv().await?, receiver))
    }));
    docker.import_image(options, body, None).try_collect::<Vec<_>>().await.or_fail(&DRV_CREATE, FAIL)?;
    writing.await.or_fail(&MK_INTERNAL, FAIL)?.or_fail(&DRV_CREATE, FAIL)?;
    Ok(name)
}

/// Removes images of ours that no container uses.
pub async fn remove_unused(docker: &Docker) -> Outcome<()> {
    let filters = HashMap::from([("reference", vec![REPOSITORY])]);
    let options = ListImagesOptionsBuilder::new().filters(&filters).build();
    let images = docker.list_images(Some(options)).await.or_fail(&DRV_CREATE, "cannot list the engine's images")?;
    for name in images.into_iter().flat_map(|image| image.repo_tags) {
        // Without force the engine refuses to remove what a container uses: that is the point.
        let _ = docker.remove_image(&name, Some(RemoveImageOptionsBuilder::new().build()), None).await;
    }
    Ok(())
}

/// The writing end of a bounded pipe from a blocking thread into a request's body.
struct Pipe(mpsc::Sender<Bytes>);

impl Write for Pipe {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.blocking_send(Bytes::copy_from_slice(data)).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// docker-save: layers, the configuration, the manifest.
pub(super) fn write_archive(out: impl Write, name: &str, userland: &Userland) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(out);
    let (mut diff_ids, mut paths) = (Vec::new(), Vec::new());
    if let Userland::Pulled { layers } = userland {
        for (index, layer) in layers.iter().enumerate() {
            let path = format!("layer{index}.tar");
            archive.append_path_with_name(&layer.blob, &path)?;
            diff_ids.push(layer.diff_id.clone());
            paths.push(path);
        }
    }
    let own = pack(diff_ids.is_empty())?;
    diff_ids.push(format!("sha256:{}", hex::encode(Sha256::digest(&own))));
    append(&mut archive, "own.tar", &own)?;
    paths.push("own.tar".to_owned());
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": { "Volumes": { "/var": {} } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": [],
    });
    append(&mut archive, "config.json", config.to_string().as_bytes())?;
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": paths }]);
    append(&mut archive, "manifest.json", manifest.to_string().as_bytes())?;
    archive.into_inner()?.flush()
}

fn append(archive: &mut tar::Builder<impl Write>, path: &str, content: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, content)
}

/// The layer of our own: the whole built-in image, or over a userland the binary alone.
fn pack(whole: bool) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, content: Option<&[u8]>| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.map_or(0, |c| c.len() as u64));
        if content.is_none() {
            header.set_entry_type(tar::EntryType::Directory);
        }
        archive.append_data(&mut header, path, content.unwrap_or_default())
    };
    if whole {
        for directory in node_image::DIRECTORIES {
            add(directory, 0o755, None)?;
        }
        for (path, content) in node_image::files() {
            add(path, 0o644, Some(content.as_bytes()))?;
        }
    }
    add(node_image::BINARY.trim_start_matches('/'), 0o755, Some(&std::fs::read("/proc/self/exe")?))?;
    archive.into_inner()
}
