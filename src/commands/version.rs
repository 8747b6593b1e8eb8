//! `kminik version`.

use std::process::ExitCode;

use serde_json::json;

use crate::printer::Printer;
use crate::reason::{MK_INTERNAL, OrFail, Outcome};
use crate::version;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the number
    #[arg(long)]
    short: bool,
    #[arg(short = 'o', long, value_enum)]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Json,
    Yaml,
}

pub fn run(args: &Args, printer: &Printer) -> Outcome<ExitCode> {
    let (kminik, kubernetes) = (format!("v{}", version::KMINIK), version::KUBERNETES);
    let data = json!({ "kminikVersion": kminik, "kubernetesVersion": kubernetes });
    match args.output {
        Some(Format::Json) => printer.data(&data.to_string()),
        Some(Format::Yaml) => {
            printer.data(serde_yaml::to_string(&data).or_fail(&MK_INTERNAL, "cannot write YAML")?.trim_end());
        }
        None if args.short => printer.data(&kminik),
        None => printer.data(&format!("kminik version: {kminik}\nKubernetes version: {kubernetes}")),
    }
    Ok(ExitCode::SUCCESS)
}
