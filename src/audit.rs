//! Which commands were run when, by whom: `~/.kminik/logs/audit.json`, in minikube's form, a line for the begin and one for the
//! end of each. Nothing fails because it cannot be written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use kminik_base::atomic_file;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::home::Home;
use crate::version;

/// Of one file; then it is put aside, and what was aside before is forgotten.
const LIMIT_BYTES: u64 = 1 << 20;
/// Commands that only look.
const UNTOLD: &[&str] = &["completion", "doctor", "help", "logs", "profile", "status", "version"];

/// A command as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Row {
    pub args: String,
    pub command: String,
    /// Empty while it runs, and if it was killed.
    pub end_time: String,
    pub id: String,
    pub profile: String,
    pub start_time: String,
    pub user: String,
    pub version: String,
}

/// A command that runs; its end is told when this is ended.
pub struct Entry {
    home: Home,
    row: Row,
}

impl Entry {
    /// Tells of a command that begins, unless it only looks.
    pub fn begin(home: &Home, words: &[String], profile: &str, user: Option<&str>) -> Option<Self> {
        let (command, args) = words.split_first()?;
        if UNTOLD.contains(&command.as_str()) {
            return None;
        }
        let args: Vec<String> = args.iter().map(|word| without_password(word)).collect();
        let row = Row {
            args: args.join(" "),
            command: command.clone(),
            end_time: String::new(),
            id: uuid::Uuid::new_v4().to_string(),
            profile: profile.to_owned(),
            start_time: now(),
            user: user.map_or_else(|| crate::env::user().name, str::to_owned),
            version: format!("v{}", version::KMINIK),
        };
        let entry = Self { home: home.clone(), row };
        entry.write(true);
        Some(entry)
    }

    /// Tells of its end; not where the home is gone by then.
    pub fn end(mut self) {
        self.row.end_time = now();
        self.write(false);
    }

    fn write(&self, first: bool) {
        let append = || -> io::Result<()> {
            let path = self.home.audit_file();
            if let Some(directory) = path.parent().filter(|_| first) {
                self.home.make_dir(directory).map_err(io::Error::other)?;
            }
            let is_full = fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LIMIT_BYTES);
            if is_full {
                fs::rename(&path, path.with_extension("json.1"))?;
            }
            let mut file =
                OpenOptions::new().create(first || is_full).append(true).mode(atomic_file::SECRET).open(&path)?;
            // One write a line: of two commands at once neither breaks the other's.
            file.write_all(format!("{}\n", event(&self.row)).as_bytes())?;
            self.home.give(&path).map_err(io::Error::other)
        };
        if let Err(error) = append() {
            tracing::debug!(%error, "the command is not in the audit log");
        }
    }
}

fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

fn event(row: &Row) -> Value {
    json!({
        "data": row, "datacontenttype": "application/json", "id": uuid::Uuid::new_v4().to_string(),
        "source": "https://kminik.dev/", "specversion": "1.0", "type": "io.k8s.sigs.minikube.audit",
    })
}

/// A URL's user and password are nobody's business.
pub fn without_password(word: &str) -> String {
    let Some((before, after)) = word.split_once("://") else { return word.to_owned() };
    let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{before}://***@{host}{path}"),
        None => word.to_owned(),
    }
}

/// The last commands, oldest first: those of a profile, and those of none in particular.
pub fn last(home: &Home, profile: &str, count: usize) -> Vec<Row> {
    let path = home.audit_file();
    let mut rows: Vec<Row> = Vec::new();
    for file in [path.with_extension("json.1"), path] {
        let bytes = atomic_file::read_optional(&file, 4 * LIMIT_BYTES).ok().flatten().unwrap_or_default();
        for line in String::from_utf8_lossy(&bytes).lines() {
            let Some(row) = serde_json::from_str::<Value>(line)
                .ok()
                .and_then(|mut event| serde_json::from_value::<Row>(event.get_mut("data")?.take()).ok())
            else {
                continue;
            };
            match rows.iter_mut().rev().find(|known| known.id == row.id) {
                Some(known) => *known = row,
                None if row.profile == profile => rows.push(row),
                None => {}
            }
        }
    }
    rows.split_off(rows.len().saturating_sub(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_also_between_a_commands_begin_and_end() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        let begin = |command: &str| Entry::begin(&home, &[command.to_owned()], "dev", Some("me")).unwrap();
        let fill = || {
            let file = OpenOptions::new().append(true).open(home.audit_file()).unwrap();
            (&file).write_all(&[b'x'; LIMIT_BYTES as usize]).and_then(|()| (&file).write_all(b"\n")).unwrap();
        };
        let length = || fs::metadata(home.audit_file()).unwrap().len();
        let first = begin("start");
        fill();
        first.end();
        assert!(length() < LIMIT_BYTES);
        begin("stop").end();
        let rows = last(&home, "dev", 10);
        assert_eq!(rows.iter().map(|row| row.command.as_str()).collect::<Vec<_>>(), ["start", "stop"]);
        assert!(rows.iter().all(|row| !row.end_time.is_empty()), "{rows:?}");
        fill();
        begin("delete").end();
        let commands: Vec<String> = last(&home, "dev", 10).into_iter().map(|row| row.command).collect();
        assert!(length() < LIMIT_BYTES && commands.contains(&"delete".to_owned()), "{commands:?}");
        // A purge takes all away, and what ends after it brings nothing back.
        let late = begin("delete");
        fs::remove_dir_all(directory.path()).unwrap();
        late.end();
        assert!(!directory.path().exists());
    }

    #[test]
    fn passwords_are_left_out() {
        assert_eq!(
            without_password("--registry-mirror=https://me:pw@m.example/p"),
            "--registry-mirror=https://***@m.example/p"
        );
        for plain in ["start", "--x=https://m.example/a@b", "a@b"] {
            assert_eq!(without_password(plain), plain);
        }
    }
}
