//! `kminik ip`.

use std::process::ExitCode;

use super::Context;
use crate::printer::Printer;
use crate::profile::Profile;
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    printer.data(&Profile::load(&context.home, &context.profile)?.node_address.to_string());
    Ok(ExitCode::SUCCESS)
}
