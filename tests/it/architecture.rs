//! The house rules that a compiler does not hold: who depends on whom, how long a file is, what the binary needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::Test;
use crate::support::{command, kminik_binary, run};

pub const TESTS: &[Test] = &[
    ("the_crates_depend_only_on_whom_they_may", dependencies),
    ("no_file_is_too_long", lengths),
    ("every_crate_says_what_it_is_for", crate_docs),
    ("the_binary_needs_nothing", static_binary),
    ("unsafe_stays_where_it_may_be", unsafety),
];

/// Crate → the crates of the house it may use (design: {base, meta} ← {store, oci, streaming, cel, client, runtime} ← the rest).
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("meta", &[]),
    ("store", &["base", "meta"]),
    ("oci", &["base", "meta"]),
    ("streaming", &["base", "meta"]),
    ("cel", &["base", "meta"]),
    ("client", &["base", "meta"]),
    ("runtime", &["base", "meta"]),
    ("apiserver", &["base", "meta", "store", "streaming", "cel", "client", "oci", "runtime"]),
    ("net", &["base", "meta", "client", "runtime", "streaming", "oci"]),
    ("dns", &["base", "meta", "client"]),
    ("kubelet", &["base", "meta", "client", "runtime", "oci", "streaming"]),
    ("controllers", &["base", "meta", "client"]),
    ("scheduler", &["base", "meta", "client"]),
    ("provisioner", &["base", "meta", "client"]),
    ("registry", &["base", "oci"]),
];

/// Tables, and nothing else, may be longer than 800 lines.
const LONG: &[&str] = &["crates/meta/src/schema/table.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn dependencies() {
    let mut crates = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let manifest: toml::Table = std::fs::read_to_string(path.join("Cargo.toml")).unwrap().parse().unwrap();
        let (_, allowed) =
            MAY_USE.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name} is not in the table"));
        let used = manifest.get("dependencies").and_then(|d| d.as_table()).into_iter().flat_map(|d| d.keys());
        for dependency in used.filter_map(|key| key.strip_prefix("kminik-")) {
            assert!(allowed.contains(&dependency), "{name} must not depend on {dependency}");
        }
        crates.insert(name);
    }
    assert_eq!(crates.len(), MAY_USE.len(), "the table names crates that are gone");
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending: Vec<PathBuf> =
        ["src", "crates", "tests", "xtask", "benches"].iter().map(|d| root().join(d)).collect();
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn lengths() {
    for path in sources() {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
        assert!(lines <= 800 || LONG.contains(&name), "{name} has {lines} lines");
    }
}

fn crate_docs() {
    for (name, _) in MAY_USE {
        let text = std::fs::read_to_string(root().join("crates").join(name).join("src/lib.rs")).unwrap();
        assert!(text.starts_with("//! "), "{name} does not say what it is for");
        assert!(text.contains("**Invariant:**"), "{name} states no invariant");
    }
}

fn static_binary() {
    let binary = kminik_binary();
    let dynamic = run(&mut command("readelf", &["-d", binary.to_str().unwrap()]), None).ok();
    assert!(!dynamic.contains("NEEDED"), "{dynamic}");
    let headers = run(&mut command("readelf", &["-l", binary.to_str().unwrap()]), None).ok();
    assert!(!headers.contains("INTERP"), "{headers}");
}

fn unsafety() {
    for path in sources() {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if name.starts_with("crates/runtime/") || name.starts_with("crates/net/") || name.starts_with("tests/") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("allow(unsafe_code)"), "{name} allows unsafe code");
    }
}
