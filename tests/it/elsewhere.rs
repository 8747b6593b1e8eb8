//! An engine on another machine: a network and mounts of its own, reached by TCP with TLS and by ssh.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::Test;
use crate::exposure::WEB;
use crate::support::{Cluster, Host, command, eventually, nginx, run};

pub const TESTS: &[Test] = &[("an_engine_on_another_machine", another_machine)];

/// Of the machine, as the other one sees it.
const ADDRESS: &str = "203.0.113.1";

/// A machine with an engine and a server of ssh, and the one from which it is used.
struct Elsewhere {
    near: Arc<Host>,
    far: Host,
    directory: tempfile::TempDir,
    daemons: Vec<Child>,
}

impl Elsewhere {
    fn new() -> Self {
        let near = Arc::new(Host::new());
        let far = near.with_outside();
        // What engines keep in /run is another machine's.
        far.sh("mount -t tmpfs tmpfs /run && mkdir -p /run/sshd").ok();
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut elsewhere = Self { near, far, directory, daemons: Vec::new() };
        elsewhere.certify();
        let sshd = elsewhere.daemon(&format!("exec /usr/sbin/sshd -D -f {}", elsewhere.path("sshd_config")));
        elsewhere.daemons.push(sshd);
        elsewhere.start_engine();
        elsewhere
    }

    fn daemon(&self, script: &str) -> Child {
        let mut daemon = self.far.command("sh", &["-c", script]);
        daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The last of the daemons.
    fn start_engine(&mut self) {
        let path = |name: &str| self.path(name);
        let engine = self.daemon(&format!(
            "exec dockerd --data-root {} --exec-root /run/docker --pidfile /run/docker.pid -H unix:///run/docker.sock \
             -H tcp://{ADDRESS}:2376 --tlsverify --tlscacert {} --tlscert {} --tlskey {}",
            path("data"),
            path("tls/ca.pem"),
            path("server.pem"),
            path("server-key.pem")
        ));
        self.daemons.push(engine);
        eventually("the engine", || (self.far.sh("docker -H unix:///run/docker.sock info").code == 0).then_some(()));
    }

    fn restart_engine(&mut self) {
        end(&mut self.daemons.pop().unwrap());
        self.start_engine();
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// An authority, the engine's certificate and a client's; keys and configurations of ssh; a docker context.
    fn certify(&self) {
        let script = format!(
            "set -e; cd {0}; mkdir tls bin data
             openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca-key.pem -out tls/ca.pem
             issue() {{
               openssl req -newkey rsa:2048 -nodes -subj /CN=$1 -keyout $2 -out request.pem
               printf \"subjectAltName=IP:{ADDRESS}\\nextendedKeyUsage=serverAuth,clientAuth\\n\" > extensions
               openssl x509 -req -in request.pem -CA tls/ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile extensions -out $3
             }}
             issue server server-key.pem server.pem
             issue client tls/key.pem tls/cert.pem
             ssh-keygen -q -t ed25519 -N '' -f host_key
             ssh-keygen -q -t ed25519 -N '' -f user_key
             printf '%s\\n' 'ListenAddress {ADDRESS}' 'HostKey {0}/host_key' 'AuthorizedKeysFile {0}/user_key.pub' \
               'StrictModes no' 'UsePAM no' 'PidFile none' 'PermitRootLogin prohibit-password' > sshd_config
             printf '%s\\n' 'IdentityFile {0}/user_key' 'IdentitiesOnly yes' 'UserKnownHostsFile {0}/known_hosts' > ssh_config
             printf '{ADDRESS} ' > known_hosts; cat host_key.pub >> known_hosts
             printf '#!/bin/sh\\nexec /usr/bin/ssh -F {0}/ssh_config \"$@\"\\n' > bin/ssh; chmod +x bin/ssh",
            self.directory.path().display()
        );
        run(&mut command("bash", &["-c", &script]), None).ok();
        let id = hex::encode(Sha256::digest(b"far"));
        let contexts = self.directory.path().join("docker/contexts");
        let (meta, tls) = (contexts.join("meta").join(&id), contexts.join("tls").join(&id).join("docker"));
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::create_dir_all(&tls).unwrap();
        let text = format!(
            r#"{{"Name": "far", "Metadata": {{}}, "Endpoints": {{"docker": {{"Host": "tcp://{ADDRESS}:2376", "SkipTLSVerify": false}}}}}}"#
        );
        std::fs::write(meta.join("meta.json"), text).unwrap();
        for file in ["ca.pem", "cert.pem", "key.pem"] {
            std::fs::copy(self.directory.path().join("tls").join(file), tls.join(file)).unwrap();
        }
    }

    /// What is there of clusters.
    fn objects(&self) -> String {
        let docker = "docker -H unix:///run/docker.sock";
        let script = format!(
            "{docker} ps -aq; {docker} volume ls -q; {docker} network ls --filter label=dev.kminik.profile -q; {docker} images -q"
        );
        self.far.sh(&script).ok()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.daemons.iter_mut().for_each(end);
    }
}

fn end(daemon: &mut Child) {
    let _ = run(&mut command("kill", &[&daemon.id().to_string()]), None);
    let _ = daemon.wait();
}

fn another_machine() {
    let mut elsewhere = Elsewhere::new();
    let context = [("DOCKER_CONFIG", elsewhere.path("docker")), ("DOCKER_CONTEXT", "far".to_owned())];
    let cluster = Cluster::on(&elsewhere.near, "far");
    let start = |variables: &[(&str, String)], arguments: &[&str]| {
        let all = [&["start", "--driver=docker"], arguments].concat();
        let mut start = cluster.command(&all);
        run(start.env_remove("DOCKER_HOST").envs(variables.iter().cloned()), None)
    };
    // A client that shows no certificate is refused, and says so.
    let bare = [("DOCKER_HOST", format!("tcp://{ADDRESS}:2376")), ("DOCKER_CONFIG", elsewhere.path("none"))];
    start(&[&bare[..], &[("DOCKER_TLS_VERIFY", "1".to_owned())]].concat(), &[]).fails(63);

    let told = start(&context, &[]);
    assert!(told.stderr.contains("The API is open to all who reach"), "{}", told.stderr);
    told.ok();
    let server =
        || cluster.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok();
    let url = server();
    assert!(url.starts_with(&format!("https://{ADDRESS}:")), "{url}");
    cluster.load(&nginx());
    cluster.apply(WEB);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]).ok();
    let answers = |elsewhere: &Elsewhere| {
        elsewhere.near.sh("curl -sS --max-time 10 http://127.0.0.1:30085").stdout.contains("nginx works")
    };
    eventually("nginx on this machine's localhost", || answers(&elsewhere).then_some(()));
    assert_eq!(cluster.kminik(&["ssh", "echo", "inside"]).ok().trim(), "inside", "the profile knows its engine");
    let resolver = cluster.kminik(&["ssh", "cat", "/etc/resolv.conf"]).ok();
    assert_eq!(resolver, format!("nameserver {}", cluster.kminik(&["ip"]).ok()), "the node's own");
    let named = cluster.kubectl(&["exec", "web", "--", "nslookup", "web.default.svc.cluster.local"]).ok();
    assert!(named.contains("10."), "{named}");
    assert_eq!(cluster.kminik(&["status"]).code, 0);
    cluster.kminik(&["stop"]).ok();
    start(&[], &[]).ok();
    assert_eq!(server(), url, "the API's port stays");
    eventually("nginx after the restart", || answers(&elsewhere).then_some(()));
    elsewhere.restart_engine();
    eventually("the cluster, up with its engine", || (cluster.kminik(&["status"]).code == 0).then_some(()));
    assert_eq!(server(), url);
    let kept = || cluster.kubectl(&["get", "pod", "web", "-o", "jsonpath={.status.phase}"]).stdout;
    eventually("its pod", || (kept() == "Running").then_some(()));
    eventually("nginx after the engine's restart", || answers(&elsewhere).then_some(()));
    cluster.delete().ok();
    assert_eq!(elsewhere.objects(), "");

    let path = format!("{}:{}", elsewhere.path("bin"), std::env::var("PATH").unwrap());
    let ssh = [("DOCKER_HOST", format!("ssh://root@{ADDRESS}")), ("PATH", path.clone())];
    start(&ssh, &["--listen-address", ADDRESS]).ok();
    cluster.kubectl(&["get", "nodes"]).ok();
    let by_ssh = |arguments: &[&str]| run(cluster.command(arguments).env("PATH", &path), None);
    assert_eq!(by_ssh(&["ssh", "echo", "inside"]).ok().trim(), "inside");
    assert_eq!(by_ssh(&["status", "-f", "{{.Host}}"]).stdout, "Running\n");
    by_ssh(&["delete"]).ok();
    assert_eq!(elsewhere.objects(), "");
    assert!(Path::new(&elsewhere.path("data")).exists());
}
