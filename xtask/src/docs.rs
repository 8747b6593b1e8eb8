//! The pages about the command line. The declaration is within the program, so it is the program's own test that writes them.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Has the test write what it compares else.
pub(crate) fn run() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "test",
            "--quiet",
            "--profile",
            "fast",
            "--package",
            "kminik",
            "--bin",
            "kminik",
            "docs::pages_are_fresh",
        ])
        .env("KMINIK_WRITE_DOCS", "1")
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the pages are not written");
    Ok(())
}
