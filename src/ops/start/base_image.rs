//! `--base-image`: the node's userland, pulled on the host through the mirrors into a cache that all clusters share.

use kminik_oci::Compression;

use crate::drivers::{Userland, UserlandLayer};
use crate::home::Home;
use crate::ops::cache::Cache;
use crate::printer::Printer;
use crate::profile::Profile;
use crate::reason::Outcome;

/// The image, fetched unless the cache has it.
pub async fn pull(home: &Home, profile: &Profile, reference: &str, printer: &Printer) -> Outcome<Userland> {
    let image = Cache::open(home, Some(profile))?.have(reference, printer).await?;
    let layers = image.layers.into_iter().map(|layer| UserlandLayer {
        diff_id: layer.diff_id.to_string(),
        blob: layer.blob,
        compression: match layer.compression {
            Compression::None => kminik_runtime::Compression::None,
            Compression::Gzip => kminik_runtime::Compression::Gzip,
            Compression::Zstd => kminik_runtime::Compression::Zstd,
        },
    });
    Ok(Userland::Pulled { layers: layers.collect() })
}
