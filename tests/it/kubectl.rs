//! `kminik kubectl`: which program it is, and where it comes from. The programs are scripts of the test's own.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::Test;
use crate::support::{Cluster, Host, Output, eventually, kminik_binary, run};

pub const TESTS: &[Test] = &[("kubectl_is_the_cached_the_installed_or_the_published_one_that_fits", which)];

/// Says what it is, else its name, its arguments and where it is led to; fails with 42 when told so.
fn script(name: &str, version: &str) -> String {
    format!(
        "#!/bin/sh\ncase \"$1\" in\n\
         version) echo '{{\"clientVersion\": {{\"gitVersion\": \"{version}\"}}}}';;\n\
         fail) exit 42;;\n*) echo \"{name} $* $KUBECONFIG\";;\nesac\n"
    )
}

fn program(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

struct Setup {
    cluster: Cluster,
    /// The whole PATH.
    bin: tempfile::TempDir,
}

impl Setup {
    fn run(&self, command: &mut Command) -> Output {
        run(command.env("PATH", self.bin.path()), None)
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        self.run(&mut self.cluster.command(&[&["kubectl", "--"], arguments].concat()))
    }
}

fn which() {
    // A host without a network: what publishes kubectl is out of reach.
    let host = Arc::new(Host::new());
    let web = tempfile::tempdir().unwrap();
    let serve = || {
        host.sh(&format!("busybox httpd -p 127.0.0.1:8181 -h {}", web.path().display())).ok();
    };
    let setup = Setup { cluster: Cluster::on(&host, "kubectl"), bin: tempfile::tempdir().unwrap() };
    let cluster = &setup.cluster;
    // By which the test itself gets onto its host.
    symlink("/usr/bin/nsenter", setup.bin.path().join("nsenter")).unwrap();
    std::fs::create_dir_all(cluster.home().join("home")).unwrap();
    let presets = |first: u16| {
        let places =
            format!("  {{ url = \"http://127.0.0.1:{first}\" }},\n  {{ url = \"http://127.0.0.1:8181/\" }},\n");
        let text = format!(
            "format = 1\nupdated = \"2026-11\"\n[country.cn]\n\"docker.io\" = []\n[files.cn]\n\"dl.k8s.io\" = [\n{places}]\n"
        );
        std::fs::write(cluster.home().join("home/presets.toml"), text).unwrap();
    };
    presets(8180);
    cluster.start_again(&["--wait=none", "--image-mirror-country=cn", "--namespace=chosen"]).ok();

    // One on PATH that fits is used as it is, with the profile's own kubeconfig, and its exit code is passed on.
    let installed = setup.bin.path().join("kubectl");
    program(&installed, &script("installed", "v1.34.9"));
    let told = setup.kubectl(&["get", "pods"]).ok();
    assert!(told.starts_with("installed get pods ") && told.contains(&cluster.profile), "{told}");
    // In the namespace that its user has chosen, by start or since; `config` is about the user's own file.
    let namespace = || {
        let own = setup.kubectl(&["get"]).ok();
        std::fs::read_to_string(own.split_whitespace().last().unwrap()).unwrap()
    };
    assert!(namespace().contains("namespace: chosen"), "{}", namespace());
    let users = setup.kubectl(&["config", "view"]).ok();
    assert_eq!(users, format!("installed config view {}\n", cluster.kubeconfig().display()));
    let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    std::fs::write(cluster.kubeconfig(), text.replace("namespace: chosen", "namespace: since")).unwrap();
    assert!(namespace().contains("namespace: since"), "{}", namespace());
    setup.kubectl(&["fail"]).fails(42);
    assert!(!cluster.home().join("home/cache/linux").exists(), "nothing was fetched");

    // One that does not fit only where nobody serves another.
    program(&installed, &script("old", "v1.20.0"));
    let told = setup.kubectl(&["get"]);
    for word in [
        "127.0.0.1:8180",
        "dl.k8s.io",
        "kubectl is used in its place. It is v1.20.0: it may not understand Kubernetes v1.35.0",
    ] {
        assert!(told.stderr.contains(word), "{word}: {}", told.stderr);
    }
    assert!(told.ok().starts_with("old get"));
    let told = setup.kubectl(&["get"]);
    for word in [
        "kubectl v1.35.0 was out of reach 0 minutes ago",
        "127.0.0.1:8180",
        "dl.k8s.io",
        "kubectl is used in its place. It is v1.20.0",
    ] {
        assert!(told.stderr.contains(word), "{word}: {}", told.stderr);
    }
    assert!(!told.stderr.contains("Downloading"), "{}", told.stderr);
    assert!(told.ok().starts_with("old get"));
    presets(8182);
    let told = setup.kubectl(&["get"]);
    assert!(told.stderr.contains("127.0.0.1:8182"), "another place is asked at once: {}", told.stderr);
    presets(8180);
    std::fs::remove_file(&installed).unwrap();
    let told = setup.kubectl(&["get"]).fails(40);
    assert!(told.contains("INET_KUBECTL") && told.contains("127.0.0.1:8180") && told.contains("dl.k8s.io"), "{told}");

    // What a mirror serves has to have the digest that it names.
    let version = "v1.35.0";
    let served = web.path().join(format!("release/{version}/bin/linux/amd64/kubectl"));
    std::fs::create_dir_all(served.parent().unwrap()).unwrap();
    let content = script("fetched", version);
    std::fs::write(&served, format!("{content}# tampered with\n")).unwrap();
    std::fs::write(served.with_extension("sha256"), hex::encode(Sha256::digest(&content))).unwrap();
    serve();
    let told = eventually("the server", || {
        let output = setup.kubectl(&["get"]);
        output.stderr.contains("which is not what was published").then_some(output)
    });
    told.fails(40);
    std::fs::write(&served, &content).unwrap();
    assert!(setup.kubectl(&["get", "nodes"]).ok().starts_with("fetched get nodes"));
    std::fs::remove_file(&served).unwrap();
    assert!(setup.kubectl(&["get"]).ok().starts_with("fetched"), "the second time it is here");

    // Under the name of kubectl it is kubectl, and never takes itself for one.
    symlink(kminik_binary(), &installed).unwrap();
    let mut named = cluster.command(&[]);
    let environment: Vec<_> = named.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    named = host.command(installed.to_str().unwrap(), &["get", "--watch=false", "init"]);
    named.envs(environment).env("KMINIK_PROFILE", &cluster.profile);
    assert!(setup.run(&mut named).ok().starts_with("fetched get --watch=false init"));
}
