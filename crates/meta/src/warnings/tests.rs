use serde_json::{Value, json};

use super::*;

fn warnings(group: &str, kind: &str, object: Value) -> Vec<String> {
    of(&Gvk::new(group, "v1", kind), &Object::try_from(object).unwrap(), None)
}

fn named(spec: Value) -> Value {
    json!({"metadata": {"name": "x"}, "spec": spec})
}

#[test]
fn each_is_said_in_upstreams_words() {
    let template = |spec: Value| named(json!({"template": {"spec": spec}}));
    let cases = [
        (
            "",
            "Pod",
            json!({"metadata": {"name": "a.b"}}),
            vec![
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
            ],
        ),
        (
            "",
            "Pod",
            named(json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "terminationGracePeriodSeconds": -1,
                "imagePullSecrets": [{"name": "a"}, {"name": "a"}, {"name": ""}],
                "topologySpreadConstraints": [{"topologyKey": "k", "labelSelector": {}}, {"topologyKey": "k"}]})),
            vec![
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.topologySpreadConstraints[1].labelSelector: a null labelSelector results in matching no pod",
                "spec.imagePullSecrets[1].name: duplicate name \"a\"",
                "spec.imagePullSecrets[2].name: invalid empty name \"\"",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ],
        ),
        (
            "apps",
            "Deployment",
            template(json!({"containers": [
                {"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {"limits": {"memory": "100m"}},
                    "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}]},
                {"name": "b", "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP", "hostPort": 1}]},
            ]})),
            vec![
                "spec.template.spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.template.spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.template.spec.containers[1].ports[0]: duplicate port definition with spec.template.spec.containers[0].ports[0]",
                "spec.template.spec.containers[1].ports[1]: overlapping port definition with spec.template.spec.containers[0].ports[0]",
                "spec.template.spec.containers[1].ports[1]: overlapping port definition with spec.template.spec.containers[1].ports[0]",
            ],
        ),
        (
            "",
            "Pod",
            named(json!({"volumes": [
                {"name": "g", "gitRepo": {}},
                {"name": "c", "configMap": {"name": "m", "items": [{"path": "a"}, {"path": "a/b"}]}},
                {"name": "p", "projected": {"sources": [{"secret": {"name": "s", "items": [{"path": "x"}]}},
                    {"serviceAccountToken": {"path": "x"}}, {}]}},
            ]})),
            vec![
                "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
                "volume \"c\" (ConfigMap \"m\"): overlapping paths: \"a/b\" with \"a\"",
                "volume \"p\" (Projected ServiceAccountToken): overlapping paths: \"x\" with \"x\"",
                "volume \"p\" (Projected) has no sources provided",
            ],
        ),
        (
            "",
            "Service",
            named(json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "externalName": "n",
                "externalIPs": ["010.0.0.1", "2001:DB8::1"], "sessionAffinity": "None"})),
            vec![
                "spec.externalIPs[0]: non-standard IP address \"010.0.0.1\" will be considered invalid in a future Kubernetes release: use \"10.0.0.1\"",
                "spec.externalIPs[1]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
                "spec.externalIPs is ignored for headless services",
            ],
        ),
        (
            "",
            "PersistentVolume",
            named(json!({"persistentVolumeReclaimPolicy": "Recycle", "cephfs": {}})),
            vec![
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
                "spec.cephfs: deprecated in v1.28, non-functional in v1.31+",
            ],
        ),
        (
            "batch",
            "CronJob",
            named(json!({"schedule": "TZ=UTC * * * * *"})),
            vec![
                "CRON_TZ or TZ used in spec.schedule is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
            ],
        ),
    ];
    for (group, kind, object, expected) in cases {
        assert_eq!(warnings(group, kind, object), expected, "{kind}");
    }
}

#[test]
fn a_template_that_stays_is_not_spoken_of_again() {
    let gvk = Gvk::new("apps", "v1", "Deployment");
    let deployment = |generation: i64| {
        let selector = json!({"beta.kubernetes.io/arch": "amd64"});
        let spec = json!({"template": {"spec": {"nodeSelector": selector}}});
        Object::try_from(json!({"metadata": {"name": "a.b", "generation": generation}, "spec": spec})).unwrap()
    };
    assert_eq!(of(&gvk, &deployment(1), Some(&deployment(1))), Vec::<String>::new());
    assert_eq!(of(&gvk, &deployment(2), Some(&deployment(1))).len(), 1, "the name was spoken of once");
    assert_eq!(of(&gvk, &deployment(1), None).len(), 2);
}
