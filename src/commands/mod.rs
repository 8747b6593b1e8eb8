//! One file a command: its arguments and the call of an operation in `ops`.

pub mod bundle;
pub mod cache;
pub mod completion;
pub mod delete;
pub mod image;
pub mod internal;
pub mod ip;
pub mod kubectl;
pub mod logs;
pub mod mirror;
pub mod profile;
pub mod snapshot;
pub mod ssh;
pub mod start;
pub mod status;
pub mod stop;
pub mod version;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};
use crate::home::Home;
use crate::printer::Printer;
use crate::reason::{Failure, MK_INTERNAL, MK_INTERRUPTED, MK_USAGE, Outcome};

/// What a command knows of its surroundings.
pub struct Context {
    pub home: Home,
    pub profile: String,
}

/// Parses, runs, renders the failure; the process' exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let context = Context { home: Home::locate(), profile: cli.global.profile };
    match cli.command {
        Command::Internal(internal) => internal::run(internal, &context),
        command => {
            let (printer, outcome) = run(command, &context);
            outcome.unwrap_or_else(|failure| {
                printer.failure(&failure);
                ExitCode::from(failure.reason.exit_code)
            })
        }
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    // clap prints help and version to stdout, mistakes to stderr; a closed stream is no reason to fail.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => ExitCode::SUCCESS,
        _ => ExitCode::from(MK_USAGE.exit_code),
    }
}

fn run(command: Command, context: &Context) -> (Printer, Outcome<ExitCode>) {
    let printer = match &command {
        Command::Start(args) if args.is_json() => Printer::json(&context.profile, crate::ops::start::STEPS),
        Command::Stop(args) if args.is_json() => Printer::json(&context.profile, 2),
        Command::Delete(args) if args.is_json() => Printer::json(&context.profile, 2),
        _ => Printer::text(&context.profile),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return (printer, Err(Failure::because(&MK_INTERNAL, "cannot start", &error))),
    };
    let outcome = runtime.block_on(async {
        match command {
            Command::Start(args) => start::run(*args, context, &printer).await,
            Command::Stop(args) => stop::run(args, context, &printer).await,
            Command::Delete(args) => delete::run(args, context, &printer).await,
            Command::Status(args) => status::run(args, context, &printer).await,
            Command::Kubectl(args) => kubectl::run(args, context).await,
            Command::Image(args) => interruptible(image::run(args, context, &printer)).await,
            Command::Mirror(args) => interruptible(mirror::run(args, context, &printer)).await,
            Command::Bundle(args) => interruptible(bundle::run(args, context, &printer)).await,
            Command::Cache(args) => interruptible(cache::run(args, context, &printer)).await,
            Command::Logs(args) => logs::run(args, context, &printer).await,
            Command::Ip(args) => ip::run(args, context, &printer).await,
            Command::Ssh(args) => ssh::run(args, context).await,
            Command::Profile(args) => profile::run(args, context, &printer).await,
            Command::Snapshot(args) => snapshot::run(args, context, &printer).await,
            Command::Version(args) => version::run(&args, &printer),
            Command::Completion(args) => completion::run(&args, &printer),
            Command::Internal(_) => Err(Failure::new(&MK_INTERNAL, "an internal command reached the user's")),
        }
    });
    // Tasks that are still running (a terminal's reader blocked in read) must not hold the process.
    runtime.shutdown_background();
    (printer, outcome)
}

/// Ends the work at Ctrl-C with what it has begun taken back: temporary files go, downloads stay to be continued.
async fn interruptible(work: impl Future<Output = Outcome<ExitCode>>) -> Outcome<ExitCode> {
    tokio::select! {
        outcome = work => outcome,
        pressed = tokio::signal::ctrl_c() => match pressed {
            Ok(()) => Err(Failure::new(&MK_INTERRUPTED, "interrupted")),
            Err(error) => Err(Failure::because(&MK_INTERNAL, "cannot listen for Ctrl-C", &error)),
        },
    }
}

/// Formats of `-o` of what is a list.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum Listing {
    #[default]
    Table,
    Json,
}

/// Formats of `-o` of what is no list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}
