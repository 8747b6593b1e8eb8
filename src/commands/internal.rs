//! Commands that kminik runs of itself; hidden from help.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Context;
use crate::cli::Internal;
use crate::node;
use crate::node::pause::Selection;
use crate::ops::units;
use crate::printer::Printer;
use crate::reason::{Failure, GUEST_CP, GUEST_EXEC, GUEST_MOUNT, GUEST_PAUSE, MK_INTERNAL, MK_USAGE, OrFail, Outcome};

/// `kminik dns`.
#[derive(Debug, clap::Args)]
pub struct DnsArgs {
    #[arg(long, default_value = "cluster.local")]
    domain: String,
}

/// `kminik registry`.
#[derive(Debug, clap::Args)]
pub struct RegistryArgs {
    /// Directory of everything that is pushed
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
    /// Most GiB of one blob
    #[arg(long, default_value_t = 32)]
    limit_gib: u64,
    /// How long a manifest without a tag is kept since its last push or pull; 0 is for ever
    #[arg(long, default_value = "168h")]
    untagged: String,
}

/// `kminik shell`.
#[derive(Debug, clap::Args)]
pub struct ShellArgs {
    /// Line to run
    #[arg(short = 'c')]
    command: Option<String>,
    /// Run one builtin: its name and arguments
    #[arg(long, num_args = 1.., allow_hyphen_values = true)]
    builtin: Option<Vec<String>>,
}

/// `kminik node-file`.
#[derive(Debug, clap::Args)]
pub struct NodeFileArgs {
    #[command(subcommand)]
    verb: FileVerb,
}

#[derive(Debug, clap::Subcommand)]
enum FileVerb {
    /// Write stdin to a path, or to a name below it
    Put { path: String, name: String },
    /// Write the files of an archive on stdin to where it has them
    Take,
    /// Print a file
    Get { path: String },
    /// Print a directory's files as an archive
    Archive { path: PathBuf },
}

/// `kminik node-pause`.
#[derive(Debug, clap::Args)]
pub struct NodePauseArgs {
    #[arg(value_enum)]
    verb: PauseVerb,
    namespaces: Vec<String>,
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PauseVerb {
    Pause,
    Unpause,
    State,
}

/// `kminik node-logs`.
#[derive(Debug, clap::Args)]
pub struct NodeLogsArgs {
    #[arg(long)]
    component: Option<String>,
    #[arg(long, default_value_t = 60)]
    length: usize,
    #[arg(long)]
    problems: bool,
    #[arg(long)]
    follow: bool,
}

/// `kminik node-image`, for `images/node/build`.
#[derive(Debug, clap::Args)]
pub struct NodeImageArgs {
    /// docker-save archive to write
    file: std::path::PathBuf,
}

/// Runs the command; its failure is logged and told.
pub fn run(command: Internal, context: &Context) -> ExitCode {
    let outcome: Outcome<i32> = match command {
        Internal::NodeImage(args) => std::fs::File::create(&args.file)
            .and_then(|file| crate::drivers::write_node_image(std::io::BufWriter::new(file)))
            .or_fail(&MK_INTERNAL, "cannot write the node image")
            .map(|()| 0),
        Internal::NodeReplace => {
            node::replace::main().or_fail(&MK_INTERNAL, "cannot start the node process anew").map(|()| 0)
        }
        Internal::Agent => crate::agent::main(context.home.clone(), &context.profile).map(|()| 0),
        Internal::Dns(args) => dns(args).map(|()| 0),
        Internal::StorageProvisioner => storage_provisioner().map(|()| 0),
        Internal::Registry(args) => registry(args).map(|()| 0),
        Internal::Shell(args) => Ok(match &args.builtin {
            Some(words) => node::shell::builtin(words),
            None => node::shell::main(args.command.as_deref()),
        }),
        Internal::NodeFile(args) => file(&args.verb).or_fail(&GUEST_CP, "cannot copy").map(|()| 0),
        Internal::NodePause(args) => pause(args).map(|()| 0),
        Internal::NodeUnmount { path } => match rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH) {
            // Nothing is mounted there, or not any more.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(0),
            Err(error) => Err(error).or_fail(&GUEST_MOUNT, "cannot unmount"),
        },
        Internal::NodeLimits { cpus, memory_bytes } => {
            node::limits::change(cpus, memory_bytes).or_fail(&MK_INTERNAL, "cannot change the limits").map(|()| 0)
        }
        Internal::NodeDial { address } => dial(address).map(|()| 0),
        Internal::NodeLogs(args) => {
            let NodeLogsArgs { component, length, problems, follow } = args;
            let selection = node::logs::Selection { component, length, problems, follow };
            node::logs::print(&selection, &mut std::io::stdout().lock())
                .or_fail(&MK_INTERNAL, "cannot show the logs")
                .map(|()| 0)
        }
    };
    told(outcome, context)
}

/// `kminik node` alone: the node's process, as PID 1 starts it.
pub fn node_process(context: &Context) -> ExitCode {
    told(node::main().or_fail(&MK_INTERNAL, "the node process ended").map(|()| 0), context)
}

fn told(outcome: Outcome<i32>, context: &Context) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(failure) => {
            Printer::text(&context.profile).failure(&failure);
            ExitCode::from(failure.reason.exit_code)
        }
    }
}

fn file(verb: &FileVerb) -> std::io::Result<()> {
    let out = std::io::stdout().lock();
    match verb {
        FileVerb::Put { path, name } => node::files::put(path, name, std::io::stdin().lock()),
        FileVerb::Take => node::files::take(Path::new("/"), std::io::stdin().lock()),
        FileVerb::Get { path } => node::files::get(path, out),
        FileVerb::Archive { path } => node::files::archive(path, out).map(drop),
    }
}

/// Prints what is paused afterwards.
fn pause(args: NodePauseArgs) -> Outcome<()> {
    let selection =
        if args.all { Selection::All } else { Selection::Namespaces(args.namespaces.into_iter().collect()) };
    let state = match args.verb {
        PauseVerb::Pause => node::pause::pause(&selection),
        PauseVerb::Unpause => node::pause::unpause(&selection),
        PauseVerb::State => Ok(node::pause::state()),
    };
    let state = state.or_fail(&GUEST_PAUSE, "cannot change what is paused")?;
    let out = std::io::stdout().lock();
    serde_json::to_writer(out, &state).or_fail(&MK_INTERNAL, "cannot say what is paused")
}

/// A runtime for one of the servers in pods: a single thread keeps it small.
fn serve<E: std::error::Error>(server: impl Future<Output = Result<(), E>>) -> Outcome<()> {
    kminik_base::telemetry::to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::because(&MK_INTERNAL, "cannot start", &error))?;
    runtime.block_on(server).or_fail(&MK_INTERNAL, "the server ended")
}

fn dial(address: SocketAddr) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.or_fail(&MK_INTERNAL, "cannot start")?;
    let outcome =
        runtime.block_on(node::dial::join(address)).or_fail(&GUEST_EXEC, format_args!("cannot reach {address}"));
    // What still waits for stdin must not hold the process.
    runtime.shutdown_background();
    outcome
}

fn dns(args: DnsArgs) -> Outcome<()> {
    serve(async move { kminik_dns::run(&args.domain).await })
}

fn storage_provisioner() -> Outcome<()> {
    serve(kminik_provisioner::run())
}

fn registry(args: RegistryArgs) -> Outcome<()> {
    let untagged = match args.untagged.as_str() {
        "0" => None,
        text => Some(units::duration(text).map_err(|error| Failure::new(&MK_USAGE, error))?),
    };
    let policy = kminik_registry::Policy { untagged, ..Default::default() };
    let (data, listen, limit_bytes) = (args.data, args.listen, args.limit_gib.saturating_mul(1 << 30));
    serve(kminik_registry::run(kminik_registry::Config { data, listen, limit_bytes, policy }))
}
