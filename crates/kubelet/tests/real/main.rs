//! The kubelet with the real runtime and kernel, as root; containers run a static /bin/busybox. The API server is in memory.
//!
//! `cargo test -p kminik-kubelet --test real [FILTER]`. The program is its own keeper: it starts itself again below one, as
//! the node process runs below PID 1.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod machine;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use kminik_kubelet::LogOptions;
use kminik_runtime::Runtime;
use machine::Machine;
use serde_json::{Value, json};
use support::{condition, phase, state};

type Test = (&'static str, fn() -> BoxFuture<'static, ()>);

const TESTS: &[Test] = &[
    ("speed", || speed().boxed()),
    ("everything_a_container_sees", || everything_a_container_sees().boxed()),
    ("end_of_a_pod", || end_of_a_pod().boxed()),
    ("volumes", || volumes().boxed()),
    ("failures", || failures().boxed()),
    ("adoption", || adoption().boxed()),
    ("probes", || probes().boxed()),
];

fn main() {
    kminik_runtime::helper::dispatch_if_requested();
    machine::main(TESTS)
}

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "busybox", "command": ["/bin/sh", "-c", script]})
}

async fn log(machine: &Machine, pod: &str) -> String {
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let chunks: Vec<_> = machine.kubelet().logs("default", pod, None, options).await.unwrap().collect().await;
    chunks.into_iter().map(|chunk| String::from_utf8_lossy(&chunk.unwrap()).into_owned()).collect()
}

async fn speed() {
    let machine = Machine::new().await;
    for round in 0..5 {
        let name = format!("p{round}");
        let begun = Instant::now();
        machine.api.create_pod(&name, json!({"containers": [shell("c", "sleep 1000")]}));
        machine.api.wait_pod(&name, |pod| condition(pod, "Ready") == "True").await;
        println!("  create to Ready: {} ms", begun.elapsed().as_millis());
    }
    machine.finish().await;
}

async fn everything_a_container_sees() {
    let machine = Machine::new().await;
    machine.api.put("/api/v1/namespaces/default/configmaps/m", json!({"data": {"KEY": "value"}}));
    let script = "id -u; id -G; hostname; echo $KEY $POD_IP $(cat /etc/hostname); cat /etc/hosts; cat /etc/resolv.conf; echo bye > /dev/termination-log";
    let mut container = shell("c", script);
    container["env"] = json!([{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    container["envFrom"] = json!([{"configMapRef": {"name": "m"}}]);
    container["securityContext"] = json!({"runAsUser": 1234, "runAsGroup": 3000, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false});
    machine.api.create_pod(
        "p",
        json!({"restartPolicy": "Never", "containers": [container], "securityContext": {"fsGroup": 2000}, "hostname": "me",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["alias"]}]}),
    );
    let pod = machine.api.wait_pod("p", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(state(&pod, 0)["terminated"]["message"], "bye\n");
    let ip = pod["status"]["podIP"].as_str().unwrap();
    let log = log(&machine, "p").await;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[..4], ["1234", "3000 2000", "me", format!("value {ip} me").as_str()], "{log}");
    assert!(log.contains(&format!("{ip}\tme\n")) && log.contains("1.2.3.4\talias\n"), "{log}");
    assert!(log.contains("nameserver 10.96.0.10\n"), "{log}");
    machine.finish().await;
}

async fn end_of_a_pod() {
    let machine = Machine::new().await;
    let mut container =
        shell("c", "trap 'echo term >> /out/log; exit 7' TERM; echo up >> /out/log; while true; do sleep 0.05; done");
    container["volumeMounts"] = json!([{"name": "out", "mountPath": "/out"}]);
    container["lifecycle"] = json!({"preStop": {"exec": {"command": ["/bin/sh", "-c", "echo prestop >> /out/log"]}}});
    let out = machine.dir.join("out");
    machine.api.create_pod("p", json!({"containers": [container], "volumes": [{"name": "out", "hostPath": {"path": out, "type": "DirectoryOrCreate"}}]}));
    machine.api.wait_pod("p", |pod| condition(pod, "Ready") == "True").await;
    machine::eventually("the container to be up", || out.join("log").exists()).await;
    let begun = Instant::now();
    machine.api.delete("/api/v1/namespaces/default/pods/p", 30);
    machine.api.wait_gone("p").await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(std::fs::read_to_string(out.join("log")).unwrap(), "up\nprestop\nterm\n");
    machine.finish().await;
}

async fn volumes() {
    let machine = Machine::new().await;
    machine.api.put("/api/v1/namespaces/default/secrets/s", json!({"data": {"a": "b25l"}}));
    let script = "stat -c %a /mem; grep ' /mem ' /proc/mounts | cut -d' ' -f3; cat /secret/a; echo; stat -L -c '%a %g' /secret/a; \
        cat /one; echo; touch /secret/x 2>/dev/null || echo read-only; echo hi > /sub/f; stat -c %g /dir; sleep 1000";
    let mut container = shell("c", script);
    container["volumeMounts"] = json!([
        {"name": "mem", "mountPath": "/mem"}, {"name": "secret", "mountPath": "/secret"}, {"name": "secret", "mountPath": "/one", "subPath": "a"},
        {"name": "dir", "mountPath": "/dir"}, {"name": "dir", "mountPath": "/sub", "subPath": "deep/er"}]);
    machine.api.create_pod(
        "p",
        json!({"securityContext": {"fsGroup": 1234}, "containers": [container], "volumes": [
            {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, {"name": "dir", "emptyDir": {}},
            {"name": "secret", "secret": {"secretName": "s", "defaultMode": 0o400}}]}),
    );
    let pod = machine.api.wait_pod("p", |pod| condition(pod, "Ready") == "True").await;
    let volumes = machine.dir.join("kubelet/pods").join(pod["metadata"]["uid"].as_str().unwrap()).join("volumes");
    let written = volumes.join("kubernetes.io~empty-dir/dir/deep/er/f");
    machine::eventually("the file in the subPath", || std::fs::read_to_string(&written).is_ok_and(|t| t == "hi\n"))
        .await;
    let options = LogOptions::default;
    let read = || async {
        let chunks: Vec<_> = machine.kubelet().logs("default", "p", None, options()).await.unwrap().collect().await;
        chunks.into_iter().map(|c| String::from_utf8_lossy(&c.unwrap()).into_owned()).collect::<String>()
    };
    let mut text = read().await;
    let deadline = Instant::now() + support::BOUND;
    while text.lines().count() < 7 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
        text = read().await;
    }
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        ["2777", "tmpfs", "one", "440 1234", "one", "read-only", "1234"],
        "{text}"
    );
    machine.api.delete("/api/v1/namespaces/default/pods/p", 1);
    machine.api.wait_gone("p").await;
    machine.finish().await;
}

async fn failures() {
    let machine = Machine::new().await;
    let missing = json!({"name": "c", "image": "busybox", "command": ["/missing"]});
    machine.api.create_pod("missing", json!({"restartPolicy": "Never", "containers": [missing]}));
    machine
        .api
        .create_pod("code", json!({"restartPolicy": "Never", "containers": [shell("c", "echo -n DONE; exit 3")]}));
    let mut fallback = shell("c", "echo -n DONE; exit 3");
    fallback["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    machine.api.create_pod("fallback", json!({"restartPolicy": "Never", "containers": [fallback]}));
    let pod = machine.api.wait_pod("code", |pod| phase(pod) == "Failed").await;
    assert_eq!(
        (&state(&pod, 0)["terminated"]["exitCode"], &state(&pod, 0)["terminated"]["reason"]),
        (&json!(3), &json!("Error"))
    );
    let pod = machine.api.wait_pod("fallback", |pod| phase(pod) == "Failed").await;
    assert_eq!(state(&pod, 0)["terminated"]["message"], "DONE");
    let pod = machine
        .api
        .wait_pod("missing", |pod| {
            !state(pod, 0)["terminated"].is_null() || support::waiting_reason(pod, 0) == "RunContainerError"
        })
        .await;
    println!("  missing program: {}", state(&pod, 0));
    let mut oom = shell("c", "tail /dev/zero");
    oom["resources"] = json!({"limits": {"memory": "16Mi"}});
    machine.api.create_pod("oom", json!({"restartPolicy": "Never", "containers": [oom]}));
    let pod = machine.api.wait_pod("oom", |pod| phase(pod) == "Failed").await;
    assert_eq!(state(&pod, 0)["terminated"]["reason"], "OOMKilled");
    machine.finish().await;
}

async fn adoption() {
    let mut machine = Machine::new().await;
    machine.api.create_pod(
        "p",
        json!({"containers": [shell("c", "while true; do sleep 0.05; [ -e /tmp/end ] && exit 5; done")]}),
    );
    let before = machine.api.wait_pod("p", |pod| condition(pod, "Ready") == "True").await;
    machine.restart().await;
    let target = machine.kubelet_container("p").await;
    machine
        .runtime
        .exec_sync(&target, vec!["/bin/touch".into(), "/tmp/end".into()], Duration::from_secs(5))
        .await
        .unwrap();
    let pod = machine.api.wait_pod("p", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 5);
    assert_eq!(pod["status"]["podIP"], before["status"]["podIP"]);
    assert_eq!(pod["status"]["startTime"], before["status"]["startTime"]);
    machine.finish().await;
}

async fn probes() {
    let machine = Machine::new().await;
    let mut container = shell("c", "while true; do sleep 0.05; done");
    container["readinessProbe"] = json!({"exec": {"command": ["/bin/cat", "/tmp/ready"]}, "periodSeconds": 1});
    container["lifecycle"] = json!({"postStart": {"exec": {"command": ["/bin/touch", "/tmp/hook"]}}});
    machine.api.create_pod("p", json!({"containers": [container]}));
    machine.api.wait_pod("p", |pod| pod["status"]["containerStatuses"][0]["started"] == true).await;
    let target = machine.kubelet_container("p").await;
    let run = |args: &[&str]| {
        machine.runtime.exec_sync(&target, args.iter().map(|a| (*a).to_string()).collect(), Duration::from_secs(5))
    };
    assert_eq!(run(&["/bin/ls", "/tmp"]).await.unwrap().stdout, b"hook\n");
    run(&["/bin/touch", "/tmp/ready"]).await.unwrap();
    machine.api.wait_pod("p", |pod| condition(pod, "Ready") == "True").await;
    run(&["/bin/rm", "/tmp/ready"]).await.unwrap();
    machine.api.wait_pod("p", |pod| condition(pod, "Ready") == "False").await;
    machine.finish().await;
}
