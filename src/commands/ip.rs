//! `kminik ip`.

use std::process::ExitCode;

use super::Context;
use crate::printer::Printer;
use crate::profile::Profile;
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of this node; the control plane's if not given
    #[arg(short = 'n', long, value_name = "NAME")]
    node: Option<String>,
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let profile = Profile::load(&context.home, &context.profile)?;
    printer.data(&profile.machine(args.node.as_deref())?.address().to_string());
    Ok(ExitCode::SUCCESS)
}
