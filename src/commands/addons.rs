//! `kminik addons`.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::service::Opening;
use super::{Context, Listing};
use crate::addons::{Addon, Choice, Health};
use crate::ops::addons::{self, Overrides, Row, open};
use crate::printer::{ADDONS, CHECK, NEW_MOON, OPTION, Printer, table};
use crate::profile::Profile;
use crate::reason::{Failure, HOST_PATH_MISSING, MK_USAGE, OrFail, Outcome};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List all addons, and how those of the cluster are
    List {
        #[arg(short = 'o', long, value_enum, default_value_t)]
        output: Listing,
        /// Show where to read about each
        #[arg(short = 'd', long)]
        docs: bool,
    },
    /// Enable an addon; in a cluster that does not run, with its next start
    Enable {
        name: String,
        /// Image to use instead: NAME=REFERENCE, names are those of 'addons images'
        #[arg(long, value_name = "NAME=IMAGE", value_delimiter = ',', value_parser = pair)]
        images: Vec<(String, String)>,
        /// Registry to take an image from: NAME=HOST[:PORT][/PATH]
        #[arg(long, value_name = "NAME=REGISTRY", value_delimiter = ',', value_parser = pair)]
        registries: Vec<(String, String)>,
    },
    /// Disable an addon, and remove what it has made
    Disable { name: String },
    /// Change the settings of an addon; asks for them if none is given
    Configure {
        name: String,
        #[arg(value_name = "SETTING=VALUE", value_parser = pair)]
        settings: Vec<(String, String)>,
        /// File with settings: a map in YAML or JSON
        #[arg(short = 'f', long, value_name = "FILE")]
        config_file: Option<PathBuf>,
    },
    /// Show the images of an addon
    Images {
        name: String,
        #[arg(short = 'o', long, value_enum, default_value_t)]
        output: Listing,
    },
    /// Open an addon's page in a browser
    Open {
        name: String,
        #[command(flatten)]
        opening: Opening,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let (home, profile) = (&context.home, context.profile.as_str());
    match args.verb {
        Verb::List { output, docs } => {
            let rows = addons::list(home, profile, printer).await?;
            printer.data(&match output {
                Listing::Table => listed(&rows, profile, docs),
                Listing::Json => as_json(&rows, profile, docs).to_string(),
            });
        }
        Verb::Enable { name, images, registries } => {
            let overrides = Overrides { images, registries };
            let now = addons::enable(home, profile, &name, &overrides, printer).await?;
            told(printer, &name, now);
            printer.info(ADDONS, &format!("The '{name}' addon is enabled"));
        }
        Verb::Disable { name } => {
            let now = addons::disable(home, profile, &name).await?;
            told(printer, &name, now);
            printer.info(NEW_MOON, &format!("The '{name}' addon is disabled"));
        }
        Verb::Configure { name, settings, config_file } => {
            let catalogue = addons::catalogue(home)?;
            let addon = addons::find(&catalogue, &name)?;
            if addon.definition.settings.is_empty() {
                printer.warning(&format!("{name} has no available configuration options"));
                return Ok(ExitCode::SUCCESS);
            }
            let kept = Profile::load(home, profile)?.addons.remove(&name).unwrap_or_default();
            let settings = gathered(addon, &kept, settings, config_file)?;
            addons::configure(home, profile, &name, &settings, printer).await?;
            printer.info(CHECK, &format!("{name} was successfully configured"));
        }
        Verb::Images { name, output } => {
            let catalogue = addons::catalogue(home)?;
            let addon = addons::find(&catalogue, &name)?;
            let choices = Profile::load_optional(home, profile)?.map(|profile| profile.addons).unwrap_or_default();
            images(addon, choices.get(&name).unwrap_or(&Choice::default()), output, printer);
        }
        Verb::Open { name, opening } => {
            let url = open::url(home, profile, &name, opening.form(), opening.wait()).await?;
            opening.show(&format!("addon {name}"), &url, printer);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn told(printer: &Printer, name: &str, now: bool) {
    if !now {
        printer.info(OPTION, &format!("The cluster does not run: {name} is changed with its next start"));
    }
}

fn status(row: &Row) -> String {
    match (row.enabled, &row.health) {
        (Some(true), Some(Health::Healthy)) => "enabled ✅".to_owned(),
        (Some(true), Some(Health::Unhealthy(amiss))) => format!("enabled ❗ {}", amiss.join(", ")),
        (Some(true), None) => "enabled".to_owned(),
        _ => "disabled".to_owned(),
    }
}

fn listed(rows: &[Row], profile: &str, docs: bool) -> String {
    let with_cluster = rows.iter().any(|row| row.enabled.is_some());
    let mut headers = vec!["ADDON NAME"];
    headers.extend(with_cluster.then_some(["PROFILE", "STATUS"]).into_iter().flatten());
    headers.push("MAINTAINER");
    headers.extend(docs.then_some("DOCS"));
    let cells = |row: &Row| {
        let mut cells = vec![row.name.clone()];
        if with_cluster {
            cells.extend([profile.to_owned(), status(row)]);
        }
        cells.push(row.maintainer.clone());
        cells.extend(docs.then(|| row.docs.clone()));
        cells
    };
    table(&headers, &rows.iter().map(cells).collect::<Vec<_>>())
}

fn as_json(rows: &[Row], profile: &str, docs: bool) -> Value {
    let object = |row: &Row| {
        let mut object = Map::new();
        if let Some(enabled) = row.enabled {
            object.insert("Profile".into(), json!(profile));
            object.insert("Status".into(), json!(if enabled { "enabled" } else { "disabled" }));
        }
        match &row.health {
            Some(Health::Healthy) => drop(object.insert("Health".into(), json!("healthy"))),
            Some(Health::Unhealthy(amiss)) => {
                object.insert("Health".into(), json!("unhealthy"));
                object.insert("Problems".into(), json!(amiss));
            }
            None => {}
        }
        if docs {
            object.insert("Maintainer".into(), json!(row.maintainer));
            object.insert("Docs".into(), json!(row.docs));
        }
        (row.name.clone(), Value::Object(object))
    };
    Value::Object(rows.iter().map(object).collect())
}

fn images(addon: &Addon, choice: &Choice, output: Listing, printer: &Printer) {
    let images: Vec<_> = addon.images(choice).collect();
    match output {
        Listing::Json => printer.data(&json!(images.iter().map(|(_, _, used)| used).collect::<Vec<_>>()).to_string()),
        Listing::Table if images.is_empty() => {
            printer.info(OPTION, &format!("{} needs no image beside kminik's own", addon.name));
        }
        Listing::Table => {
            printer.info(OPTION, &format!("{} has following images:", addon.name));
            let row = |(name, _, used): &(&str, &str, String)| {
                let (registry, image) = match used.split_once('/') {
                    Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
                    _ => ("docker.io", used.as_str()),
                };
                vec![(*name).to_owned(), image.to_owned(), registry.to_owned()]
            };
            let rows: Vec<_> = images.iter().map(row).collect();
            printer.data(&table(&["IMAGE NAME", "DEFAULT IMAGE", "DEFAULT REGISTRY"], &rows));
        }
    }
}

/// The settings that were given, of the arguments and the file; asked for at a terminal where there are none.
fn gathered(
    addon: &Addon,
    kept: &Choice,
    mut settings: Vec<(String, String)>,
    file: Option<PathBuf>,
) -> Outcome<Vec<(String, String)>> {
    if let Some(path) = file {
        let cannot = || format!("cannot use {}", path.display());
        let text = std::fs::read_to_string(&path).or_fail(&HOST_PATH_MISSING, cannot())?;
        let map: Map<String, Value> = serde_yaml::from_str(&text).or_fail(&MK_USAGE, cannot())?;
        settings.extend(map.into_iter().map(|(key, value)| match value {
            Value::String(text) => (key, text),
            other => (key, other.to_string()),
        }));
    }
    if !settings.is_empty() {
        return Ok(settings);
    }
    let known = &addon.definition.settings;
    if !std::io::stdin().is_terminal() {
        let names: Vec<String> = known.iter().map(|(name, it)| format!("{name} ({})", it.title)).collect();
        return Err(Failure::new(&MK_USAGE, format!("no setting is given; {} has: {}", addon.name, names.join(", "))));
    }
    for (name, setting) in known {
        let now = addon.setting(name, kept).unwrap_or_default();
        dialogue(&format!("-- {} [{now}]: ", setting.title));
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).or_fail(&MK_USAGE, "cannot read the answer")?;
        if !line.trim().is_empty() {
            settings.push((name.clone(), line.trim().to_owned()));
        }
    }
    Ok(settings)
}

/// A question, without the end of its line.
fn dialogue(question: &str) {
    use std::io::Write;
    let mut err = std::io::stderr().lock();
    // A closed stderr is no reason to fail.
    let _ = write!(err, "{question}").and_then(|()| err.flush());
}
