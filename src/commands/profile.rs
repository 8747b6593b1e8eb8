//! `kminik profile`: which cluster is meant, and which there are.

use std::process::ExitCode;

use serde_json::json;

use super::{Context, Listing};
use crate::kubeconfig;
use crate::ops::pki;
use crate::ops::status::{self, Word};
use crate::printer::{CHECK, Printer, TIP, table};
use crate::profile::{DEFAULT, Lock, Profile};
use crate::reason::{Failure, MK_INTERNAL, MK_USAGE_NO_PROFILE, OrFail, Outcome};
use crate::settings::{self, Settings};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Cluster that commands mean from now on; without it, print which that is
    name: Option<String>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List all clusters
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Listing,
    /// Do not ask the clusters how they are
    #[arg(short = 'l', long)]
    light: bool,
    /// Show the API's port too
    #[arg(short = 'd', long)]
    detailed: bool,
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    match (args.verb, args.name) {
        (Some(Verb::List(args)), _) => list(&args, context, printer).await?,
        (None, Some(name)) => switch(&name, context, printer).await?,
        (None, None) => printer.data(&context.profile),
    }
    Ok(ExitCode::SUCCESS)
}

/// As minikube, a cluster that is not there is no failure.
async fn switch(name: &str, context: &Context, printer: &Printer) -> Outcome<()> {
    let home = &context.home;
    let name = if name == "default" { DEFAULT } else { name };
    let profile = Profile::load_optional(home, name)?;
    if profile.is_none() && name != DEFAULT {
        printer.info(TIP, &format!("There is no profile {name:?}. To make it, run: kminik start -p {name}"));
        return Ok(());
    }
    let lock = Lock::of_home(home).await?;
    let mut settings = Settings::load(home)?;
    settings.set(settings::PROFILE, name)?;
    settings.save(home)?;
    drop(lock);
    printer.info(CHECK, &format!("kminik profile was successfully set to {name}"));
    if let Some(profile) = profile {
        pki::merge_kubeconfig(home, &profile, &kubeconfig::path(home), None, true)?;
    }
    Ok(())
}

async fn list(args: &ListArgs, context: &Context, printer: &Printer) -> Outcome<()> {
    let home = &context.home;
    let current = kubeconfig::current(&kubeconfig::path(home));
    let (mut valid, mut invalid, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for name in Profile::names(home) {
        let (active, active_context) = (name == context.profile, name == current);
        match Profile::load(home, &name) {
            Ok(profile) => {
                let word = if args.light { Word::Skipped } else { status::overall(home, &profile).await };
                let mark = |on: bool| if on { "*".to_owned() } else { String::new() };
                let mut row = vec![
                    name.clone(),
                    profile.driver.clone(),
                    "kminik".to_owned(),
                    profile.node_address.to_string(),
                    profile.kubernetes_version.clone(),
                    word.to_string(),
                    profile.machines().count().to_string(),
                    mark(active),
                    mark(active_context),
                ];
                if args.detailed {
                    row.insert(PORT, profile.api_port.to_string());
                }
                rows.push(row);
                valid.push(json!({
                    "Name": name, "Status": word.to_string(), "Config": profile.shown().or_fail(&MK_INTERNAL, "cannot write the profile")?,
                    "Active": active, "ActiveKubeContext": active_context,
                }));
            }
            Err(failure) => invalid.push(json!({ "Name": name, "Status": "Broken", "Error": failure.to_string() })),
        }
    }
    match args.output {
        Listing::Json => printer.data(&json!({ "valid": valid, "invalid": invalid }).to_string()),
        Listing::Table if rows.is_empty() && invalid.is_empty() => {
            return Err(Failure::new(&MK_USAGE_NO_PROFILE, "No kminik profile was found."));
        }
        Listing::Table => {
            let mut headers = HEADERS.to_vec();
            if args.detailed {
                headers.insert(PORT, "PORT");
            }
            printer.data(&table(&headers, &rows));
            for broken in &invalid {
                printer.warning(&format!("profile {} is broken: {}", broken["Name"], broken["Error"]));
            }
        }
    }
    Ok(())
}

const HEADERS: [&str; 9] =
    ["PROFILE", "DRIVER", "RUNTIME", "IP", "VERSION", "STATUS", "NODES", "ACTIVE PROFILE", "ACTIVE KUBECONTEXT"];
/// Where `--detailed` has its column.
const PORT: usize = 4;
