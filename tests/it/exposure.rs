//! Where a cluster is found, what of this machine its nodes see, and what they may use: as asked for, and changed while it runs.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Test;
use crate::support::{Cluster, Host, busybox, eventually, nginx};

pub const TESTS: &[Test] = &[
    ("a_cluster_is_where_it_is_wanted_and_follows_changes", wanted),
    ("networks_domain_and_port_inside_are_as_asked_for", inside),
    ("limits_of_a_running_node_change", || limits(&Cluster::start("limits", &["--cpus=2", "--memory=2g"]))),
    ("a_machine_that_others_removed_is_told_of", lost),
];

pub const WEB: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {terminationGracePeriodSeconds: 0, \
     containers: [{name: nginx, image: 'nginx:latest', imagePullPolicy: IfNotPresent}]}}\n---\n\
     {apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 30085}]}}";

fn wanted() {
    let host = Arc::new(Host::new());
    let outside = host.with_outside();
    let cluster = Cluster::on(&host, "where");
    for (arguments, code, reason) in [
        (&["--static-ip=8.8.8.8"][..], 14, "not a private address"),
        (&["--static-ip=192.168.90.1"], 14, "gateway"),
        (&["--subnet=203.0.113.0/25"], 78, "IF_SUBNET"),
        (&["--subnet=192.168.90.0/31"], 14, "--subnet"),
        (&["--ports=80:90:100:110"], 14, "--ports"),
        (&["--mount-string=/no/such/path:/mnt"], 35, "HOST_PATH_MISSING"),
    ] {
        let told = cluster.start_again(arguments).fails(code);
        assert!(told.contains(reason), "{told}");
    }
    let directory = cluster.home().join("shared");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("hello"), "from the host").unwrap();
    let mount = format!("{}:/mnt/shared:ro", directory.display());
    cluster
        .start_again(&[
            "--subnet=192.168.90.0/24",
            "--static-ip=192.168.90.77",
            "--listen-address=203.0.113.2",
            "--ports=8088:30085,127.0.0.1:8089:30085",
            "--apiserver-names=dev.example",
            "--mount-string",
            &mount,
        ])
        .ok();
    assert_eq!(cluster.kminik(&["ip"]).ok(), "192.168.90.77\n");
    cluster.load(&nginx());
    cluster.apply(WEB);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]).ok();
    let answers = |from: &Host, url: &str| {
        from.sh(&format!("curl -sS --noproxy '*' --max-time 3 {url}")).stdout.contains("nginx works").then_some(())
    };
    eventually("the published port, from outside", || answers(&outside, "http://203.0.113.2:8088"));
    eventually("one with an address of its own", || answers(&host, "http://127.0.0.1:8089"));
    assert!(answers(&outside, "http://203.0.113.2:8089").is_none(), "and there only");
    let authority = cluster.home().join(format!("home/profiles/{}/pki/ca.crt", cluster.profile));
    let api = |address: &str| {
        let script = format!(
            "curl -sS --noproxy '*' --cacert {} --resolve dev.example:8443:{address} https://dev.example:8443/readyz",
            authority.display()
        );
        outside.sh(&script).stdout
    };
    assert_eq!(api("203.0.113.2"), "ok", "the API is there too, by its further name");
    assert_eq!(cluster.kminik(&["ssh", "cat", "/mnt/shared/hello"]).ok(), "from the host");
    assert_ne!(cluster.kminik(&["ssh", "touch", "/mnt/shared/new"]).code, 0, "it is read-only");

    // Without a stop: another port, another mount, and what cannot be changed is said.
    let mount = format!("{}:/mnt/other", directory.display());
    let told = cluster.start_again(&[
        "--ports=8090:30085",
        "--mount-string",
        &mount,
        "--static-ip=192.168.90.78",
        "--insecure-registry=192.0.2.0/24,198.51.100.7:5000",
    ]);
    assert!(told.stderr.contains("--static-ip of an existing cluster cannot be changed"), "{}", told.stderr);
    told.ok();
    eventually("the other port", || answers(&outside, "http://203.0.113.2:8090"));
    eventually("the end of the first", || answers(&outside, "http://203.0.113.2:8088").is_none().then_some(()));
    assert_eq!(cluster.kminik(&["ssh", "cat", "/mnt/other/hello"]).ok(), "from the host");
    assert_eq!(cluster.kminik(&["ssh", "ls", "/mnt/shared"]).ok().trim(), "", "it is gone");
    let kept = |pointer: &str| {
        let file = cluster.home().join(format!("home/profiles/{}/config.json", cluster.profile));
        let profile: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        profile.pointer(pointer).cloned().unwrap_or_default()
    };
    assert_eq!(kept("/registries/insecure"), json!(["192.0.2.0/24", "198.51.100.7:5000"]));

    // Of two mounts one cannot be made where a file is in its way: the other is there, and it is tried again.
    let file = directory.join("hello");
    cluster.kminik(&["cp", file.to_str().unwrap(), "/var/tmp/in-the-way"]).ok();
    let blocked = format!("{}:/var/tmp/in-the-way/dir", directory.display());
    let told = cluster.start_again(&["--mount-string", &blocked, "--mount-string", &mount]);
    assert!(told.stderr.contains("is not shown in the nodes that run"), "{}", told.stderr);
    told.ok();
    assert_eq!(cluster.kminik(&["ssh", "cat", "/mnt/other/hello"]).ok(), "from the host");
    assert_eq!(kept("/shownMounts/0/target"), "/mnt/other");
    let machine = cluster.home().join("home/machines").join(&cluster.profile);
    std::fs::remove_file(machine.join("data/tmp/in-the-way")).unwrap();
    cluster.start_again(&[]).ok();
    assert_eq!(cluster.kminik(&["ssh", "cat", "/var/tmp/in-the-way/dir/hello"]).ok(), "from the host");
    assert_eq!(kept("/shownMounts"), Value::Null);
    cluster.start_again(&["--mount-string", &mount]).ok();
    cluster.kubectl(&["config", "set-context", "--current", "--namespace=kube-system"]).ok();
    cluster.kminik(&["stop"]).ok();
    let told = cluster.start_again(&[]);
    assert!(told.stderr.contains("\"kube-system\" namespace by default"), "{}", told.stderr);
    told.ok();
    assert_eq!(cluster.kminik(&["ssh", "cat", "/mnt/other/hello"]).ok(), "from the host", "a mount outlives a stop");
    let cleared = ["--mount-string=", "--insecure-registry=", "--apiserver-names=", "--namespace=default"];
    let told = cluster.start_again(&cleared);
    assert!(told.stderr.contains("\"default\" namespace by default"), "{}", told.stderr);
    told.ok();
    assert_eq!(cluster.kminik(&["ip"]).ok(), "192.168.90.77\n");
    eventually("the port after the restart", || answers(&outside, "http://203.0.113.2:8090"));
    assert_ne!(cluster.kminik(&["ssh", "cat", "/mnt/other/hello"]).code, 0, "none is mounted any more");
    assert_eq!((kept("/registries/insecure"), kept("/exposure/apiNames")), (json!([]), Value::Null));
}

fn inside() {
    let host = Arc::new(Host::new());
    let _outside = host.with_outside();
    let cluster = Cluster::on(&host, "inside");
    for (arguments, code, reason) in [
        (&["--service-cluster-ip-range=10.0.0.0/8"][..], 14, "/12 to /24"),
        (&["--service-cluster-ip-range=10.244.7.0/24"], 14, "network of pods"),
        (&["--service-cluster-ip-range=203.0.113.0/24"], 78, "IF_SUBNET"),
        (&["--service-cluster-ip-range=10.43.0.0/16", "--subnet=10.43.9.0/24"], 78, "10.43.0.0/16"),
        (&["--dns-domain=a_b"], 14, "DNS name"),
        (&["--apiserver-name=a b"], 14, "DNS name"),
        (&["--apiserver-names=*.*.dev"], 14, "DNS name"),
        (&["--apiserver-port=30001"], 14, "30000 to 32767"),
        (&["--network=other"], 14, "the native driver makes a network of its own"),
    ] {
        let told = cluster.start_again(arguments).fails(code);
        assert!(told.contains(reason), "{arguments:?}: {told}");
    }
    let wanted = [
        "--nodes=2",
        "--service-cluster-ip-range=10.43.7.0/24",
        "--dns-domain=corp.example",
        "--apiserver-port=6443",
        "--apiserver-name=localhost",
    ];
    cluster.start_again(&wanted).ok();
    let server =
        || cluster.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok();
    assert_eq!(server(), "https://localhost:6443");
    let of = |service: &str| {
        cluster
            .kubectl(&[
                "get",
                "service",
                "-A",
                "-o",
                &format!("jsonpath={{.items[?(@.metadata.name==\"{service}\")].spec.clusterIP}}"),
            ])
            .ok()
    };
    assert_eq!((of("kubernetes").as_str(), of("kube-dns").as_str()), ("10.43.7.1", "10.43.7.10"));
    let issuer = cluster.kubectl(&["get", "--raw", "/.well-known/openid-configuration"]).ok();
    assert!(issuer.contains("\"https://kubernetes.default.svc.corp.example\""), "{issuer}");
    cluster.load(&busybox());
    // On the worker, which joined by that port.
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: client}}, spec: {{nodeName: {}-m02, containers: [{{name: c, \
         image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sleep, '3600']}}]}}}}",
        cluster.profile
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]).ok();
    let lookup = |name: &str| cluster.kubectl(&["exec", "client", "--", "nslookup", name]).stdout;
    eventually("the name", || lookup("kubernetes.default.svc.corp.example").contains("10.43.7.1\n").then_some(()));
    let resolver = cluster.kubectl(&["exec", "client", "--", "cat", "/etc/resolv.conf"]).ok();
    assert!(resolver.contains("nameserver 10.43.7.10") && resolver.contains(" svc.corp.example"), "{resolver}");
    assert!(!lookup("kubernetes.default.svc.cluster.local").contains("10.43.7.1\n"), "no other domain");
    cluster.kminik(&["addons", "enable", "registry"]).ok();
    assert_eq!(of("registry"), "10.43.7.15", "of those that no other Service gets by itself");

    // It stays so, and who asks for something else is told.
    let told =
        cluster.start_again(&["--dns-domain=other.example", "--apiserver-port=8443", "--apiserver-name=localhost"]);
    for flag in ["--dns-domain", "--apiserver-port"] {
        assert!(told.stderr.contains(&format!("{flag} of an existing cluster cannot be changed")), "{}", told.stderr);
    }
    assert!(!told.stderr.contains("--apiserver-name of"), "{}", told.stderr);
    cluster.kminik(&["stop"]).ok();
    cluster.start_again(&[]).ok();
    assert_eq!((server().as_str(), of("kubernetes").as_str()), ("https://localhost:6443", "10.43.7.1"));
    assert!(cluster.kminik(&["update-context"]).ok().is_empty());
    assert!(cluster.kminik(&["status"]).ok().contains("kubeconfig: Configured"));
}

/// Of a cluster of two cores and 2 GiB.
pub fn limits(cluster: &Cluster) {
    let node = || cluster.json(&["get", "nodes"]);
    let capacity = || node()["items"][0]["status"]["capacity"].clone();
    assert_eq!((&capacity()["cpu"], &capacity()["memory"]), (&"2".into(), &"2Gi".into()));
    let pods = || cluster.kubectl(&["get", "pods", "-A", "-o", "jsonpath={..restartCount}"]).ok();
    let before = pods();
    let told = cluster.start_again(&["--cpus=1", "--memory=1200mb"]);
    assert!(told.stderr.contains("The node may now use CPUs=1, Memory=1200MB"), "{}", told.stderr);
    told.ok();
    eventually("the node to say so", || (capacity()["cpu"] == "1" && capacity()["memory"] == "1200Mi").then_some(()));
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max";
    assert_eq!(cluster.kminik(&["ssh", limit]).ok().trim(), (1200_u64 << 20).to_string());
    assert_eq!(pods(), before, "no container was restarted");
    cluster.start_again(&[]).ok();
    assert_eq!(capacity()["cpu"], "1", "it is kept");
}

fn lost() {
    let cluster = Cluster::start("lost", &["--wait=none"]);
    cluster.kminik(&["stop"]).ok();
    std::fs::remove_dir_all(cluster.home().join("home/machines").join(&cluster.profile)).unwrap();
    told_of_loss(&cluster);
}

/// Of a cluster whose machine is gone with its data.
pub fn told_of_loss(cluster: &Cluster) {
    let told = cluster.start_again(&[]).fails(85);
    assert!(told.contains("GUEST_DATA_LOST") && told.contains("--force"), "{told}");
    let told = cluster.start_again(&["--force"]);
    assert!(told.stderr.contains("is gone"), "{}", told.stderr);
    told.ok();
    cluster.kubectl(&["get", "nodes"]).ok();
    cluster.start_again(&[]).ok();
}
