//! What people do with kubectl all day: deployments, pods, exec, logs, cp, port-forward, apply.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use crate::Test;
use crate::support::{Cluster, busybox, eventually, kubectls, namespace, run, shared};

pub const TESTS: &[Test] = &[
    ("the_node_and_the_system_pods_are_ready", system),
    ("a_deployment_rolls_out_scales_rolls_back_and_heals", deployment),
    ("exec_passes_streams_and_exit_codes_with_every_kubectl", exec),
    ("logs_of_running_and_ended_containers", logs),
    ("cp_copies_both_ways", copy),
    ("port_forward_reaches_the_pod", port_forward),
    ("apply_edit_label_diff_explain", objects),
    ("run_expose_wait_and_events", run_expose),
    ("a_crashing_container_backs_off_and_says_why", crash_loop),
    ("probes_gate_readiness_and_restart", probes),
    ("environment_and_volumes_carry_configuration", configuration),
    ("init_containers_run_in_order", init_containers),
    ("a_pod_that_eats_all_its_memory_is_killed", out_of_memory),
    ("a_pod_that_eats_all_the_nodes_memory_is_killed_alone", node_out_of_memory),
    ("who_follows_a_log_misses_nothing_of_its_rotations", log_rotation),
    ("security_settings_hold", security),
    ("a_daemon_set_runs_on_the_node", daemon_set),
];

/// A pod of busybox that runs `script`.
fn pod(name: &str, script: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{terminationGracePeriodSeconds: 1, \
         containers: [{{name: main, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sh, -c, {}]}}]}}}}",
        serde_json::to_string(script).unwrap()
    )
}

fn ready(cluster: &Cluster, ns: &str, what: &str) {
    cluster.kubectl(&["-n", ns, "wait", "--for=condition=Ready", "--timeout=60s", what]).ok();
}

fn system() {
    let cluster = shared();
    for kubectl in kubectls() {
        let mut command = cluster.kubectl_command(&[]);
        let mut other = std::process::Command::new(&kubectl);
        other.envs(command.get_envs().filter_map(|(k, v)| Some((k, v?)))).args(["get", "nodes", "-o", "wide"]);
        let told = run(&mut other, None).ok();
        assert!(
            told.contains(" Ready ") && told.contains("control-plane") && told.contains("v1.35"),
            "{kubectl:?}: {told}"
        );
        command.args(["get", "pods", "-A"]);
        let told = run(&mut command, None).ok();
        for pod in ["coredns", "storage-provisioner"] {
            let line = told.lines().find(|l| l.contains(pod)).unwrap_or_else(|| panic!("no {pod} in {told}"));
            assert!(line.contains("1/1") && line.contains("Running"), "{line}");
        }
    }
    let described = cluster.kubectl(&["describe", "node"]).ok();
    for reason in ["Starting", "NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"]
    {
        assert!(described.contains(&format!(" {reason} ")), "{reason}: {described}");
    }
    let registered = ["get", "events", "--field-selector", "involvedObject.kind=Node,reason=RegisteredNode"];
    assert!(cluster.kubectl(&registered).ok().contains("in Controller"));
    let told = cluster.kminik(&["kubectl", "--", "get", "nodes"]);
    assert!(told.stdout.contains("Ready"), "{}", told.stderr);
}

fn deployment() {
    let cluster = shared();
    let ns = namespace(cluster, "deploy");
    let kubectl = |arguments: &[&str]| cluster.kubectl(&[&["-n", &ns], arguments].concat());
    kubectl(&["create", "deployment", "nginx", "--image=nginx:latest"]).ok();
    // `latest` would be pulled always; the image was loaded.
    let policy = r#"{"spec":{"template":{"spec":{"containers":[{"name":"nginx","imagePullPolicy":"IfNotPresent"}]}}}}"#;
    kubectl(&["patch", "deployment", "nginx", "-p", policy]).ok();
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]).ok();
    kubectl(&["scale", "deployment/nginx", "--replicas=3"]).ok();
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]).ok();
    assert!(kubectl(&["get", "deployment", "nginx"]).ok().contains("3/3"));
    let first = cluster.json(&["-n", &ns, "get", "pods"])["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    kubectl(&["delete", "pod", &first]).ok();
    eventually("the deleted pod's replacement", || {
        let pods = cluster.json(&["-n", &ns, "get", "pods"]);
        let ready = pods["items"].as_array().unwrap().iter().filter(|p| p["status"]["phase"] == "Running").count();
        (ready == 3 && !pods.to_string().contains(&first)).then_some(())
    });
    kubectl(&["set", "env", "deployment/nginx", "A=1"]).ok();
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]).ok();
    kubectl(&["rollout", "undo", "deployment/nginx"]).ok();
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]).ok();
    assert!(
        !cluster.json(&["-n", &ns, "get", "deployment", "nginx"])["spec"]["template"].to_string().contains("\"A\"")
    );
    kubectl(&["rollout", "restart", "deployment/nginx"]).ok();
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]).ok();
    let told = kubectl(&["describe", "deployment", "nginx"]).ok();
    assert!(told.contains("ScalingReplicaSet"), "{told}");
    kubectl(&["delete", "deployment", "nginx"]).ok();
    eventually("the pods of a deleted deployment to go", || {
        cluster.json(&["-n", &ns, "get", "pods,rs"])["items"].as_array().unwrap().is_empty().then_some(())
    });
}

fn exec() {
    let cluster = shared();
    let ns = namespace(cluster, "exec");
    cluster.apply(&pod("box", "sleep 3600").replace("{name: box,", &format!("{{name: box, namespace: {ns},")));
    ready(cluster, &ns, "pod/box");
    let all = kubectls();
    for kubectl in [all.first().unwrap(), all.last().unwrap()] {
        let call = |arguments: &[&str], input: Option<&[u8]>| {
            let mut command = std::process::Command::new(kubectl);
            command.env("KUBECONFIG", cluster.kubeconfig()).args(["-n", &ns, "exec"]).args(arguments);
            run(&mut command, input)
        };
        assert_eq!(call(&["box", "--", "sh", "-c", "echo out; echo err >&2; exit 3"], None).code, 3, "{kubectl:?}");
        let told = call(&["box", "--", "sh", "-c", "echo out; echo err >&2"], None);
        assert_eq!((told.stdout.as_str(), told.stderr.as_str()), ("out\n", "err\n"));
        // The end of our stdin must end the command's.
        let big = vec![b'x'; 1 << 20];
        let here = run(&mut std::process::Command::new("md5sum"), Some(&big)).ok();
        assert_eq!(call(&["-i", "box", "--", "md5sum"], Some(&big)).ok(), here);
        assert_eq!(call(&["-i", "box", "--", "wc", "-c"], Some(&big)).ok().trim(), (1 << 20).to_string());
        let told = call(&["box", "--", "/no/such"], None);
        assert!(told.code != 0 && told.stderr.contains("no such file"), "{}", told.stderr);
    }
}

fn logs() {
    let cluster = shared();
    let ns = namespace(cluster, "logs");
    let n = ["-n", &ns];
    cluster.apply(
        &pod("talk", "for i in 1 2 3; do echo line $i; done; sleep 3600")
            .replace("{name: talk,", &format!("{{name: talk, namespace: {ns},")),
    );
    cluster.apply(
        &pod("done", "echo last words; exit 7")
            .replace("{name: done,", &format!("{{name: done, namespace: {ns},"))
            .replace("spec: {term", "spec: {restartPolicy: Never, term"),
    );
    ready(cluster, &ns, "pod/talk");
    assert_eq!(cluster.kubectl(&[&n[..], &["logs", "talk"]].concat()).ok(), "line 1\nline 2\nline 3\n");
    assert_eq!(cluster.kubectl(&[&n[..], &["logs", "talk", "--tail=1"]].concat()).ok(), "line 3\n");
    let mut following = cluster.kubectl_command(&[&n[..], &["logs", "-f", "talk"]].concat());
    let mut child = following.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.nth(2).unwrap().unwrap(), "line 3");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the pod to fail", || {
        (cluster.json(&[&n[..], &["get", "pod", "done"]].concat())["status"]["phase"] == "Failed").then_some(())
    });
    let state =
        cluster.json(&[&n[..], &["get", "pod", "done"]].concat())["status"]["containerStatuses"][0]["state"].clone();
    assert_eq!(state["terminated"]["exitCode"], 7, "{state}");
    assert_eq!(cluster.kubectl(&[&n[..], &["logs", "done"]].concat()).ok(), "last words\n");
}

fn copy() {
    let cluster = shared();
    let ns = namespace(cluster, "cp");
    cluster.apply(&pod("box", "sleep 3600").replace("{name: box,", &format!("{{name: box, namespace: {ns},")));
    ready(cluster, &ns, "pod/box");
    let dir = tempfile::tempdir().unwrap();
    let (there, back) = (dir.path().join("there"), dir.path().join("back"));
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&there, &content).unwrap();
    cluster.kubectl(&["cp", there.to_str().unwrap(), &format!("{ns}/box:/tmp/file")]).ok();
    cluster.kubectl(&["cp", &format!("{ns}/box:/tmp/file"), back.to_str().unwrap()]).ok();
    assert!(std::fs::read(back).unwrap() == content, "what comes back is what went there");
}

fn port_forward() {
    let cluster = shared();
    let ns = namespace(cluster, "forward");
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: {ns}}}, spec: {{containers: [{{name: nginx, image: 'nginx:latest', imagePullPolicy: IfNotPresent}}]}}}}"
    ));
    ready(cluster, &ns, "pod/web");
    let all = kubectls();
    for kubectl in [all.first().unwrap(), all.last().unwrap()] {
        let mut child = std::process::Command::new(kubectl)
            .env("KUBECONFIG", cluster.kubeconfig())
            .args(["-n", &ns, "port-forward", "pod/web", ":80", "--address=127.0.0.1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Held to the end: kubectl writes a line for each connection and dies if nobody can read it.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let port: u16 = line.rsplit_once(" -> ").unwrap().0.rsplit_once(':').unwrap().1.parse().unwrap();
        for _ in 0..3 {
            let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
            connection.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("nginx works"), "{kubectl:?}: {answer}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn objects() {
    let cluster = shared();
    let ns = namespace(cluster, "objects");
    let map = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: m, namespace: {ns}}}, data: {{a: '1'}}}}");
    assert!(cluster.apply(&map).contains("created"));
    assert!(cluster.apply(&map).contains("unchanged"));
    let changed = map.replace("'1'", "'2'");
    let diff = cluster.feed(&["diff", "-f", "-"], &changed);
    assert_eq!(diff.code, 1, "{}", diff.stderr);
    assert!(diff.stdout.contains("+  a: \"2\""), "{}", diff.stdout);
    let server = cluster.feed(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &changed);
    assert!(server.ok().contains("serverside-applied"));
    cluster.kubectl(&["-n", &ns, "label", "cm", "m", "x=y"]).ok();
    cluster.kubectl(&["-n", &ns, "annotate", "cm", "m", "note=well"]).ok();
    let object = cluster.json(&["-n", &ns, "get", "cm", "-l", "x=y"]);
    assert_eq!(object["items"][0]["data"]["a"], "2");
    assert_eq!(object["items"][0]["metadata"]["annotations"]["note"], "well");
    let mut edit = cluster.kubectl_command(&["-n", &ns, "edit", "cm", "m"]);
    edit.env("KUBE_EDITOR", "sed -i s/'a: \"2\"'/'a: \"3\"'/");
    assert!(run(&mut edit, None).ok().contains("edited"));
    assert_eq!(cluster.json(&["-n", &ns, "get", "cm", "m"])["data"]["a"], "3");
    assert!(cluster.kubectl(&["explain", "deployment.spec.replicas"]).ok().contains("integer"));
    let told = cluster.feed(&["create", "-f", "-"], &map);
    assert!(told.fails(1).contains("AlreadyExists"));
    assert!(cluster.kubectl(&["-n", &ns, "get", "cm", "none"]).fails(1).contains("configmaps \"none\" not found"));
    assert!(cluster.kubectl(&["top", "nodes"]).fails(1).contains("Metrics API not available"));
}

fn run_expose() {
    let cluster = shared();
    let ns = namespace(cluster, "run");
    let n = |arguments: &[&str]| cluster.kubectl(&[&["-n", &ns], arguments].concat());
    n(&["run", "web", "--image=nginx:latest", "--image-pull-policy=IfNotPresent", "--port=80"]).ok();
    n(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]).ok();
    n(&["expose", "pod", "web", "--port=80"]).ok();
    assert!(n(&["describe", "pod", "web"]).ok().contains("Started"));
    eventually("the pod's events", || n(&["get", "events"]).ok().contains("Scheduled").then_some(()));
    eventually("the endpoints", || n(&["get", "endpointslices"]).ok().contains("10.244.").then_some(()));
    let out = n(&[
        "run",
        "once",
        "--image=nginx:latest",
        "--command",
        "--image-pull-policy=IfNotPresent",
        "--restart=Never",
        "-i",
        "--rm",
        "--",
        "wget",
        "-qO-",
        "http://web",
    ]);
    assert!(out.ok().contains("nginx works"));
}

fn crash_loop() {
    let cluster = shared();
    let ns = namespace(cluster, "crash");
    cluster.apply(&pod("crash", "exit 5").replace("{name: crash,", &format!("{{name: crash, namespace: {ns},")));
    eventually("the back-off", || {
        let status = cluster.json(&["-n", &ns, "get", "pod", "crash"])["status"]["containerStatuses"][0].clone();
        let waiting = status["state"]["waiting"]["reason"] == "CrashLoopBackOff";
        (waiting && status["restartCount"].as_i64()? >= 1 && status["lastState"]["terminated"]["exitCode"] == 5)
            .then_some(())
    });
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: none, namespace: {ns}}}, spec: {{containers: [{{name: c, image: 'none.invalid/x:1'}}]}}}}"
    ));
    eventually("the pull's failure", || {
        let reason = cluster.json(&["-n", &ns, "get", "pod", "none"])["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
        matches!(reason.as_str(), Some("ErrImagePull" | "ImagePullBackOff")).then_some(())
    });
}

fn probes() {
    let cluster = shared();
    let ns = namespace(cluster, "probes");
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: probed, namespace: {ns}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "touch /tmp/alive; sleep 3600"]
    readinessProbe: {{exec: {{command: [cat, /tmp/ready]}}, periodSeconds: 1}}
    livenessProbe: {{exec: {{command: [cat, /tmp/alive]}}, periodSeconds: 1, failureThreshold: 1}}
"#
    ));
    let status = || cluster.json(&["-n", &ns, "get", "pod", "probed"])["status"]["containerStatuses"][0].clone();
    eventually("the container to run", || status()["state"]["running"].is_object().then_some(()));
    assert_eq!(status()["ready"], false);
    cluster.kubectl(&["-n", &ns, "exec", "probed", "--", "touch", "/tmp/ready"]).ok();
    ready(cluster, &ns, "pod/probed");
    cluster.kubectl(&["-n", &ns, "exec", "probed", "--", "rm", "/tmp/alive"]).ok();
    eventually("the restart", || (status()["restartCount"].as_i64()? == 1).then_some(()));
}

fn configuration() {
    let cluster = shared();
    let ns = namespace(cluster, "config");
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {{name: c, namespace: {ns}}}
data: {{greeting: hello, file: content}}
---
apiVersion: v1
kind: Secret
metadata: {{name: s, namespace: {ns}}}
stringData: {{password: hush}}
---
apiVersion: v1
kind: Pod
metadata: {{name: p, namespace: {ns}, labels: {{app: p}}}}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "echo $GREETING $PASSWORD $NAME $(GREETING)-x $MEMORY; cat /c/file /s/password /d/labels; ls /t; id -u"]
    env:
    - {{name: GREETING, valueFrom: {{configMapKeyRef: {{name: c, key: greeting}}}}}}
    - {{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: s, key: password}}}}}}
    - {{name: NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
    - {{name: MEMORY, valueFrom: {{resourceFieldRef: {{resource: limits.memory}}}}}}
    resources: {{limits: {{memory: 64Mi}}}}
    volumeMounts:
    - {{name: c, mountPath: /c}}
    - {{name: s, mountPath: /s}}
    - {{name: d, mountPath: /d}}
    - {{name: t, mountPath: /t}}
  volumes:
  - {{name: c, configMap: {{name: c}}}}
  - {{name: s, secret: {{secretName: s}}}}
  - {{name: d, downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}}}
  - {{name: t, projected: {{sources: [{{serviceAccountToken: {{path: token}}}}, {{configMap: {{name: kube-root-ca.crt}}}}]}}}}
"#
    ));
    let told = eventually("the pod to end", || {
        let phase = cluster.json(&["-n", &ns, "get", "pod", "p"])["status"]["phase"].clone();
        (phase == "Succeeded").then(|| cluster.kubectl(&["-n", &ns, "logs", "p"]).ok())
    });
    assert_eq!(told, "hello hush p hello-x 67108864\ncontenthushapp=\"p\"ca.crt\ntoken\n0\n");
}

fn init_containers() {
    let cluster = shared();
    let ns = namespace(cluster, "init");
    cluster.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: p, namespace: {ns}}}
spec:
  restartPolicy: Never
  volumes: [{{name: d, emptyDir: {{}}}}]
  initContainers:
  - {{name: one, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sh, -c, 'echo one >> /d/f'], volumeMounts: [{{name: d, mountPath: /d}}]}}
  - {{name: two, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sh, -c, 'echo two >> /d/f'], volumeMounts: [{{name: d, mountPath: /d}}]}}
  containers:
  - {{name: main, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [cat, /d/f], volumeMounts: [{{name: d, mountPath: /d}}]}}
"#
    ));
    let told = eventually("the pod to end", || {
        let phase = cluster.json(&["-n", &ns, "get", "pod", "p"])["status"]["phase"].clone();
        (phase == "Succeeded").then(|| cluster.kubectl(&["-n", &ns, "logs", "p"]).ok())
    });
    assert_eq!(told, "one\ntwo\n");
}

fn out_of_memory() {
    let cluster = shared();
    let ns = namespace(cluster, "oom");
    let eater = pod("eater", "x=a; while true; do x=$x$x; done")
        .replace("{name: eater,", &format!("{{name: eater, namespace: {ns},"))
        .replace("command:", "resources: {limits: {memory: 32Mi}}, command:")
        .replace("spec: {term", "spec: {restartPolicy: Never, term");
    cluster.apply(&eater);
    eventually("the pod to be killed", || {
        let state =
            cluster.json(&["-n", &ns, "get", "pod", "eater"])["status"]["containerStatuses"][0]["state"]["terminated"]
                .clone();
        (state["reason"] == "OOMKilled").then_some(())
    });
    cluster.kubectl(&["get", "--raw", "/readyz"]).ok();
}

fn node_out_of_memory() {
    let cluster = Cluster::start("nodeoom", &["--memory=600mb"]);
    cluster.load(&busybox());
    cluster.apply(&pod("quiet", "sleep 3600"));
    ready(&cluster, "default", "pod/quiet");
    let eater =
        pod("eater", "x=a; while true; do x=$x$x; done").replace("spec: {term", "spec: {restartPolicy: Never, term");
    cluster.apply(&eater);
    eventually("the pod to be killed", || {
        cluster.kubectl(&["get", "--raw", "/readyz"]).ok();
        let state = cluster.json(&["get", "pod", "eater"])["status"]["containerStatuses"][0]["state"].clone();
        (state["terminated"]["reason"] == "OOMKilled").then_some(())
    });
    assert!(cluster.kubectl(&["get", "nodes"]).ok().contains(" Ready "));
    for pods in [&["get", "pod", "quiet"][..], &["get", "pods", "-n", "kube-system"]] {
        let told = cluster.kubectl(pods).ok();
        for line in told.lines().skip(1) {
            assert!(line.contains("1/1") && line.split_whitespace().nth(3) == Some("0"), "nobody else is hit: {told}");
        }
    }
}

fn log_rotation() {
    let cluster = shared();
    let ns = namespace(cluster, "rotation");
    // 24 MiB in lines of one KiB, when told to.
    let script = "l=0123456789; for i in 1 2 3 4 5 6 7 8 9; do m=$m$l; done; for i in 1 2 3 4 5 6 7 8 9 10; do n=$n$m; done; \
                  until [ -e /go ]; do sleep 0.1; done; for i in $(seq 25000); do echo $i $n$m; done; echo last; sleep 3600";
    cluster.apply(&pod("talks", script).replace("{name: talks,", &format!("{{name: talks, namespace: {ns},")));
    ready(cluster, &ns, "pod/talks");
    let mut following = cluster.kubectl_command(&["-n", &ns, "logs", "-f", "talks"]);
    let mut child = following.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    cluster.kubectl(&["-n", &ns, "exec", "talks", "--", "touch", "/go"]).ok();
    for i in 1..=25_000 {
        let line = lines.next().unwrap();
        assert!(line.split(' ').next() == Some(&i.to_string()) && line.len() > 990, "line {i}: {line:?}");
    }
    assert_eq!(lines.next().unwrap(), "last");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(cluster.kubectl(&["-n", &ns, "logs", "talks", "--tail=1"]).ok(), "last\n");
    let uid = cluster.kubectl(&["-n", &ns, "get", "pod", "talks", "-o", "jsonpath={.metadata.uid}"]).ok();
    let files = cluster.kminik(&["ssh", "ls", &format!("/var/log/pods/{ns}_talks_{uid}/main")]).ok();
    let files: Vec<&str> = files.split_whitespace().collect();
    assert!(files.contains(&"0.log") && (2..=5).contains(&files.len()), "{files:?}");
    cluster.kubectl(&["-n", &ns, "delete", "pod", "talks"]).ok();
}

fn security() {
    let cluster = shared();
    let ns = namespace(cluster, "secure");
    let script = "id -u; id -g; cat /proc/self/status | grep -E 'CapEff|NoNewPrivs|Seccomp:'; touch /x || echo read-only; mknod /tmp/sda b 8 0 || echo no-mknod";
    let secured = pod("p", script)
        .replace("{name: p,", &format!("{{name: p, namespace: {ns},"))
        .replace("spec: {term", "spec: {restartPolicy: Never, volumes: [{name: t, emptyDir: {}}], term")
        .replace(
            "command:",
            "securityContext: {runAsUser: 1000, runAsGroup: 2000, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, seccompProfile: {type: RuntimeDefault}, capabilities: {drop: [ALL]}}, volumeMounts: [{name: t, mountPath: /tmp}], command:",
        );
    cluster.apply(&secured);
    let told = eventually("the pod to end", || {
        let phase = cluster.json(&["-n", &ns, "get", "pod", "p"])["status"]["phase"].clone();
        matches!(phase.as_str(), Some("Succeeded" | "Failed")).then(|| cluster.kubectl(&["-n", &ns, "logs", "p"]).ok())
    });
    for wanted in
        ["1000\n2000\n", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "read-only", "no-mknod"]
    {
        assert!(told.contains(wanted), "{wanted:?} is not in {told}");
    }
}

fn daemon_set() {
    let cluster = shared();
    let ns = namespace(cluster, "daemon");
    cluster.apply(&format!(
        "{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: d, namespace: {ns}}}, spec: {{selector: {{matchLabels: {{a: d}}}}, template: {{metadata: {{labels: {{a: d}}}}, \
         spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: c, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sleep, '3600']}}]}}}}}}}}"
    ));
    cluster.kubectl(&["-n", &ns, "rollout", "status", "ds/d", "--timeout=60s"]).ok();
    let pods = cluster.json(&["-n", &ns, "get", "pods"]);
    assert_eq!(pods["items"].as_array().unwrap().len(), 1);
}
