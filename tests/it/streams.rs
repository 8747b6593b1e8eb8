//! What goes to and comes from containers: terminals, attach, folders, forwarded ports; each with the oldest kubectl, which
//! speaks SPDY, and the newest, which speaks WebSocket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Test;
use crate::support::{Cluster, command, eventually, kubectls, namespace, run, shared};

pub const TESTS: &[Test] = &[
    ("a_terminal_is_one_and_follows_its_size", terminal),
    ("attach_gives_a_container_its_stdin_once", attach),
    ("cp_copies_folders_both_ways", folders),
    ("many_connections_go_through_one_forwarded_port", many_connections),
];

fn oldest_and_newest() -> [PathBuf; 2] {
    let all = kubectls();
    [all.first().unwrap().clone(), all.last().unwrap().clone()]
}

/// Words of a shell line that runs this kubectl in the namespace.
fn line(cluster: &Cluster, kubectl: &Path, ns: &str, arguments: &str) -> String {
    format!("KUBECONFIG={} {} -n {ns} {arguments}", cluster.kubeconfig().display(), kubectl.display())
}

fn kubectl(cluster: &Cluster, kubectl: &Path, ns: &str, arguments: &[&str]) -> Command {
    let mut command = command(kubectl, &["-n", ns]);
    command.args(arguments).env("KUBECONFIG", cluster.kubeconfig());
    command
}

/// A pod of busybox; `spec` are more members of its one container.
fn pod(cluster: &Cluster, ns: &str, name: &str, spec: &str) {
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {ns}}}, spec: {{restartPolicy: Never, \
         terminationGracePeriodSeconds: 0, containers: [{{name: main, image: 'busybox:latest', imagePullPolicy: IfNotPresent, {spec}}}]}}}}"
    ));
    cluster.kubectl(&["-n", ns, "wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).ok();
}

fn terminal() {
    let cluster = shared();
    let ns = namespace(cluster, "terminal");
    pod(cluster, &ns, "box", "command: [sleep, '3600']");
    let dir = tempfile::tempdir().unwrap();
    for kubectl in oldest_and_newest() {
        let seen = dir.path().join("seen");
        let _ = std::fs::remove_file(&seen);
        // What runs in the pod waits for the size of out here, which comes after its start, says it, and waits until that changes,
        // which it does once the first was seen out here.
        let there = "is() { [ \"$(stty size)\" = \"17 91\" ]; }; tty; for i in $(seq 300); do is && break; sleep 0.1; done; stty size; \
                     for i in $(seq 300); do is || break; sleep 0.1; done; stty size; read word; echo \"heard $word\"; exit 5";
        let exec = line(cluster, &kubectl, &ns, &format!("exec -it box -- sh -c '{there}'"));
        let script = format!(
            "stty rows 17 cols 91; t=$(tty); (until grep -q '^17 91' {0}; do sleep 0.1; done; stty -F $t rows 33 cols 77) & {exec}",
            seen.display()
        );
        let told = run(&mut command("script", &["-qefc", &script, seen.to_str().unwrap()]), Some(b"words\n"));
        let text = told.stdout.replace('\r', "");
        assert_eq!(told.code, 5, "{kubectl:?}: {text} {}", told.stderr);
        for wanted in ["/dev/pts/", "17 91\n", "33 77\n", "heard words\n"] {
            assert!(text.contains(wanted), "{kubectl:?}: {wanted:?} is not in {text:?}");
        }
    }
}

fn attach() {
    let cluster = shared();
    let ns = namespace(cluster, "attach");
    for (name, program) in ["old", "new"].into_iter().zip(oldest_and_newest()) {
        let script = "while read line; do echo \"got $line\"; done; echo end";
        let spec = format!("stdin: true, stdinOnce: true, command: [sh, -c, '{script}']");
        pod(cluster, &ns, name, &spec);
        let attached = run(&mut kubectl(cluster, &program, &ns, &["attach", "-i", name]), Some(b"one\ntwo\n"));
        assert!(attached.ok().starts_with("got one\ngot two\n"), "{program:?}");
        let phase = ["-n", &ns, "get", "pod", name, "-o", "jsonpath={.status.phase}"];
        eventually("the end of what read to the end of its stdin", || {
            (cluster.kubectl(&phase).stdout == "Succeeded").then_some(())
        });
        assert_eq!(cluster.kubectl(&["-n", &ns, "logs", name]).ok(), "got one\ngot two\nend\n");
    }
}

/// Names and contents of all below a directory.
fn tree(root: &Path) -> String {
    let script = "find . | sort; find . -type f -exec md5sum {} + | sort";
    run(command("sh", &["-c", script]).current_dir(root), None).ok()
}

fn folders() {
    let cluster = shared();
    let ns = namespace(cluster, "folders");
    pod(cluster, &ns, "box", "command: [sleep, '3600']");
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir_all(source.join("deep/er")).unwrap();
    std::fs::create_dir(source.join("empty")).unwrap();
    for i in 0..200 {
        std::fs::write(source.join(format!("deep/file {i}")), format!("content {i}").repeat(i)).unwrap();
    }
    std::fs::write(source.join("deep/er/big"), vec![7_u8; 3 << 20]).unwrap();
    std::fs::write(source.join("run.sh"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(source.join("run.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (name, program) in ["old", "new"].into_iter().zip(oldest_and_newest()) {
        let back = dir.path().join(name);
        let there = format!("{ns}/box:/tmp/{name}");
        run(&mut kubectl(cluster, &program, &ns, &["cp", source.to_str().unwrap(), &there]), None).ok();
        run(&mut kubectl(cluster, &program, &ns, &["cp", &there, back.to_str().unwrap()]), None).ok();
        assert!(tree(&back) == tree(&source), "{program:?}: {} is not {}", back.display(), source.display());
        // kubectl keeps modes on the way there only.
        let mode = ["-n", &ns, "exec", "box", "--", "stat", "-c", "%a", &format!("/tmp/{name}/run.sh")];
        assert_eq!(cluster.kubectl(&mode).ok(), "755\n");
    }
}

/// A `kubectl port-forward` that runs until it is dropped, and its port.
pub struct Forward {
    child: Child,
    pub port: u16,
    /// Held: kubectl writes a line for each connection and dies if nobody can read it.
    _lines: BufReader<std::process::ChildStdout>,
}

impl Forward {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        let local = first.split(" -> ").next().unwrap();
        let port = local.rsplit(':').next().unwrap().parse().unwrap_or_else(|_| panic!("{first:?}"));
        Self { child, port, _lines: lines }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn many_connections() {
    const SIZE: usize = 1 << 20;
    let cluster = shared();
    let ns = namespace(cluster, "forwards");
    let script = format!("mkdir /w; head -c {SIZE} /dev/urandom > /w/big; exec httpd -f -p 8080 -h /w");
    pod(cluster, &ns, "web", &format!("command: [sh, -c, '{script}'], readinessProbe: {{tcpSocket: {{port: 8080}}}}"));
    cluster.kubectl(&["-n", &ns, "label", "pod", "web", "app=web"]).ok();
    cluster.kubectl(&["-n", &ns, "expose", "pod", "web", "--port=80", "--target-port=8080"]).ok();
    let sum = cluster.kubectl(&["-n", &ns, "exec", "web", "--", "md5sum", "/w/big"]).ok();
    let sum = sum.split_whitespace().next().unwrap();
    for program in oldest_and_newest() {
        for target in [["pod/web", ":8080"], ["service/web", ":80"]] {
            let forward = Forward::start(kubectl(
                cluster,
                &program,
                &ns,
                &["port-forward", target[0], target[1], "--address=127.0.0.1"],
            ));
            std::thread::scope(|scope| {
                let fetch = || {
                    let mut connection = TcpStream::connect(("127.0.0.1", forward.port)).unwrap();
                    connection.write_all(b"GET /big HTTP/1.0\r\n\r\n").unwrap();
                    let mut answer = Vec::new();
                    connection.read_to_end(&mut answer).unwrap();
                    let body = answer[answer.len().saturating_sub(SIZE)..].to_vec();
                    run(&mut Command::new("md5sum"), Some(&body)).ok()
                };
                let all: Vec<_> = (0..24).map(|_| scope.spawn(fetch)).collect();
                for one in all {
                    assert!(one.join().unwrap().starts_with(sum), "{program:?} {target:?}");
                }
            });
        }
    }
}
