//! `kminik export logs`: everything there is to say of a cluster, as files in kind's layout.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Context;
use crate::ops::export;
use crate::printer::Printer;
use crate::profile::Profile;
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Write the logs of all nodes and pods into a directory, and print which it is
    Logs {
        /// A new temporary one if none is named
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let Verb::Logs { directory } = args.verb;
    let profile = Profile::load(&context.home, &context.profile)?;
    let directory = export::logs(&context.home, &profile, directory).await?;
    printer.data(&directory.display().to_string());
    Ok(ExitCode::SUCCESS)
}
