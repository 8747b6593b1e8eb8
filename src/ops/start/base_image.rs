//! `--base-image`: the node's userland, pulled on the host through the mirrors into a cache that all clusters share.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kminik_oci::{Compression, ImageError, ImageStore, MirrorArgument, Progress, ResolverConfig};
use parking_lot::Mutex;

use crate::drivers::{Userland, UserlandLayer};
use crate::home::Home;
use crate::printer::Printer;
use crate::profile::{Profile, Registries};
use crate::reason::{Failure, GUEST_ARCHITECTURE, INET_BAD_MIRROR, INET_PULL, OrFail, Outcome};

/// The image, fetched unless the cache has it.
pub async fn pull(home: &Home, profile: &Profile, reference: &str, printer: &Printer) -> Outcome<Userland> {
    let cache = home.image_cache();
    home.make_dir(&cache)?;
    let config = resolver(&profile.registries, mirrors_file(home)?)?;
    let store = ImageStore::open(&cache, config).or_fail(&INET_PULL, "cannot open the image cache")?;
    let image = match store.get(reference).await.or_fail(&INET_PULL, "cannot read the image cache")? {
        Some(image) => image,
        None => {
            let bars = Bars::new(!printer.is_json());
            store.pull(reference, &[], &bars).await.map_err(|error| match &error {
                ImageError::WrongPlatform { .. } => Failure::new(&GUEST_ARCHITECTURE, error.to_string()),
                _ => Failure::because(&INET_PULL, format_args!("cannot pull the base image {reference}"), &error),
            })?
        }
    };
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

/// The text of the user's mirrors file, if there is one.
pub fn mirrors_file(home: &Home) -> Outcome<Option<String>> {
    let bytes = kminik_base::atomic_file::read_optional(&home.mirrors_file(), 1 << 20);
    let bytes = bytes.or_fail(&INET_BAD_MIRROR, "cannot read the mirrors file")?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// What the user asked for, as the resolver takes it.
pub fn resolver(registries: &Registries, mirrors_toml: Option<String>) -> Outcome<ResolverConfig> {
    let mirrors = registries.mirrors.iter().map(|text| MirrorArgument::parse(text)).collect::<Result<_, _>>();
    Ok(ResolverConfig {
        country: registries.country.clone(),
        mirrors_toml,
        mirrors: mirrors.or_fail(&INET_BAD_MIRROR, "--registry-mirror cannot be used")?,
        image_repository: registries.repository.clone(),
        insecure: registries.insecure.clone(),
        ..ResolverConfig::default()
    })
}

/// A bar a blob, on stderr where it is a terminal.
struct Bars {
    all: MultiProgress,
    each: Mutex<std::collections::HashMap<String, ProgressBar>>,
}

impl Bars {
    fn new(shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { all: MultiProgress::with_draw_target(target), each: Mutex::default() }
    }
}

impl Progress for Bars {
    fn start(&self, blob: &str, size_bytes: u64, already: u64) {
        let bar = self.all.add(ProgressBar::new(size_bytes));
        if let Ok(style) = ProgressStyle::with_template("    {prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}") {
            bar.set_style(style);
        }
        bar.set_prefix(blob.trim_start_matches("sha256:").chars().take(12).collect::<String>());
        bar.set_position(already);
        self.each.lock().insert(blob.to_owned(), bar);
    }

    fn advance(&self, blob: &str, bytes: u64) {
        if let Some(bar) = self.each.lock().get(blob) {
            bar.inc(bytes);
        }
    }

    fn done(&self, blob: &str) {
        if let Some(bar) = self.each.lock().remove(blob) {
            bar.finish_and_clear();
        }
    }

    fn note(&self, message: &str) {
        // Only a hint: what failed in the end is in the error.
        let _ = self.all.println(format!("    ▪ {message}"));
    }
}
