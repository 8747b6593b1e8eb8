//! Clients of others, each through all that it is used for: `tests/clients/` has their scripts, with what must hold in them; kube-rs is
//! driven from here.

mod rust;

use std::path::Path;
use std::sync::Mutex;

use crate::Test;
use crate::support::{Cluster, busybox, clients, command, kubectls, run, shared};

pub const TESTS: &[Test] = &[
    ("every_kubectl_walks_through", walk),
    ("nodes_client_finds_its_idioms", node),
    ("pythons_client_finds_its_idioms", python),
    ("rusts_client_finds_its_idioms", || rust::idioms(shared())),
];

/// Where the scripts are.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
/// Walks at once; each keeps about one core busy.
const WALKERS: usize = 2;

/// Runs a client's script against the cluster; gives what it says when it does not hold.
fn attempt(cluster: &Cluster, program: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut command = command(program, arguments);
    command.env("KUBECONFIG", cluster.kubeconfig());
    let output = run(&mut command, None);
    if output.code == 0 { Ok(()) } else { Err(format!("{}{}", output.stdout, output.stderr)) }
}

fn walk() {
    let cluster = Cluster::start("walk", &[]);
    cluster.load(&busybox());
    // Far older than what is supported: what it can do without the kinds that are gone must go on working.
    let mut waiting = kubectls();
    waiting.push(clients().join("kubectl/kubectl"));
    let script = format!("{SCRIPTS}/kubectl/walk.sh");
    let (waiting, failures) = (Mutex::new(waiting), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WALKERS {
            scope.spawn(|| {
                loop {
                    let Some(kubectl) = waiting.lock().unwrap().pop() else { break };
                    let walked = attempt(&cluster, Path::new("/bin/sh"), &[&script, kubectl.to_str().unwrap()]);
                    failures.lock().unwrap().extend(walked.err());
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn node() {
    let script = format!("{SCRIPTS}/node/client.mjs");
    let packages = clients().join("node/node_modules/@kubernetes/client-node/dist/index.js");
    let done = attempt(shared(), Path::new("node"), &[&script, packages.to_str().unwrap()]);
    assert!(done.is_ok(), "{}", done.unwrap_err());
}

fn python() {
    let script = format!("{SCRIPTS}/python/client.py");
    let done = attempt(shared(), &clients().join("python/bin/python"), &[&script]);
    assert!(done.is_ok(), "{}", done.unwrap_err());
}
