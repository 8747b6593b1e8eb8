//! `kminik stop`.

use std::process::ExitCode;
use std::time::Duration;

use super::{Context, Output};
use crate::ops::{self, units};
use crate::printer::{Failures, Printer};
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
    /// Stop after this time instead of now; replaces what was scheduled before
    #[arg(long, value_name = "DURATION", value_parser = units::duration, conflicts_with = "cancel_scheduled")]
    schedule: Option<Duration>,
    /// Do not stop as scheduled
    #[arg(long)]
    cancel_scheduled: bool,
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
    let mut failures = Failures::default();
    if args.cancel_scheduled {
        for name in &names {
            failures.note(ops::stop::cancel(&context.home, name).await, printer);
        }
        failures.first()?;
        printer.step(crate::printer::STOP, "Done", "All existing scheduled stops cancelled");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(delay) = args.schedule {
        for name in &names {
            if failures.note(ops::stop::schedule(&context.home, name, delay).await, printer).is_some() {
                let told = format!("\"{name}\" stops in {}", units::go_duration(delay));
                printer.step(crate::printer::CLOCK, "Done", &told);
            }
        }
        failures.first()?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut stopped = 0;
    for name in &names {
        let outcome = ops::stop::run(&context.home, name, args.keep_context_active, printer).await;
        stopped += failures.note(outcome, printer).unwrap_or_default();
    }
    failures.first()?;
    let message = if stopped == 1 { "1 node stopped.".to_owned() } else { format!("{stopped} nodes stopped.") };
    printer.step(crate::printer::STOP, "Done", &message);
    Ok(ExitCode::SUCCESS)
}
