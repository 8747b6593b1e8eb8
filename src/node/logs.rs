//! What the node process has logged: one file, told apart by the part that wrote each line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

/// (name for `--component`, prefix of the tracing target).
const COMPONENTS: &[(&str, &str)] = &[
    ("apiserver", "kminik_apiserver"),
    ("store", "kminik_store"),
    ("controllers", "kminik_controllers"),
    ("scheduler", "kminik_scheduler"),
    ("kubelet", "kminik_kubelet"),
    ("runtime", "kminik_runtime"),
    ("net", "kminik_net"),
    ("images", "kminik_oci"),
    ("node", "kminik::"),
];

pub fn file() -> PathBuf {
    "/var/log/kminik/node.log".into()
}

#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error("no component {name:?}; there are: {known}")]
    Unknown { name: String, known: String },
    #[error("cannot read the log")]
    Read(#[source] std::io::Error),
    #[error("cannot watch the log")]
    Watch(#[source] rustix::io::Errno),
}

/// Prints the last `length` lines, of one component if it is named; goes on as lines are written if `follow`.
pub fn print(component: Option<&str>, length: usize, follow: bool, out: &mut impl Write) -> Result<(), LogsError> {
    let target = match component {
        None => None,
        Some(name) => {
            Some(COMPONENTS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target).ok_or_else(|| {
                let known: Vec<&str> = COMPONENTS.iter().map(|(known, _)| *known).collect();
                LogsError::Unknown { name: name.to_owned(), known: known.join(", ") }
            })?)
        }
    };
    let wanted = |line: &str| target.is_none_or(|target| line.contains(&format!(" {target}")));
    let mut file = File::open(file()).map_err(LogsError::Read)?;
    let mut last = std::collections::VecDeque::new();
    let mut lines = BufReader::new(&mut file);
    let mut line = String::new();
    while lines.read_line(&mut line).map_err(LogsError::Read)? > 0 {
        if wanted(&line) {
            if last.len() == length {
                last.pop_front();
            }
            last.push_back(std::mem::take(&mut line));
        }
        line.clear();
    }
    let heading = component.unwrap_or("node");
    // A reader that has gone is no error.
    let _ = writeln!(out, "==> {heading} <==");
    for line in last {
        let _ = out.write_all(line.as_bytes());
    }
    let _ = out.flush();
    if follow { follow_file(file, wanted, out) } else { Ok(()) }
}

/// Prints lines as they are written, woken by inotify; ends when nobody reads.
fn follow_file(mut file: File, wanted: impl Fn(&str) -> bool, out: &mut impl Write) -> Result<(), LogsError> {
    use rustix::fs::inotify;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(LogsError::Watch)?;
    inotify::add_watch(&watch, self::file(), inotify::WatchFlags::MODIFY).map_err(LogsError::Watch)?;
    file.seek(SeekFrom::End(0)).map_err(LogsError::Read)?;
    let mut rest = String::new();
    let mut events = [0_u8; 4096];
    loop {
        rustix::io::read(&watch, &mut events).map_err(LogsError::Watch)?;
        file.read_to_string(&mut rest).map_err(LogsError::Read)?;
        while let Some(end) = rest.find('\n') {
            let line: String = rest.drain(..=end).collect();
            if wanted(&line) && out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
        }
    }
}
