//! `kminik mirror`: the places that images are fetched from.

use std::process::ExitCode;

use kminik_oci::mirrors::Source;
use kminik_oci::{Experience, MirrorArgument, Probe};

use super::{Context, Listing};
use crate::ops::cache::Cache;
use crate::ops::image::human_size;
use crate::ops::mirror::{self, Change, View};
use crate::printer::{CHECK, Printer, table};
use crate::reason::{MK_INTERNAL, OrFail, Outcome};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the places of each registry, in the order in which they are preferred
    #[command(alias = "ls")]
    List {
        /// Those of a list by country: cn, global
        #[arg(long, value_name = "COUNTRY")]
        country: Option<String>,
        #[arg(short = 'o', long, value_enum, default_value_t)]
        output: Listing,
    },
    /// Ask all places for an image side by side: answer, speed, and whether all serve the same
    Test {
        /// Images to ask for; one of each registry if none is given
        #[arg(value_name = "IMAGE")]
        images: Vec<String>,
        #[arg(long, value_name = "COUNTRY")]
        country: Option<String>,
        #[arg(short = 'o', long, value_enum, default_value_t)]
        output: Listing,
    },
    /// Add a mirror to mirrors.toml: https://…, or REGISTRY=https://…; with *= it serves every registry
    Add {
        #[arg(value_name = "[REGISTRY=]URL")]
        mirror: MirrorArgument,
        /// Before the others of its registry
        #[arg(long)]
        first: bool,
    },
    /// Remove a mirror from mirrors.toml
    #[command(aliases = ["rm", "delete"])]
    Remove {
        #[arg(value_name = "[REGISTRY=]URL")]
        mirror: MirrorArgument,
    },
    /// Put mirrors of one registry first, in this order
    Order {
        #[arg(required = true, value_name = "[REGISTRY=]URL")]
        mirrors: Vec<MirrorArgument>,
    },
    /// Replace the list of mirrors by country, with that of a file or URL or a newer one from where the last came from
    Update {
        #[arg(value_name = "FILE|URL")]
        from: Option<String>,
        /// Go back to the list that is built in
        #[arg(long, conflicts_with = "from")]
        built_in: bool,
    },
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let home = &context.home;
    match args.verb {
        Verb::List { country, output } => {
            let rows = View::new(home, &context.profile, country, Cache::view)?.list()?;
            match output {
                Listing::Json => {
                    printer.data(&serde_json::to_string(&rows).or_fail(&MK_INTERNAL, "cannot write JSON")?)
                }
                Listing::Table => {
                    let rows: Vec<_> = rows
                        .into_iter()
                        .map(|row| {
                            let known = row.known.unwrap_or_default();
                            let here = here(row.experience);
                            vec![row.registry, row.place, from(row.source).to_owned(), known, here]
                        })
                        .collect();
                    printer.data(&table(&["Registry", "Place", "From", "Known to work", "Here"], &rows));
                }
            }
        }
        Verb::Test { images, country, output } => {
            let rows = View::new(home, &context.profile, country, Cache::open)?.test(&images, printer).await?;
            match output {
                Listing::Json => {
                    printer.data(&serde_json::to_string(&rows).or_fail(&MK_INTERNAL, "cannot write JSON")?)
                }
                Listing::Table => {
                    let rows: Vec<_> = rows.iter().map(cells).collect();
                    printer.data(&table(&["Image", "Place", "Manifest", "Speed", "Digest", "Result"], &rows));
                }
            }
            mirror::verdict(&rows)?;
        }
        Verb::Add { mirror, first } => {
            let shown = mirror.shown();
            mirror::change(home, Change::Add { mirror, first }, printer).await?;
            printer.info(CHECK, &format!("Added {shown}"));
        }
        Verb::Remove { mirror } => {
            let shown = mirror.shown();
            mirror::change(home, Change::Remove(mirror), printer).await?;
            printer.info(CHECK, &format!("Removed {shown}"));
        }
        Verb::Order { mirrors } => mirror::change(home, Change::Order(mirrors), printer).await?,
        Verb::Update { built_in: true, .. } => mirror::forget_update(home, printer).await?,
        Verb::Update { from, .. } => {
            let month = mirror::update(home, from.as_deref(), printer).await?;
            printer.info(CHECK, &format!("The list of mirrors by country is that of {month}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn from(source: Source) -> &'static str {
    match source {
        Source::Cache => "cache",
        Source::ImageRepository => "--image-repository",
        Source::Argument => "--registry-mirror",
        Source::MirrorsFile => "mirrors.toml",
        Source::Preset => "country",
        Source::Registry => "the registry",
    }
}

/// What pulls and tests of this machine have made of a place.
fn here(experience: Experience) -> String {
    let day = |seconds: u64| {
        let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        time.map(|time| time.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
    };
    let speed = experience.bytes_per_second.map(|speed| format!(", {}/s", human_size(&speed.to_string())));
    match (experience.last_worked, experience.last_failed) {
        (None, None) => String::new(),
        (Some(worked), failed) if failed.is_none_or(|failed| worked >= failed) => {
            format!("worked {}{}", day(worked), speed.unwrap_or_default())
        }
        (_, failed) => format!("failed {}", day(failed.unwrap_or_default())),
    }
}

fn cells(row: &Probe) -> Vec<String> {
    let digest = row.digest.as_ref().map(|digest| digest.hex().chars().take(12).collect()).unwrap_or_default();
    let speed = row.bytes_per_second.map(|speed| format!("{}/s", human_size(&speed.to_string()))).unwrap_or_default();
    let result = match (&row.error, row.agrees) {
        (Some(error), _) => error.clone(),
        (None, Some(true)) => "ok".to_owned(),
        (None, _) => "serves something else".to_owned(),
    };
    vec![row.image.clone(), row.place.clone(), format!("{} ms", row.milliseconds), speed, digest, result]
}
