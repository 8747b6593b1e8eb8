//! `start -f FILE`: what start's flags say, kept in a file.
//!
//! Whatever a file says becomes values of start's own flags and is parsed and checked as they are, so that flags and files
//! cannot mean two things. A flag that is typed beside the file counts instead of what the file says; the environment and
//! the settings count less than the file. The formats, told apart by what is in the file:
//!
//! | file | is | read by |
//! |---|---|---|
//! | `apiVersion: kminik.io/v1alpha1`, `kind: Cluster` | our own; docs/schema/ has its JSON schema | [`cluster`] |
//! | `apiVersion: kind.x-k8s.io/v1alpha4`, `kind: Cluster` | kind's | [`kind`] |
//! | `mirrors`, `configs` | k3s's registries.yaml | [`registries`] |
//!
//! **Invariant:** nothing here knows what a flag does.

mod cluster;
mod containerd;
mod kind;
mod registries;
#[cfg(test)]
mod schema;

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use kminik_base::atomic_file;
use serde_yaml::{Mapping, Value};

use crate::reason::{Failure, MK_BAD_CLUSTER_FILE, OrFail, Outcome};

const LIMIT_BYTES: u64 = 1 << 20;
/// The flag that names the files.
const FILE: &str = "file";
/// A file's name that is standard input.
const STDIN: &str = "-";

/// A flag's values, and the field that gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    /// Long name.
    flag: &'static str,
    values: Vec<String>,
    field: String,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Declared {
    wishes: Vec<Wish>,
    /// Fields that cannot be followed, and why.
    refused: Vec<String>,
    /// What the user should know.
    notes: Vec<String>,
}

impl Declared {
    fn wish(&mut self, flag: &'static str, field: impl Into<String>, values: Vec<String>) {
        if !values.is_empty() {
            self.wishes.push(Wish { flag, values, field: field.into() });
        }
    }

    fn refuse(&mut self, field: &str, why: &str) {
        self.refused.push(format!("{field}: {why}"));
    }
}

/// What the files that were named add to the command line.
#[derive(Debug, Default)]
pub struct Additions {
    /// To be put behind what was typed.
    pub arguments: Vec<OsString>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Reads the files that `start`'s arguments name.
///
/// # Errors
/// `MK_BAD_CLUSTER_FILE`, naming file and field: what cannot be read, is no field, or cannot be followed. With `--force`
/// what cannot be followed is a note.
pub fn read(command: &Command, typed: &ArgMatches) -> Outcome<Additions> {
    let Some(("start", typed)) = typed.subcommand() else { return Ok(Additions::default()) };
    let files: Vec<&PathBuf> = typed.get_many(FILE).into_iter().flatten().collect();
    let mut additions = Additions::default();
    let mut said: Vec<(&Path, Wish)> = Vec::new();
    for file in files {
        let declared = parse(&text(file)?, &base(file))
            .map_err(|why| bad(format!("{}: {why}", file.display())).advise(FORMATS))?;
        let mut refused = declared.refused;
        for wish in declared.wishes {
            let Some(flag) = flag(command, wish.flag) else {
                refused.push(format!("{}: kminik start has no --{}", wish.field, wish.flag));
                continue;
            };
            let is_list = matches!(flag.get_action(), ArgAction::Append);
            if let Some((other, before)) = said.iter().find(|(_, before)| before.flag == wish.flag && !is_list) {
                return Err(bad(format!(
                    "both {} of {} and {} of {} say what --{} is to be",
                    before.field,
                    other.display(),
                    wish.field,
                    file.display(),
                    wish.flag
                )));
            }
            said.push((file.as_path(), wish));
        }
        let refused = refused.into_iter().map(|one| format!("{}: {one}", file.display()));
        if typed.get_flag("force") {
            additions.notes.extend(refused.map(|one| format!("{one}; going on without it")));
        } else if let Some(all) = joined(refused) {
            return Err(bad(all).advise("Take these fields out of the file, or go on without them: --force"));
        }
        additions.notes.extend(declared.notes.into_iter().map(|note| format!("{}: {note}", file.display())));
    }
    for (_, wish) in &said {
        let Some(flag) = flag(command, wish.flag) else { continue };
        if !is_typed(typed, flag) {
            additions.arguments.extend(wish.values.iter().map(|value| format!("--{}={value}", wish.flag).into()));
        }
    }
    Ok(additions)
}

/// What to do with a file that is none of them.
const FORMATS: &str = "Give a Cluster of kminik.io/v1alpha1 (docs/CLUSTER_FILE.md), one of kind.x-k8s.io/v1alpha4, or k3s's registries.yaml.";

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(&MK_BAD_CLUSTER_FILE, message)
}

fn joined(lines: impl Iterator<Item = String>) -> Option<String> {
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// The flag of `start`, or of every command.
fn flag<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let start = command.find_subcommand("start").into_iter().flat_map(Command::get_arguments);
    start.chain(command.get_arguments()).find(|flag| flag.get_long() == Some(name))
}

/// Whether it was typed, under this name or an older one.
fn is_typed(typed: &ArgMatches, flag: &Arg) -> bool {
    let by = |id: &str| typed.value_source(id) == Some(ValueSource::CommandLine);
    by(flag.get_id().as_str()) || flag.get_long() == Some("driver") && by("vm_driver")
}

fn text(file: &Path) -> Outcome<String> {
    let cannot = format!("cannot read {}", file.display());
    let bytes = if file == Path::new(STDIN) {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(LIMIT_BYTES).read_to_end(&mut bytes).or_fail(&MK_BAD_CLUSTER_FILE, &cannot)?;
        bytes
    } else {
        let found = atomic_file::read_optional(file, LIMIT_BYTES).or_fail(&MK_BAD_CLUSTER_FILE, &cannot)?;
        found.ok_or_else(|| bad(format!("{cannot}: there is no such file")))?
    };
    String::from_utf8(bytes).or_fail(&MK_BAD_CLUSTER_FILE, cannot)
}

/// The directory that relative paths of the file are in.
fn base(file: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    match file.parent() {
        Some(directory) if file != Path::new(STDIN) => here.join(directory),
        _ => here,
    }
}

/// The error is one line, without the file's name.
fn parse(text: &str, base: &Path) -> Result<Declared, String> {
    let value: Value = serde_yaml::from_str(text).map_err(|error| format!("it is no YAML: {error}"))?;
    let Value::Mapping(root) = &value else { return Err("it is no mapping".to_owned()) };
    match (string(root, "apiVersion"), string(root, "kind")) {
        (Some(cluster::API_VERSION), Some("Cluster")) => cluster::read(root, base),
        (Some(kind::API_VERSION), Some("Cluster")) => kind::read(&value, base),
        (None, None) if root.contains_key("mirrors") || root.contains_key("configs") => registries::read(&value, base),
        (version, name) => {
            Err(format!("apiVersion {:?} and kind {:?} are not known", version.unwrap_or(""), name.unwrap_or("")))
        }
    }
}

fn string<'a>(mapping: &'a Mapping, key: &str) -> Option<&'a str> {
    mapping.get(key).and_then(Value::as_str)
}

/// A path of the file, absolute.
fn path(base: &Path, text: &str) -> String {
    base.join(text).display().to_string()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;
    use crate::settings;

    /// What these files, by name and text, add to this line; `@name` in it stands for the file.
    fn added(files: &[(&str, &str)], line: &[&str]) -> Outcome<Additions> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let place = |word: &&str| word.replace('@', &format!("{}/", directory.path().display()));
        let line = ["kminik", "start"].iter().chain(line).map(place);
        let command = Cli::command();
        let typed = command.clone().try_get_matches_from(line).unwrap();
        let mut additions = read(&command, &typed)?;
        // The words are parsed as typed ones.
        let all = ["kminik", "start"].iter().map(OsString::from).chain(additions.arguments.iter().cloned());
        settings::with_bool_values(command).try_get_matches_from(all).unwrap();
        let prefix = format!("{}/", directory.path().display());
        for argument in &mut additions.arguments {
            *argument = argument.to_string_lossy().replace(&prefix, "@").into();
        }
        Ok(additions)
    }

    const OURS: &str = "apiVersion: kminik.io/v1alpha1\nkind: Cluster\n";

    #[test]
    fn typed_flags_count_before_files_and_lists_of_files_join() {
        let ours = format!(
            "{OURS}metadata: {{name: dev}}\nspec: {{driver: native, cpus: 1, registries: {{mirrors: ['https://a.example'], authorities: [ca.crt]}}}}"
        );
        let k3s = "mirrors: {quay.io: {endpoint: ['https://b.example']}}";
        let files = [("c.yaml", ours.as_str()), ("r.yaml", k3s)];
        let all = added(&files, &["-f", "@c.yaml", "--file=@r.yaml"]).unwrap();
        assert_eq!(
            all.arguments,
            [
                "--profile=dev",
                "--driver=native",
                "--cpus=1",
                "--registry-mirror=https://a.example",
                "--ca-cert=@ca.crt",
                "--registry-mirror=quay.io=https://b.example",
            ]
        );
        let some = ["-f", "@c.yaml", "-p", "mine", "--vm-driver=docker", "--registry-mirror=https://c.example"];
        assert_eq!(added(&files, &some).unwrap().arguments, ["--cpus=1", "--ca-cert=@ca.crt"]);
        assert!(added(&files, &[]).unwrap().arguments.is_empty());
        let told = added(&files, &["-f", "@c.yaml", "-f", "@c.yaml"]).unwrap_err().message;
        assert!(told.contains("say what --profile is to be"), "{told}");
    }

    #[test]
    fn what_cannot_be_followed_is_refused_all_at_once_or_left_out_by_force() {
        let kind = "apiVersion: kind.x-k8s.io/v1alpha4\nkind: Cluster\nname: k\nfeatureGates: {A: true}\nkubeadmConfigPatches: [x]\n";
        let told = added(&[("k", kind)], &["-f", "@k"]).unwrap_err();
        assert_eq!(told.reason.id, "MK_BAD_CLUSTER_FILE");
        assert!(told.message.contains("featureGates") && told.message.contains("kubeadmConfigPatches"), "{told}");
        let forced = added(&[("k", kind)], &["-f", "@k", "--force"]).unwrap();
        assert_eq!((forced.arguments, forced.notes.len()), (vec!["--profile=k".into()], 2));
    }

    #[test]
    fn what_is_no_such_file_is_said() {
        for (text, why) in [
            ("[", "no YAML"),
            ("- a", "no mapping"),
            ("a: 1", "are not known"),
            ("apiVersion: kminik.io/v9\nkind: Cluster", "are not known"),
            ("apiVersion: kminik.io/v1alpha1\nkind: Node", "are not known"),
            ("a: 1\na: 2", "duplicate"),
        ] {
            let told = added(&[("c", text)], &["-f", "@c"]).unwrap_err();
            assert!(told.message.contains(why), "{told}");
        }
        assert!(added(&[], &["-f", "@none"]).unwrap_err().message.contains("no such file"));
    }
}
