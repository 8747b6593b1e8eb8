//! `kminik kubectl -- …`: a kubectl that fits, against this cluster, its exit code passed on.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use super::Context;
use crate::env;
use crate::kubeconfig;
use crate::ops::{kubectl, pki};
use crate::printer::Printer;
use crate::profile::Profile;
use crate::reason::{Failure, HOST_KUBECTL, Outcome};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What kubectl gets
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let profile = Profile::load(&context.home, &context.profile)?;
    let kubeconfig = match args.args.first().map(String::as_str) {
        // As minikube's: what is changed is the user's own, and what is chosen there counts here too.
        Some("config") => env::get(env::KUBECONFIG).map_or_else(|| kubeconfig::path(&context.home), PathBuf::from),
        // The profile's own file, so that a kubeconfig edited by others cannot lead elsewhere.
        _ => pki::write_kubeconfig(&context.home, &profile)?,
    };
    let program = kubectl::find(&context.home, &profile, printer).await?;
    let error = Command::new(&program).args(args.args).env(env::KUBECONFIG, kubeconfig).exec();
    Err(Failure::because(&HOST_KUBECTL, format_args!("cannot run {}", program.display()), &error))
}
