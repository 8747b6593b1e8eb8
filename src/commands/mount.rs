//! `kminik mount`: a directory of this machine in the node, until Ctrl-C.

use std::process::ExitCode;

use super::Context;
use crate::drivers::{self, Share};
use crate::ops::{mounts, node_image};
use crate::printer::{CHECK, MOUNT, NOTE, Printer};
use crate::profile::Profile;
use crate::reason::{Failure, GUEST_MOUNT, MK_USAGE, Outcome};
use crate::terminal::Interruption;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory or file of this machine, and where the node has it: HOST:NODE
    #[arg(value_name = "HOST:NODE")]
    what: String,
    /// How: ro is read-only
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    options: Vec<String>,
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let share = mounts::found(mounts::parse(&args.what)?)?;
    if let Some(unknown) = args.options.iter().find(|option| !matches!(option.as_str(), "ro" | "rw")) {
        return Err(Failure::new(&MK_USAGE, format!("--options does not know {unknown:?}: it takes ro, rw")));
    }
    let share = Share { read_only: share.read_only || args.options.iter().any(|option| option == "ro"), ..share };
    let profile = Profile::load(&context.home, &context.profile)?;
    let machine = profile.control_plane();
    let driver = drivers::of_running(&context.home, machine).await?;
    // Heard from before there is anything to take back.
    let mut interruption = Interruption::listen()?;
    let shown = share.target.display().to_string();
    printer.info(MOUNT, &format!("Mounting host path {} into node as {shown} ...", share.source.display()));
    driver.share(machine, &share).await?;
    printer.info(CHECK, &format!("Successfully mounted {} to {shown}", args.what));
    printer.info(NOTE, "This process must stay alive for the mount to be accessible ...");
    tokio::select! {
        () = interruption.comes() => {}
        // A node that has ended took the mount along.
        _ = driver.exited(machine) => return Ok(ExitCode::SUCCESS),
    }
    printer.info(MOUNT, &format!("Unmounting {shown} ..."));
    let output = driver.output(machine, &[node_image::BINARY, "node-unmount", &shown], drivers::ANSWER).await?;
    if output.exit_code != 0 {
        let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(&GUEST_MOUNT, format!("cannot unmount {shown}: {told}")));
    }
    Ok(ExitCode::SUCCESS)
}
