//! `kminik service`: URLs of Services on this machine.

use std::process::ExitCode;
use std::time::Duration;

use super::{Context, Listing};
use crate::ops::client;
use crate::ops::service::{self, Exposed, Form};
use crate::printer::{CELEBRATE, Printer, TIP, table};
use crate::profile::Profile;
use crate::reason::{Failure, MK_INTERNAL, MK_USAGE, OrFail, Outcome, SVC_NO_NODE_PORT};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Services to open
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[arg(short = 'n', long, default_value = "default")]
    namespace: String,
    /// All services of the namespace
    #[arg(long, conflicts_with = "names")]
    all: bool,
    #[command(flatten)]
    opening: Opening,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// How Services are opened: their own, and those of addons.
#[derive(Debug, clap::Args)]
pub struct Opening {
    /// Print the URLs instead of opening them
    #[arg(long)]
    url: bool,
    /// Write https instead of http
    #[arg(long)]
    https: bool,
    /// Template of a URL with the fields .IP .Port .Name
    #[arg(long, value_name = "TEMPLATE", default_value = "http://{{.IP}}:{{.Port}}")]
    format: String,
    /// Seconds to wait until something answers behind the service
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    wait: u32,
}

impl Opening {
    pub fn form(&self) -> Form {
        Form { template: self.format.clone(), https: self.https }
    }

    pub fn wait(&self) -> Duration {
        Duration::from_secs(self.wait.into())
    }

    /// Prints the address, or hands it to the browser where there is one.
    pub fn show(&self, what: &str, url: &str, printer: &Printer) {
        if self.url {
            printer.data(url);
        } else if service::open(url) {
            printer.info(CELEBRATE, &format!("Opening {what} in default browser..."));
        } else {
            printer.info(TIP, &format!("Open it in a browser: {url}"));
        }
    }
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List services with their URLs
    List {
        /// Of one namespace instead of all
        #[arg(short = 'n', long, default_value = "", hide_default_value = true)]
        namespace: String,
        #[arg(short = 'o', long, value_enum, default_value_t)]
        output: Listing,
    },
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let profile = Profile::load(&context.home, &context.profile)?;
    let client = client::ready(&context.home, &profile).await?;
    let form = args.opening.form();
    match &args.verb {
        Some(Verb::List { namespace, output }) => {
            let services = service::list(&client, namespace, &form).await?;
            match output {
                Listing::Table => printer.data(&shown(&services)),
                Listing::Json => {
                    printer.data(&serde_json::to_string(&services).or_fail(&MK_INTERNAL, "cannot write the services")?);
                }
            }
        }
        None => {
            let services = wanted(&args, &client, &form).await?;
            tell(&args, &services, printer)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn wanted(args: &Args, client: &kube::Client, form: &Form) -> Outcome<Vec<Exposed>> {
    if args.all {
        return service::list(client, &args.namespace, form).await;
    }
    if args.names.is_empty() {
        let usage = "You must specify a service name, or --all";
        return Err(Failure::new(&MK_USAGE, usage).advise("'kminik service list' shows the services there are."));
    }
    let mut found = Vec::new();
    for name in &args.names {
        found.push(service::find(client, &args.namespace, name, args.opening.wait(), form).await?);
    }
    Ok(found)
}

fn tell(args: &Args, services: &[Exposed], printer: &Printer) -> Outcome<()> {
    let (served, inner): (Vec<&Exposed>, Vec<&Exposed>) = services.iter().partition(|service| !service.urls.is_empty());
    for service in &inner {
        printer.warning(&format!("service {}/{} has no node port", service.namespace, service.name));
    }
    if served.is_empty() {
        return Err(Failure::new(&SVC_NO_NODE_PORT, "none of the services can be reached from this machine"));
    }
    if !args.opening.url {
        printer.data(&shown(services));
    }
    for service in served {
        for url in &service.urls {
            args.opening.show(&format!("service {}/{}", service.namespace, service.name), url, printer);
        }
    }
    Ok(())
}

/// Cells of several ports have several lines.
fn shown(services: &[Exposed]) -> String {
    let row = |service: &Exposed| {
        let (ports, urls) = (service.port_names.join("\n"), service.urls.join("\n"));
        vec![service.namespace.clone(), service.name.clone(), ports, urls]
    };
    table(&["NAMESPACE", "NAME", "TARGET PORT", "URL"], &services.iter().map(row).collect::<Vec<_>>())
}
