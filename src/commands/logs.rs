//! `kminik logs`: what PID 1 and the node's parts have logged. It goes through the driver, so it works with the API dead.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Context;
use crate::drivers::{self, MachineState, NodeCommand};
use crate::ops::node_image;
use crate::printer::Printer;
use crate::profile::Profile;
use crate::reason::{Failure, GUEST_NOT_RUNNING, HOST_PATH_MISSING, OrFail, Outcome};

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
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let profile = Profile::load(&context.home, &context.profile)?;
    let driver = drivers::of(&context.home, &profile)?;
    let running = driver.state(&profile.name).await? == MachineState::Running;
    let mut command: Vec<String> =
        [node_image::BINARY, "node-logs", "--length", &args.length.to_string()].map(Into::into).into();
    if let Some(component) = &args.component {
        command.extend(["--component".to_owned(), component.clone()]);
    }
    if args.follow {
        if !running {
            return Err(Failure::new(&GUEST_NOT_RUNNING, format!("the node of \"{}\" is not running", profile.name)));
        }
        command.push("--follow".to_owned());
        let code = driver.exec(&profile.name, &NodeCommand { args: command, tty: false, stdin: false }).await?;
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
    }
    let mut text = Vec::new();
    if args.component.is_none() {
        section(&mut text, "console", &driver.console(&profile.name).await?, args.length);
        let agent = std::fs::read(context.home.profile(&profile.name).join("agent.log")).unwrap_or_default();
        section(&mut text, "agent", &agent, args.length);
    }
    if running {
        let args: Vec<&str> = command.iter().map(String::as_str).collect();
        text.extend(driver.output(&profile.name, &args).await?.stdout);
    }
    match &args.file {
        Some(path) => std::fs::File::create(path)
            .and_then(|mut file| file.write_all(&text))
            .or_fail(&HOST_PATH_MISSING, format_args!("cannot write {}", path.display()))?,
        None => printer.data(String::from_utf8_lossy(&text).trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The last lines under minikube's heading.
fn section(out: &mut Vec<u8>, name: &str, content: &[u8], length: usize) {
    let text = String::from_utf8_lossy(content);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(length)..];
    out.extend(format!("==> {name} <==\n").into_bytes());
    for line in last {
        out.extend(line.as_bytes());
        out.push(b'\n');
    }
    out.push(b'\n');
}
