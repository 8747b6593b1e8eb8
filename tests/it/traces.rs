//! What stays behind: nothing, however a cluster ends. Each test has a host of its own, of which everything is compared.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;

use crate::Test;
use crate::support::{Cluster, Host, busybox, command, eventually, nginx, run};

pub const TESTS: &[Test] = &[
    ("delete_leaves_the_host_as_it_was", plain),
    ("beside_docker_pods_reach_all_and_delete_leaves_the_host_as_it_was", beside_docker),
    ("a_start_killed_at_any_step_leaves_nothing_that_delete_does_not_take", killed_start),
    ("interrupting_start_at_any_step_undoes_it", interrupted),
];

/// What a cluster could leave: the host's state, and what is the machine's whatever the namespace.
fn state(host: &Host, profile: &str) -> BTreeSet<String> {
    let mut state = host.state();
    let cgroups = ["-type", "d", "-path", &format!("*kminik/{profile}*")];
    let cgroups = run(&mut command("find", &[&["/sys/fs/cgroup"], &cgroups[..]].concat()), None).stdout;
    state.extend(cgroups.lines().map(str::to_owned));
    let processes = run(&mut command("pgrep", &["-af", profile]), None).stdout;
    state.extend(processes.lines().filter(|line| !line.contains("pgrep")).map(str::to_owned));
    state
}

/// Deletes everything and compares.
#[track_caller]
fn purge(host: &Host, cluster: &Cluster, before: &BTreeSet<String>, when: &str) {
    cluster.kminik(&["delete", "--all", "--purge"]).ok();
    let after = state(host, &cluster.profile);
    assert_eq!(after.difference(before).collect::<Vec<_>>(), [] as [&String; 0], "{when}: left behind");
    assert_eq!(before.difference(&after).collect::<Vec<_>>(), [] as [&String; 0], "{when}: taken away");
    assert!(!cluster.home().join("home").exists(), "{when}");
    let config = std::fs::read_to_string(cluster.kubeconfig()).unwrap_or_default();
    assert!(!config.contains(&cluster.profile), "{when}: {config}");
}

fn plain() {
    let host = Arc::new(Host::new());
    let cluster = Cluster::on(&host, "clean");
    let before = state(&host, &cluster.profile);
    cluster.start_again(&[]).ok();
    let during = state(&host, &cluster.profile);
    for trace in ["km-", "kminik-", "/sys/fs/cgroup", "/run/kminik/nodes", "agent -p"] {
        assert!(during.difference(&before).any(|line| line.contains(trace)), "the comparison sees {trace}");
    }
    purge(&host, &cluster, &before, "delete");
    cluster.start_again(&["--wait=none"]).ok();
    cluster.kminik(&["stop"]).ok();
    purge(&host, &cluster, &before, "delete of a stopped cluster");
}

/// A Docker engine of this host.
struct Engine {
    process: Child,
    data: tempfile::TempDir,
}

impl Engine {
    fn start(host: &Host) -> Self {
        let data = tempfile::tempdir().unwrap();
        let at = |name: &str| data.path().join(name).display().to_string();
        let process = host
            .command(
                "dockerd",
                &[
                    "--data-root",
                    &at("data"),
                    "--exec-root",
                    &at("exec"),
                    "--pidfile",
                    &at("pid"),
                    "--host",
                    &format!("unix://{}", at("docker.sock")),
                ],
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dockerd is installed");
        let socket = format!("unix://{}", at("docker.sock"));
        eventually("the engine", || {
            (run(&mut host.command("docker", &["--host", &socket, "info"]), None).code == 0).then_some(())
        });
        Self { process, data }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.data.path().join("pid")).unwrap_or_default();
        run(&mut command("kill", &[pid.trim()]), None);
        let _ = self.process.wait();
    }
}

fn beside_docker() {
    let host = Arc::new(Host::new());
    let _outside = host.with_outside();
    // The engine closes the way through a host that it has opened for itself.
    host.sh("echo 0 > /proc/sys/net/ipv4/ip_forward").ok();
    let engine = Engine::start(&host);
    host.sh("sysctl -qw net.bridge.bridge-nf-call-iptables=1").ok();
    assert!(host.sh("iptables -S FORWARD").ok().contains("-P FORWARD DROP"), "as Docker leaves it");
    let cluster = Cluster::on(&host, "beside");
    let before = state(&host, &cluster.profile);
    cluster.start_again(&[]).ok();
    cluster.load(&busybox());
    cluster.load(&nginx());
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: c, image: 'nginx:latest', imagePullPolicy: IfNotPresent}]}}",
    );
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'busybox:latest', \
         imagePullPolicy: IfNotPresent, command: [sleep, '3600']}]}}",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "pod/client", "--timeout=60s"]).ok();
    let wget = |url: &str| cluster.kubectl(&["exec", "client", "--", "wget", "-qO-", url]).ok();
    assert_eq!(wget("http://203.0.113.1/").trim(), "outside");
    let web = cluster.kubectl(&["get", "pod", "web", "-o", "jsonpath={.status.podIP}"]).ok();
    assert_eq!(wget(&format!("http://{web}/")).trim(), "nginx works");
    purge(&host, &cluster, &before, "delete");
    drop(engine);
}

/// The process is killed as soon as it has announced its n-th step.
fn killed_start() {
    let host = Arc::new(Host::new());
    let mut step = 0;
    loop {
        step += 1;
        let cluster = Cluster::on(&host, &format!("killed{step}"));
        let before = state(&host, &cluster.profile);
        let arguments = ["start", "--driver=native", "-o", "json"];
        let mut child = cluster.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let events = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let reached = events.filter(|line| line.contains("minikube.step")).nth(step - 1).is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        purge(&host, &cluster, &before, &format!("killed at step {step}"));
        if !reached {
            break;
        }
    }
    assert!(step > 8, "{step} steps were seen");
}

fn interrupted() {
    let host = Arc::new(Host::new());
    let mut step = 0;
    loop {
        step += 1;
        let cluster = Cluster::on(&host, &format!("ctrlc{step}"));
        let before = state(&host, &cluster.profile);
        let arguments = ["start", "--driver=native", "-o", "json"];
        let mut child = cluster.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let reached = lines.by_ref().filter(|line| line.contains("minikube.step")).nth(step - 1);
        let Some(reached) = reached else {
            assert!(child.wait().unwrap().success());
            break;
        };
        run(&mut command("kill", &["-INT", &child.id().to_string()]), None).ok();
        let rest: Vec<String> = lines.collect();
        match child.wait().unwrap().code() {
            Some(2) => assert!(rest.iter().any(|line| line.contains("MK_INTERRUPTED")), "{reached}: {rest:?}"),
            // It came too late: all was done.
            Some(0) if rest.is_empty() || rest.iter().any(|line| line.contains("\"Done\"")) => continue,
            other => panic!("{reached}: {other:?} {rest:?}"),
        }
        let after = state(&host, &cluster.profile);
        assert_eq!(after.difference(&before).collect::<Vec<_>>(), [] as [&String; 0], "{reached}");
        assert!(!cluster.home().join("home/profiles").join(&cluster.profile).exists(), "{reached}");
        assert!(
            !std::fs::read_to_string(cluster.kubeconfig()).unwrap_or_default().contains(&cluster.profile),
            "{reached}"
        );
    }
    assert!(step > 8, "{step} steps were seen");
}
