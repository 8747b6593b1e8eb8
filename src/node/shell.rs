//! The node's shell: the userland's own where it has one, else a small one of our own, enough to look around.

mod builtins;
mod parse;

use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use parse::{Connector, Pipeline};

/// Tried in this order: (program, arguments before `-c`).
const SHELLS: &[(&str, &[&str])] =
    &[("/bin/bash", &[]), ("/bin/sh", &[]), ("/bin/busybox", &["sh"]), ("/usr/bin/busybox", &["sh"])];

/// Runs `command`, or an interactive shell; the exit code.
pub fn main(command: Option<&str>) -> i32 {
    for (program, before) in SHELLS {
        if Path::new(program).exists() {
            let mut shell = Command::new(program);
            shell.args(*before);
            match command {
                Some(command) => shell.args(["-c", command]),
                None => shell.arg("-i"),
            };
            // Returns only when it failed; then the next is tried.
            let _ = shell.exec();
        }
    }
    let mut shell = Shell { last: 0, finished: false };
    match command {
        Some(command) => shell.line(command),
        None => shell.interactive(),
    }
    shell.last
}

/// What a running shell knows.
struct Shell {
    last: i32,
    finished: bool,
}

impl Shell {
    fn interactive(&mut self) {
        let stdin = std::io::stdin();
        let prompts = stdin.is_terminal();
        if prompts {
            say(&format!("kminik {}: a small shell; 'help' lists what it knows\n", crate::version::KMINIK));
        }
        let mut line = String::new();
        while !self.finished {
            if prompts {
                let here = std::env::current_dir().unwrap_or_default();
                say(&format!("{} # ", here.display()));
            }
            line.clear();
            match stdin.lock().read_line(&mut line) {
                Ok(1..) => self.line(line.trim_end()),
                _ => return,
            }
        }
    }

    fn line(&mut self, line: &str) {
        let pipelines = match parse::line(line, self.last) {
            Ok(pipelines) => pipelines,
            Err(error) => {
                complain(&error);
                self.last = 2;
                return;
            }
        };
        for (connector, pipeline) in pipelines {
            let wanted = match connector {
                Connector::Always => true,
                Connector::And => self.last == 0,
                Connector::Or => self.last != 0,
            };
            if wanted && !self.finished {
                self.last = self.pipeline(&pipeline);
            }
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> i32 {
        // State of the shell itself changes only outside a pipe.
        if let [words] = pipeline.as_slice() {
            let arguments: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
            match words[0].as_str() {
                "exit" => {
                    self.finished = true;
                    return arguments.first().and_then(|code| code.parse().ok()).unwrap_or(self.last);
                }
                "cd" => {
                    let target = arguments.first().copied().unwrap_or("/root");
                    return std::env::set_current_dir(target)
                        .map_or_else(|e| fail(&format!("cd: {target}: {e}")), |()| 0);
                }
                _ => {}
            }
        }
        let mut children = Vec::new();
        let mut input: Option<Stdio> = None;
        for (index, words) in pipeline.iter().enumerate() {
            let last = index + 1 == pipeline.len();
            // A builtin is this binary again, so that it can stand in a pipe like any other.
            let mut command = if builtins::find(&words[0]).is_some() {
                let mut own = Command::new("/proc/self/exe");
                own.args(["shell", "--builtin"]).args(words);
                own
            } else {
                let mut other = Command::new(&words[0]);
                other.args(&words[1..]);
                other
            };
            command.stdin(input.take().unwrap_or_else(Stdio::inherit));
            command.stdout(if last { Stdio::inherit() } else { Stdio::piped() });
            match command.spawn() {
                Ok(mut child) => {
                    input = child.stdout.take().map(Stdio::from);
                    children.push(child);
                }
                Err(error) => {
                    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
                    let why = if is_missing { "not found".to_owned() } else { error.to_string() };
                    complain(&format!("{}: {why}", words[0]));
                    // With it goes the end of the pipe that nobody reads: what writes into it must end.
                    drop(command);
                    let code = if is_missing { 127 } else { 126 };
                    children.into_iter().for_each(|mut child| drop(child.wait()));
                    return code;
                }
            }
        }
        let mut code = 0;
        for mut child in children {
            use std::os::unix::process::ExitStatusExt;
            code = child.wait().map_or(1, |status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        }
        code
    }
}

/// Runs one builtin, in a process of its own.
pub fn builtin(words: &[String]) -> i32 {
    let Some((name, arguments)) = words.split_first() else { return 2 };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match builtins::find(name) {
        Some(run) => match run(&arguments, &mut std::io::stdout().lock()) {
            Ok(()) => 0,
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
            Err(error) if builtins::is_no(&error) => 1,
            Err(error) => fail(&format!("{name}: {error}")),
        },
        None => fail(&format!("{name}: not a builtin")),
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn fail(text: &str) -> i32 {
    complain(text);
    1
}
