//! The process as Prometheus' own clients describe it, read from /proc.

use std::fs;

use super::{header, line};

/// Ticks of the kernel's clock in a second, as programs see them: fixed on Linux.
const TICKS: f64 = 100.0;

pub(super) fn write(out: &mut String) {
    // The command's name in parentheses may hold anything, so the fields are counted behind it.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |name: &str| number_behind(&status, name).map(|kilobytes| kilobytes * 1024.0);
    let boot = number_behind(&fs::read_to_string("/proc/stat").unwrap_or_default(), "btime");
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open = fs::read_dir("/proc/self/fd").map(|files| files.count() as f64).ok();
    let cpu = field(11).zip(field(12)).map(|(user, system)| (user + system) / TICKS);
    let started = boot.zip(field(19)).map(|(boot, ticks)| boot + ticks / TICKS);
    let rows = [
        ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu),
        (
            "process_max_fds",
            "gauge",
            "Maximum number of open file descriptors.",
            number_behind(&limits, "Max open files"),
        ),
        ("process_open_fds", "gauge", "Number of open file descriptors.", open),
        ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", kilobytes("VmRSS:")),
        ("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", started),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", kilobytes("VmSize:")),
    ];
    for (name, kind, help, value) in rows {
        let Some(value) = value else { continue };
        header(out, name, kind, help);
        line(out, format_args!("{name} {value}"));
    }
}

/// The first number on the line that begins with `name`.
fn number_behind(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_process_is_described() {
        let mut out = String::new();
        super::write(&mut out);
        for name in [
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
        ] {
            let value = out.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            assert!(value.is_some_and(|value| value >= 0.0), "{name} in {out}");
        }
    }
}
