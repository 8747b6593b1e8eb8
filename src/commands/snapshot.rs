//! `kminik snapshot`.

use std::path::PathBuf;
use std::process::ExitCode;

use kminik_store::SnapshotInfo;
use serde_json::json;

use super::{Context, Output};
use crate::ops::{image, snapshot};
use crate::printer::{DONE, Printer, TIP, table};
use crate::reason::Outcome;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Save all objects of the running cluster, as of one moment, into a file
    Save { file: PathBuf },
    /// Make a stopped (or new) cluster begin with the objects of a file at its next start
    Restore { file: PathBuf },
    /// Check a file from beginning to end and show what it is
    Info {
        file: PathBuf,
        #[arg(short = 'o', long, value_enum, default_value_t)]
        output: Output,
    },
}

pub async fn run(args: Args, context: &Context, printer: &Printer) -> Outcome<ExitCode> {
    let (home, profile) = (&context.home, &context.profile);
    match args.verb {
        Verb::Save { file } => {
            let info = snapshot::save(home, profile, &file).await?;
            let (records, revision) = (info.records, info.revision);
            printer.step(
                DONE,
                "Done",
                &format!("Saved {records} objects at revision {revision} to {}", file.display()),
            );
        }
        Verb::Restore { file } => {
            let info = snapshot::restore(home, profile, &file).await?;
            let (records, revision) = (info.records, info.revision);
            printer.step(
                DONE,
                "Done",
                &format!("\"{profile}\" begins with the {records} objects of revision {revision} at its next start"),
            );
            printer.info(TIP, &format!("Run: kminik start -p {profile}"));
        }
        Verb::Info { file, output } => show(&snapshot::info(&file)?, output, printer),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(info: &SnapshotInfo, output: Output, printer: &Printer) {
    let digest = hex::encode(info.sha256);
    let saved = i64::try_from(info.saved_at_unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let saved = saved.map(|at| format!("{at:.0}")).unwrap_or_default();
    match output {
        Output::Json => printer.data(
            &json!({
                "format": info.format, "revision": info.revision, "objects": info.records, "size": info.size,
                "saved": saved, "sha256": digest,
            })
            .to_string(),
        ),
        Output::Text => {
            let row = vec![
                info.revision.to_string(),
                info.records.to_string(),
                image::human_size(&info.size.to_string()),
                saved,
                digest,
            ];
            printer.data(&table(&["REVISION", "OBJECTS", "SIZE", "SAVED", "SHA256"], &[row]));
        }
    }
}
