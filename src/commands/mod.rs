//! One file a command: its arguments and the call of an operation in `ops`.

pub mod addons;
pub mod bundle;
pub mod cache;
pub mod completion;
pub mod config;
pub mod cp;
pub mod delete;
pub mod doctor;
pub mod export;
pub mod image;
pub mod internal;
pub mod ip;
pub mod kubectl;
pub mod logs;
pub mod mirror;
pub mod mount;
pub mod node;
pub mod pause;
pub mod profile;
pub mod service;
pub mod snapshot;
pub mod ssh;
pub mod start;
pub mod status;
pub mod stop;
pub mod update_context;
pub mod version;

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::audit::Entry;
use crate::cli::{Cli, Command, Global};
use crate::declared;
use crate::home::Home;
use crate::messages::{Language, help};
use crate::ops::pause::Change;
use crate::printer::Printer;
use crate::reason::{Failure, MK_BAD_CLUSTER_FILE, MK_INTERNAL, MK_INTERRUPTED, MK_USAGE, OrFail, Outcome};
use crate::settings::{self, Settings};
use crate::terminal::Interruption;

/// What a command knows of its surroundings.
pub struct Context {
    pub home: Home,
    pub profile: String,
}

/// Parses, runs, renders the failure; the process' exit code.
pub fn main() -> ExitCode {
    let home = Home::locate();
    let loaded = Settings::load(&home);
    let settings = loaded.as_ref().cloned().unwrap_or_default();
    let typed = arguments();
    let parsed = match parse(&typed, &settings) {
        Ok(parsed) => parsed,
        Err(error) => return usage(error, &typed, &settings),
    };
    let words = parsed.words(&typed);
    let (cli, told) = match with_files(&typed, &parsed, &settings) {
        Ok(None) => (parsed.cli, Ok(Vec::new())),
        Ok(Some((whole, notes))) => (whole, Ok(notes)),
        Err(failure) => (parsed.cli, Err(failure)),
    };
    let Global { profile, user, skip_audit } = cli.global;
    let context = Context { home, profile };
    match cli.command {
        Command::Internal(internal) => internal::run(internal, &context),
        Command::Node(args) if args.is_process() => internal::node_process(&context),
        command => {
            let printer = printer(&command, &context);
            if let Err(failure) = loaded {
                printer.warning(&format!("{failure}; going on without settings"));
            }
            let entry = (!skip_audit).then(|| Entry::begin(&context.home, &words, &context.profile, user.as_deref()));
            let outcome = told.and_then(|notes| {
                notes.iter().for_each(|note| printer.warning(note));
                run(command, &context, &printer)
            });
            entry.flatten().into_iter().for_each(Entry::end);
            outcome.unwrap_or_else(|failure| {
                printer.failure(&failure);
                ExitCode::from(failure.reason.exit_code)
            })
        }
    }
}

/// Whether the program was started by the name of kubectl.
pub fn is_kubectl() -> bool {
    std::env::args_os().next().is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new("kubectl")))
}

/// As typed; by the name of kubectl it is `kminik kubectl`.
fn arguments() -> Vec<OsString> {
    if !is_kubectl() {
        return std::env::args_os().collect();
    }
    let before = ["kminik", "kubectl", "--"].map(OsString::from);
    before.into_iter().chain(std::env::args_os().skip(1)).collect()
}

/// A line that was read.
struct Parsed {
    cli: Cli,
    matches: ArgMatches,
    /// By which it was read.
    tree: clap::Command,
}

impl Parsed {
    /// The command and all after it, for the audit log.
    fn words(&self, arguments: &[OsString]) -> Vec<String> {
        let meant = self.matches.subcommand_name();
        let is_command =
            |word: &OsString| meant.is_some() && self.tree.find_subcommand(word).map(clap::Command::get_name) == meant;
        let from = arguments.iter().position(is_command).unwrap_or(arguments.len());
        arguments[from..].iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }
}

/// By which these are read.
fn tree(arguments: &[OsString], settings: &Settings) -> clap::Command {
    let tree = settings::apply(Cli::command(), settings);
    // Only where it is written: help would show a value at every flag.
    let is_bool = |text: &str| text.starts_with("--") && (text.ends_with("=true") || text.ends_with("=false"));
    let is_written = arguments.iter().filter_map(|argument| argument.to_str()).any(is_bool);
    if is_written { settings::with_bool_values(tree) } else { tree }
}

/// What was typed, over the environment, over the settings.
fn parse(arguments: &[OsString], settings: &Settings) -> Result<Parsed, clap::Error> {
    let mut tree = tree(arguments, settings);
    let matches = tree.try_get_matches_from_mut(arguments)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut tree))?;
    Ok(Parsed { cli, matches, tree })
}

/// What was typed together with what the files say that it names, and what the user should know of them; `None` if it
/// names none.
fn with_files(typed: &[OsString], parsed: &Parsed, settings: &Settings) -> Outcome<Option<(Cli, Vec<String>)>> {
    let additions = declared::read(&parsed.tree, &parsed.matches)?;
    if additions.arguments.is_empty() && additions.notes.is_empty() {
        return Ok(None);
    }
    let all: Vec<OsString> = typed.iter().cloned().chain(additions.arguments).collect();
    let whole = parse(&all, settings).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Failure::new(&MK_BAD_CLUSTER_FILE, format!("what --file says cannot be used: {first}"))
    })?;
    Ok(Some((whole.cli, additions.notes)))
}

fn usage(error: clap::Error, typed: &[OsString], settings: &Settings) -> ExitCode {
    // clap prints help and version to stdout, mistakes to stderr; a closed stream is no reason to fail.
    let _ = match Language::of_environment() {
        Language::English => error.print(),
        language => {
            // Read once more: a line that is right needs no texts of help.
            let again = help::in_language(tree(typed, settings), language).try_get_matches_from(typed);
            let text = help::chinese(again.as_ref().err().unwrap_or(&error));
            match error.use_stderr() {
                true => std::io::stderr().lock().write_all(text.as_bytes()),
                false => std::io::stdout().lock().write_all(text.as_bytes()),
            }
        }
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => ExitCode::SUCCESS,
        _ => ExitCode::from(MK_USAGE.exit_code),
    }
}

fn printer(command: &Command, context: &Context) -> Printer {
    let printer = match command {
        Command::Start(args) if args.is_json() => Printer::json(&context.profile, crate::ops::start::STEPS),
        Command::Stop(args) if args.is_json() => Printer::json(&context.profile, 2),
        Command::Pause(args) | Command::Unpause(args) if args.is_json() => Printer::json(&context.profile, 2),
        Command::Delete(args) if args.is_json() => Printer::json(&context.profile, 2),
        _ => Printer::text(&context.profile),
    };
    let is_start = match command {
        Command::Start(_) => true,
        Command::Node(args) => args.is_start(),
        _ => false,
    };
    let kept = is_start.then(|| last_start(context)).flatten();
    match kept {
        Some(file) => printer.keep(file),
        None => printer,
    }
}

/// Where `logs` finds what the last start has said; none where the home cannot be written, which the command itself will tell.
fn last_start(context: &Context) -> Option<File> {
    let path = context.home.last_start_file();
    context.home.write(&path, b"", 0o600).ok()?;
    OpenOptions::new().append(true).open(path).ok()
}

fn run(command: Command, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.or_fail(&MK_INTERNAL, "cannot start")?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Start(args) => start::run(*args, context, printer).await,
            Command::Stop(args) => stop::run(args, context, printer).await,
            Command::Delete(args) => delete::run(args, context, printer).await,
            Command::Status(args) => interruptible(status::run(args, context, printer)).await,
            Command::Doctor(args) => interruptible(doctor::run(args, context, printer)).await,
            Command::Config(args) => config::run(&args, context, printer).await,
            Command::Pause(args) => pause::run(args, Change::Pause, context, printer).await,
            Command::Unpause(args) => pause::run(args, Change::Unpause, context, printer).await,
            Command::Cp(args) => interruptible(cp::run(args, context)).await,
            Command::Mount(args) => mount::run(args, context, printer).await,
            Command::Export(args) => interruptible(export::run(args, context, printer)).await,
            Command::UpdateContext(args) => update_context::run(args, context, printer).await,
            Command::Service(args) => interruptible(service::run(args, context, printer)).await,
            Command::Kubectl(args) => interruptible(kubectl::run(args, context, printer)).await,
            Command::Addons(args) => interruptible(addons::run(args, context, printer)).await,
            Command::Image(args) => interruptible(image::run(args, context, printer)).await,
            Command::Mirror(args) => interruptible(mirror::run(args, context, printer)).await,
            Command::Bundle(args) => interruptible(bundle::run(args, context, printer)).await,
            Command::Cache(args) => interruptible(cache::run(args, context, printer)).await,
            Command::Node(args) => node::run(args, context, printer).await,
            Command::Logs(args) => logs::run(args, context, printer).await,
            Command::Ip(args) => ip::run(args, context, printer).await,
            Command::Ssh(args) => ssh::run(args, context).await,
            Command::Profile(args) => profile::run(args, context, printer).await,
            Command::Snapshot(args) => snapshot::run(args, context, printer).await,
            Command::Version(args) => version::run(&args, printer),
            Command::Completion(args) => completion::run(&args, printer),
            Command::Internal(_) => Err(Failure::new(&MK_INTERNAL, "an internal command reached the user's")),
        }
    });
    // Tasks that are still running (a terminal's reader blocked in read) must not hold the process.
    runtime.shutdown_background();
    outcome
}

/// Ends the work at Ctrl-C with what it has begun taken back: temporary files go, downloads stay to be continued.
async fn interruptible(work: impl Future<Output = Outcome<ExitCode>>) -> Outcome<ExitCode> {
    let mut interruption = Interruption::listen()?;
    tokio::select! {
        outcome = work => outcome,
        () = interruption.comes() => Err(Failure::new(&MK_INTERRUPTED, "interrupted")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_log_is_told_of_the_command_and_what_follows() {
        let words = |line: &str| {
            let typed: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            parse(&typed, &Settings::default()).map(|parsed| parsed.words(&typed).join(" ")).unwrap()
        };
        assert_eq!(words("kminik start --cpus=1"), "start --cpus=1");
        assert_eq!(words("kminik -p status stop"), "stop");
        assert_eq!(words("kminik --skip-audit resume -A"), "resume -A");
    }
}
