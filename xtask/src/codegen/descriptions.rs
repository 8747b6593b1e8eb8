//! Descriptions of types and fields, from the doc comments of the k8s-openapi crate (Apache-2.0).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Texts by `(definition, field)`; the field is empty for the type itself.
pub(crate) type Descriptions = BTreeMap<(String, String), String>;

/// Finds the crate's sources of the wanted API release in cargo's registry cache.
pub(crate) fn locate(release: &str) -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let sources = home.join("registry/src");
    let mut found = Vec::new();
    for registry in fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))? {
        for package in fs::read_dir(registry?.path())? {
            let package = package?.path();
            let directory = package.join("src").join(release);
            if package.file_name().is_some_and(|n| n.to_string_lossy().starts_with("k8s-openapi-"))
                && directory.is_dir()
            {
                found.push(directory);
            }
        }
    }
    found.sort();
    match found.pop() {
        Some(directory) => Ok(directory),
        None => bail!("no k8s-openapi with {release} in {}", sources.display()),
    }
}

/// Reads all definitions below a directory.
pub(crate) fn read(directory: &Path, out: &mut Descriptions) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, out)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            read_definition(&fs::read_to_string(&path)?, out);
        }
    }
    Ok(())
}

fn read_definition(text: &str, out: &mut Descriptions) {
    let Some(definition) = text.lines().find_map(|l| l.strip_prefix("// Generated from definition ")) else { return };
    // The names that serde reads, by the names of the Rust fields.
    let json_names: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|l| l.trim().strip_suffix(',')?.split_once(" => Field::Key_"))
        .map(|(json, rust)| (rust, json.trim_matches('"')))
        .collect();
    let mut comment: Vec<&str> = Vec::new();
    let mut in_struct = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(doc) = trimmed.strip_prefix("///") {
            comment.push(doc.strip_prefix(' ').unwrap_or(doc));
        } else if trimmed.starts_with("pub struct ") {
            in_struct = true;
            insert(out, definition, "", &mut comment);
        } else if in_struct && trimmed == "}" {
            return;
        } else if in_struct && let Some((name, _)) = trimmed.strip_prefix("pub ").and_then(|r| r.split_once(':')) {
            let rust = name.strip_prefix("r#").unwrap_or(name);
            if let Some(json) = json_names.get(rust).or_else(|| json_names.get(rust.trim_end_matches('_'))) {
                insert(out, definition, json, &mut comment);
            }
            comment.clear();
        } else if !trimmed.starts_with("#[") {
            comment.clear();
        }
    }
}

fn insert(out: &mut Descriptions, definition: &str, field: &str, comment: &mut Vec<&str>) {
    let mut text = comment.join("\n");
    comment.clear();
    // Undo what rustdoc needed.
    for escaped in ["\\<", "\\>", "\\[", "\\]", "\\*", "\\_", "\\`"] {
        text = text.replace(escaped, &escaped[1..]);
    }
    if !text.is_empty() {
        out.insert((definition.to_owned(), field.to_owned()), text);
    }
}
