//! `kminik completion`.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::printer::Printer;
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shell to complete for
    shell: Shell,
}

pub fn run(args: &Args, printer: &Printer) -> Outcome<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kminik", &mut script);
    printer.data(String::from_utf8_lossy(&script).trim_end());
    Ok(ExitCode::SUCCESS)
}
