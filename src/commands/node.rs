//! `kminik node`: the nodes of a cluster.

use std::path::Path;
use std::process::ExitCode;

use super::Context;
use crate::node::config::{CONFIG_FILE, DATA_DIR};
use crate::ops::nodes;
use crate::printer::Printer;
use crate::profile::Profile;
use crate::reason::{Failure, MK_USAGE, Outcome};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

impl Args {
    /// Whether a node comes up by it.
    pub fn is_start(&self) -> bool {
        matches!(self.verb, Some(Verb::Add { .. } | Verb::Start { .. }))
    }

    /// PID 1 of a node starts its process by this command's name alone, also one of an older version.
    pub fn is_process(&self) -> bool {
        let is_of_init = || rustix::process::getppid().is_some_and(|parent| parent.is_init());
        self.verb.is_none() && is_of_init() && Path::new(DATA_DIR).join(CONFIG_FILE).exists()
    }
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Add a worker to the running cluster
    Add {
        /// Whether it is a worker, the only kind that can be added
        #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
        worker: bool,
        /// Refused: a cluster has one control plane
        #[arg(long)]
        control_plane: bool,
        /// If it fails, delete what was made and try once more
        #[arg(long)]
        delete_on_failure: bool,
    },
    /// Take a worker out of the running cluster: its pods leave first, its data is lost
    #[command(alias = "remove")]
    Delete {
        /// With or without the cluster's name: m02
        name: String,
    },
    /// List names and addresses
    List,
    /// Start a worker that was stopped
    Start {
        /// With or without the cluster's name: m02
        name: String,
    },
    /// Stop a worker; it stays so until it, or the cluster, is started
    Stop {
        /// With or without the cluster's name: m02
        name: String,
    },
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let (home, cluster) = (&context.home, context.profile.as_str());
    let Some(verb) = args.verb else {
        return Err(Failure::new(&MK_USAGE, "say what is to be done: add, delete, list, start or stop"));
    };
    match verb {
        Verb::Add { control_plane: true, .. } => return Err(one_control_plane("--control-plane")),
        Verb::Add { worker: false, .. } => return Err(one_control_plane("--worker=false")),
        Verb::Add { delete_on_failure, .. } => nodes::add(home, cluster, delete_on_failure, printer).await?,
        Verb::Delete { name } => nodes::delete(home, cluster, &name, printer).await?,
        Verb::Start { name } => nodes::start(home, cluster, &name, printer).await?,
        Verb::Stop { name } => nodes::stop(home, cluster, &name, printer).await?,
        Verb::List => {
            for machine in Profile::load(home, cluster)?.machines() {
                printer.data(&format!("{}\t{}", machine.name(), machine.address()));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Why a flag of minikube's high availability is refused.
pub fn one_control_plane(flag: &str) -> Failure {
    Failure::new(&MK_USAGE, format!("{flag} cannot be followed: a cluster has one control plane"))
        .advise("Add workers instead: kminik start --nodes=3, kminik node add")
}
