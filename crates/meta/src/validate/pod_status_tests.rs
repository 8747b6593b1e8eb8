use serde_json::{Value, json};

use super::update_status;
use crate::{Gvk, Object, schema};

/// What is wrong with a pod's new status.
fn changed(spec: &Value, old: &Value, new: &Value) -> Vec<String> {
    let gvk = Gvk::new("", "v1", "Pod");
    let pod = |status: &Value| {
        let metadata = json!({"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1"});
        Object::try_from(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}),
        )
        .unwrap()
    };
    update_status(&gvk, schema::lookup(&gvk).unwrap(), &pod(new), &pod(old)).iter().map(ToString::to_string).collect()
}

#[test]
fn what_has_ended_for_good_does_not_run_again() {
    let state = |name: &str, state: Value| json!({"name": name, "state": state});
    let (ended, failed) = (json!({"terminated": {"exitCode": 0}}), json!({"terminated": {"exitCode": 1}}));
    let running = json!({"running": {}});
    let refusal = |list: &str| {
        vec![format!("status.{list}[0].state: Forbidden: may not be transitioned to non-terminated state")]
    };
    let never = |own: Value| json!({"restartPolicy": "Never", "containers": [own]});
    for (policy, before, allowed) in [
        ("Always", &ended, true),
        ("OnFailure", &failed, true),
        ("OnFailure", &ended, false),
        ("Never", &failed, false),
    ] {
        let spec = json!({"restartPolicy": policy, "containers": [{"name": "c"}]});
        for list in ["containerStatuses", "initContainerStatuses"] {
            let (old, new) =
                (json!({list: [state("c", before.clone())]}), json!({list: [state("c", running.clone())]}));
            let expected = if allowed { Vec::new() } else { refusal(list) };
            assert_eq!(changed(&spec, &old, &new), expected, "{policy} {list} {before}");
            assert!(changed(&spec, &old, &old).is_empty() && changed(&spec, &old, &json!({})).is_empty());
        }
    }
    let (old, new) = (
        json!({"containerStatuses": [state("c", failed.clone())]}),
        json!({"containerStatuses": [state("c", running.clone())]}),
    );
    assert!(changed(&never(json!({"name": "c", "restartPolicy": "OnFailure"})), &old, &new).is_empty());
    assert!(
        changed(
            &never(json!({"name": "c", "restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart"}]})),
            &old,
            &new
        )
        .is_empty()
    );
    let sidecar = json!({"restartPolicy": "Never", "initContainers": [{"name": "c", "restartPolicy": "Always"}]});
    let of = |value: &Value| json!({"initContainerStatuses": [state("c", value.clone())]});
    assert!(changed(&sidecar, &of(&ended), &of(&running)).is_empty());
    let of = |value: &Value| json!({"ephemeralContainerStatuses": [state("c", value.clone())]});
    assert_eq!(
        changed(&json!({"restartPolicy": "OnFailure"}), &of(&failed), &of(&running)),
        refusal("ephemeralContainerStatuses")
    );
}

#[test]
fn addresses_claims_and_conditions_are_checked() {
    let spec = json!({"restartPolicy": "Always", "resourceClaims": [{"name": "gpu"}]});
    let found = |new: Value| changed(&spec, &json!({"qosClass": "Burstable"}), &new);
    let with = |member: &str, value: Value| json!({"qosClass": "Burstable", "hostIP": "10.0.0.1", member: value});
    for (status, expected) in [
        (json!({"qosClass": "Guaranteed"}), "status.qosClass: Invalid value: \"Guaranteed\": field is immutable"),
        (with("podIPs", json!([{"ip": "x"}])), "status.podIPs[0]: Invalid value: \"x\": must be a valid IP address"),
        (
            with("podIPs", json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}])),
            "may specify no more than one IP for each IP family",
        ),
        (
            with("hostIPs", json!([{"ip": "10.0.0.2"}])),
            "status.hostIPs[0].ip: Invalid value: \"10.0.0.2\": must be equal to `hostIP`",
        ),
        (with("nominatedNodeName", json!("No_Node")), "status.nominatedNodeName: Invalid value: \"No_Node\""),
        (with("conditions", json!([{"type": "no type"}])), "metadata.conditions[0].Type: Invalid value: \"no type\""),
        (
            with("resourceClaimStatuses", json!([{"name": "other"}])),
            "must match the name of an entry in `spec.resourceClaims`",
        ),
    ] {
        let errors = found(status);
        assert!(errors.len() == 1 && errors[0].contains(expected), "{expected}: {errors:?}");
    }
    let right = json!({"qosClass": "Burstable", "hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}],
        "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "conditions": [{"type": "Ready"}, {"type": "example.com/x"}],
        "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "c-gpu"}]});
    assert!(found(right).is_empty());
}
