//! What goes wrong around the command line: other kminik processes, files that cannot be written, state that is half there.

use std::process::Stdio;
use std::time::Duration;

use crate::Test;
use crate::support::{Cluster, eventually};

pub const TESTS: &[Test] = &[
    ("an_agent_that_comes_up_after_stop_lets_the_cluster_be", late_agent),
    ("a_start_killed_at_its_end_does_not_outlive_stop", killed_start_then_stop),
];

fn host(cluster: &Cluster) -> String {
    let told = cluster.kminik(&["status", "--format", "{{.Host}}"]);
    told.stdout.trim().to_owned()
}

/// What a killed `start` may have left: an agent that is being started, and takes its lock when `stop` has ended.
fn late_agent() {
    let cluster = Cluster::start("late", &["--wait=none"]);
    cluster.kminik(&["stop"]).ok();
    let mut agent = cluster.command(&["agent"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the agent's end", || agent.try_wait().unwrap()).success().then_some(()).expect("it is no failure");
    assert_eq!(host(&cluster), "Stopped");
    cluster.start_again(&["--wait=none"]).ok();
    assert_eq!(host(&cluster), "Running");
    let mut second = cluster.command(&["agent"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the second agent's end", || second.try_wait().unwrap());
    assert_eq!(host(&cluster), "Running", "a second agent leaves the first its work");
}

fn killed_start_then_stop() {
    let cluster = Cluster::start("killstop", &["--wait=none"]);
    for i in 0..6 {
        cluster.kminik(&["stop"]).ok();
        let mut start = cluster.command(&["start", "--wait=none"]).stderr(Stdio::null()).spawn().unwrap();
        // About when the agent is started.
        std::thread::sleep(Duration::from_millis(250 + 100 * i));
        start.kill().unwrap();
        start.wait().unwrap();
        cluster.kminik(&["stop"]).ok();
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(host(&cluster), "Stopped", "killed in round {i}");
    }
    cluster.start_again(&["--wait=none"]).ok();
}
