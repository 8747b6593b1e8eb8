//! `kminik ssh`: a shell in the node, or one command. It goes through the driver, so it works with the API dead.

use std::io::IsTerminal;
use std::process::ExitCode;

use super::Context;
use crate::drivers::{self, Input, NodeCommand};
use crate::ops::node_image;
use crate::profile::Profile;
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// In this node; the control plane's if not given
    #[arg(short = 'n', long, value_name = "NAME")]
    node: Option<String>,
    /// Command to run instead of a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub async fn run(args: Args, context: &Context) -> Outcome<ExitCode> {
    let profile = Profile::load(&context.home, &context.profile)?;
    let machine = profile.machine(args.node.as_deref())?;
    let driver = drivers::of_running(&context.home, machine).await?;
    let mut command = vec![node_image::BINARY.to_owned(), "shell".to_owned()];
    if !args.command.is_empty() {
        // As ssh does: one line, read by the node's shell.
        command.extend(["-c".to_owned(), args.command.join(" ")]);
    }
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let tty = terminal && args.command.is_empty();
    let code = driver.exec(machine, &NodeCommand { args: command, tty, stdin: Input::Own, stdout: None }).await?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
