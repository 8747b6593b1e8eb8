//! Pages about the command line, made from its declaration: docs/reference, docs/man; and docs/MINIKUBE.md, held against it.
//!
//! Only tests are here: nothing of it is in the program. `cargo xtask docs` writes the pages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory};

use crate::cli::Cli;

/// Set by `cargo xtask docs`: pages are written, not compared.
const WRITE: &str = "KMINIK_WRITE_DOCS";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// The commands that help shows, each by its words, parents first; the program itself is the one without words.
fn commands() -> Vec<(String, Command)> {
    fn collect(words: &str, command: &Command, found: &mut Vec<(String, Command)>) {
        found.push((words.to_owned(), command.clone()));
        for child in command.get_subcommands().filter(|child| !child.is_hide_set() && child.get_name() != "help") {
            collect(format!("{words} {}", child.get_name()).trim(), child, found);
        }
    }
    let mut found = Vec::new();
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    collect("", &cli, &mut found);
    found
}

fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|flag| flag.get_long().is_some())
}

/// Of this command alone: those that every command takes are the program's.
fn is_own(argument: &Arg, words: &str) -> bool {
    let everywhere = argument.is_global_set() || matches!(argument.get_id().as_str(), "help" | "version");
    !argument.is_hide_set() && (words.is_empty() || !everywhere)
}

/// A command with its subcommands, as Markdown.
fn page(name: &str, all: &[(String, Command)]) -> String {
    let mut page = String::from("<!-- Written by `cargo xtask docs`. -->\n");
    for (words, command) in all {
        if words != name && !words.starts_with(&format!("{name} ")) {
            continue;
        }
        let full = format!("kminik {words}");
        let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
        let level = if words == name { "#" } else { "##" };
        page.push_str(&format!("\n{level} {full}\n\n{about}\n\n```\n{}\n```\n", usage(&full, words, command)));
        let aliases: Vec<&str> = command.get_visible_aliases().collect();
        if !aliases.is_empty() {
            page.push_str(&format!("\nAlso: `{}`\n", aliases.join("`, `")));
        }
        page.push_str(&arguments(words, command));
    }
    page
}

fn usage(full: &str, name: &str, command: &Command) -> String {
    let mut words = vec![full.to_owned()];
    if flags(command).any(|flag| is_own(flag, name)) {
        words.push("[OPTIONS]".to_owned());
    }
    for argument in command.get_positionals() {
        words.push(argument.to_string());
    }
    if command.has_subcommands() {
        words.push("COMMAND".to_owned());
    }
    words.join(" ")
}

fn arguments(words: &str, command: &Command) -> String {
    let shown: Vec<&Arg> = command.get_arguments().filter(|argument| is_own(argument, words)).collect();
    if shown.is_empty() {
        return String::new();
    }
    let mut table = String::from("\n| | default | |\n|---|---|---|\n");
    for argument in shown {
        let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        // A flag that takes no value is off.
        let default = if argument.get_action().takes_values() { defaults.join(",") } else { String::new() };
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
        let choices: Vec<_> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let takes = argument.get_action().takes_values() && !choices.is_empty();
        let choices = if takes { format!(" ({})", choices.join(", ")) } else { String::new() };
        let name = argument.to_string();
        let name = match argument.get_short() {
            Some(short) if argument.get_long().is_some() => format!("-{short}, {name}"),
            _ => name,
        };
        let row = format!("| `{name}` | {default} | {help}{choices} |\n").replace("||", "|");
        table.push_str(&escape(&row, &name));
    }
    table
}

/// A bar within a cell would end it.
fn escape(row: &str, name: &str) -> String {
    if name.contains('|') { row.replace(name, &name.replace('|', "\\|")) } else { row.to_owned() }
}

/// Every page: path below docs/ and text.
fn pages() -> BTreeMap<PathBuf, String> {
    let all = commands();
    let mut pages = BTreeMap::new();
    let mut index = String::from(
        "<!-- Written by `cargo xtask docs`. -->\n\n# kminik\n\nEvery command takes `-p NAME`, the cluster that is meant. \
         [MINIKUBE.md](../MINIKUBE.md) compares with minikube.\n\n| command | |\n|---|---|\n",
    );
    for (words, command) in &all {
        if words.is_empty() || words.contains(' ') {
            continue;
        }
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        index.push_str(&format!("| [{words}]({words}.md) | {about} |\n"));
        pages.insert(Path::new("reference").join(format!("{words}.md")), page(words, &all));
    }
    pages.insert("reference/README.md".into(), index);
    for (words, command) in &all {
        let name = format!("kminik {words}").trim().replace(' ', "-");
        let mut text = Vec::new();
        let command = command.clone().name(name.clone()).version(crate::version::KMINIK);
        clap_mangen::Man::new(command).date("").render(&mut text).unwrap();
        pages.insert(Path::new("man").join(format!("{name}.1")), String::from_utf8(text).unwrap());
    }
    pages
}

fn files(directory: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn pages_are_fresh() {
    let (root, pages) = (docs(), pages());
    let write = std::env::var_os(WRITE).is_some();
    let wanted: BTreeSet<PathBuf> = pages.keys().map(|path| root.join(path)).collect();
    for directory in ["reference", "man"].map(|name| root.join(name)) {
        for stale in files(&directory).difference(&wanted) {
            assert!(write, "{} is of no command: run cargo xtask docs", stale.display());
            fs::remove_file(stale).unwrap();
        }
        if write {
            fs::create_dir_all(directory).unwrap();
        }
    }
    for (path, text) in pages {
        let path = root.join(path);
        if write {
            fs::write(&path, text).unwrap();
        } else {
            let kept = fs::read_to_string(&path).unwrap_or_default();
            assert!(kept == text, "{} is stale: run cargo xtask docs", path.display());
        }
    }
}

/// A row of docs/MINIKUBE.md: under which heading, the name without its quotes, the state.
fn comparison() -> Vec<(String, String, String)> {
    let text = fs::read_to_string(docs().join("MINIKUBE.md")).unwrap();
    let mut heading = String::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut heading);
        } else if let Some(row) = line.strip_prefix("| `") {
            let (name, rest) = row.split_once("` | ").expect(line);
            let (state, _) = rest.split_once(" |").expect(line);
            rows.push((heading.clone(), name.to_owned(), state.to_owned()));
        }
    }
    rows
}

#[test]
fn the_comparison_with_minikube_is_true() {
    const COMMANDS: &str = "Commands";
    const EVERYWHERE: &str = "Flags of every command";
    let all: BTreeMap<String, Command> = commands().into_iter().collect();
    let rows = comparison();
    let mut named = BTreeSet::new();
    let mut own = BTreeSet::new();
    for (heading, name, state) in &rows {
        let words = if heading == EVERYWHERE { "" } else { heading.as_str() };
        let there = match name.strip_prefix("--") {
            None if name == "help" => true,
            None => all.contains_key(name),
            Some("help") => true,
            Some(flag) => {
                all.get(words).is_some_and(|command| flags(command).any(|known| known.get_long() == Some(flag)))
            }
        };
        let said = match state.as_str() {
            "served" | "differs" | "own" => true,
            "later" | "no" => false,
            other => panic!("{heading}: {name} is {other:?}"),
        };
        assert_eq!(there, said, "{heading}: {name} is said to be {state:?}");
        assert!(named.insert((heading.clone(), name.clone())), "{heading}: {name} is there twice");
        if heading == COMMANDS && state == "own" {
            own.insert(name.clone());
        }
    }
    for (words, command) in &all {
        let is_named = |heading: &str, name: &str| named.contains(&(heading.to_owned(), name.to_owned()));
        assert!(words.is_empty() || is_named(COMMANDS, words), "docs/MINIKUBE.md does not name the command {words:?}");
        if own.contains(words) {
            continue;
        }
        let heading = if words.is_empty() { EVERYWHERE } else { words };
        let shown = flags(command).filter(|flag| is_own(flag, words));
        for flag in shown.filter_map(Arg::get_long).filter(|flag| !matches!(*flag, "help" | "version")) {
            let name = format!("--{flag}");
            assert!(is_named(heading, &name), "docs/MINIKUBE.md does not name {name} of {heading:?}");
        }
    }
}

/// minikube's commands and flags, as its own help lists them.
const MINIKUBE: &str = include_str!("../tests/formats/minikube.txt");

#[test]
fn the_comparison_leaves_nothing_of_minikube_out() {
    let named: BTreeSet<(String, String)> =
        comparison().into_iter().map(|(heading, name, _)| (heading, name)).collect();
    let mut missing = Vec::new();
    for line in MINIKUBE.lines().filter(|line| !line.starts_with('#')) {
        let (command, flags) = line.split_once(':').expect(line);
        let heading = if command.is_empty() { "Flags of every command" } else { command };
        let commands = (!command.is_empty()).then(|| ("Commands".to_owned(), command.to_owned()));
        let flags = flags.split_whitespace().map(|flag| (heading.to_owned(), format!("--{flag}")));
        missing.extend(commands.into_iter().chain(flags).filter(|row| !named.contains(row)));
    }
    assert!(missing.is_empty(), "docs/MINIKUBE.md lacks {missing:?}");
}
