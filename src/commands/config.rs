//! `kminik config`: the user's settings.

use std::process::ExitCode;

use super::Context;
use crate::printer::Printer;
use crate::profile::Lock;
use crate::reason::{Failure, MK_CONFIG_GET, MK_INTERNAL, OrFail, Outcome};
use crate::settings::{self, Settings};
use crate::template::render;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Set a property: the value that a flag of start has when it is not given
    Set { property: String, value: String },
    /// Print a property's value
    Get { property: String },
    /// Forget a property's value
    Unset { property: String },
    /// Print all that is set
    View {
        /// Template of a line with the fields .ConfigKey .ConfigValue
        #[arg(long, value_name = "TEMPLATE", default_value = "- {{.ConfigKey}}: {{.ConfigValue}}")]
        format: String,
    },
    /// Print the values a property can have; without a property, what can be set
    Defaults {
        property: Option<String>,
        #[arg(short = 'o', long, value_enum)]
        output: Option<Format>,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Json,
    Yaml,
}

pub async fn run(args: &Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let home = &context.home;
    let _lock = match args.verb {
        Verb::Set { .. } | Verb::Unset { .. } => Some(Lock::of_home(home).await?),
        Verb::Get { .. } | Verb::View { .. } | Verb::Defaults { .. } => None,
    };
    let mut settings = Settings::load(home)?;
    match &args.verb {
        Verb::Set { property, value } => {
            let note = settings.set(property, value)?;
            settings.save(home)?;
            if !note.is_empty() {
                printer.warning(note);
            }
        }
        Verb::Get { property } => {
            let missing = || Failure::new(&MK_CONFIG_GET, "specified key could not be found in config");
            printer.data(settings.get(property).ok_or_else(missing)?);
        }
        Verb::Unset { property } => {
            settings.unset(property)?;
            settings.save(home)?;
        }
        Verb::View { format } => {
            for (name, value) in settings.all() {
                printer.data(&render(format, &[("ConfigKey", name), ("ConfigValue", value)])?);
            }
        }
        Verb::Defaults { property, output } => {
            let values = match property {
                Some(property) => settings::choices(home, property)?,
                None => settings::properties(),
            };
            let fail = "cannot write the values";
            match output {
                Some(Format::Json) => {
                    printer.data(&serde_json::to_string(&values).or_fail(&MK_INTERNAL, fail)?);
                }
                Some(Format::Yaml) => {
                    printer.data(serde_yaml::to_string(&values).or_fail(&MK_INTERNAL, fail)?.trim_end());
                }
                None => values.iter().for_each(|value| printer.data(&format!("* {value}"))),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
