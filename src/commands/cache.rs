//! `kminik cache`: the host's cache of images, in minikube's shape.

use std::process::ExitCode;

use serde_json::json;

use super::{Context, Output};
use crate::ops::cache::Cache;
use crate::ops::image::{Images, Origin, human_size};
use crate::printer::{CHECK, Printer};
use crate::profile::Profile;
use crate::reason::Outcome;
use crate::template::render;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Fetch images into the cache that all clusters of this machine share, and into the cluster if it runs
    Add {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Remove images from the cache
    Delete {
        #[arg(required_unless_present = "all", value_name = "IMAGE")]
        images: Vec<String>,
        /// All that are in it
        #[arg(long, conflicts_with = "images")]
        all: bool,
    },
    /// List the images in the cache
    List {
        /// Go template for each line, of .CacheImage
        #[arg(long, default_value = "{{.CacheImage}}")]
        format: String,
    },
    /// Bring the images of the cache into the cluster
    Reload,
    /// Show how large the cache is, and may become
    Info {
        #[arg(short = 'o', long, value_enum, default_value_t)]
        output: Output,
    },
}

const CACHED: Origin = Origin { daemon: false, remote: true, pull: false };

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let profile = Profile::load_optional(&context.home, &context.profile)?;
    let open = match args.verb {
        Verb::List { .. } | Verb::Info { .. } => Cache::view,
        Verb::Add { .. } | Verb::Delete { .. } | Verb::Reload => Cache::open,
    };
    let cache = open(&context.home, profile.as_ref())?;
    let listed = async || -> Outcome<Vec<String>> {
        let mut names: Vec<String> = cache.list().await?.into_iter().flat_map(|image| image.repo_tags).collect();
        names.sort();
        Ok(names)
    };
    match args.verb {
        Verb::Add { images } => {
            for name in &images {
                cache.fetch(name, printer).await?;
                printer.info(CHECK, &format!("Cached {name}"));
            }
            // A cluster that does not run asks the cache when it does.
            if let Ok(cluster) = Images::connect(&context.home, &context.profile).await {
                for name in &images {
                    cluster.load(name, CACHED, printer).await?;
                }
            }
        }
        Verb::Delete { images, all } => {
            for name in &if all { listed().await? } else { images } {
                cache.remove(name).await?;
            }
        }
        Verb::List { format } => {
            for name in listed().await? {
                printer.data(&render(&format, &[("CacheImage", &name)])?);
            }
        }
        Verb::Info { output } => {
            let (usage, limit) = cache.usage().await?;
            let (path, images, bytes) = (context.home.image_cache(), usage.images, usage.bytes);
            printer.data(&match output {
                Output::Json => {
                    json!({"path": path, "images": images, "bytes": bytes, "limitBytes": limit}).to_string()
                }
                Output::Text => {
                    let size = |bytes: u64| human_size(&bytes.to_string());
                    let limit = limit.map_or_else(|| "no limit".to_owned(), size);
                    format!("path: {}\nimages: {images}\nsize: {}\nlimit: {limit}", path.display(), size(bytes))
                }
            });
        }
        Verb::Reload => {
            let cluster = Images::connect(&context.home, &context.profile).await?;
            for name in listed().await? {
                cluster.load(&name, CACHED, printer).await?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
