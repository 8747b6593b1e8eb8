//! `kminik doctor`: which drivers can be used, and what stands in the way of clusters here.

use std::process::ExitCode;

use super::{Context, Output};
use crate::drivers::{Probed, Problem};
use crate::ops::doctor::{self, Finding, Report, Verdict};
use crate::printer::Printer;
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let report = doctor::examine(&context.home).await;
    match args.output {
        Output::Json => printer.data(&report.json().to_string()),
        Output::Text => printer.data(text(&report, printer).trim_end()),
    }
    Ok(ExitCode::from(report.exit_code()))
}

/// A line each, with what to do below what is not well.
fn text(report: &Report, printer: &Printer) -> String {
    let mut lines = Vec::new();
    let mut add = |name: &str, word: &str, about: &str, problem: Option<&Problem>, link: &str| {
        let why = problem.map_or_else(|| about.to_owned(), |problem| printer.say(&problem.why));
        lines.push(format!("{name:<11} {word:<8} {why}"));
        if let Some(problem) = problem {
            let more = [printer.say(&problem.advice), link.to_owned()];
            lines.extend(more.iter().filter(|more| !more.is_empty()).map(|more| format!("{:21}→ {more}", "")));
        }
    };
    for Probed { row, health } in &report.drivers {
        let word = match (health.is_healthy(), health.installed) {
            (true, _) if report.chosen() == Some(row.name) => "chosen",
            (true, _) => "ok",
            (false, true) => "failed",
            (false, false) => "absent",
        };
        let about = format!("{}: {}", row.what, health.about);
        add(row.name, word, &about, health.problem.as_ref(), row.link);
    }
    for Finding { name, verdict } in &report.host {
        let about = if let Verdict::Good(about) = verdict { about.as_str() } else { "" };
        add(name, verdict.word(), about, verdict.problem(), "");
    }
    lines.join("\n")
}
