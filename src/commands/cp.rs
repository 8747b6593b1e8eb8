//! `kminik cp`: a file to, from or between nodes.

use std::process::ExitCode;

use super::Context;
use crate::ops::copy;
use crate::profile::Profile;
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// File: a path of this machine, or NODE:PATH
    source: String,
    /// Where it goes: NODE:PATH, a path of this machine, or with a source of this machine a path of the control plane. A directory ends with a slash
    target: String,
}

pub async fn run(args: Args, context: &Context) -> Outcome<ExitCode> {
    let profile = Profile::load(&context.home, &context.profile)?;
    copy::run(&context.home, &profile, &args.source, &args.target).await?;
    Ok(ExitCode::SUCCESS)
}
