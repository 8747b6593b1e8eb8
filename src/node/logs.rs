//! What the node process has logged: one file, told apart by the part that wrote each line.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

use super::pause::SYSTEM;

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

/// What pods have logged.
const POD_LOGS: &str = "/var/log/pods";

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

/// What is printed.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Of one component only.
    pub component: Option<String>,
    /// Last lines of each section.
    pub length: usize,
    /// Lines that tell of trouble only.
    pub problems: bool,
    /// Go on as lines are written.
    pub follow: bool,
}

/// Whether a line tells of trouble.
pub fn is_problem(line: &str) -> bool {
    [" ERROR ", " WARN "].iter().any(|level| line.contains(level))
}

/// Which component has written the line.
fn component_of(line: &str) -> &'static str {
    let wrote = |(_, target): &&(&str, &str)| line.contains(&format!(" {target}"));
    COMPONENTS.iter().find(wrote).map_or("node", |(name, _)| name)
}

/// The component of this name.
///
/// # Errors
/// `Unknown`.
pub fn component(name: &str) -> Result<&'static str, LogsError> {
    COMPONENTS.iter().map(|(known, _)| *known).find(|known| *known == name).ok_or_else(|| {
        let known: Vec<&str> = COMPONENTS.iter().map(|(known, _)| *known).collect();
        LogsError::Unknown { name: name.to_owned(), known: known.join(", ") }
    })
}

/// Prints the last lines, a section for each component; without a component also what the cluster's own pods have logged and what
/// the kernel is.
pub fn print(selection: &Selection, out: &mut impl Write) -> Result<(), LogsError> {
    let chosen = selection.component.as_deref().map(component).transpose()?;
    // As it is written, lines of all components go together.
    let together = selection.follow && chosen.is_none();
    let wanted =
        |line: &str| chosen.is_none_or(|name| component_of(line) == name) && (!selection.problems || is_problem(line));
    let mut file = File::open(file()).map_err(LogsError::Read)?;
    let mut last: BTreeMap<&str, VecDeque<String>> = BTreeMap::new();
    let mut lines = BufReader::new(&mut file);
    let mut line = String::new();
    while lines.read_line(&mut line).map_err(LogsError::Read)? > 0 {
        if wanted(&line) {
            let section = last.entry(if together { "node" } else { component_of(&line) }).or_default();
            push(section, std::mem::take(&mut line), selection.length);
        }
        line.clear();
    }
    for (name, _) in COMPONENTS {
        let lines = last.get(name).into_iter().flatten().map(String::as_str);
        let asked = if together { *name == "node" } else { chosen.is_none_or(|chosen| chosen == *name) };
        // Of trouble there is nothing to say where there is none.
        if asked && (!selection.problems || last.contains_key(name)) {
            section(out, name, lines);
        }
    }
    if selection.follow {
        return follow_file(&self::file(), file, wanted, out, rustix::stdio::stdin());
    }
    if chosen.is_none() && !selection.problems {
        pods(selection.length, out);
        kernel(out);
    }
    Ok(())
}

/// Keeps the last lines, so many.
fn push(lines: &mut VecDeque<String>, line: String, length: usize) {
    lines.push_back(line);
    if lines.len() > length {
        lines.pop_front();
    }
}

/// Lines end with their own newline.
fn section<'a>(out: &mut impl Write, name: &str, lines: impl Iterator<Item = &'a str>) {
    // A reader that has gone is no error.
    let _ = writeln!(out, "==> {name} <==");
    for line in lines {
        let _ = out.write_all(line.as_bytes());
    }
    let _ = writeln!(out).and_then(|()| out.flush());
}

/// What the cluster's own pods have logged: a file each, of which the last lines.
fn pods(length: usize, out: &mut impl Write) {
    let children = |directory: &Path| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for pod in children(Path::new(POD_LOGS)) {
        let Some((_, pod_name)) =
            name(&pod).split_once('_').filter(|(ns, _)| *ns == SYSTEM).map(|(a, b)| (a.to_owned(), b.to_owned()))
        else {
            continue;
        };
        for container in children(&pod) {
            let Some(newest) = children(&container).into_iter().max_by_key(|path| instance(&name(path))) else {
                continue;
            };
            let text = std::fs::read_to_string(&newest).unwrap_or_default();
            // Time, stream and whether the line is whole come first.
            let lines: Vec<&str> = text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or(line)).collect();
            let last = lines[lines.len().saturating_sub(length)..].iter().map(|line| format!("{line}\n"));
            let last: Vec<String> = last.collect();
            let pod_name = pod_name.split('_').next().unwrap_or_default();
            section(out, &format!("{} [{pod_name}]", name(&container)), last.iter().map(String::as_str));
        }
    }
}

/// Which instance of its container has written the file, by its name: `3.log`; `None` for what was rotated.
fn instance(file: &str) -> Option<u32> {
    file.strip_suffix(".log")?.parse().ok()
}

fn kernel(out: &mut impl Write) {
    let uname = rustix::system::uname();
    let parts = [uname.sysname(), uname.nodename(), uname.release(), uname.version(), uname.machine()];
    let name: Vec<String> = parts.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let uptime = read("/proc/uptime");
    let load = read("/proc/loadavg");
    let release = read("/etc/os-release");
    let release = release.lines().find(|line| line.starts_with("PRETTY_NAME=")).unwrap_or_default();
    let lines = [
        format!("up {} s, load average: {}\n", uptime.split(' ').next().unwrap_or_default(), load.trim()),
        format!("{}\n", name.join(" ")),
        format!("{release}\n"),
    ];
    section(out, "kernel", lines.iter().map(String::as_str));
}

/// Prints lines as they are written to the file at `path`, from where `file` stands in it, and to those that take its place;
/// woken by inotify. Ends when nobody reads, or there is anything to read of `end`, also that it has ended.
fn follow_file(
    path: &Path,
    mut file: File,
    wanted: impl Fn(&str) -> bool,
    out: &mut impl Write,
    end: BorrowedFd<'_>,
) -> Result<(), LogsError> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(LogsError::Watch)?;
    let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
    inotify::add_watch(&watch, path.parent().unwrap_or(path), flags).map_err(LogsError::Watch)?;
    let mut rest = String::new();
    let mut events = [0_u8; 4096];
    loop {
        // Looked for first: what is in the file then is all of it.
        let successor = successor(path, &file).map_err(LogsError::Read)?;
        file.read_to_string(&mut rest).map_err(LogsError::Read)?;
        while let Some(end) = rest.find('\n') {
            let line: String = rest.drain(..=end).collect();
            if wanted(&line) && out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
        }
        if let Some(next) = successor {
            file = next;
            continue;
        }
        let mut awaited = [watch.as_fd(), end].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut awaited, None) {
            Ok(_) if !awaited[1].revents().is_empty() => return Ok(()),
            Ok(_) => drop(rustix::io::read(&watch, &mut events).map_err(LogsError::Watch)?),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(LogsError::Watch(error)),
        }
    }
}

/// The file at the path, if it is another.
fn successor(path: &Path, file: &File) -> std::io::Result<Option<File>> {
    let next = match File::open(path) {
        Ok(next) => next,
        // It is about to be made.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_other = next.metadata()?.ino() != file.metadata()?.ino();
    Ok(is_other.then_some(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_none_of_none() {
        let kept = |length| {
            let mut lines = VecDeque::new();
            ["a", "b", "c"].iter().for_each(|line| push(&mut lines, (*line).to_owned(), length));
            Vec::from(lines).concat()
        };
        assert_eq!((kept(0).as_str(), kept(2).as_str(), kept(9).as_str()), ("", "bc", "abc"));
    }

    #[test]
    fn lines_are_told_apart() {
        let line = "2026-11-26T10:00:00Z  WARN kminik_kubelet::pods: slow";
        assert_eq!(component_of(line), "kubelet");
        assert_eq!(component_of("2026-11-26T10:00:00Z  INFO other: x"), "node");
        assert!(is_problem(line) && !is_problem("2026-11-26T10:00:00Z  INFO kminik_kubelet: WARNING"));
    }
    #[test]
    fn the_newest_instance_is_told_from_rotated_files() {
        let newest = |files: &[&str]| files.iter().copied().max_by_key(|file| instance(file)).unwrap().to_owned();
        assert_eq!(newest(&["0.log", "0.log.20261126-100000"]), "0.log");
        assert_eq!(newest(&["10.log", "9.log", "9.log.20261126-100000"]), "10.log");
    }

    /// Ends the one who follows after so many lines.
    struct Reader {
        lines: Vec<String>,
        most: usize,
    }

    impl Write for Reader {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            self.lines.push(String::from_utf8_lossy(data).trim_end().to_owned());
            Ok(data.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            if self.lines.len() < self.most { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
        }
    }

    #[test]
    fn what_is_written_is_followed_through_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.log");
        std::fs::write(&path, "before\n").unwrap();
        let mut file = File::open(&path).unwrap();
        file.read_to_string(&mut String::new()).unwrap();
        let write = |line: &str| {
            let mut file = File::options().append(true).create(true).open(&path).unwrap();
            file.write_all(line.as_bytes()).unwrap();
        };
        // Written before anything is watched.
        write("0\n");
        let mut reader = Reader { lines: Vec::new(), most: 60 };
        let (end, held) = std::io::pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let wanted = |line: &str| !line.starts_with("skip");
                follow_file(&path, file, wanted, &mut reader, end.as_fd()).unwrap();
            });
            for i in 1..60 {
                write(&format!("skip\n{i}"));
                write("\n");
                if i == 30 {
                    std::fs::rename(&path, dir.path().join("node.log.1")).unwrap();
                }
            }
        });
        let expected: Vec<String> = (0..60).map(|i: u32| i.to_string()).collect();
        assert_eq!(reader.lines, expected);
        // Ends without a reader's end, too.
        drop(held);
        let file = File::open(&path).unwrap();
        follow_file(&path, file, |_| false, &mut Vec::new(), end.as_fd()).unwrap();
    }
}
