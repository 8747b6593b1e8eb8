//! The node process, among those of the node.

use std::fs;
use std::io;

use rustix::process::Pid;

/// PID 1's child that runs `kminik node`; there is none while it is started again.
///
/// # Errors
/// When the processes cannot be listed.
pub fn find() -> io::Result<Option<Pid>> {
    for entry in fs::read_dir("/proc")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // One that has ended meanwhile is not it.
        let Ok(status) = fs::read_to_string(format!("/proc/{number}/status")) else { continue };
        let Ok(line) = fs::read(format!("/proc/{number}/cmdline")) else { continue };
        let child_of_init = status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|pid| pid.trim() == "1"));
        if child_of_init && line.split(|byte| *byte == 0).nth(1) == Some(b"node") {
            return Ok(Pid::from_raw(number));
        }
    }
    Ok(None)
}
