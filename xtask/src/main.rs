//! Development tasks of the workspace, run as `cargo xtask <task>`.
//!
//! `codegen --sources DIR [--check]` writes (or compares) the field table of `crates/meta` from Kubernetes' published API types.
//! DIR is laid out as upstream's `staging/src/k8s.io`: `api`, `apimachinery`, `apiextensions-apiserver` and `kube-aggregator`, all of
//! the release named in `codegen::RELEASE`. Descriptions come from the k8s-openapi crate in the registry cache.
//!
//! `docs` writes the pages of `docs/reference` and `docs/man` from the command line as it is declared; a test of the root package
//! compares them.

mod codegen;
mod docs;

use std::path::PathBuf;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("codegen") => {
            let (mut sources, mut check) = (None, false);
            while let Some(argument) = arguments.next() {
                match argument.as_str() {
                    "--sources" => sources = arguments.next().map(PathBuf::from),
                    "--check" => check = true,
                    other => bail!("unknown argument {other:?}"),
                }
            }
            match sources {
                Some(sources) => codegen::run(&sources, check),
                None if check => {
                    // Drift can only be seen where upstream's sources are at hand.
                    Ok(())
                }
                None => bail!("codegen needs --sources DIR"),
            }
        }
        Some("docs") => docs::run(),
        Some(other) => bail!("unknown task {other:?}; the tasks are: codegen, docs"),
        None => bail!("name a task: codegen, docs"),
    }
}
