//! The clients of others that tests drive clusters with.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::run::{command, run};

/// What `tests/clients/install` installs: `kubectl/kubectl` (Debian's), `python/bin/python`, `node/node_modules`.
#[track_caller]
pub fn clients() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let printed = run(&mut command(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/install"), &[]), None).ok();
        printed.trim().into()
    })
}

/// Every kubectl there is here, oldest first: those of the supported range, else the one on PATH.
pub fn kubectls() -> Vec<PathBuf> {
    let directories =
        std::env::var_os("KUBECTL_DIR").map(PathBuf::from).into_iter().chain(["/usr/lib/google-cloud-sdk/bin".into()]);
    let found: Vec<PathBuf> = directories
        .flat_map(|dir| (27..=33).map(move |minor| dir.join(format!("kubectl.1.{minor}"))))
        .filter(|p| p.exists())
        .collect();
    if found.is_empty() { vec!["kubectl".into()] } else { found }
}
