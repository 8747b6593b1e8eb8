//! PersistentVolumeClaimResize: a claim grows only if it is bound and its class can make volumes grow.

use async_trait::async_trait;
use kminik_meta::pod_resources::amounts;
use kminik_meta::{Object, StatusError};

use super::{Admission, Attributes, Operation};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) struct PersistentVolumeClaimResize;

#[async_trait]
impl Admission for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is(Operation::Update, "", "persistentvolumeclaims")
    }

    fn may_mutate(&self) -> bool {
        false
    }

    async fn validate(&self, attributes: &Attributes<'_>, claim: Option<&Object>) -> Result<(), StatusError> {
        let (Some(new), Some(old)) = (claim, attributes.old) else { return Ok(()) };
        let size = |claim: &Object| amounts(claim.get(&["spec", "resources", "requests"])).remove("storage");
        if size(new).unwrap_or_default() <= size(old).unwrap_or_default() {
            return Ok(());
        }
        if old.str(&["status", "phase"]) != Some("Bound") {
            return Err(attributes.forbidden("Only bound persistent volume claims can be expanded"));
        }
        match grows(attributes, new, old) {
            true => Ok(()),
            false => Err(attributes.forbidden(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                 support resize",
            )),
        }
    }
}

fn grows(attributes: &Attributes<'_>, new: &Object, old: &Object) -> bool {
    fn class(claim: &Object) -> &str {
        claim.annotation(CLASS_ANNOTATION).or_else(|| claim.str(&["spec", "storageClassName"])).unwrap_or_default()
    }
    if class(new).is_empty() || class(new) != class(old) {
        return false;
    }
    let class = attributes.registry.cached_object("storage.k8s.io", "storageclasses", "", class(new));
    class.is_some_and(|class| class.bool(&["allowVolumeExpansion"]) == Some(true))
}
