//! The docker driver, on a real engine: the same cluster in a container.

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Test;
use crate::start_failures::taken_docker_port;
use crate::support::{Cluster, busybox, command, curl, eventually, nginx, run};
use crate::{exposure, files, pausing, views};

pub const TESTS: &[Test] = &[
    ("a_cluster_in_a_container_works_and_leaves_nothing", whole_life),
    ("everyday_commands_work_in_a_container", everyday),
    ("what_was_removed_by_hand_comes_back_or_is_told", removed),
    ("clusters_are_in_a_network_of_the_users", networks),
    ("podman_is_an_engine_too", podman),
    ("a_scheduled_stop_comes_though_the_program_was_replaced", replaced),
];

/// An engine that answers: the host's own, or one of the test's that ends with it. One test at a time has it.
pub struct Engine(Option<Child>, #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

static TURN: Mutex<()> = Mutex::new(());

impl Engine {
    pub fn get() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = || run(&mut command("docker", &["info"]), None).code == 0;
        if answers() {
            return Self(None, turn);
        }
        // Containers get an init, if they do not say that they want none.
        let mut engine = Command::new("dockerd");
        engine.arg("--init").stdout(Stdio::null()).stderr(Stdio::null());
        let engine = Self(Some(engine.spawn().expect("dockerd is installed")), turn);
        eventually("the engine to answer", || answers().then_some(()));
        engine
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = run(&mut command("kill", &[&child.id().to_string()]), None);
            let _ = child.wait();
        }
    }
}

pub fn docker(arguments: &[&str]) -> String {
    run(&mut command("docker", arguments), None).ok()
}

/// A test of a cluster that is there already.
type Body = fn(&Cluster);

/// What works on any cluster, whichever driver has made it. With the test images, in this order.
const EVERYDAY: &[(&str, Body)] = &[
    ("status", views::status_shapes),
    ("update-context", views::update_context),
    ("service", views::services),
    ("cp", files::cp),
    ("mount", files::mount),
    ("logs", files::logs),
    ("logs -f", files::follow),
    ("export logs", files::export),
    ("limits", exposure::limits),
    ("pause of a namespace", pausing::namespace_only),
    ("pause", pausing::control_plane),
    ("stop --schedule", pausing::schedule),
];

fn everyday() {
    let _engine = Engine::get();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("hello"), "from the host").unwrap();
    let mount = format!("{}:/mnt/own:ro", directory.path().display());
    let cluster = Cluster::start_by(
        "docker",
        "everyday",
        &[
            "--cpus=2",
            "--memory=2g",
            "--ports=8087:30085",
            "--subnet=10.77.0.0/24",
            "--static-ip=10.77.0.9",
            "--mount-string",
            &mount,
        ],
    );
    assert_eq!(cluster.kminik(&["ip"]).ok(), "10.77.0.9\n");
    assert_eq!(cluster.kminik(&["ssh", "cat", "/mnt/own/hello"]).ok(), "from the host");
    cluster.load(&busybox());
    cluster.load(&nginx());
    cluster.apply(exposure::WEB);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]).ok();
    let answer = || run(&mut command("curl", &["-sS", "--max-time", "3", "http://127.0.0.1:8087"]), None).stdout;
    eventually("the published port", || answer().contains("nginx works").then_some(()));
    cluster.kubectl(&["delete", "pod/web", "service/web"]).ok();
    nested(&cluster);
    for (name, body) in EVERYDAY {
        eprintln!("docker: {name}");
        body(&cluster);
    }
}

/// What goes wrong with Kubernetes in containers, and does not here: docs/DRIVERS.md has the numbers. The cluster has 2 GiB.
fn nested(cluster: &Cluster) {
    let object = format!("kminik-{}", cluster.profile);
    let ssh = |line: &str| cluster.kminik(&["ssh", line]).ok();
    // 5: PID 1 is ours, also where the engine would put an init of its own before it.
    assert_eq!(docker(&["inspect", "-f", "{{.HostConfig.Init}}", &object]), "false\n");
    assert_eq!(ssh("cat /proc/1/cmdline").replace('\0', " ").trim(), "/bin/kminik init");
    // 18: pods ask the cluster's DNS, and nobody asks the engine's at 127.0.0.11.
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: asks}, spec: {terminationGracePeriodSeconds: 0, containers: \
         [{name: c, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sleep, '3600']}]}}",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/asks", "--timeout=60s"]).ok();
    let inside = |words: &[&str]| cluster.kubectl(&[&["exec", "asks", "--"], words].concat()).stdout;
    assert!(inside(&["cat", "/etc/resolv.conf"]).contains("nameserver 10.96.0.10\n"));
    let named = || inside(&["nslookup", "kubernetes.default.svc.cluster.local"]).contains("10.96.0.1\n").then_some(());
    eventually("a name in a pod", named);
    cluster.kubectl(&["delete", "pod/asks"]).ok();
    // 25: what is mounted in the node later is seen in pods.
    let root = ssh("cat /proc/1/mountinfo");
    let root = root.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.contains(" shared:"), "{root}");
    // 28: pods leave the API server some memory.
    let limit = ssh("cat /sys/fs/cgroup/memory/pods/memory.limit_in_bytes || cat /sys/fs/cgroup/pods/memory.max");
    assert_eq!(limit.trim(), ((2048_u64 - 256) << 20).to_string());
}

fn removed() {
    let _engine = Engine::get();
    let cluster = Cluster::start_by("docker", "removed", &[]);
    let object = format!("kminik-{}", cluster.profile);
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
    let url = server(&cluster);
    let comes_back = |what: &str| {
        cluster.start_again(&[]).ok();
        let kept = cluster.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).ok();
        assert_eq!((kept.as_str(), server(&cluster)), ("b", url.clone()), "{what}");
        assert_eq!(cluster.kminik(&["status"]).code, 0, "{what}");
    };
    docker(&["rm", "-f", &object]);
    assert_eq!(cluster.kminik(&["status", "-f", "{{.Host}}"]).stdout, "Stopped\n");
    comes_back("a removed container");
    docker(&["stop", &object]);
    comes_back("a stopped container");
    docker(&["restart", &object]);
    eventually("the API", || (cluster.kminik(&["status"]).code == 0).then_some(()));
    comes_back("a restarted container");
    // As after a reboot: the engine brings back the node, and nobody its agent.
    let agent = || run(&mut command("pgrep", &["-f", &format!("agent -p {}$", cluster.profile)]), None).stdout;
    let pid = agent();
    run(&mut command("kill", &["-9", pid.trim()]), None).ok();
    docker(&["restart", &object]);
    eventually("the API without an agent", || (cluster.kubectl(&["get", "configmap", "kept"]).code == 0).then_some(()));
    assert_eq!(agent(), "");
    let told = eventually("the status", || Some(cluster.kminik(&["status"])).filter(|told| told.code == 0));
    assert!(told.stderr.contains("'kminik start' mends it"), "{}", told.stderr);
    comes_back("an agent");
    let told = cluster.kminik(&["status"]);
    assert!(!told.stderr.contains("mends it") && agent() != pid, "{}", told.stderr);
    cluster.kminik(&["stop"]).ok();
    docker(&["rm", "-f", &object]);
    docker(&["network", "rm", &object]);
    comes_back("a removed network");
    // Another network has taken its place.
    cluster.kminik(&["stop"]).ok();
    let subnet = docker(&["network", "inspect", &object, "-f", "{{(index .IPAM.Config 0).Subnet}}"]);
    docker(&["rm", "-f", &object]);
    docker(&["network", "rm", &object]);
    let other = format!("{object}-other");
    docker(&["network", "create", "--subnet", subnet.trim(), &other]);
    let told = cluster.start_again(&[]).fails(78);
    docker(&["network", "rm", &other]);
    assert!(told.contains("IF_SUBNET") && told.contains(subnet.trim()), "{told}");
    comes_back("a network whose place is free again");
    docker(&["rm", "-f", &object]);
    docker(&["volume", "rm", &object]);
    exposure::told_of_loss(&cluster);
    cluster.kubectl(&["get", "configmap", "kept"]).fails(1);
    // Nothing but the volume and the network tell of it.
    docker(&["rm", "-f", &object]);
    std::fs::remove_dir_all(cluster.home().join("home/profiles").join(&cluster.profile)).unwrap();
    assert!(docker(&["volume", "ls", "-q"]).contains(&object));
    cluster.kminik(&["delete", "--all"]).ok();
    for list in [&["volume", "ls", "-q"][..], &["network", "ls", "--format", "{{.Name}}"]] {
        assert!(!docker(list).contains(&object), "{list:?}");
    }
}

fn server(cluster: &Cluster) -> String {
    cluster.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok()
}

/// What of ours the engine has.
pub fn everything() -> String {
    [
        docker(&["ps", "-aq"]),
        docker(&["volume", "ls", "-q"]),
        docker(&["network", "ls", "-q"]),
        docker(&["images", "-q", "kminik/node"]),
    ]
    .join("|")
}

fn whole_life() {
    let _engine = Engine::get();
    let before = everything();
    let cluster = Cluster::start("docker", &["--driver=docker"]);
    assert!(cluster.kminik(&["profile", "list"]).ok().contains("docker"));
    assert!(docker(&["ps"]).contains(&cluster.profile));
    cluster.load(&nginx());
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {containers: [{name: nginx, image: 'nginx:latest', imagePullPolicy: IfNotPresent}]}}",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]).ok();
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 30081}]}}",
    );
    let answer = || run(&mut command("curl", &["-sS", "--max-time", "3", "http://localhost:30081"]), None).stdout;
    eventually("nginx on localhost", || answer().contains("nginx works").then_some(()));
    assert!(cluster.kubectl(&["exec", "web", "--", "cat", "/www/index.html"]).ok().contains("nginx works"));
    assert!(cluster.kminik(&["ssh", "echo", "inside"]).ok().contains("inside"));
    eventually("nginx on IPv6's localhost", || curl("http://[::1]:30081")?.contains("nginx works").then_some(()));
    let url = server(&cluster);
    let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
    let clients = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let clients: Vec<u16> = clients.split_whitespace().map(|bound| bound.parse().unwrap()).collect();
    assert!(!(clients[0]..=clients[1]).contains(&port), "{port} may be an outgoing connection's: {clients:?}");
    taken_docker_port(&cluster, port);
    assert_eq!(server(&cluster), url, "the API's port stays");
    eventually("nginx after the restart", || answer().contains("nginx works").then_some(()));
    cluster.kminik(&["delete", "--all", "--purge"]).ok();
    assert_eq!(everything(), before);
}

/// Two clusters in a network that is there, then one in a network that is made for it.
fn networks() {
    let _engine = Engine::get();
    let before = everything();
    let network = format!("of-the-user-{}", std::process::id());
    docker(&["network", "create", "--subnet=10.78.0.0/24", &network]);
    let wish = format!("--network={network}");
    let one = Cluster::prepare("network-one");
    for (arguments, code, reason) in [
        (&["--driver=docker", "--network=host"][..], 14, "fixed addresses"),
        (&["--driver=docker", &wish, "--subnet=10.79.0.0/24"], 14, "its subnet is 10.78.0.0/24"),
        (&["--driver=docker", &wish, "--static-ip=10.78.0.1"], 14, "gateway"),
        (&["--driver=docker", &wish, "--service-cluster-ip-range=10.78.0.0/16"], 78, "IF_SUBNET"),
    ] {
        let told = one.kminik(&[&["start"], arguments].concat()).fails(code);
        assert!(told.contains(reason), "{told}");
    }
    one.kminik(&["start", "--driver=docker", &wish, "--apiserver-port=26443", "--cpus=no-limit", "--memory=1g"]).ok();
    // One of its limits is changed where it has no other; one that it has is not taken away while it runs.
    one.kminik(&["start", "--memory=1100m"]).ok();
    let told = one.kminik(&["start", "--memory=no-limit"]).fails(50);
    assert!(told.contains("take a limit away"), "{told}");
    assert_eq!(server(&one), "https://127.0.0.1:26443");
    let two = Cluster::start_by("docker", "network-two", &[&wish]);
    let address = |cluster: &Cluster| cluster.kminik(&["ip"]).ok();
    assert_eq!((address(&one).as_str(), address(&two).as_str()), ("10.78.0.2\n", "10.78.0.3\n"));
    // Others' containers have addresses there too.
    docker(&["load", "-i", busybox().path().to_str().unwrap()]);
    let other = format!("{network}-other");
    let network_of = format!("--network={network}");
    docker(&["run", "-d", "--name", &other, &network_of, "--entrypoint=sleep", "busybox:latest", "600"]);
    let has = docker(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &other]);
    assert_eq!(has, "10.78.0.4\n", "the address that the next node would have");
    one.kminik(&["node", "add"]).ok();
    assert!(one.kminik(&["node", "list"]).ok().contains("10.78.0.5"));
    docker(&["rm", "-f", &other]);
    docker(&["rmi", "busybox:latest"]);
    let taken = Cluster::prepare("network-three");
    let told = taken.kminik(&["start", "--driver=docker", "--apiserver-port=26443"]).fails(31);
    assert!(told.contains("26443"), "{told}");
    // A port that Services have in a node may be the API's on this machine, as kind's apiServerPort.
    let kind = taken.home().join("kind.yaml");
    let port = "networking: {apiServerPort: 31443}";
    std::fs::write(&kind, format!("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n{port}\n")).unwrap();
    let from_file = ["start", "--driver=docker", "--wait=none", "-f", kind.to_str().unwrap()];
    taken.kminik(&from_file).ok();
    assert_eq!(server(&taken), "https://127.0.0.1:31443");
    let told = taken.kminik(&from_file);
    assert!(!told.stderr.contains("cannot be changed"), "{}", told.stderr);
    taken.kminik(&["delete"]).ok();
    for cluster in [&one, &two] {
        cluster.kminik(&["delete"]).ok();
    }
    let names = || docker(&["network", "ls", "--format", "{{.Name}}"]);
    assert!(names().contains(&network), "it is the user's");
    docker(&["network", "rm", &network]);
    one.kminik(&["start", "--driver=docker", &wish]).ok();
    assert!(names().contains(&network));
    one.kminik(&["stop"]).ok();
    docker(&["rm", "-f", &format!("kminik-{}", one.profile)]);
    docker(&["network", "rm", &network]);
    one.kminik(&["start"]).ok();
    one.kminik(&["delete"]).ok();
    assert_eq!(everything(), before, "what was made for it is gone with it");
}

/// The agent runs the file that a new version takes the place of.
fn replaced() {
    let _engine = Engine::get();
    let cluster = Cluster::prepare("replaced");
    let program = cluster.home().join("kminik");
    std::fs::copy(crate::support::kminik_binary(), &program).unwrap();
    let kminik = |arguments: &[&str]| {
        let mut command = command(&program, &[&["-p", &cluster.profile], arguments].concat());
        command.env("KMINIK_HOME", cluster.home().join("home")).env("KUBECONFIG", cluster.kubeconfig());
        run(&mut command, None).ok()
    };
    kminik(&["start", "--driver=docker", "--wait=none"]);
    kminik(&["stop", "--schedule=3s"]);
    std::fs::remove_file(&program).unwrap();
    let host = || cluster.kminik(&["status", "-f", "{{.Host}}"]).stdout;
    eventually("the scheduled stop", || (host() == "Stopped\n").then_some(()));
}

/// Podman's socket, with a store of its own.
fn podman() {
    let data = tempfile::tempdir().unwrap();
    let at = |name: &str| data.path().join(name).display().to_string();
    // crun refuses a machine with both versions of cgroups, as this may be.
    let place = ["--runtime", "runc", "--root", &at("root"), "--runroot", &at("run")].map(str::to_owned);
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.args(&place).args(arguments);
        command
    };
    let told = Command::new("podman").args(&place).arg("info").output();
    if !told.as_ref().is_ok_and(|told| told.status.success()) {
        eprintln!("skipped: podman does not run on this machine: {told:?}");
        return;
    }
    let endpoint = format!("unix://{}", at("podman.sock"));
    let service = podman(&["system", "service", "--time=0", &endpoint]).stderr(Stdio::null()).spawn().unwrap();
    let _engine = Engine(Some(service), TURN.lock().unwrap_or_else(PoisonError::into_inner));
    eventually("the socket", || {
        (run(&mut command("docker", &["-H", &endpoint, "info"]), None).code == 0).then_some(())
    });
    let has = || {
        let lists = [&["ps", "-aq"][..], &["volume", "ls", "-q"], &["network", "ls", "-q"], &["images", "-q"]];
        lists.map(|list| run(&mut podman(list), None).ok())
    };
    let before = has();
    let cluster = Cluster::on_engine(&endpoint, "podman");
    cluster.start_again(&["--cpus=2", "--memory=2g"]).ok();
    cluster.load(&busybox());
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'busybox:latest', \
         imagePullPolicy: IfNotPresent, command: [sleep, '3600']}]}}",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]).ok();
    assert_eq!(cluster.kubectl(&["exec", "p", "--", "echo", "inside"]).ok(), "inside\n");
    assert!(cluster.kminik(&["ssh", "echo", "node"]).ok().contains("node"));
    let url = server(&cluster);
    cluster.kminik(&["stop"]).ok();
    cluster.start_again(&[]).ok();
    assert_eq!(server(&cluster), url);
    cluster.kubectl(&["get", "pod", "p"]).ok();
    cluster.kminik(&["delete", "--all", "--purge"]).ok();
    assert_eq!(has(), before);
}
