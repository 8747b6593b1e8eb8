//! `kminik bundle`: images and manifests of addons in one file, for machines without a network.

use std::path::PathBuf;
use std::process::ExitCode;

use kminik_oci::{Attached, Digest, Image};

use super::Context;
use crate::ops::addons;
use crate::ops::cache::Cache;
use crate::ops::image::human_size;
use crate::printer::{CHECK, PREPARE, Printer};
use crate::profile::Profile;
use crate::reason::{Failure, MK_USAGE, Outcome};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Write images into a file: those named, the cluster's base image, and what addons need, with their manifests
    Create {
        file: PathBuf,
        #[arg(value_name = "IMAGE")]
        images: Vec<String>,
        /// Image that gives nodes their userland; that of the cluster if there is one
        #[arg(long, value_name = "IMAGE")]
        base_image: Option<String>,
        /// Addon to take along with its manifests, beside those that are enabled; may be given several times
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        addons: Vec<String>,
    },
    /// Take a bundle into the cache that all clusters of this machine share
    Load {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Each name of an image, else its id, with the digest of what it is.
fn called(image: &Image) -> Vec<(String, Digest)> {
    let names = if image.repo_tags.is_empty() { vec![image.id.to_string()] } else { image.repo_tags.clone() };
    names.into_iter().map(|name| (name, image.manifest.clone())).collect()
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let profile = Profile::load_optional(&context.home, &context.profile)?;
    let cache = Cache::open(&context.home, profile.as_ref())?;
    match args.verb {
        Verb::Create { file, images, base_image, addons } => {
            let mut names = images;
            let needs = addons::needs(&context.home, profile.as_ref(), &addons, printer).await?;
            names.extend(needs.images);
            names.extend(base_image.or_else(|| profile.and_then(|profile| profile.base_image)));
            if names.is_empty() && needs.manifests.is_empty() {
                return Err(Failure::new(&MK_USAGE, "there is nothing to put into the bundle")
                    .advise("The built-in node needs no image: name those that your pods use."));
            }
            if !names.is_empty() {
                printer.info(PREPARE, &format!("Gathering {} ...", names.join(", ")));
            }
            let bundle = cache.bundle(&names, needs.manifests, &file, printer).await?;
            let size = human_size(&bundle.size_bytes.to_string());
            let count = bundle.images.len();
            printer.info(CHECK, &format!("{}: {count} images, {size}, {}", file.display(), bundle.digest));
        }
        Verb::Load { files } => {
            for file in &files {
                let catalogue = addons::catalogue(&context.home)?;
                let wanted = move |manifests: &Attached| addons::check_manifests(&catalogue, manifests);
                let (images, manifests) = cache.load(file, wanted, printer).await?;
                addons::take_in(&context.home, &manifests).await?;
                let digest_of = |(url, bytes): (&String, &Vec<u8>)| (url.clone(), Digest::of(bytes));
                for (name, digest) in images.iter().flat_map(called).chain(manifests.iter().map(digest_of)) {
                    printer.info(CHECK, &format!("Loaded {name}, {digest}"));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
