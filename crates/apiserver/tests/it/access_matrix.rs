//! Who may do what: each row is asked as a review and done as a request, and both must say the same.

use std::time::Duration;

use crate::common::{Client, TestServer};
use serde_json::{Value, json};

const ALLOWED: bool = true;
const DENIED: bool = false;

/// Who (`group:` and a group, or a user), verb, what (`group/resource/subresource`, or a path), namespace, name, the verdict.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, bool);

const NODE: &str = "system:node:n1";
const ROBOT: &str = "system:serviceaccount:default:robot";

const MATRIX: &[Row] = &[
    // Groups that may do everything, and somebody who may do nothing but look around.
    ("group:system:masters", "delete", "/nodes", "", "n1", ALLOWED),
    ("group:system:masters", "get", "path:/metrics", "", "", ALLOWED),
    ("group:kubeadm:cluster-admins", "delete", "/secrets", "kube-system", "x", ALLOWED),
    ("eve", "list", "/pods", "default", "", DENIED),
    ("eve", "get", "/secrets", "default", "s1", DENIED),
    ("eve", "create", "authorization.k8s.io/selfsubjectaccessreviews", "", "", ALLOWED),
    ("eve", "create", "authentication.k8s.io/selfsubjectreviews", "", "", ALLOWED),
    ("eve", "create", "authorization.k8s.io/subjectaccessreviews", "", "", DENIED),
    ("eve", "create", "authentication.k8s.io/tokenreviews", "", "", DENIED),
    ("eve", "get", "path:/apis", "", "", ALLOWED),
    ("eve", "get", "path:/openapi/v3", "", "", ALLOWED),
    ("eve", "get", "path:/healthz", "", "", ALLOWED),
    ("eve", "get", "path:/metrics", "", "", DENIED),
    ("eve", "get", "path:/openid/v1/jwks", "", "", DENIED),
    ("eve", "post", "path:/healthz", "", "", DENIED),
    // view, edit and admin, in one namespace.
    ("alice", "list", "/pods", "default", "", ALLOWED),
    ("alice", "get", "/pods/log", "default", "p1", ALLOWED),
    ("alice", "list", "/pods", "", "", DENIED),
    ("alice", "list", "/pods", "kube-system", "", DENIED),
    ("alice", "get", "/namespaces", "default", "default", ALLOWED),
    ("alice", "list", "/namespaces", "", "", DENIED),
    ("alice", "get", "/secrets", "default", "s1", DENIED),
    ("alice", "delete", "/pods", "default", "p1", DENIED),
    ("alice", "get", "/pods/exec", "default", "p1", DENIED),
    ("alice", "get", "apps/deployments/scale", "default", "d", ALLOWED),
    ("alice", "list", "rbac.authorization.k8s.io/roles", "default", "", DENIED),
    ("bob", "get", "/secrets", "default", "s1", ALLOWED),
    ("bob", "delete", "/pods", "default", "p1", ALLOWED),
    ("bob", "deletecollection", "/configmaps", "default", "", ALLOWED),
    ("bob", "create", "/pods/exec", "default", "p1", ALLOWED),
    ("bob", "create", "/pods/eviction", "default", "p1", ALLOWED),
    ("bob", "create", "/serviceaccounts/token", "default", "robot", ALLOWED),
    ("bob", "update", "/pods/status", "default", "p1", DENIED),
    ("bob", "create", "/resourcequotas", "default", "", DENIED),
    ("bob", "create", "rbac.authorization.k8s.io/rolebindings", "default", "", DENIED),
    ("bob", "impersonate", "/serviceaccounts", "default", "robot", ALLOWED),
    ("bob", "impersonate", "/users", "", "alice", DENIED),
    ("carol", "create", "rbac.authorization.k8s.io/rolebindings", "default", "", ALLOWED),
    ("carol", "create", "authorization.k8s.io/localsubjectaccessreviews", "default", "", ALLOWED),
    ("carol", "patch", "/namespaces", "default", "default", DENIED),
    // Rules with names, subresources and URLs.
    ("dave", "get", "/secrets", "default", "s1", ALLOWED),
    ("dave", "get", "/secrets", "default", "s2", DENIED),
    ("dave", "list", "/secrets", "default", "", DENIED),
    ("dave", "create", "/secrets", "default", "", DENIED),
    ("dave", "get", "apps/deployments/scale", "default", "d", ALLOWED),
    ("dave", "get", "apps/deployments", "default", "d", DENIED),
    ("dave", "get", "/pods/log", "default", "p1", ALLOWED),
    ("dave", "get", "/pods", "default", "p1", DENIED),
    ("dave", "get", "path:/metrics", "", "", ALLOWED),
    ("dave", "get", "path:/metrics/slis", "", "", DENIED),
    ("dave", "get", "path:/debug/x/y", "", "", ALLOWED),
    // Service accounts, and groups of them.
    (ROBOT, "get", "path:/openid/v1/jwks", "", "", ALLOWED),
    (ROBOT, "get", "path:/.well-known/openid-configuration", "", "", ALLOWED),
    (ROBOT, "get", "/configmaps", "default", "c1", ALLOWED),
    (ROBOT, "get", "/secrets", "default", "s1", DENIED),
    ("system:serviceaccount:kube-system:robot", "get", "/configmaps", "default", "c1", DENIED),
    // A kubelet: what pods on its node refer to, and nothing else.
    (NODE, "get", "/secrets", "default", "s1", ALLOWED),
    (NODE, "list", "/secrets", "default", "", DENIED),
    (NODE, "get", "/secrets", "default", "s2", DENIED),
    (NODE, "get", "/secrets", "storage", "volume-secret", ALLOWED),
    (NODE, "delete", "/secrets", "default", "s1", DENIED),
    (NODE, "get", "/configmaps", "default", "c1", ALLOWED),
    (NODE, "get", "/configmaps", "default", "c2", DENIED),
    (NODE, "get", "/persistentvolumeclaims", "default", "claim", ALLOWED),
    (NODE, "patch", "/persistentvolumeclaims/status", "default", "claim", ALLOWED),
    (NODE, "patch", "/persistentvolumeclaims", "default", "claim", DENIED),
    (NODE, "get", "/persistentvolumes", "", "volume", ALLOWED),
    (NODE, "get", "/persistentvolumes", "", "other", DENIED),
    (NODE, "list", "/persistentvolumes", "", "", DENIED),
    (NODE, "create", "/serviceaccounts/token", "default", "robot", ALLOWED),
    (NODE, "create", "/serviceaccounts/token", "default", "other", DENIED),
    (NODE, "get", "resource.k8s.io/resourceclaims", "default", "device", ALLOWED),
    (NODE, "get", "resource.k8s.io/resourceclaims", "default", "other", DENIED),
    (NODE, "create", "resource.k8s.io/resourceslices", "", "", ALLOWED),
    (NODE, "list", "resource.k8s.io/resourceslices", "", "", DENIED),
    (NODE, "get", "/pods", "default", "p1", ALLOWED),
    (NODE, "get", "/pods", "default", "p2", DENIED),
    (NODE, "list", "/pods", "", "", DENIED),
    (NODE, "patch", "/pods/status", "default", "p1", ALLOWED),
    (NODE, "patch", "/pods", "default", "p1", DENIED),
    (NODE, "create", "/pods/eviction", "default", "p1", ALLOWED),
    (NODE, "create", "/pods/exec", "default", "p1", DENIED),
    (NODE, "get", "/nodes", "", "n1", ALLOWED),
    (NODE, "get", "/nodes", "", "n2", DENIED),
    (NODE, "list", "/nodes", "", "", DENIED),
    (NODE, "delete", "/nodes", "", "n1", DENIED),
    (NODE, "patch", "/nodes/status", "", "n1", ALLOWED),
    (NODE, "get", "coordination.k8s.io/leases", "kube-node-lease", "n1", ALLOWED),
    (NODE, "get", "coordination.k8s.io/leases", "kube-node-lease", "n2", DENIED),
    (NODE, "get", "coordination.k8s.io/leases", "kube-system", "n1", DENIED),
    (NODE, "get", "storage.k8s.io/csinodes", "", "n1", ALLOWED),
    (NODE, "get", "storage.k8s.io/csinodes", "", "n2", DENIED),
    (NODE, "list", "/services", "", "", ALLOWED),
    (NODE, "create", "/events", "default", "", ALLOWED),
    ("group:system:nodes", "get", "/nodes", "", "n1", DENIED),
    // The parts of the control plane.
    ("system:kube-scheduler", "create", "/pods/binding", "default", "p1", ALLOWED),
    ("system:kube-scheduler", "get", "/secrets", "default", "s1", DENIED),
    ("system:kube-controller-manager", "list", "apps/deployments", "", "", ALLOWED),
    ("system:kube-controller-manager", "update", "apps/deployments", "default", "d", DENIED),
    (
        "system:kube-controller-manager",
        "get",
        "/configmaps",
        "kube-system",
        "extension-apiserver-authentication",
        ALLOWED,
    ),
    ("system:serviceaccount:kube-system:token-cleaner", "delete", "/secrets", "kube-system", "x", ALLOWED),
    ("system:serviceaccount:kube-system:token-cleaner", "delete", "/secrets", "default", "s1", DENIED),
    (
        "system:serviceaccount:kube-system:bootstrap-signer",
        "update",
        "/configmaps",
        "kube-public",
        "cluster-info",
        ALLOWED,
    ),
    ("system:serviceaccount:kube-system:bootstrap-signer", "update", "/configmaps", "kube-public", "other", DENIED),
    ("system:anonymous", "get", "/configmaps", "kube-public", "cluster-info", ALLOWED),
    ("system:anonymous", "get", "/configmaps", "kube-public", "other", DENIED),
    ("system:anonymous", "get", "path:/version", "", "", ALLOWED),
    ("system:anonymous", "get", "path:/apis", "", "", DENIED),
    (
        "group:system:bootstrappers:kubeadm:default-node-token",
        "create",
        "certificates.k8s.io/certificatesigningrequests",
        "",
        "",
        ALLOWED,
    ),
    ("group:system:bootstrappers:kubeadm:default-node-token", "get", "/nodes", "", "n1", ALLOWED),
    ("group:system:bootstrappers:kubeadm:default-node-token", "list", "/secrets", "kube-system", "", DENIED),
];

/// User and groups of a row, as a login of that user would bring them.
fn subject(who: &str) -> (String, Vec<String>) {
    let authenticated = "system:authenticated".to_owned();
    if let Some(group) = who.strip_prefix("group:") {
        return ("somebody".into(), vec![group.into(), authenticated]);
    }
    let mut groups = match who.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, _)) => vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")],
        None if who.starts_with("system:node:") => vec!["system:nodes".into()],
        None if who == "system:anonymous" => return (who.into(), vec!["system:unauthenticated".into()]),
        None => Vec::new(),
    };
    groups.push(authenticated);
    (who.into(), groups)
}

async fn review(admin: &mut Client, row: &Row) -> Value {
    let (who, verb, what, namespace, name, _) = *row;
    let (user, groups) = subject(who);
    let mut spec = json!({ "user": user, "groups": groups });
    if let Some(path) = what.strip_prefix("path:") {
        spec["nonResourceAttributes"] = json!({ "verb": verb, "path": path });
    } else {
        let mut parts = what.split('/');
        let mut part = || parts.next().unwrap_or_default();
        spec["resourceAttributes"] = json!({"verb": verb, "group": part(), "version": "v1", "resource": part(),
            "subresource": part(), "namespace": namespace, "name": name});
    }
    let answer = admin.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &json!({ "spec": spec })).await;
    assert_eq!(answer.code, 201, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()["status"].clone()
}

/// Does it as that user; whether the authorizer let it pass, whatever became of it then.
async fn request(admin: &mut Client, row: &Row) -> bool {
    let (who, verb, what, namespace, name, _) = *row;
    let (user, groups) = subject(who);
    let (method, query) = match verb {
        "get" => ("GET", ""),
        "list" => ("GET", "?limit=1"),
        "create" | "post" => ("POST", "?dryRun=All"),
        "update" => ("PUT", "?dryRun=All"),
        "patch" => ("PATCH", "?dryRun=All"),
        "delete" | "deletecollection" => ("DELETE", "?dryRun=All"),
        other => panic!("no request has the verb {other}"),
    };
    let url = match what.strip_prefix("path:") {
        Some(path) => path.to_owned(),
        None => {
            let parts: Vec<&str> = what.split('/').collect();
            let root = if parts[0].is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}/v1", parts[0]) };
            let scope = match namespace {
                "" => String::new(),
                _ if parts[1] == "namespaces" => String::new(),
                namespace => format!("/namespaces/{namespace}"),
            };
            let tail: Vec<&str> =
                [parts[1], name].into_iter().chain(parts.get(2).copied()).filter(|p| !p.is_empty()).collect();
            format!("{root}{scope}/{}{query}", tail.join("/"))
        }
    };
    let mut headers = vec![("impersonate-user", user.as_str()), ("content-type", "application/json")];
    if verb == "patch" {
        headers[1].1 = "application/merge-patch+json";
    }
    headers.extend(groups.iter().map(|group| ("impersonate-group", group.as_str())));
    let answer = admin.send(method, &url, &headers, if method == "GET" { "" } else { "{}" }).await;
    let message = String::from_utf8_lossy(&answer.body).into_owned();
    !(answer.code == 403 && message.contains(" cannot "))
}

/// The objects that the rows are about.
async fn furnish(admin: &mut Client) {
    let mut make = async |path: &str, body: Value| {
        let answer = admin.post(path, &body).await;
        assert_eq!(answer.code, 201, "{path}: {}", String::from_utf8_lossy(&answer.body));
    };
    let named = |name: &str| json!({"metadata": {"name": name}});
    for name in ["n1", "n2"] {
        make("/api/v1/nodes", named(name)).await;
    }
    let default = "/api/v1/namespaces/default";
    for name in ["default", "robot", "other"] {
        make(&format!("{default}/serviceaccounts"), named(name)).await;
    }
    for name in ["s1", "s2"] {
        make(&format!("{default}/secrets"), named(name)).await;
    }
    for name in ["c1", "c2"] {
        make(&format!("{default}/configmaps"), named(name)).await;
    }
    let size = json!({"storage": "1Gi"});
    for (name, claim) in [("volume", "claim"), ("other", "another")] {
        make(
            "/api/v1/persistentvolumes",
            json!({"metadata": {"name": name}, "spec": {"capacity": size, "accessModes": ["ReadWriteOnce"],
                "claimRef": {"namespace": "default", "name": claim},
                "csi": {"driver": "d", "volumeHandle": "h",
                    "nodePublishSecretRef": {"namespace": "storage", "name": "volume-secret"}}}}),
        )
        .await;
    }
    make(
        &format!("{default}/persistentvolumeclaims"),
        json!({"metadata": {"name": "claim"}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "volume",
            "resources": {"requests": size}}}),
    )
    .await;
    let pod = |name: &str, node: &str, secret: &str, map: &str, annotations: Value| {
        json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"nodeName": node,
            "containers": [{"name": "c", "image": "i", "envFrom": [
                {"secretRef": {"name": secret}}, {"configMapRef": {"name": map}}]}]}})
    };
    let mut first = pod("p1", "n1", "s1", "c1", json!({}));
    first["spec"]["serviceAccountName"] = "robot".into();
    first["spec"]["resourceClaims"] = json!([{"name": "d", "resourceClaimName": "device"}]);
    first["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}]);
    make(&format!("{default}/pods"), first).await;
    make(&format!("{default}/pods"), pod("p2", "n2", "s2", "c2", json!({}))).await;

    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let bind = |name: &str, kind: &str, role: &str, subject: Value| {
        json!({"metadata": {"name": name}, "subjects": [subject],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}})
    };
    let user = |name: &str| json!({"kind": "User", "name": name});
    let bindings = format!("{rbac}/namespaces/default/rolebindings");
    for (name, role) in [("alice", "view"), ("bob", "edit"), ("carol", "admin")] {
        make(&bindings, bind(name, "ClusterRole", role, user(name))).await;
    }
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s1"], "verbs": ["get", "list", "create"]},
        {"apiGroups": ["apps"], "resources": ["*/scale"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]);
    make(&format!("{rbac}/namespaces/default/roles"), json!({"metadata": {"name": "narrow"}, "rules": rules})).await;
    make(&bindings, bind("dave", "Role", "narrow", user("dave"))).await;
    let urls = json!([{"nonResourceURLs": ["/metrics", "/debug/*"], "verbs": ["get"]}]);
    make(&format!("{rbac}/clusterroles"), json!({"metadata": {"name": "urls"}, "rules": urls})).await;
    make(&format!("{rbac}/clusterrolebindings"), bind("urls", "ClusterRole", "urls", user("dave"))).await;
    let reads = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    make(&format!("{rbac}/namespaces/default/roles"), json!({"metadata": {"name": "reader"}, "rules": reads})).await;
    let group = json!({"kind": "Group", "name": "system:serviceaccounts:default"});
    make(&bindings, bind("robots", "Role", "reader", group)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_and_requests_follow_the_matrix() {
    let server = TestServer::start().await;
    let mut admin = server.client().await;
    furnish(&mut admin).await;
    // The rules take effect once the index has seen them, a moment after the last write.
    let last = ("dave", "get", "path:/metrics", "", "", ALLOWED);
    for _ in 0..100 {
        if review(&mut admin, &last).await["allowed"] == true {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut wrong = Vec::new();
    for row in MATRIX {
        let (who, verb, what, namespace, name, expected) = *row;
        let answer = review(&mut admin, row).await;
        let asked = answer["allowed"] == true;
        // Impersonation is no request of its own: it is done, and tested, elsewhere.
        let done = if verb == "impersonate" { asked } else { request(&mut admin, row).await };
        if asked != expected || done != expected {
            wrong.push(format!("{who} {verb} {what} {namespace:?} {name:?}: review {asked}, request {done}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let reason = review(&mut admin, &("alice", "list", "/pods", "default", "", ALLOWED)).await["reason"].clone();
    assert_eq!(reason, "RBAC: allowed by RoleBinding \"alice/default\" of ClusterRole \"view\" to User \"alice\"");
    let by_group = review(&mut admin, &(ROBOT, "get", "/configmaps", "default", "c1", ALLOWED)).await["reason"].clone();
    let words = "RBAC: allowed by RoleBinding \"robots/default\" of Role \"reader\" to Group \"system:serviceaccounts:default\"";
    assert_eq!(by_group, words);
}
