//! What is lost with the data of a worker: it is on that machine only.

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::ListParams;
use kube::{Api, Client};

use super::answered;
use crate::drivers::Machine;
use crate::printer::Printer;
use crate::reason::Outcome;

/// By what a volume says on which node it is.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Says what has gone with the data of a worker that others have removed.
///
/// # Errors
/// `K8S_NOT_RESPONDING`.
pub async fn tell(client: &Client, machine: Machine<'_>, printer: &Printer) -> Outcome<()> {
    let name = machine.name();
    printer.warning(&format!("The data of the node \"{name}\" was removed by other hands: it is made anew, empty"));
    tell_volumes(client, &machine.node_name(), printer).await
}

/// Says which volumes were on the node, which no other has.
///
/// # Errors
/// `K8S_NOT_RESPONDING`.
pub async fn tell_volumes(client: &Client, node: &str, printer: &Printer) -> Outcome<()> {
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let listed = answered(volumes.list(&ListParams::default())).await?;
    let theirs: Vec<String> = listed.items.iter().filter(|volume| is_only_on(volume, node)).map(shown).collect();
    if !theirs.is_empty() {
        let volumes = theirs.join(", ");
        printer.warning(&format!(
            "The data of these volumes was on {node} and is lost: {volumes}; delete the claims, and the volumes that stay, to have them made anew"
        ));
    }
    Ok(())
}

/// Whether pods that use the volume can be on this node only.
fn is_only_on(volume: &PersistentVolume, node: &str) -> bool {
    let spec = volume.spec.as_ref();
    let required = spec.and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    let terms = required.map(|required| required.node_selector_terms.as_slice()).unwrap_or_default();
    let names_it = |term: &k8s_openapi::api::core::v1::NodeSelectorTerm| {
        term.match_expressions.iter().flatten().any(|wanted| {
            wanted.key == HOSTNAME && wanted.operator == "In" && wanted.values.as_deref() == Some(&[node.to_owned()])
        })
    };
    !terms.is_empty() && terms.iter().all(names_it)
}

/// Its name, and whose it is.
fn shown(volume: &PersistentVolume) -> String {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    match claim.and_then(|claim| Some((claim.namespace.as_deref()?, claim.name.as_deref()?))) {
        Some((namespace, claim)) => format!("{name} ({namespace}/{claim})"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_is_where_it_says_and_only_there() {
        let volume = |terms: serde_json::Value| -> PersistentVolume {
            serde_json::from_value(json!({
                "metadata": {"name": "pvc-1"},
                "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}, "claimRef": {"namespace": "a", "name": "b"}},
            }))
            .unwrap()
        };
        let on = |values: &[&str]| json!({"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": values}]});
        assert!(is_only_on(&volume(json!([on(&["dev-m02"])])), "dev-m02"));
        assert!(!is_only_on(&volume(json!([on(&["dev-m03"])])), "dev-m02"));
        assert!(!is_only_on(&volume(json!([on(&["dev-m02", "dev"])])), "dev-m02"), "also elsewhere");
        assert!(!is_only_on(&volume(json!([on(&["dev-m02"]), on(&["dev"])])), "dev-m02"), "also elsewhere");
        assert!(!is_only_on(&PersistentVolume::default(), "dev-m02"), "anywhere");
        assert_eq!(shown(&volume(json!([]))), "pvc-1 (a/b)");
    }
}
