//! What the command line says to bad input, without any cluster.

use crate::Test;
use crate::support::Cluster;

pub const TESTS: &[Test] = &[
    ("bad_input_is_refused_with_its_own_reason", bad_input),
    ("the_users_own_line_is_answered", users_line),
    ("a_dry_run_makes_nothing", dry_run),
    ("json_errors_are_events", json_errors),
    ("commands_without_a_cluster_say_so", no_cluster),
    ("version_completion_and_help", version),
];

fn bad_input() {
    let cluster = Cluster::prepare("bad");
    // (arguments, reason, exit code)
    let cases: &[(&[&str], &str, i32)] = &[
        (&["start", "--driver=vmwere"], "DRV_NOT_FOUND", 55),
        (&["start", "--driver=native", "--memory=20"], "RSRC_INSUFFICIENT_REQ_MEMORY", 23),
        (&["start", "--driver=native", "--memory=900t"], "RSRC_INSUFFICIENT_SYS_MEMORY", 23),
        (&["start", "--driver=native", "--memory=lots"], "MK_USAGE", 14),
        (&["start", "--driver=native", "--cpus=9999"], "RSRC_INSUFFICIENT_CORES", 29),
        (&["start", "--driver=native", "--registry-mirror=ftp://x"], "INET_BAD_MIRROR", 48),
        (&["start", "--driver=native", "--image-mirror-country=xx"], "INET_REPO", 40),
        (&["start", "--driver=native", "--kubernetes-version=v1.23.8"], "K8S_VERSION_UNAVAILABLE", 106),
        (&["start", "--driver=native", "--wait=everything"], "MK_USAGE", 14),
    ];
    for (arguments, reason, code) in cases {
        let told = cluster.kminik(arguments).fails(*code);
        assert!(told.contains(&format!("Exiting due to {reason}")), "{arguments:?}: {told}");
    }
    cluster.kminik(&["start", "--no-such-flag"]).fails(14);
    cluster.kminik(&["service", "x", "--wait=18446744073709551615"]).fails(14);
    cluster.kminik(&["start", "-p", "list", "--dry-run", "--driver=native"]).fails(14);
    cluster.kminik(&["start", "--driver=native", "--dry-run", "--wait=extra"]).ok();
    let mut named = crate::support::command(crate::support::kminik_binary(), &["start", "-p", "../evil"]);
    named.env("KMINIK_HOME", cluster.home().join("home"));
    assert!(crate::support::run(&mut named, None).fails(14).contains("MK_BAD_PROFILE_NAME"));
    assert!(!cluster.home().join("home/profiles").exists(), "refused starts leave no profile");
}

fn users_line() {
    let cluster = Cluster::prepare("line");
    let line = [
        "start",
        "--no-vtx-check",
        "--vm-driver=docker",
        "--base-image=anjone/kicbase",
        "--image-mirror-country=cn",
        "--registry-mirror=https://mirror.example",
        "--kubernetes-version=v1.23.8",
    ];
    let told = cluster.kminik(&line).fails(106);
    assert!(told.contains("--no-vtx-check has no meaning here"), "{told}");
    assert!(told.contains("K8S_VERSION_UNAVAILABLE") && told.contains("--kubernetes-version=v1.35.0"), "{told}");
}

fn dry_run() {
    let cluster = Cluster::prepare("dry");
    let told = cluster.kminik(&["start", "--driver=native", "--dry-run"]);
    assert!(told.stderr.contains("dry-run validation complete!"), "{}", told.stderr);
    told.ok();
    assert!(!cluster.home().join("home/profiles").exists());
    assert!(!cluster.kubeconfig().exists());
}

fn json_errors() {
    let cluster = Cluster::prepare("json");
    let output = cluster.kminik(&["start", "-o", "json", "--driver=native", "--kubernetes-version=v9"]);
    assert_eq!(output.code, 106);
    let last = output.stdout.lines().last().unwrap();
    let event: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(event["type"], "io.k8s.sigs.minikube.error");
    assert_eq!(event["data"]["name"], "K8S_VERSION_UNAVAILABLE");
    assert_eq!(event["data"]["exitcode"], "106");
}

fn no_cluster() {
    let cluster = Cluster::prepare("none");
    for command in [&["status"][..], &["ip"], &["stop"], &["logs"], &["image", "ls"], &["ssh", "true"]] {
        let told = cluster.kminik(command).fails(85);
        assert!(told.contains("To start a cluster, run"), "{command:?}: {told}");
    }
    cluster.kminik(&["profile", "list"]).fails(14);
    let told = cluster.kminik(&["delete"]);
    assert!(told.stderr.contains("does not exist, trying anyways"), "{}", told.stderr);
    told.ok();
}

fn version() {
    let cluster = Cluster::prepare("version");
    let short = cluster.kminik(&["version", "--short"]).ok();
    assert!(short.starts_with('v') && short.trim().split('.').count() == 3, "{short}");
    let told = cluster.kminik(&["help", "image", "load"]).ok();
    assert!(told.contains("Usage: kminik image load"), "{told}");
    let chinese = |arguments: &[&str]| {
        let mut command = cluster.command(arguments);
        crate::support::run(command.env("LC_ALL", "zh_CN.UTF-8"), None)
    };
    let told = chinese(&["start", "--help"]).ok();
    assert!(told.contains("用法：kminik start") && told.contains("只检查，不创建任何内容"), "{told}");
    assert!(chinese(&["start", "--no-such-flag"]).fails(14).contains("错误：不认识的参数 '--no-such-flag'"));
    assert_eq!(chinese(&["--version"]).ok(), cluster.kminik(&["--version"]).ok());
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(cluster.kminik(&["completion", shell]).ok().contains("kminik"), "{shell}");
    }
}
