//! `kminik profile list`.

use std::process::ExitCode;

use serde_json::json;

use super::{Context, Listing};
use crate::kubeconfig;
use crate::ops::status::{self, Word};
use crate::printer::{Printer, table};
use crate::profile::Profile;
use crate::reason::{Failure, MK_USAGE_NO_PROFILE, Outcome};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List all clusters
    List {
        #[arg(short = 'o', long, value_enum, default_value_t)]
        output: Listing,
        /// Do not ask the clusters how they are
        #[arg(short = 'l', long)]
        light: bool,
    },
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let Verb::List { output, light } = args.command;
    let home = &context.home;
    let current = kubeconfig::current(&kubeconfig::path(home));
    let (mut valid, mut invalid, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for name in Profile::names(home) {
        let (active, active_context) = (name == context.profile, name == current);
        match Profile::load(home, &name) {
            Ok(profile) => {
                let word = if light { Word::Skipped } else { status::overall(home, &profile).await };
                let mark = |on: bool| if on { "*".to_owned() } else { String::new() };
                rows.push(vec![
                    name.clone(),
                    profile.driver.clone(),
                    "kminik".to_owned(),
                    profile.node_address.to_string(),
                    profile.kubernetes_version.clone(),
                    word.to_string(),
                    "1".to_owned(),
                    mark(active),
                    mark(active_context),
                ]);
                valid.push(json!({
                    "Name": name, "Status": word.to_string(), "Config": profile,
                    "Active": active, "ActiveKubeContext": active_context,
                }));
            }
            Err(failure) => invalid.push(json!({ "Name": name, "Status": "Broken", "Error": failure.to_string() })),
        }
    }
    match output {
        Listing::Json => printer.data(&json!({ "valid": valid, "invalid": invalid }).to_string()),
        Listing::Table if rows.is_empty() && invalid.is_empty() => {
            return Err(Failure::new(&MK_USAGE_NO_PROFILE, "No kminik profile was found."));
        }
        Listing::Table => {
            let headers = [
                "PROFILE",
                "DRIVER",
                "RUNTIME",
                "IP",
                "VERSION",
                "STATUS",
                "NODES",
                "ACTIVE PROFILE",
                "ACTIVE KUBECONTEXT",
            ];
            printer.data(&table(&headers, &rows));
            for broken in &invalid {
                printer.warning(&format!("profile {} is broken: {}", broken["Name"], broken["Error"]));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
