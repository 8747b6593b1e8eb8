//! What goes wrong around the command line: other kminik processes, files that cannot be written, state that is half there.
//!
//! Never a corrupt profile, never a hang, never a panic; and when the trouble is over the next command works.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Cluster, Host, ImageTar, Output, command, eventually, kminik_binary, nginx, run, says};
use crate::{Test, docker};

pub const TESTS: &[Test] = &[
    ("an_agent_that_comes_up_after_stop_lets_the_cluster_be", late_agent),
    ("an_agent_ends_with_its_profile", orphan_agent),
    ("a_start_killed_at_its_end_does_not_outlive_stop", killed_start_then_stop),
    ("commands_at_once_on_one_cluster", at_once),
    ("a_purge_while_others_wait_for_the_cluster", purge_and_start),
    ("a_cluster_that_is_half_deleted_is_deleted_whole", half_deleted),
    ("a_machine_without_a_profile_is_started_over", no_profile),
    ("one_cluster_that_fails_keeps_no_other_from_stop_and_delete", others_fail),
    ("a_home_that_is_read_only", read_only),
    ("each_call_of_commands_that_write_fails_once", faults_of_commands),
    ("calls_of_start_fail_one_by_one", faults_of_start),
    ("calls_of_start_and_stop_fail_one_by_one_on_docker", faults_on_docker),
    ("commands_that_wait_for_the_network_end_at_ctrl_c", ctrl_c),
    ("a_cache_on_a_full_disk_keeps_what_it_has", full_cache),
    ("terminals_that_are_dumb_narrow_or_without_colour", terminals),
    ("a_clock_before_the_authority_is_told", clock),
];

fn host_word(cluster: &Cluster) -> String {
    let told = cluster.kminik(&["status", "--format", "{{.Host}}"]);
    told.stdout.trim().to_owned()
}

/// Nothing but an answer: no panic, no signal.
#[track_caller]
fn is_sound(output: &Output, what: &str) {
    let text = format!("{}{}", output.stdout, output.stderr);
    assert!(!text.contains("panicked") && output.code != 101 && output.code < 128, "{what}: {} {text}", output.code);
}

fn spawned(cluster: &Cluster, arguments: &[&str]) -> std::thread::JoinHandle<Output> {
    let mut command = cluster.command(arguments);
    std::thread::spawn(move || run(&mut command, None))
}

/// What a killed `start` may have left: an agent that is being started, and takes its lock when `stop` has ended.
fn orphan_agent() {
    let cluster = Cluster::start("orphan", &[]);
    let profile = cluster.home().join("home/profiles").join(&cluster.profile);
    let pid = std::fs::read_to_string(profile.join("agent.lock")).unwrap();
    let process = Path::new("/proc").join(pid.trim());
    assert!(process.exists());
    std::fs::remove_dir_all(&profile).unwrap();
    eventually("the agent's end", || (!process.exists()).then_some(()));
}

fn late_agent() {
    let cluster = Cluster::start("late", &["--wait=none"]);
    let agent = |when: &str| {
        let mut agent = cluster.command(&["agent"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        assert!(eventually(when, || agent.try_wait().unwrap()).success(), "{when}");
    };
    cluster.kminik(&["stop"]).ok();
    agent("the late agent's end");
    assert_eq!(host_word(&cluster), "Stopped");
    cluster.start_again(&["--wait=none"]).ok();
    assert_eq!(host_word(&cluster), "Running");
    agent("the second agent's end");
    assert_eq!(host_word(&cluster), "Running", "a second agent leaves the first its work");
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
        assert_eq!(host_word(&cluster), "Stopped", "killed in round {i}");
    }
    cluster.start_again(&[]).ok();
}

fn at_once() {
    let cluster = Cluster::prepare("atonce");
    let start = &["start", "--driver=native", "--wait=none"][..];
    for round in 0..3 {
        let all = [start, &["stop"], start, &["delete"], &["update-context"], start, &["stop"]];
        let running: Vec<_> = all.iter().map(|arguments| (arguments, spawned(&cluster, arguments))).collect();
        for (arguments, one) in running {
            let output = one.join().unwrap();
            let what = format!("round {round}: {arguments:?}");
            is_sound(&output, &what);
            // Done, the cluster in use, none there (yet, or any more).
            assert!([0, 11, 85].contains(&output.code), "{what}: {} {}", output.code, output.stderr);
        }
    }
    cluster.start_again(&["--wait=node_ready"]).ok();
    cluster.kubectl(&["get", "nodes"]).ok();
}

fn purge_and_start() {
    let cluster = Cluster::prepare("purge");
    for round in 0..4 {
        let start = spawned(&cluster, &["start", "--driver=native", "--wait=none"]);
        std::thread::sleep(Duration::from_millis(200 * round));
        let others = [spawned(&cluster, &["delete", "--all", "--purge"]), spawned(&cluster, &["stop"])];
        for output in [start].into_iter().chain(others).map(|one| one.join().unwrap()) {
            is_sound(&output, &format!("round {round}"));
        }
    }
    cluster.kminik(&["delete"]).ok();
    cluster.start_again(&["--wait=none"]).ok();
    assert_eq!(host_word(&cluster), "Running");
}

fn half_deleted() {
    let cluster = Cluster::prepare("half");
    let mut refused = 0;
    for i in 0..5 {
        cluster.start_again(&["--wait=none"]).ok();
        let mut delete = cluster.command(&["delete"]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(40 + 90 * i));
        delete.kill().unwrap();
        delete.wait().unwrap();
        let told = cluster.start_again(&["--wait=none"]);
        is_sound(&told, "start of a half-deleted cluster");
        if told.code != 0 {
            refused += 1;
            assert!(told.fails(18).contains("was interrupted"));
        }
        cluster.kminik(&["delete"]).ok();
        for left in ["profiles", "machines"] {
            assert!(!cluster.home().join("home").join(left).join(&cluster.profile).exists(), "{left}, round {i}");
        }
    }
    assert!(refused > 0, "no round hit a deletion in its middle");
}

fn others_fail() {
    let cluster = Cluster::start("zz-others", &["--wait=none"]);
    // One that comes first, in an engine that is not there.
    let profiles = cluster.home().join("home/profiles");
    let config = std::fs::read(profiles.join(&cluster.profile).join("config.json")).unwrap();
    let mut lost: Value = serde_json::from_slice(&config).unwrap();
    lost["name"] = "aa-lost".into();
    lost["driver"] = "docker".into();
    lost["engine"] = serde_json::json!({"host": "unix:///nonexistent/docker.sock"});
    std::fs::create_dir(profiles.join("aa-lost")).unwrap();
    std::fs::write(profiles.join("aa-lost/config.json"), lost.to_string()).unwrap();
    assert_ne!(cluster.kminik(&["stop", "--all"]).code, 0);
    assert_eq!(host_word(&cluster), "Stopped");
    assert_ne!(cluster.kminik(&["delete", "--all", "--purge"]).code, 0);
    assert!(!profiles.join(&cluster.profile).exists() && profiles.join("aa-lost").exists());
    std::fs::remove_dir_all(profiles.join("aa-lost")).unwrap();
}

fn no_profile() {
    let cluster = Cluster::start("noprofile", &["--wait=node_ready"]);
    cluster.kubectl(&["create", "configmap", "of-the-old-one"]).ok();
    cluster.kminik(&["stop"]).ok();
    std::fs::remove_dir_all(cluster.home().join("home/profiles").join(&cluster.profile)).unwrap();
    let told = cluster.start_again(&["--wait=node_ready"]);
    assert!(told.stderr.contains("without a profile is there"), "{}", told.stderr);
    told.ok();
    cluster.kubectl(&["get", "configmap", "of-the-old-one"]).fails(1);
}

fn read_only() {
    let host = Arc::new(Host::new());
    let cluster = Cluster::on(&host, "readonly");
    let home = cluster.home().join("home");
    let remount = |how: &str| host.sh(&format!("mount -o remount,{how} {}", home.display())).ok();
    host.sh(&format!("mkdir -p {0} && mount -t tmpfs tmpfs {0}", home.display())).ok();
    remount("ro");
    assert!(cluster.start_again(&[]).fails(37).contains("HOST_HOME_PERMISSION"));
    for arguments in
        [&["config", "set", "cpus", "1"][..], &["mirror", "add", "https://m.example"], &["stop"], &["delete"]]
    {
        let told = cluster.kminik(arguments);
        is_sound(&told, &format!("{arguments:?}"));
        assert_ne!(told.code, 0, "{arguments:?}");
    }
    // What only looks works, also before anything was ever written.
    for arguments in [
        &["config", "view"][..],
        &["config", "defaults", "driver"],
        &["mirror", "list"],
        &["cache", "list"],
        &["cache", "info"],
        &["addons", "list"],
        &["version"],
    ] {
        cluster.kminik(arguments).ok();
    }
    is_sound(&cluster.kminik(&["profile", "list"]), "profile list");
    remount("rw");
    cluster.start_again(&["--wait=none"]).ok();
    eventually("the node to answer", || (cluster.kminik(&["image", "ls"]).code == 0).then_some(()));
    for command in [
        "status",
        "node list",
        "ip",
        "image ls",
        "addons list",
        "service list",
        "cache list",
        "logs",
        "kubectl -- get pods",
    ] {
        let mount = format!("mount --bind {0} {0} && mount -o remount,ro,bind {0}", home.display());
        let line = format!("{mount} && exec {} -p {} {command}", kminik_binary().display(), cluster.profile);
        let mut looks = cluster.command(&[]);
        let environment: Vec<_> = looks.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
        looks = host.command("unshare", &["-m", "sh", "-c", &line]);
        looks.envs(environment);
        let told = run(&mut looks, None);
        assert_eq!(told.code, 0, "{command}: {} {}", told.stdout, told.stderr);
    }
    // As long as it runs, files are open for writing and nobody can make the disk read-only.
    cluster.kminik(&["stop"]).ok();
    remount("ro");
    assert_eq!(host_word(&cluster), "Stopped", "what is there can be read");
    assert!(cluster.kminik(&["profile", "list"]).ok().contains(&cluster.profile));
    for arguments in [&["start", "--wait=none"][..], &["delete"]] {
        let told = cluster.kminik(arguments);
        is_sound(&told, &format!("{arguments:?}"));
        assert_ne!(told.code, 0, "{arguments:?}");
    }
    remount("rw");
    cluster.start_again(&["--wait=none"]).ok();
    cluster.delete().ok();
}

/// The command with its Nth call of this kind failing; `None` if it makes fewer. Its children are let be where `alone`.
fn with_fault(
    cluster: &Cluster,
    arguments: &[&str],
    call: &str,
    error: &str,
    when: usize,
    alone: bool,
) -> Option<Output> {
    let trace = cluster.home().join("trace");
    let inject = format!("inject={call}:error={error}:when={when}");
    let mut traced = command("strace", &["-qq", "-y", "-e", &format!("trace={call}"), "-e", &inject, "-o"]);
    traced.arg(&trace);
    if !alone {
        traced.arg("-f");
    }
    traced.arg(kminik_binary()).args(["-p", &cluster.profile]).args(arguments);
    traced.env("KMINIK_HOME", cluster.home().join("home")).env("KUBECONFIG", cluster.kubeconfig());
    let mut output = run(&mut traced, None);
    let text = std::fs::read_to_string(&trace).unwrap_or_default();
    let hit = text.lines().find(|line| line.contains("(INJECTED)"))?;
    if is_no_file(hit) {
        output.code = 0;
        output.stderr = hit.to_owned();
    }
    Some(output)
}

/// Calls that a kernel cannot fail in this way, and libraries end the process if it did: random numbers, and a thread's wake-up
/// by an eventfd.
fn is_no_file(hit: &str) -> bool {
    hit.contains("/dev/random") || hit.contains("/dev/urandom") || hit.contains(r#""\1\0\0\0\0\0\0\0", 8)"#)
}

/// Every file that is kept can be read, whatever failed.
#[track_caller]
fn is_whole(cluster: &Cluster, what: &str) {
    let home = cluster.home().join("home");
    let text = |path: &Path| std::fs::read_to_string(path).ok();
    for path in [home.join("config/config.json"), home.join("profiles").join(&cluster.profile).join("config.json")] {
        if let Some(text) = text(&path) {
            serde_json::from_str::<Value>(&text)
                .unwrap_or_else(|e| panic!("{what}: {}: {e}: {text:?}", path.display()));
        }
    }
    if let Some(text) = text(&home.join("mirrors.toml")) {
        text.parse::<toml::Table>().unwrap_or_else(|e| panic!("{what}: {e}: {text:?}"));
    }
    let kubeconfig = text(&cluster.kubeconfig()).unwrap_or_else(|| panic!("{what}: the kubeconfig is gone"));
    assert!(kubeconfig.contains("name: another"), "{what}: another's entry is lost: {kubeconfig:?}");
}

const CALLS: &[(&str, &str)] = &[
    ("openat", "EIO"),
    ("write", "ENOSPC"),
    ("fsync", "EIO"),
    ("rename", "EACCES"),
    ("mkdir", "EROFS"),
    ("read", "EIO"),
    ("statx", "EACCES"),
    ("unlink", "EPERM"),
    ("fchmod", "EPERM"),
];

const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\ncontexts:\n- name: another\n  context: {cluster: another, user: another}\n\
                          clusters: []\nusers: []\ncurrent-context: another\n";

fn faults_of_commands() {
    let cluster = Cluster::prepare("faults");
    std::fs::write(cluster.kubeconfig(), KUBECONFIG).unwrap();
    cluster.start_again(&["--wait=none"]).ok();
    cluster.kminik(&["stop"]).ok();
    let commands: &[&[&str]] = &[
        &["config", "set", "cpus", "1"],
        &["mirror", "add", "https://mirror.example"],
        &["update-context"],
        &["start", "--dry-run", "--driver=native"],
    ];
    let mut failed = 0;
    for arguments in commands {
        for (call, error) in CALLS {
            for when in 1..60 {
                let Some(output) = with_fault(&cluster, arguments, call, error, when, false) else { break };
                let what = format!("{arguments:?} with {call} {when} failing");
                is_sound(&output, &what);
                is_whole(&cluster, &what);
                failed += usize::from(output.code != 0);
            }
        }
        // The trouble is over.
        cluster.kminik(arguments).ok();
    }
    assert!(failed > 20, "faults are met: {failed}");
    cluster.start_again(&["--wait=none"]).ok();
}

fn faults_of_start() {
    let cluster = Cluster::prepare("startfault");
    std::fs::write(cluster.kubeconfig(), KUBECONFIG).unwrap();
    let profile = cluster.home().join("home/profiles").join(&cluster.profile);
    let mut failed = 0;
    for (call, error) in CALLS.iter().filter(|(call, _)| ["openat", "write", "fsync", "rename", "mkdir"].contains(call))
    {
        // Each of the first, then fewer and fewer: later ones are mostly of the same kind.
        let mut when = 1;
        while let Some(output) =
            with_fault(&cluster, &["start", "--driver=native", "--wait=none"], call, error, when, true)
        {
            let what = format!("start with {call} {when} failing");
            is_sound(&output, &what);
            is_whole(&cluster, &what);
            if output.code != 0 {
                failed += 1;
                let kept = std::fs::read_dir(&profile).into_iter().flatten().flatten().count();
                assert_eq!(kept, 0, "{what}: a profile stays: {}", output.stderr);
            }
            cluster.delete().ok();
            when += 1 + when / 3;
        }
    }
    assert!(failed > 5, "faults are met: {failed}");
    cluster.start_again(&["--wait=none"]).ok();
}

/// Of a cluster that is there: files, and the connection to the engine.
fn faults_on_docker() {
    /// Of the rounds; each has a stop and a start.
    const BUDGET: Duration = Duration::from_secs(30);
    let _engine = docker::Engine::get();
    let cluster = Cluster::prepare("dockerfault").of_driver("docker");
    std::fs::write(cluster.kubeconfig(), KUBECONFIG).unwrap();
    cluster.start_again(&["--wait=none"]).ok();
    eventually("the API", || (cluster.kubectl(&["create", "configmap", "kept"]).code == 0).then_some(()));
    let calls = [
        ("connect", "ECONNREFUSED"),
        ("openat", "EIO"),
        ("write", "ENOSPC"),
        ("recvfrom", "ECONNRESET"),
        ("rename", "EACCES"),
        ("fsync", "EIO"),
    ];
    let commands = [&["stop"][..], &["start", "--wait=none"]];
    let (started, mut failed) = (std::time::Instant::now(), 0);
    // The first call of each kind, then later and later ones, as far as the time goes.
    'rounds: for when in [1, 2, 3, 5, 8, 13, 21, 34] {
        for (call, error) in calls {
            for arguments in commands {
                if started.elapsed() > BUDGET {
                    break 'rounds;
                }
                let Some(output) = with_fault(&cluster, arguments, call, error, when, true) else { continue };
                let what = format!("{arguments:?} with {call} {when} failing");
                is_sound(&output, &what);
                is_whole(&cluster, &what);
                failed += usize::from(output.code != 0);
            }
        }
    }
    assert!(failed > 3, "faults are met: {failed}");
    // The trouble is over.
    cluster.start_again(&["--wait=node_ready"]).ok();
    cluster.kubectl(&["get", "configmap", "kept"]).ok();
}

/// A server that takes every connection and never says a word.
fn silent() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    port
}

fn ctrl_c() {
    let cluster = Cluster::prepare("ctrlcs");
    let home = cluster.home().join("home");
    let url = format!("http://127.0.0.1:{}", silent());
    let write = |path: &str, text: &str| {
        let path = home.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let preset = format!("\"dl.k8s.io\" = [{{ url = \"{url}\" }}]\n");
    write("presets.toml", &format!("format = 1\nupdated = \"2026-11\"\n[country.cn]\n[files.cn]\n{preset}"));
    let published = format!("version = '1'\nurls = ['{url}/x.yaml']\nsha256 = '{}'", "0".repeat(64));
    write("addons/slow/addon.toml", &format!("title = 'Slow'\n[[published]]\n{published}\n"));
    let interrupted = |arguments: &[&str]| {
        // No kubectl but the one that is to be fetched.
        let mut command = cluster.command(arguments);
        let mut child = command.env("PATH", "/nonexistent").stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(child.try_wait().unwrap(), None, "{arguments:?} does not wait");
        run(&mut self::command("kill", &["-INT", &child.id().to_string()]), None).ok();
        let asked = std::time::Instant::now();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && asked.elapsed().as_secs() < 10, "{arguments:?}: {output:?}");
        assert!(told.contains("MK_INTERRUPTED"), "{arguments:?}: {told}");
    };
    let mirror = format!("--registry-mirror={url}");
    interrupted(&["start", "--driver=native", "--base-image=slow:1", &mirror]);
    assert!(!home.join("profiles").join(&cluster.profile).exists(), "what start had made is undone");
    cluster.start_again(&["--wait=node_ready", "--image-mirror-country=cn", &mirror]).ok();
    let file = cluster.home().join("bundle.tar");
    for arguments in [
        &["cache", "add", "slow:1"][..],
        &["bundle", "create", file.to_str().unwrap(), "slow:1"],
        &["mirror", "test", "slow:1"],
        &["mirror", "update", &format!("{url}/list.toml")],
        &["image", "pull", "slow:1"],
        &["image", "load", "--remote", "slow:1"],
        &["addons", "enable", "slow"],
        &["kubectl", "--", "get", "nodes"],
    ] {
        interrupted(arguments);
    }
    assert!(!file.exists());
    let listed = cluster.kminik(&["addons", "list", "-o", "json"]).json();
    assert_eq!(listed["slow"]["Status"], "disabled");
    cluster.start_again(&["--wait=node_ready"]).ok();
    assert_eq!(cluster.kminik(&["status"]).code, 0);
}

fn full_cache() {
    let host = Arc::new(Host::new());
    let cluster = Cluster::on(&host, "fullcache");
    let home = cluster.home().join("home");
    host.sh(&format!("mkdir -p {0} && mount -t tmpfs -o size=4m tmpfs {0}", home.display())).ok();
    let (small, large) = (says("example.com/small:1", "small"), nginx());
    let load = |image: &ImageTar| cluster.kminik(&["bundle", "load", image.path().to_str().unwrap()]);
    load(&small).ok();
    for _ in 0..2 {
        let told = load(&large).fails(26);
        assert!(told.contains("RSRC_INSUFFICIENT_STORAGE") && told.contains("no space left"), "{told}");
        assert_eq!(cluster.kminik(&["cache", "list"]).ok(), "example.com/small:1\n");
    }
    host.sh(&format!("mount -o remount,size=64m {}", home.display())).ok();
    load(&large).ok();
    assert_eq!(cluster.kminik(&["cache", "list"]).ok().lines().count(), 2);
}

fn terminals() {
    let cluster = Cluster::prepare("terminal");
    let on_terminal = |before: &str, line: &str| {
        let line = format!("{before} exec {} -p {} {line}", kminik_binary().display(), cluster.profile);
        let mut script = command("script", &["-qec", &line, "/dev/null"]);
        script.env("KMINIK_HOME", cluster.home().join("home")).env("KUBECONFIG", cluster.kubeconfig());
        run(&mut script, None)
    };
    for (before, line) in [
        ("export TERM=dumb;", "start --driver=native --dry-run"),
        ("export NO_COLOR=1 TERM=xterm KMINIK_IN_STYLE=0;", "start --driver=native --dry-run"),
        ("export NO_COLOR=1 TERM=xterm;", "start --help"),
    ] {
        let told = on_terminal(before, line);
        assert!(!told.stdout.contains('\u{1b}') && !told.stdout.contains('😄'), "{before} {line}: {:?}", told.stdout);
        told.ok();
    }
    assert!(on_terminal("export TERM=xterm;", "start --driver=native --dry-run").stdout.contains('😄'));
    for columns in [1, 8, 20, 400] {
        for line in ["start --driver=native --dry-run", "config defaults driver", "start --help", "delete"] {
            let told = on_terminal(&format!("export TERM=xterm; stty cols {columns};"), line);
            is_sound(&told, &format!("{line} on {columns} columns"));
            assert_eq!(told.code, 0, "{line} on {columns} columns: {}", told.stdout);
        }
    }
}

fn clock() {
    let cluster = Cluster::start("clock", &["--wait=none"]);
    cluster.kminik(&["stop"]).ok();
    let pki = cluster.home().join("home/profiles").join(&cluster.profile).join("pki");
    let files = ["ca.crt", "ca.key"].map(|name| pki.join(name));
    let kept = files.each_ref().map(|file| std::fs::read(file).unwrap());
    // As ten years later.
    let ended = kminik_base::pki::Authority::generate("kminikCA", Duration::from_secs(1)).unwrap();
    for (file, pem) in files.iter().zip([ended.cert_pem(), ended.key_pem()]) {
        std::fs::write(file, pem).unwrap();
    }
    std::thread::sleep(Duration::from_secs(2));
    let told = cluster.start_again(&["--wait=none"]).fails(38);
    assert!(told.contains("HOST_CLOCK") && told.contains("this machine's clock says"), "{told}");
    for (file, content) in files.iter().zip(kept) {
        std::fs::write(file, content).unwrap();
    }
    cluster.start_again(&["--wait=none"]).ok();
}
