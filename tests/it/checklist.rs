//! Rows of minikube's functional checklist that no other test shows; docs/CHECKLIST.md says for each row which one does.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Test;
use crate::docker::Engine;
use crate::support::{Cluster, Output, command, eventually, run, says, shared};

pub const TESTS: &[Test] = &[
    ("the_pages_name_tests_that_are_there", pages),
    ("a_second_start_keeps_what_the_first_was_given", soft_start),
    ("an_app_and_its_addon_live_through_stop_and_start", || start_stop("native")),
    ("an_app_and_its_addon_live_through_stop_and_start_on_docker", || {
        let _engine = Engine::get();
        start_stop("docker");
    }),
    ("commands_that_go_well_have_no_warnings", no_noise),
    ("json_output_of_every_command_is_events", events),
    ("cached_images_come_into_the_cluster", cached),
    ("an_image_loaded_again_is_what_the_next_pod_runs", reloaded),
    ("what_is_said_is_said_in_the_users_language", language),
    ("the_api_s_certificate_has_every_name_it_is_reached_by", names_of_the_api),
    ("the_node_is_labelled_as_minikubes", labels),
    ("a_profile_is_listed_fast_and_light", light),
];

fn pages() {
    let there = |name: &str| {
        let (module, test) = name.split_once("::").unwrap();
        crate::TABLES.iter().any(|(table, tests)| *table == module && tests.iter().any(|(name, _)| *name == test))
    };
    for (page, text, least) in [
        ("docs/CHECKLIST.md", include_str!("../../docs/CHECKLIST.md"), 40),
        ("docs/DRIVERS.md", include_str!("../../docs/DRIVERS.md"), 15),
    ] {
        let named: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|code| code.contains("::")).collect();
        assert!(named.len() > least, "{named:?}");
        let missing: Vec<&str> = named.into_iter().filter(|name| !there(name)).collect();
        assert!(missing.is_empty(), "{page} names tests that are not there: {missing:?}");
    }
}

fn config(cluster: &Cluster) -> Value {
    let path = cluster.home().join("home/profiles").join(&cluster.profile).join("config.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn soft_start() {
    let cluster = Cluster::prepare("soft");
    let policy = cluster.home().join("policy.yaml");
    std::fs::write(&policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n").unwrap();
    let given = [
        &format!("--extra-config=apiserver.audit-policy-file={}", policy.display()),
        "--cpus=1",
        "--memory=1100mb",
        "--embed-certs",
        "--registry-mirror=https://mirror.example",
        "--insecure-registry=192.0.2.0/24",
        "--extra-config=apiserver.audit-log-path=/var/log/audit.log",
        "--wait=node_ready",
    ];
    cluster.start_again(&given).ok();
    let first = config(&cluster);
    assert_eq!((&first["cpus"], &first["memoryMib"], &first["embedCerts"]), (&1.into(), &1100.into(), &true.into()));
    let capacity = || cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].status.capacity.cpu}"]).ok();
    assert_eq!(capacity(), "1");
    for stopped in [false, true] {
        if stopped {
            cluster.kminik(&["stop"]).ok();
        }
        cluster.start_again(&["--wait=node_ready"]).ok();
        let mut again = config(&cluster);
        // What a start may learn anew.
        again["kminikVersion"] = first["kminikVersion"].clone();
        assert_eq!(again, first, "stopped: {stopped}");
        assert_eq!(capacity(), "1");
    }
}

/// The other lines of a `start`, `stop` …: what is amiss is told by these marks.
fn is_quiet(output: &Output) -> bool {
    !output.stderr.contains('❗') && !output.stderr.contains("❌") && !output.stderr.contains("Exiting due to")
}

fn start_stop(driver: &str) {
    let cluster = Cluster::prepare(&format!("startstop-{driver}"));
    let start = [&format!("--driver={driver}"), "--embed-certs"];
    cluster.start_again(&start).ok();
    assert!(std::fs::read_to_string(cluster.kubeconfig()).unwrap().contains("client-certificate-data"));
    cluster.load(&says("example.com/app:1", "first"));
    cluster.kubectl(&["create", "deployment", "app", "--image=example.com/app:1"]).ok();
    cluster.kubectl(&["rollout", "status", "deployment/app", "--timeout=60s"]).ok();
    // An addon while it runs, another while it does not.
    for (addon, what) in [("running", "--images="), ("stopped", "--registries=")] {
        let folder = cluster.home().join("home/addons").join(addon);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("addon.toml"), "title = 'One object'").unwrap();
        let map = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: of-{addon}}}}}");
        std::fs::write(folder.join("map.yaml"), map).unwrap();
        if addon == "stopped" {
            assert!(is_quiet(&cluster.kminik(&["stop"])));
            assert_eq!(cluster.kminik(&["status", "--format={{.Host}}"]).stdout, "Stopped\n");
        }
        // The names are none of theirs, which is told and no failure.
        cluster.kminik(&["addons", "enable", addon, &format!("{what}Nobody=x")]).ok();
    }
    cluster.start_again(&start).ok();
    cluster.kubectl(&["rollout", "status", "deployment/app", "--timeout=60s"]).ok();
    cluster.kubectl(&["get", "configmap", "of-running", "of-stopped"]).ok();
    let listed = cluster.kminik(&["image", "ls"]).ok();
    assert!(listed.lines().any(|line| line == "example.com/app:1"), "{listed}");

    cluster.kminik(&["pause"]).ok();
    assert_eq!(cluster.kminik(&["status", "--format={{.APIServer}}"]).stdout, "Paused\n");
    cluster.kminik(&["unpause"]).ok();
    eventually("the cluster to be well", || (cluster.kminik(&["status"]).code == 0).then_some(()));
    cluster.kubectl(&["rollout", "status", "deployment/app", "--timeout=60s"]).ok();
    assert!(cluster.kminik(&["ssh", "cat", "/etc/hostname"]).ok().trim().eq_ignore_ascii_case(&cluster.profile));
    cluster.delete().ok();
    let profiles = cluster.kminik(&["profile", "list", "-o", "json"]);
    assert!(!profiles.stdout.contains(&cluster.profile), "{profiles:?}");
}

fn no_noise() {
    let cluster = Cluster::prepare("quiet");
    let steps = |output: &Output| output.stderr.lines().filter(|line| !line.starts_with(' ')).count();
    let commands: &[&[&str]] = &[
        &["start", "--driver=native"],
        &["start"],
        &["status"],
        &["addons", "list"],
        &["image", "ls"],
        &["pause"],
        &["unpause"],
        &["stop"],
        &["start"],
        &["stop"],
        &["delete"],
    ];
    for arguments in commands {
        let output = cluster.kminik(arguments);
        assert!(is_quiet(&output) && steps(&output) <= 12, "{arguments:?}: {}", output.stderr);
        output.ok();
    }
}

fn events() {
    let cluster = Cluster::prepare("cloudevents");
    let commands: &[&[&str]] =
        &[&["start", "--driver=native", "--wait=node_ready"], &["pause"], &["unpause"], &["stop"], &["delete"]];
    for arguments in commands {
        let text = cluster.kminik(&[arguments, &["-o", "json"][..]].concat()).ok();
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut ids = BTreeSet::new();
        for event in &events {
            assert_eq!(event["specversion"], "1.0", "{event}");
            assert_eq!(event["datacontenttype"], "application/json", "{event}");
            assert!(event["source"].as_str().is_some_and(|source| source.starts_with("https://")), "{event}");
            assert!(ids.insert(event["id"].as_str().unwrap().to_owned()), "{event}");
        }
        let steps = events.iter().filter(|event| event["type"] == "io.k8s.sigs.minikube.step");
        let steps: Vec<u32> =
            steps.map(|event| event["data"]["currentstep"].as_str().unwrap().parse().unwrap()).collect();
        assert!(!steps.is_empty() && steps.windows(2).all(|pair| pair[0] < pair[1]), "{arguments:?}: {steps:?}");
    }
}

fn cached() {
    let cluster = shared();
    let (name, image) = ("example.com/cached:1", says("example.com/cached:1", "cached"));
    let has = || cluster.kminik(&["image", "ls"]).ok().lines().any(|line| line == name);
    // Into the cache from an archive, as a bundle is.
    cluster.kminik(&["bundle", "load", image.path().to_str().unwrap()]).ok();
    assert!(cluster.kminik(&["cache", "list"]).ok().lines().any(|line| line == name));
    assert!(!has());
    let formatted = cluster.kminik(&["cache", "list", "--format=- {{.CacheImage}}"]).ok();
    assert!(formatted.contains(&format!("- {name}\n")), "{formatted}");
    cluster.kminik(&["cache", "reload"]).ok();
    assert!(has());
    cluster.kminik(&["image", "rm", name]).ok();
    assert!(!has());
    cluster.kminik(&["image", "load", "--remote", name]).ok();
    assert!(has(), "from the cache, for nobody else has it");
    cluster.kminik(&["cache", "delete", name]).ok();
    assert!(!cluster.kminik(&["cache", "list"]).ok().contains(name));
    assert!(has(), "a cluster keeps what it has");
    cluster.kminik(&["image", "rm", name]).ok();
}

fn reloaded() {
    let cluster = shared();
    let name = "example.com/changing:1";
    let pod = |pod: &str| {
        cluster.kubectl(&["run", pod, "--image", name, "--image-pull-policy=IfNotPresent"]).ok();
        cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]).ok();
    };
    let answer = |pod: &str| cluster.kubectl(&["exec", pod, "--", "cat", "/says"]).ok();
    cluster.load(&says(name, "first"));
    pod("before");
    // Loaded while a pod runs it.
    cluster.load(&says(name, "second"));
    pod("after");
    assert_eq!((answer("before").as_str(), answer("after").as_str()), ("first", "second"));
    cluster.kubectl(&["delete", "pod", "before", "after", "--grace-period=0", "--force"]).ok();
    cluster.kminik(&["image", "rm", name]).ok();
}

fn language() {
    let cluster = Cluster::prepare("language");
    let dry_run = |locale: &str| {
        let mut start = cluster.command(&["start", "--driver=native", "--dry-run"]);
        let told = run(start.env("LC_ALL", locale), None);
        assert_eq!(told.code, 0, "{told:?}");
        told.stderr
    };
    assert!(dry_run("zh_CN.UTF-8").contains("试运行检查完成！"));
    for locale in ["C.UTF-8", "fr_FR.UTF-8", "nonsense"] {
        assert!(dry_run(locale).contains("dry-run validation complete!"), "{locale}");
    }
    let mut refused = cluster.command(&["start", "--driver=native", "--dry-run", "--memory=250MB"]);
    let told = run(refused.env("LC_ALL", "zh_CN.UTF-8"), None).fails(23);
    assert!(told.contains("RSRC_INSUFFICIENT_REQ_MEMORY") && told.contains("节点至少需要"), "{told}");
}

fn names_of_the_api() {
    let cluster = shared();
    let address = cluster.kminik(&["ip"]).ok();
    let connect = format!("{}:8443", address.trim());
    let shown = run(&mut command("openssl", &["s_client", "-connect", &connect]), Some(b"")).stdout;
    let text = run(&mut command("openssl", &["x509", "-noout", "-ext", "subjectAltName"]), Some(shown.as_bytes())).ok();
    let name = |name: &str| format!("DNS:{name}");
    let mut wanted: Vec<String> = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        &cluster.profile,
    ]
    .map(name)
    .into();
    wanted.extend(["127.0.0.1", "10.96.0.1", address.trim()].map(|address| format!("IP Address:{address}")));
    let has: BTreeSet<&str> = text.split([',', '\n']).map(str::trim).collect();
    for one in &wanted {
        assert!(has.contains(one.as_str()), "{one}: {text}");
    }
    // A client that checks names reaches it by each of the host's.
    for host in ["localhost", "127.0.0.1"] {
        let server = format!("--server=https://{host}:8443");
        let told = cluster.kubectl(&["get", "--raw", "/readyz", &server]);
        // The port of this machine may be another cluster's.
        if told.code == 0 {
            assert_eq!(told.stdout, "ok");
        } else {
            assert!(!told.stderr.contains("not valid for"), "{}", told.stderr);
        }
    }
}

fn labels() {
    let cluster = shared();
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "json"]).json();
    let labels = &nodes["items"][0]["metadata"]["labels"];
    assert_eq!(labels["minikube.k8s.io/name"], cluster.profile.as_str(), "{labels}");
    assert_eq!(labels["minikube.k8s.io/primary"], "true", "{labels}");
    let version = cluster.kminik(&["version", "--short"]).ok();
    assert_eq!(labels["minikube.k8s.io/version"], version.trim(), "{labels}");
}

fn light() {
    let cluster = shared();
    let asked = std::time::Instant::now();
    let listed = cluster.kminik(&["profile", "list", "-o", "json", "--light"]).json();
    assert!(asked.elapsed().as_secs() < 3, "{:?}", asked.elapsed());
    assert_eq!(listed["valid"][0]["Status"], "Skipped", "{listed}");
}
