//! The status of policies: that a generation has been type-checked, and what was found.

use std::sync::Arc;

use kminik_meta::StatusError;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::typecheck;
use crate::Server;
use crate::bootstrap;
use crate::http::service::LocalService;
use crate::storage::follow::follow;

/// Where policies are stored.
const STORED: &str = "admissionregistration.k8s.io/validatingadmissionpolicies";
const COLLECTION: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
/// Upstream's controller of this purpose, whose name the fields are owned under.
const MANAGER: &str = "validatingadmissionpolicy-status-controller";

/// Checks every new generation of a policy until cancelled.
pub(crate) async fn keep(server: Arc<Server>, stop: CancellationToken) {
    let client = LocalService::new(server.clone(), bootstrap::user());
    let changes = server.registry().cache().resource(STORED).subscribe();
    follow("the status of ValidatingAdmissionPolicies", changes, stop, || pass(&server, &client)).await;
}

async fn pass(server: &Server, client: &LocalService) -> Result<(), StatusError> {
    let snapshot = server.registry().cache().fresh(STORED).await?;
    for entry in snapshot.entries.values() {
        let policy = entry.object()?;
        let observed = policy.i64(&["status", "observedGeneration"]).unwrap_or_default();
        if policy.generation() <= observed {
            continue;
        }
        let mut checked = json!({});
        let warnings = typecheck::warnings(&policy, &server.registry().table());
        if !warnings.is_empty() {
            checked["expressionWarnings"] = warnings.into();
        }
        let status = json!({
            "apiVersion": policy.api_version(), "kind": policy.kind(), "metadata": {"name": policy.name()},
            "status": {"observedGeneration": policy.generation(), "typeChecking": checked},
        });
        bootstrap::apply_status(client, MANAGER, COLLECTION, &status).await?;
    }
    Ok(())
}
