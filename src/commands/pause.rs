//! `kminik pause` and `kminik unpause`.

use std::process::ExitCode;

use super::{Context, Output};
use crate::node::pause::Selection;
use crate::ops::pause::{self, Change};
use crate::printer::{PAUSE, Printer, UNPAUSE};
use crate::profile::{Lock, Profile};
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Namespaces whose containers are meant; with kube-system goes the API
    #[arg(
        short = 'n', long, value_name = "NAMES", value_delimiter = ',',
        default_values = ["kube-system", "kubernetes-dashboard", "istio-operator"]
    )]
    namespaces: Vec<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Output,
}

impl Args {
    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }
}

pub async fn run(args: Args, change: Change, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let _lock = Lock::acquire(&context.home, &context.profile).await?;
    let profile = Profile::load(&context.home, &context.profile)?;
    let (style, doing, done) = match change {
        Change::Pause => (PAUSE, "Pausing", "Paused"),
        Change::Unpause => (UNPAUSE, "Unpausing", "Unpaused"),
    };
    let selection = if args.all_namespaces {
        Selection::All
    } else {
        Selection::Namespaces(args.namespaces.iter().filter(|name| !name.is_empty()).cloned().collect())
    };
    let names: Vec<_> = profile.machines().map(|machine| machine.name()).collect();
    printer.step(style, doing, &format!("{doing} node {} ...", names.join(", ")));
    let state = pause::change(&context.home, &profile, change, &selection).await?;
    let count = format!("{done} {} containers", state.containers);
    let told = if args.all_namespaces { count } else { format!("{count} in: {}", args.namespaces.join(", ")) };
    printer.step(style, "Done", &told);
    Ok(ExitCode::SUCCESS)
}
