//! What stays behind: nothing, however a cluster ends. Each test has a host of its own, of which everything is compared.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;

use crate::support::{Cluster, Host, busybox, command, eventually, nginx, run};
use crate::{Test, docker};

pub const TESTS: &[Test] = &[
    ("delete_leaves_the_host_as_it_was", plain),
    ("beside_docker_pods_reach_all_and_delete_leaves_the_host_as_it_was", beside_docker),
    ("a_start_killed_at_any_step_leaves_nothing_that_delete_does_not_take", killed_start),
    ("a_start_in_a_container_killed_at_any_step_leaves_nothing_either", killed_docker_start),
    ("interrupting_start_at_any_step_undoes_it", interrupted),
];

/// What a cluster could leave: the host's state, and what is the machine's whatever the namespace.
fn state(host: &Host, profile: &str) -> BTreeSet<String> {
    let mut state = host.state();
    state.extend(of_the_machine(profile));
    state
}

fn of_the_machine(profile: &str) -> Vec<String> {
    let cgroups = ["-type", "d", "-path", &format!("*kminik/{profile}*")];
    let cgroups = run(&mut command("find", &[&["/sys/fs/cgroup"], &cgroups[..]].concat()), None).stdout;
    let processes = run(&mut command("pgrep", &["-af", profile]), None).stdout;
    let processes = processes.lines().filter(|line| !line.contains("pgrep"));
    cgroups.lines().chain(processes).map(str::to_owned).collect()
}

/// Deletes everything and compares.
#[track_caller]
fn purge(look: impl Fn(&str) -> BTreeSet<String>, cluster: &Cluster, before: &BTreeSet<String>, when: &str) {
    cluster.kminik(&["delete", "--all", "--purge"]).ok();
    let after = look(&cluster.profile);
    assert_eq!(after.difference(before).collect::<Vec<_>>(), [] as [&String; 0], "{when}: left behind");
    assert_eq!(before.difference(&after).collect::<Vec<_>>(), [] as [&String; 0], "{when}: taken away");
    assert!(!cluster.home().join("home").exists(), "{when}");
    let config = std::fs::read_to_string(cluster.kubeconfig()).unwrap_or_default();
    assert!(!config.contains(&cluster.profile), "{when}: {config}");
}

fn plain() {
    let host = Arc::new(Host::new());
    let cluster = Cluster::on(&host, "clean");
    let look = |profile: &str| state(&host, profile);
    let before = look(&cluster.profile);
    cluster.start_again(&[]).ok();
    let during = state(&host, &cluster.profile);
    for trace in ["km-", "kminik-", "/sys/fs/cgroup", "/run/kminik/nodes", "agent -p"] {
        assert!(during.difference(&before).any(|line| line.contains(trace)), "the comparison sees {trace}");
    }
    purge(look, &cluster, &before, "delete");
    cluster.start_again(&["--wait=none"]).ok();
    cluster.kminik(&["stop"]).ok();
    purge(look, &cluster, &before, "delete of a stopped cluster");
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
    let look = |profile: &str| state(&host, profile);
    let before = look(&cluster.profile);
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
    purge(look, &cluster, &before, "delete");
    drop(engine);
}

/// A `start` that has announced its n-th step, or is through if it has fewer.
struct Started {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
    /// What was announced.
    reached: Option<String>,
}

/// Starts a new cluster as far as its first step, its second, …, and hands each over; at last one that is through.
/// What `prepare` gives beside the cluster goes with it.
fn at_each_step<T>(driver: &str, prepare: impl Fn(&str) -> (Cluster, T), then: impl Fn(&Cluster, &T, Started)) {
    for step in 1.. {
        let (cluster, kept) = prepare(&format!("{driver}{step}"));
        let arguments = ["start", &format!("--driver={driver}"), "-o", "json"];
        let errors = cluster.home().join("errors");
        let mut command = cluster.command(&arguments);
        command.stdout(Stdio::piped()).stderr(std::fs::File::create(&errors).unwrap());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let reached = lines.by_ref().filter(|line| line.contains("minikube.step")).nth(step - 1);
        let through = reached.is_none();
        if through {
            assert!(child.wait().unwrap().success(), "{}", std::fs::read_to_string(&errors).unwrap());
        }
        then(&cluster, &kept, Started { child, lines: Box::new(lines), reached });
        if through {
            assert!(step > 8, "{step} steps were seen");
            break;
        }
    }
}

/// The process is killed as soon as it has announced a step.
fn killed(driver: &str, prepare: impl Fn(&str) -> Cluster, look: impl Fn(&str) -> BTreeSet<String>) {
    let prepare = |step: &str| {
        let cluster = prepare(&format!("killed{step}"));
        let before = look(&cluster.profile);
        (cluster, before)
    };
    at_each_step(driver, prepare, |cluster, before, mut started| {
        started.child.kill().unwrap();
        started.child.wait().unwrap();
        purge(&look, cluster, before, &format!("killed at {:?}", started.reached));
    });
}

fn killed_start() {
    let host = Arc::new(Host::new());
    killed("native", |name| Cluster::on(&host, name), |profile| state(&host, profile));
}

fn killed_docker_start() {
    let _engine = docker::Engine::get();
    let look = |profile: &str| {
        let mut state: BTreeSet<String> = docker::everything().split('|').map(str::to_owned).collect();
        state.extend(of_the_machine(profile));
        state
    };
    killed("docker", Cluster::prepare, look);
}

fn interrupted() {
    let host = Arc::new(Host::new());
    let prepare = |step: &str| {
        let cluster = Cluster::on(&host, &format!("ctrlc{step}"));
        let before = state(&host, &cluster.profile);
        (cluster, before)
    };
    at_each_step("native", prepare, |cluster, before, mut started| {
        let Some(reached) = started.reached else { return };
        run(&mut command("kill", &["-INT", &started.child.id().to_string()]), None).ok();
        let rest: Vec<String> = started.lines.collect();
        match started.child.wait().unwrap().code() {
            Some(2) => assert!(rest.iter().any(|line| line.contains("MK_INTERRUPTED")), "{reached}: {rest:?}"),
            // It came too late: all was done.
            Some(0) if rest.is_empty() || rest.iter().any(|line| line.contains("\"Done\"")) => return,
            other => panic!("{reached}: {other:?} {rest:?}"),
        }
        let after = state(&host, &cluster.profile);
        assert_eq!(after.difference(before).collect::<Vec<_>>(), [] as [&String; 0], "{reached}");
        assert!(!cluster.home().join("home/profiles").join(&cluster.profile).exists(), "{reached}");
        assert!(
            !std::fs::read_to_string(cluster.kubeconfig()).unwrap_or_default().contains(&cluster.profile),
            "{reached}"
        );
    });
}
