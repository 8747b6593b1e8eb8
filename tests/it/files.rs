//! Files and logs: to nodes, from nodes, and what there is to read of a cluster.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;

use crate::Test;
use crate::support::{Cluster, command, eventually, namespace, run, shared};

pub const TESTS: &[Test] = &[
    ("cp_takes_files_to_from_and_between_nodes", || cp(shared())),
    ("what_lies_in_files_is_in_the_node", sync),
    ("a_mount_shows_a_directory_until_it_ends", || mount(shared())),
    ("logs_have_every_section", || logs(shared())),
    ("who_follows_the_logs_sees_new_lines_until_ctrl_c", || follow(shared())),
    ("commands_are_in_the_audit_log", audit),
    ("exported_logs_lie_as_kinds_do", || export(shared())),
];

pub fn cp(cluster: &Cluster) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    // Larger than what a pipe holds, and no text.
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(path("big"), &content).unwrap();
    let node = &cluster.profile;
    assert_eq!(cluster.kminik(&["cp", &path("big"), "/tmp/cp/not/there/yet"]).ok(), "");
    cluster.kminik(&["cp", &format!("{node}:/tmp/cp/not/there/yet"), &path("back")]).ok();
    assert!(std::fs::read(path("back")).unwrap() == content);
    cluster.kminik(&["cp", &path("big"), &format!("{node}:/tmp/cp/into/")]).ok();
    cluster.kminik(&["cp", &format!("{node}:/tmp/cp/into/big"), &format!("{node}:/tmp/cp/twice")]).ok();
    cluster.kminik(&["cp", &format!("{node}:/tmp/cp/twice"), &format!("{}/", path("made"))]).ok();
    assert!(std::fs::read(path("made/twice")).unwrap() == content);
    let listed = cluster.kminik(&["ssh", "ls", "-l", "/tmp/cp/into/big"]).ok();
    assert!(listed.starts_with("-0644"), "{listed}");
    cluster.kminik(&["cp", &path("missing"), "/tmp/x"]).fails(35);
    cluster.kminik(&["cp", &path("big"), "relative"]).fails(14);
    cluster.kminik(&["cp", &path("big"), "no-such-node:/tmp/x"]).fails(85);
    cluster.kminik(&["cp", directory.path().to_str().unwrap(), "/tmp/x"]).fails(14);
    let told = cluster.kminik(&["cp", &format!("{node}:/no/such/file"), &path("none")]).fails(80);
    assert!(told.contains("GUEST_CP"), "{told}");
    assert!(!directory.path().join("none").exists(), "what was not copied leaves nothing");
}

fn sync() {
    let cluster = Cluster::prepare("sync");
    let file = cluster.home().join("home/files/etc/mine/deep/settings.conf");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "first").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    cluster.start_again(&["--wait=none"]).ok();
    let cat = || cluster.kminik(&["ssh", "cat", "/etc/mine/deep/settings.conf"]).ok();
    assert_eq!(cat(), "first");
    let listed = cluster.kminik(&["ssh", "ls", "-l", "/etc/mine/deep/settings.conf"]).ok();
    assert!(listed.starts_with("-0640"), "{listed}");
    std::fs::write(&file, "second").unwrap();
    cluster.start_again(&["--wait=none"]).ok();
    assert_eq!(cat(), "second", "also of one that runs");
    cluster.kminik(&["stop"]).ok();
    cluster.start_again(&["--wait=none"]).ok();
    assert_eq!(cat(), "second");
}

pub fn mount(cluster: &Cluster) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("hello"), "from the host").unwrap();
    let what = format!("{}:/mnt/shared", directory.path().display());
    let cat = || cluster.kminik(&["ssh", "cat", "/mnt/shared/hello"]).stdout;
    for options in ["rw", "ro"] {
        let mut child =
            cluster.command(&["mount", &what, "--options", options]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("Successfully mounted")));
        assert_eq!(cat(), "from the host");
        let node = |path: &str| format!("{}:{path}", cluster.profile);
        let copied = cluster.kminik(&["cp", &node("/etc/os-release"), &node("/mnt/shared/back")]);
        assert_eq!(copied.code == 0, options == "rw", "{}", copied.stderr);
        assert_eq!(directory.path().join("back").exists(), options == "rw", "{options}");
        let _ = std::fs::remove_file(directory.path().join("back"));
        run(&mut command("kill", &["-INT", &child.id().to_string()]), None).ok();
        assert!(child.wait().unwrap().success());
        assert_eq!(cat(), "", "after its end nothing is mounted");
    }
    cluster.kminik(&["mount", "/no/such/directory:/mnt"]).fails(35);
    cluster.kminik(&["mount", "/tmp"]).fails(14);
    cluster.kminik(&["mount", "/tmp:/mnt", "--options=exec"]).fails(14);
}

pub fn logs(cluster: &Cluster) {
    let text = cluster.kminik(&["logs"]).ok();
    let sections = [
        "Audit",
        "Last Start",
        "container status",
        "describe nodes",
        "console",
        "agent",
        "apiserver",
        "kubelet",
        "node",
        "kernel",
    ];
    for section in sections {
        assert!(text.contains(&format!("==> {section} <==\n")), "{section}: {text}");
    }
    assert!(text.contains("==> coredns [coredns"), "{text}");
    assert!(text.contains("Linux") && text.contains("Verifying Kubernetes components"), "{text}");
    let short = cluster.kminik(&["logs", "-n", "1", "--component=node"]).ok();
    assert_eq!(short.trim_end().lines().count(), 2, "{short}");
    cluster.kminik(&["logs", "--node", "no-such-node"]).fails(85);
    assert!(cluster.kminik(&["logs", "--component", "no-such-part"]).fails(14).contains("there are: apiserver, store"));
    let problems = cluster.kminik(&["logs", "--problems"]).ok();
    let harmless =
        |line: &&str| !line.starts_with("==>") && !line.is_empty() && !line.contains("WARN") && !line.contains("ERROR");
    assert_eq!(problems.lines().find(harmless), None, "only lines that tell of trouble");
    let last = cluster.kminik(&["logs", "--last-start-only"]).ok();
    assert!(last.starts_with("==> Last Start <==\n") && !last.contains("==> kubelet"), "{last}");
    let file = cluster.home().join("logs.txt");
    assert_eq!(cluster.kminik(&["logs", "--file", file.to_str().unwrap()]).ok(), "");
    assert!(std::fs::read_to_string(file).unwrap().contains("==> kubelet <=="));
}

pub fn follow(cluster: &Cluster) {
    let ns = namespace(cluster, "follow");
    // A length that nobody else asks for, by which it is found.
    let length = (40_000 + std::time::UNIX_EPOCH.elapsed().unwrap().subsec_micros() % 10_000).to_string();
    let in_node = || run(&mut command("pgrep", &["-f", &format!("node-logs --length {length}")]), None).code == 0;
    let mut child = cluster
        .command(&["logs", "-f", "-n", &length, "--component=kubelet"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "==> kubelet <==");
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: {ns}}}, spec: {{imagePullSecrets: [{{name: absent}}], \
         containers: [{{name: c, image: '127.0.0.1:1/none:1'}}]}}}}"
    ));
    let line = lines.find(|line| line.contains("pull secret not found") && line.contains(&ns));
    assert!(line.is_some(), "it goes on");
    assert!(in_node() && child.try_wait().unwrap().is_none());
    // Not by SIGINT: whoever runs the tests in the background may have it ignored in all that they start.
    run(&mut command("kill", &["-TERM", &child.id().to_string()]), None).ok();
    assert!(!child.wait().unwrap().success());
    eventually("its end in the node", || (!in_node()).then_some(()));
    cluster.kubectl(&["delete", "namespace", &ns, "--wait=false"]).ok();
}

fn audit() {
    let cluster = Cluster::prepare("audit");
    cluster.kminik(&["start", "--dry-run", "--driver=native", "--registry-mirror=https://me:secret@m.example"]).ok();
    cluster.kminik(&["config", "view", "--user=somebody"]).ok();
    cluster.kminik(&["config", "get", "cpus", "--skip-audit"]).fails(14);
    cluster.kminik(&["version"]).ok();
    let text = std::fs::read_to_string(cluster.home().join("home/logs/audit.json")).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 4, "a line for the begin and one for the end of two commands: {text}");
    assert_eq!(rows[0]["type"], "io.k8s.sigs.minikube.audit");
    assert_eq!((&rows[0]["data"]["command"], &rows[0]["data"]["endTime"]), (&"start".into(), &"".into()));
    assert_ne!(rows[1]["data"]["endTime"], "");
    assert_eq!(
        (&rows[3]["data"]["args"], &rows[3]["data"]["user"]),
        (&"view --user=somebody".into(), &"somebody".into())
    );
    let shown = cluster.kminik(&["logs", "--audit"]).ok();
    assert!(shown.starts_with("==> Audit <==\n") && shown.contains("│ config  │ view"), "{shown}");
    cluster.delete().ok();
    cluster.kminik(&["delete", "--all", "--purge"]).ok();
    assert!(!cluster.home().join("home").exists(), "a purged home stays away");
}

pub fn export(cluster: &Cluster) {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("logs");
    let told = cluster.kminik(&["export", "logs", target.to_str().unwrap()]).ok();
    assert_eq!(told, format!("{}\n", target.display()));
    let node = target.join(&cluster.profile);
    for file in [
        "inspect.json",
        "images.log",
        "journal.log",
        "kubelet.log",
        "containerd.log",
        "kubernetes-version.txt",
        "serial.log",
    ] {
        assert!(node.join(file).exists(), "{file}");
    }
    let token = std::fs::read_to_string(node.join("inspect.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&token).unwrap()["cacheToken"], "", "no secret is exported");
    assert!(std::fs::read_to_string(node.join("images.log")).unwrap().contains("busybox"));
    let pods: Vec<String> =
        std::fs::read_dir(node.join("pods")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let dns = pods.iter().find(|name| name.starts_with("kube-system_coredns")).expect("the logs of coredns");
    assert!(node.join("pods").join(dns).join("coredns/0.log").is_file());
    // Under sudo what it has made is the user's; what was there, and what links lead to, is not.
    let theirs = directory.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    let aside = directory.path().join("aside");
    for file in [&aside, &theirs.join("file")] {
        std::fs::write(file, "root's").unwrap();
    }
    std::os::unix::fs::symlink(&aside, theirs.join("link")).unwrap();
    std::os::unix::fs::symlink(&aside, theirs.join("agent.log")).unwrap();
    let mut export = cluster.command(&["export", "logs", theirs.to_str().unwrap()]);
    export.envs([("SUDO_UID", "65534"), ("SUDO_GID", "65534"), ("SUDO_USER", "nobody")]);
    run(&mut export, None).ok();
    let owner = |path: &std::path::Path| std::os::unix::fs::MetadataExt::uid(&std::fs::symlink_metadata(path).unwrap());
    for kept in [&theirs, &aside, &theirs.join("file"), &theirs.join("link")] {
        assert_eq!(owner(kept), 0, "{}", kept.display());
    }
    assert_eq!(std::fs::read_to_string(&aside).unwrap(), "root's");
    for made in ["agent.log", "kminik-version.txt", &cluster.profile, &format!("{}/pods", cluster.profile)] {
        assert_eq!(owner(&theirs.join(made)), 65534, "{made}");
    }
    let own = cluster.kminik(&["export", "logs"]).ok();
    assert!(std::path::Path::new(own.trim()).join("kminik-version.txt").exists());
    std::fs::remove_dir_all(own.trim()).unwrap();
    eventually("nothing of it on this machine's /tmp", || (!std::path::Path::new(own.trim()).exists()).then_some(()));
}
