//! `kminik logs`: what this machine, PID 1 and the node's parts have logged. It goes through the driver, so it works with the API dead.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Context;
use crate::audit;
use crate::drivers::{self, Input, MachineState, NodeCommand};
use crate::home::end_of;
use crate::node::logs::component;
use crate::ops::{diagnosis, node_image};
use crate::printer::{Printer, table};
use crate::profile::Profile;
use crate::reason::{Failure, HOST_PATH_MISSING, MK_INTERNAL, MK_USAGE, OrFail, Outcome};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on as lines are written
    #[arg(short = 'f', long)]
    follow: bool,
    /// Lines of each section
    #[arg(short = 'n', long, default_value_t = 60)]
    length: usize,
    /// Write to a file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only what this part has logged: apiserver, scheduler, controllers, kubelet, net, …
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    /// Only of this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Only lines that tell of trouble
    #[arg(long)]
    problems: bool,
    /// Only which commands were run
    #[arg(long)]
    audit: bool,
    /// Only what the last start said
    #[arg(long)]
    last_start_only: bool,
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let mut text = Vec::new();
    if args.audit || args.last_start_only {
        if args.audit {
            commands(&mut text, context, args.length);
        }
        if args.last_start_only {
            last_start(&mut text, context, args.length);
        }
        return written(&args, &text, printer);
    }
    let profile = Profile::load(&context.home, &context.profile)?;
    let machine = profile.machine(args.node.as_deref())?;
    if let Some(name) = &args.component {
        component(name).map_err(|error| Failure::new(&MK_USAGE, error.to_string()))?;
    }
    let mut command: Vec<String> =
        [node_image::BINARY, "node-logs", "--length", &args.length.to_string()].map(Into::into).into();
    if let Some(component) = &args.component {
        command.extend(["--component".to_owned(), component.clone()]);
    }
    if args.problems {
        command.push("--problems".to_owned());
    }
    if args.follow {
        let driver = drivers::of_running(&context.home, machine).await?;
        command.push("--follow".to_owned());
        // However this process ends, its end of the pipe closes, and who follows in the node ends too.
        let (end, _held) = std::io::pipe().or_fail(&MK_INTERNAL, "cannot make a pipe")?;
        let stdin = Input::File(File::from(OwnedFd::from(end)));
        let code = driver.exec(machine, &NodeCommand { args: command, stdin, ..NodeCommand::default() }).await?;
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
    }
    let driver = drivers::of(&context.home, &profile)?;
    let running = driver.state(machine).await? == MachineState::Running;
    if args.component.is_none() {
        let agent = end_of(&context.home.profile(&profile.name).join("agent.log"));
        let console = driver.console(machine).await?;
        if !args.problems {
            commands(&mut text, context, args.length);
            last_start(&mut text, context, args.length);
            if running {
                for (name, content) in diagnosis::sections(&context.home, &profile).await {
                    section(&mut text, name, content.as_bytes(), usize::MAX, false);
                }
            }
        }
        section(&mut text, "console", &console, args.length, args.problems);
        section(&mut text, "agent", &agent, args.length, args.problems);
    }
    if running {
        let args: Vec<&str> = command.iter().map(String::as_str).collect();
        let output = driver.output(machine, &args, drivers::LOGS).await?;
        text.extend(output.stdout);
        if output.exit_code != 0 {
            printer.warning(&format!("the node: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
    written(&args, &text, printer)
}

fn written(args: &Args, text: &[u8], printer: &Printer) -> Outcome<ExitCode> {
    match &args.file {
        Some(path) => File::create(path)
            .and_then(|mut file| file.write_all(text))
            .or_fail(&HOST_PATH_MISSING, format_args!("cannot write {}", path.display()))?,
        None => printer.data(String::from_utf8_lossy(text).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

fn commands(out: &mut Vec<u8>, context: &Context, length: usize) {
    let rows: Vec<Vec<String>> = audit::last(&context.home, &context.profile, length)
        .into_iter()
        .map(|row| vec![row.command, row.args, row.profile, row.user, row.version, row.start_time, row.end_time])
        .collect();
    let headers = ["COMMAND", "ARGS", "PROFILE", "USER", "VERSION", "START TIME", "END TIME"];
    section(out, "Audit", table(&headers, &rows).as_bytes(), usize::MAX, false);
}

fn last_start(out: &mut Vec<u8>, context: &Context, length: usize) {
    let text = end_of(&context.home.last_start_file());
    section(out, "Last Start", &text, length, false);
}

/// The last lines under minikube's heading; of trouble only, a section without any is left out.
fn section(out: &mut Vec<u8>, name: &str, content: &[u8], length: usize, problems: bool) {
    let text = String::from_utf8_lossy(content);
    let lines: Vec<&str> = text.lines().filter(|line| !problems || crate::node::logs::is_problem(line)).collect();
    if problems && lines.is_empty() {
        return;
    }
    let last = &lines[lines.len().saturating_sub(length)..];
    out.extend(format!("==> {name} <==\n").into_bytes());
    for line in last {
        out.extend(line.as_bytes());
        out.push(b'\n');
    }
    out.push(b'\n');
}
