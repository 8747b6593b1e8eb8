//! Volumes that outlive pods.

use crate::Test;
use crate::support::{eventually, namespace, shared};

pub const TESTS: &[Test] =
    &[("a_stateful_set_keeps_its_data", stateful_set), ("a_claim_is_bound_and_its_directory_goes_with_it", claim)];

pub const STATEFUL: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: NS}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox:latest
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "echo started >> /data/log; exec sleep 3600"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
"#;

fn stateful_set() {
    let cluster = shared();
    let ns = namespace(cluster, "stateful");
    cluster.apply(&STATEFUL.replace("NS", &ns));
    cluster.kubectl(&["-n", &ns, "rollout", "status", "statefulset/db", "--timeout=60s"]).ok();
    let log = || cluster.kubectl(&["-n", &ns, "exec", "db-0", "--", "cat", "/data/log"]).stdout;
    assert_eq!(log(), "started\n");
    cluster.kubectl(&["-n", &ns, "delete", "pod", "db-0"]).ok();
    eventually("the data in the new pod", || (log() == "started\nstarted\n").then_some(()));
    let claims = cluster.json(&["-n", &ns, "get", "pvc"]);
    assert!(claims["items"].as_array().unwrap().iter().all(|c| c["status"]["phase"] == "Bound"), "{claims}");
}

fn claim() {
    let cluster = shared();
    let ns = namespace(cluster, "claim");
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: c, namespace: {ns}}}, spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}}}"
    ));
    let volume = eventually("the claim to be bound", || {
        let claim = cluster.json(&["-n", &ns, "get", "pvc", "c"]);
        (claim["status"]["phase"] == "Bound").then(|| claim["spec"]["volumeName"].as_str().unwrap().to_owned())
    });
    let volume = cluster.json(&["-n", &ns, "get", "pv", &volume]);
    let path = volume["spec"]["hostPath"]["path"].as_str().unwrap().to_owned();
    assert!(path.ends_with(&format!("{ns}/c")), "{path}");
    cluster.kminik(&["ssh", "ls", &path]).ok();
    cluster.kubectl(&["-n", &ns, "delete", "pvc", "c"]).ok();
    eventually("the directory to go", || (cluster.kminik(&["ssh", "ls", &path]).code != 0).then_some(()));
}
