//! Black-box tests: they start the built binary as a user would and drive it with kubectl, curl and a real registry.
//!
//! Every test is a row of its module's table. Most share one cluster, made when the first of them runs and deleted at the
//! end; those that stop, kill or delete have their own. They need root.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "one program; a test that cannot go on panics and says so"
)]

mod addons;
mod architecture;
mod checklist;
mod clients;
mod command_line;
mod datastore;
mod declared;
mod docker;
mod doctor;
mod elsewhere;
mod exposure;
mod files;
mod images;
mod kubectl;
mod lifecycle;
mod mirrors;
mod nodes;
mod packaging;
mod pausing;
mod probes;
mod services;
mod settings;
mod start_failures;
mod storage;
mod streams;
mod sturdy;
mod support;
mod traces;
mod upgrade;
mod views;
mod workers;
mod workloads;

use libtest_mimic::{Arguments, Trial};

/// A test: panics when it fails.
type Test = (&'static str, fn());

/// Every module with its tests.
const TABLES: &[(&str, &[Test])] = &[
    ("addons", addons::TESTS),
    ("architecture", architecture::TESTS),
    ("checklist", checklist::TESTS),
    ("clients", clients::TESTS),
    ("command_line", command_line::TESTS),
    ("datastore", datastore::TESTS),
    ("declared", declared::TESTS),
    ("docker", docker::TESTS),
    ("doctor", doctor::TESTS),
    ("elsewhere", elsewhere::TESTS),
    ("exposure", exposure::TESTS),
    ("files", files::TESTS),
    ("images", images::TESTS),
    ("kubectl", kubectl::TESTS),
    ("lifecycle", lifecycle::TESTS),
    ("mirrors", mirrors::TESTS),
    ("nodes", nodes::TESTS),
    ("packaging", packaging::TESTS),
    ("pausing", pausing::TESTS),
    ("probes", probes::TESTS),
    ("services", services::TESTS),
    ("settings", settings::TESTS),
    ("start_failures", start_failures::TESTS),
    ("storage", storage::TESTS),
    ("streams", streams::TESTS),
    ("sturdy", sturdy::TESTS),
    ("traces", traces::TESTS),
    ("views", views::TESTS),
    ("upgrade", upgrade::TESTS),
    ("workers", workers::TESTS),
    ("workloads", workloads::TESTS),
];

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    // Two cores: more clusters at once only make each other late.
    arguments.test_threads = arguments.test_threads.or(Some(3));
    let trials = TABLES.iter().flat_map(|(module, tests)| {
        tests.iter().map(move |(name, run)| {
            Trial::test(format!("{module}::{name}"), move || {
                run();
                Ok(())
            })
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    support::end();
    conclusion.exit_code()
}
