//! `kminik image`: the images in the cluster's nodes, through their own endpoints behind the API's port.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Context;
use crate::ops::image::{self, Images, Origin};
use crate::printer::{Printer, table};
use crate::reason::{MK_INTERNAL, OrFail, Outcome};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List images
    #[command(alias = "list")]
    Ls {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Load images: archives (docker save or OCI layout, - is stdin), or images of a local engine or a registry
    Load {
        #[arg(required = true, value_name = "IMAGE|ARCHIVE|-")]
        what: Vec<String>,
        /// From the local Docker engine
        #[arg(long)]
        daemon: bool,
        /// From a registry, through the cluster's mirrors
        #[arg(long)]
        remote: bool,
        /// From a registry, also what this machine's cache has
        #[arg(long)]
        pull: bool,
        /// Replace an image of the same name that is there
        #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
              default_value_t = true, default_missing_value = "true")]
        overwrite: bool,
    },
    /// Pull images through the cluster's mirrors
    Pull {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Push images to the registries of their names, with the logins of this machine
    Push {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Remove images
    #[command(aliases = ["remove", "unload"])]
    Rm {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Give an image another name
    Tag { source: String, target: String },
    /// Write an image to a docker-save archive (- is stdout)
    Save {
        image: String,
        #[arg(default_value = "-", value_name = "ARCHIVE|-", conflicts_with_all = ["daemon", "remote"])]
        file: PathBuf,
        /// Give it to the local Docker engine instead
        #[arg(long)]
        daemon: bool,
        /// Push it to the registry of its name instead
        #[arg(long)]
        remote: bool,
    },
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    #[default]
    Short,
    Table,
    Json,
    Yaml,
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let images = Images::connect(&context.home, &context.profile).await?;
    match args.verb {
        Verb::Ls { format } => list(&images, format, printer).await?,
        Verb::Load { what, daemon, remote, pull, overwrite } => {
            let origin = Origin { daemon, remote, pull };
            for one in &what {
                if !overwrite && images.has(one).await? {
                    printer.info(crate::printer::CHECK, &format!("{one} is there already"));
                    continue;
                }
                for name in images.load(one, origin, printer).await? {
                    printer.info(crate::printer::CHECK, &format!("Loaded {name}"));
                }
            }
        }
        Verb::Pull { images: names } => {
            for name in &names {
                images.pull(name, printer).await?;
                printer.info(crate::printer::CHECK, &format!("Pulled {name}"));
            }
        }
        Verb::Push { images: names } => {
            for name in &names {
                images.push(name, printer).await?;
                printer.info(crate::printer::CHECK, &format!("Pushed {name}"));
            }
        }
        Verb::Rm { images: names } => {
            for name in &names {
                images.remove(name).await?;
            }
        }
        Verb::Tag { source, target } => images.tag(&source, &target).await?,
        Verb::Save { image, daemon, remote, file } => {
            if daemon {
                images.save_to_daemon(&image).await?;
            }
            if remote {
                images.push(&image, printer).await?;
            }
            if !daemon && !remote {
                images.save(&image, &file).await?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(images: &Images, format: Format, printer: &Printer) -> Outcome<()> {
    let mut found = images.list().await?;
    // minikube lists names in descending order.
    found.sort_by(|a, b| b.repo_tags.cmp(&a.repo_tags));
    match format {
        Format::Short => {
            let names: Vec<&str> = found.iter().flat_map(|i| &i.repo_tags).map(String::as_str).collect();
            if !names.is_empty() {
                printer.data(&names.join("\n"));
            }
        }
        Format::Json => printer.data(&serde_json::to_string(&found).or_fail(&MK_INTERNAL, "cannot write JSON")?),
        Format::Yaml => {
            printer.data(serde_yaml::to_string(&found).or_fail(&MK_INTERNAL, "cannot write YAML")?.trim_end());
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = found
                .iter()
                .flat_map(|i| {
                    i.repo_tags.iter().map(|name| {
                        let (repository, tag) = image::split_tag(name);
                        vec![repository.to_owned(), tag.to_owned(), image::short_id(&i.id), image::human_size(&i.size)]
                    })
                })
                .collect();
            printer.data(&table(&["Image", "Tag", "Image ID", "Size"], &rows));
        }
    }
    Ok(())
}
