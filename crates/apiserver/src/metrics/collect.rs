//! What is looked at when somebody reads: what is stored, what the process uses, and what it is.

use std::fs;

use super::Metrics;
use super::family::Stability;
use super::table::{Process, Table};
use crate::Server;
use crate::aggregation;
use crate::registry::Registry;
use crate::registry::def::Storage;
use crate::version;

/// Ticks of the kernel's clock in a second, as programs see them: fixed on Linux.
const TICKS: f64 = 100.0;
/// With it the help of a metric begins that is to go.
const DEPRECATED: &str = "(Deprecated since ";

pub(super) fn all(metrics: &Metrics, server: &Server) {
    let table = &metrics.table;
    for (series, reading, writing) in [
        (&table.requests.in_flight, &metrics.reading, &metrics.writing),
        (&table.requests.in_queue, &metrics.waiting_reads, &metrics.waiting_writes),
    ] {
        series.with(["readOnly"]).set(reading.highest());
        series.with(["mutating"]).set(writing.highest());
    }
    objects(table, server.registry());
    process(&table.process);
    what_it_is(table, server);
}

fn objects(table: &Table, registry: &Registry) {
    let (mut by_name, mut objects, mut sizes, mut revisions) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in registry.table().rows() {
        let Storage::Stored { prefix, .. } = &row.storage else { continue };
        let snapshot = registry.cache().snapshot(prefix);
        let labels = || [row.group.to_string(), row.plural.to_string()];
        let size: usize = snapshot.entries.values().map(|entry| entry.key.len() + entry.value.len()).sum();
        by_name.push(([row.qualified()], snapshot.entries.len() as f64));
        objects.push((labels(), snapshot.entries.len() as f64));
        sizes.push((labels(), size as f64));
        revisions.push((labels(), snapshot.revision as f64));
    }
    let services = registry.cache().snapshot(aggregation::STORED);
    let services = services.entries.values().filter_map(|entry| entry.object().ok());
    table.aggregation.unavailable.replace(services.map(|service| {
        let unavailable = !aggregation::is_available(&service);
        ([service.name().to_owned()], f64::from(u8::from(unavailable)))
    }));
    table.storage.objects_by_name.replace(by_name);
    table.storage.objects.replace(objects);
    table.storage.sizes.replace(sizes);
    table.watches.revision.replace(revisions);
}

/// The process as Prometheus' own clients describe it, read from /proc.
fn process(table: &Process) {
    // The command's name in parentheses may hold anything, so the fields are counted behind it.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |name: &str| number_behind(&status, name).map(|kilobytes| kilobytes * 1024.0);
    let boot = number_behind(&fs::read_to_string("/proc/stat").unwrap_or_default(), "btime");
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let network = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    if let Some((user, system)) = field(11).zip(field(12)) {
        table.cpu.with([]).set((user + system) / TICKS);
    }
    for (series, name) in [(&table.network_received, "InOctets"), (&table.network_sent, "OutOctets")] {
        if let Some(bytes) = in_column(&network, "IpExt:", name) {
            series.with([]).set(bytes);
        }
    }
    let gauges = [
        (&table.max_files, number_behind(&limits, "Max open files")),
        (&table.max_size, number_behind(&limits, "Max address space").or(Some(u64::MAX as f64))),
        (&table.open_files, fs::read_dir("/proc/self/fd").map(|files| files.count() as f64).ok()),
        (&table.resident, kilobytes("VmRSS:")),
        (&table.started, boot.zip(field(19)).map(|(boot, ticks)| boot + ticks / TICKS)),
        (&table.size, kilobytes("VmSize:")),
    ];
    for (series, value) in gauges {
        if let Some(value) = value {
            series.with([]).set(value);
        }
    }
}

/// The first number on the line that begins with `name`.
fn number_behind(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The number below a name, of two lines that begin with `table`: names, and numbers.
fn in_column(text: &str, table: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(table));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let (_, number) = names.split_whitespace().zip(numbers.split_whitespace()).find(|(found, _)| *found == name)?;
    number.parse().ok()
}

fn what_it_is(table: &Table, server: &Server) {
    let document = version::document();
    let text = |member: &str| document[member].as_str().unwrap_or_default().to_owned();
    let build = ["buildDate", "compiler", "gitCommit", "gitTreeState", "gitVersion", "goVersion", "major", "minor"];
    let [date, compiler, commit, tree, git, go, major, minor] = build.map(text);
    let own = format!("{major}.{minor}");
    table.process.build.replace([([date, compiler, commit, tree, git, go, major, minor, text("platform")], 1.0)]);
    let oldest = format!("{}.{}", text("minCompatibilityMajor"), text("minCompatibilityMinor"));
    table.process.version.replace([([own.clone(), "kube".to_owned(), own, oldest], 1.0)]);
    let mutating = f64::from(u8::from(server.config().mutating_policies));
    table.process.features.with(["MutatingAdmissionPolicy", "BETA"]).set(mutating);
    let all = table.all();
    table.process.unexpected.with([]).set(all.iter().map(|family| family.unexpected()).sum::<u64>() as f64);
    let mut registered: Vec<(Stability, &str, f64)> = Vec::new();
    for row in all.iter().map(|family| family.descriptor()) {
        let since = row.help.strip_prefix(DEPRECATED).and_then(|rest| rest.split_once(')'));
        let since = since.map_or("", |(version, _)| version);
        match registered.iter_mut().find(|(stability, version, _)| (*stability, *version) == (row.stability, since)) {
            Some((_, _, count)) => *count += 1.0,
            None => registered.push((row.stability, since, 1.0)),
        }
    }
    for (stability, since, count) in registered {
        if let Some(name) = stability.name() {
            table.process.registered.with([since, name]).set(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_described() {
        let table = Process::default();
        process(&table);
        let mut out = String::new();
        table.all().iter().for_each(|family| family.write(&mut out));
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

    #[test]
    fn numbers_are_found_below_their_names() {
        let text = "TcpExt: A\nTcpExt: 1\nIpExt: InOctets OutOctets\nIpExt: 7 8\n";
        assert_eq!((in_column(text, "IpExt:", "OutOctets"), in_column(text, "IpExt:", "none")), (Some(8.0), None));
    }
}
