//! `kminik update-context`: the kubeconfig leads to the cluster again.

use std::process::ExitCode;

use super::Context;
use crate::kubeconfig::{self, State};
use crate::ops::pki;
use crate::printer::{CELEBRATE, Printer, SHRUG, TIP};
use crate::profile::{Lock, Profile};
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let home = &context.home;
    let _lock = Lock::acquire(home, &context.profile).await?;
    let profile = Profile::load(home, &context.profile)?;
    let path = kubeconfig::path(home);
    let name = &profile.name;
    let before = kubeconfig::state(&path, name, &profile.kubeconfig_url());
    pki::merge_kubeconfig(home, &profile, &path, None, true)?;
    match before {
        State::Configured => printer.info(SHRUG, &format!("No changes required for the \"{name}\" context")),
        State::Misconfigured => printer
            .info(CELEBRATE, &format!("\"{name}\" context has been updated to point to {}", profile.kubeconfig_host())),
    }
    printer.info(TIP, &format!("Current context is \"{name}\""));
    Ok(ExitCode::SUCCESS)
}
