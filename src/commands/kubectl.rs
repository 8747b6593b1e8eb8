//! `kminik kubectl -- …`: kubectl from PATH against this cluster, its exit code passed on.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use super::Context;
use crate::ops::pki;
use crate::profile::Profile;
use crate::reason::{Failure, HOST_KUBECTL, Outcome};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What kubectl gets
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub async fn run(args: Args, context: &Context) -> Outcome<ExitCode> {
    let profile = Profile::load(&context.home, &context.profile)?;
    // The profile's own file, so that a kubeconfig edited by others cannot lead elsewhere.
    let kubeconfig = pki::write_kubeconfig(&context.home, &profile)?;
    let error = Command::new("kubectl").args(args.args).env(crate::env::KUBECONFIG, kubeconfig).exec();
    Err(if error.kind() == std::io::ErrorKind::NotFound {
        Failure::new(&HOST_KUBECTL, "kubectl is not on PATH")
    } else {
        Failure::because(&HOST_KUBECTL, "cannot run kubectl", &error)
    })
}
