//! The last step of a container's first process: find the program and become it.

use std::ffi::CString;
use std::path::Path;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use rustix::fs::{Access, AtFlags, CWD};

/// Like the library's own, with the words that people know from other runtimes, and with access checked as the process' user.
#[derive(Clone, Debug)]
pub(super) struct Payload;

impl Executor for Payload {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let process = spec.process().as_ref();
        let args = process.and_then(|process| process.args().as_ref()).map(Vec::as_slice).unwrap_or_default();
        let env = process.and_then(|process| process.env().as_ref()).map(Vec::as_slice).unwrap_or_default();
        find(args.first().map_or("", String::as_str), env)
            .map(drop)
            .map_err(ExecutorValidationError::ArgValidationError)
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref();
        let args = process.and_then(|process| process.args().as_ref()).map(Vec::as_slice).unwrap_or_default();
        // The library has put the container's environment into this process, HOME included.
        let env: Vec<String> = std::env::vars_os()
            .map(|(key, value)| format!("{}={}", key.to_string_lossy(), value.to_string_lossy()))
            .collect();
        let error = execute(args, &env);
        tracing::error!("{error}");
        Err(ExecutorError::Other(error))
    }
}

/// Becomes the program; returns only the reason why not.
pub(super) fn execute(args: &[String], env: &[String]) -> String {
    let name = args.first().map_or("", String::as_str);
    let program = match find(name, env) {
        Ok(program) => program,
        Err(error) => return error,
    };
    let strings =
        |list: &[String]| list.iter().map(|text| CString::new(text.as_bytes())).collect::<Result<Vec<_>, _>>();
    let (Ok(program), Ok(args), Ok(env)) = (CString::new(program), strings(args), strings(env)) else {
        return format!("exec: {name:?}: a NUL byte in the arguments or the environment");
    };
    crate::sys::signals::reset();
    match nix::unistd::execve(&program, &args, &env) {
        Ok(never) => match never {},
        Err(error) => format!("exec {name}: {}", lower(error.desc())),
    }
}

/// The path of the program, in the words of Go's `exec.LookPath`, which every runtime's errors are made of.
pub(super) fn find(name: &str, env: &[String]) -> Result<String, String> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(name.to_owned()),
            Err(rustix::io::Errno::NOENT) => Err(format!("exec: {name:?}: stat {name}: no such file or directory")),
            Err(rustix::io::Errno::ISDIR) => Err(format!("exec: {name:?}: is a directory")),
            Err(error) => Err(format!("exec: {name:?}: {}", describe(error))),
        };
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut denied = false;
    for directory in path.split(':').filter(|directory| !directory.is_empty()) {
        let candidate = format!("{directory}/{name}");
        match executable(Path::new(&candidate)) {
            Ok(()) if !name.is_empty() => return Ok(candidate),
            Err(rustix::io::Errno::ACCESS) => denied = true,
            _ => {}
        }
    }
    let why = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(format!("exec: {name:?}: {why}"))
}

fn executable(path: &Path) -> Result<(), rustix::io::Errno> {
    let stat = rustix::fs::stat(path)?;
    match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::RegularFile => {}
        rustix::fs::FileType::Directory => return Err(rustix::io::Errno::ISDIR),
        _ => return Err(rustix::io::Errno::ACCESS),
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

fn describe(error: rustix::io::Errno) -> String {
    lower(nix::errno::Errno::from_raw(error.raw_os_error()).desc())
}

fn lower(text: &str) -> String {
    text.to_lowercase()
}
