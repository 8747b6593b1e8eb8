//! Commands of the small shell, a row each.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Runs with its arguments, writes to the output.
pub type Builtin = fn(&[&str], &mut dyn Write) -> io::Result<()>;

const TABLE: &[(&str, &str, Builtin)] = &[
    ("cat", "print files, or what comes in", cat),
    ("echo", "print words", echo),
    ("env", "print the environment", env),
    ("false", "fail", |_, _| Err(no())),
    ("grep", "print the lines that hold a text", grep),
    ("head", "print the first lines [-n N]", head),
    ("help", "print this", help),
    ("hostname", "print the node's name", |_, out| out.write_all(&fs::read("/proc/sys/kernel/hostname")?)),
    ("id", "print who this is", |_, out| {
        writeln!(out, "uid={} gid={}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
    }),
    ("ls", "list directories [-l]", ls),
    ("mount", "print what is mounted", |_, out| out.write_all(&fs::read("/proc/self/mounts")?)),
    ("ps", "list processes", ps),
    ("pwd", "print the directory", |_, out| writeln!(out, "{}", std::env::current_dir()?.display())),
    ("sleep", "wait so many seconds", sleep),
    ("tail", "print the last lines [-n N]", tail),
    ("true", "succeed", |_, _| Ok(())),
    ("uname", "print the kernel [-a]", uname),
];

/// The answer no: a failure without a word.
fn no() -> io::Error {
    io::Error::other("")
}

/// Whether a failure is nothing but the answer no.
pub fn is_no(error: &io::Error) -> bool {
    error.to_string().is_empty()
}

pub fn find(name: &str) -> Option<Builtin> {
    TABLE.iter().find(|(known, ..)| *known == name).map(|(.., run)| *run)
}

fn help(_: &[&str], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Words, quotes, $NAME, | ; && ||, programs by path, and:\n  cd DIR\n  exit [CODE]")?;
    TABLE.iter().try_for_each(|(name, what, _)| writeln!(out, "  {name:<10}{what}"))
}

fn sleep(arguments: &[&str], _: &mut dyn Write) -> io::Result<()> {
    let seconds = arguments
        .first()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::other("a number of seconds is missing"))?;
    std::thread::sleep(std::time::Duration::from_secs(seconds));
    Ok(())
}

fn echo(words: &[&str], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", words.join(" "))
}

fn env(_: &[&str], out: &mut dyn Write) -> io::Result<()> {
    std::env::vars_os()
        .try_for_each(|(name, value)| writeln!(out, "{}={}", name.to_string_lossy(), value.to_string_lossy()))
}

/// The named files one after the other, or stdin.
fn input(files: &[&str]) -> io::Result<Box<dyn Read>> {
    let mut all: Box<dyn Read> = Box::new(io::empty());
    for file in files {
        let opened = fs::File::open(file).map_err(|e| io::Error::new(e.kind(), format!("{file}: {e}")))?;
        all = Box::new(all.chain(opened));
    }
    Ok(if files.is_empty() { Box::new(io::stdin()) } else { all })
}

fn cat(files: &[&str], out: &mut dyn Write) -> io::Result<()> {
    io::copy(&mut input(files)?, out).map(drop)
}

fn grep(arguments: &[&str], out: &mut dyn Write) -> io::Result<()> {
    let (text, files) = arguments.split_first().ok_or_else(|| io::Error::other("a text is missing"))?;
    let mut found = false;
    for line in io::BufRead::lines(io::BufReader::new(input(files)?)) {
        let line = line?;
        if line.contains(text) {
            found = true;
            writeln!(out, "{line}")?;
        }
    }
    if found { Ok(()) } else { Err(no()) }
}

/// `-n N` (10 if not given) and the rest.
fn count<'a>(arguments: &'a [&'a str]) -> io::Result<(usize, &'a [&'a str])> {
    match arguments {
        ["-n", n, files @ ..] => Ok((n.parse().map_err(io::Error::other)?, files)),
        files => Ok((10, files)),
    }
}

fn head(arguments: &[&str], out: &mut dyn Write) -> io::Result<()> {
    let (n, files) = count(arguments)?;
    io::BufRead::lines(io::BufReader::new(input(files)?)).take(n).try_for_each(|line| writeln!(out, "{}", line?))
}

fn tail(arguments: &[&str], out: &mut dyn Write) -> io::Result<()> {
    let (n, files) = count(arguments)?;
    let mut last = std::collections::VecDeque::with_capacity(n.min(1024));
    for line in io::BufRead::lines(io::BufReader::new(input(files)?)) {
        last.push_back(line?);
        if last.len() > n {
            last.pop_front();
        }
    }
    last.iter().try_for_each(|line| writeln!(out, "{line}"))
}

fn ls(arguments: &[&str], out: &mut dyn Write) -> io::Result<()> {
    let (flags, paths): (Vec<&&str>, Vec<&&str>) = arguments.iter().partition(|a| a.starts_with('-'));
    let long = flags.iter().any(|flag| flag.contains('l'));
    let all = flags.iter().any(|flag| flag.contains('a'));
    let paths: Vec<&str> = if paths.is_empty() { vec!["."] } else { paths.into_iter().copied().collect() };
    for path in paths {
        let failed = |e: io::Error| io::Error::new(e.kind(), format!("{path}: {e}"));
        if !fs::symlink_metadata(path).map_err(failed)?.is_dir() {
            entry(Path::new(path), path, long, out)?;
            continue;
        }
        let mut names: Vec<String> = fs::read_dir(path)
            .map_err(failed)?
            .filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()))
            .filter(|name| all || !name.starts_with('.'))
            .collect();
        names.sort();
        for name in names {
            entry(&Path::new(path).join(&name), &name, long, out)?;
        }
    }
    Ok(())
}

fn entry(path: &Path, name: &str, long: bool, out: &mut dyn Write) -> io::Result<()> {
    if !long {
        return writeln!(out, "{name}");
    }
    let meta = fs::symlink_metadata(path)?;
    let kind = match meta.file_type() {
        t if t.is_dir() => 'd',
        t if t.is_symlink() => 'l',
        t if t.is_char_device() => 'c',
        t if t.is_block_device() => 'b',
        t if t.is_socket() => 's',
        t if t.is_fifo() => 'p',
        _ => '-',
    };
    let target = fs::read_link(path).map(|t| format!(" -> {}", t.display())).unwrap_or_default();
    writeln!(
        out,
        "{kind}{:04o} {:>5} {:>5} {:>10} {name}{target}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid(),
        meta.len()
    )
}

fn ps(_: &[&str], out: &mut dyn Write) -> io::Result<()> {
    let mut pids: Vec<u32> =
        fs::read_dir("/proc")?.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    writeln!(out, "{:>7}  COMMAND", "PID")?;
    for pid in pids {
        // It may have ended since.
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let line: Vec<_> = line.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
        writeln!(out, "{pid:>7}  {}", line.join(" ").trim_end())?;
    }
    Ok(())
}

fn uname(arguments: &[&str], out: &mut dyn Write) -> io::Result<()> {
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    if arguments.contains(&"-a") {
        writeln!(
            out,
            "{} {} {} {} {}",
            text(name.sysname()),
            text(name.nodename()),
            text(name.release()),
            text(name.version()),
            text(name.machine())
        )
    } else if arguments.contains(&"-r") {
        writeln!(out, "{}", text(name.release()))
    } else if arguments.contains(&"-m") {
        writeln!(out, "{}", text(name.machine()))
    } else {
        writeln!(out, "{}", text(name.sysname()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = TABLE.iter().map(|(name, ..)| *name).collect();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
        assert!(names.is_sorted());
    }
}
