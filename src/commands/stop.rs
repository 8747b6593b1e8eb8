//! `kminik stop`.

use std::process::ExitCode;

use super::{Context, Output};
use crate::ops;
use crate::printer::Printer;
use crate::profile::Profile;
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Stop every cluster
    #[arg(long)]
    all: bool,
    /// Leave the kubeconfig's current context as it is
    #[arg(long)]
    keep_context_active: bool,
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Output,
}

impl Args {
    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let names = if args.all { Profile::names(&context.home) } else { vec![context.profile.clone()] };
    let mut stopped = 0;
    for name in &names {
        ops::stop::run(&context.home, name, args.keep_context_active, printer).await?;
        stopped += 1;
    }
    printer.step(
        crate::printer::STOP,
        "Done",
        &format!("{stopped} node{} stopped.", if stopped == 1 { "" } else { "s" }),
    );
    Ok(ExitCode::SUCCESS)
}
