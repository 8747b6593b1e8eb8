//! `kminik delete`.

use std::process::ExitCode;

use super::{Context, Output};
use crate::ops;
use crate::printer::Printer;
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Delete every cluster
    #[arg(long)]
    all: bool,
    /// Remove the kminik home directory too
    #[arg(long)]
    purge: bool,
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Output,
}

impl Args {
    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    ops::delete::run(&context.home, &context.profile, args.all, args.purge, printer).await?;
    Ok(ExitCode::SUCCESS)
}
