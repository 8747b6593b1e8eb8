//! StorageObjectInUseProtection: volumes, claims and classes of their attributes are held by a finalizer until nobody uses them.

use async_trait::async_trait;
use kminik_meta::{Object, StatusError};

use super::{Admission, Attributes, Operation};

/// By group and resource.
const FINALIZERS: [(&str, &str, &str); 3] = [
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

pub(super) struct StorageObjectInUseProtection;

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        FINALIZERS.iter().any(|(group, plural, _)| attributes.is(Operation::Create, group, plural))
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), StatusError> {
        let row = FINALIZERS.iter().find(|(group, plural, _)| attributes.is(Operation::Create, group, plural));
        let Some((_, _, finalizer)) = row else { return Ok(()) };
        let mut finalizers: Vec<String> = object.finalizers().into_iter().map(str::to_owned).collect();
        if !finalizers.iter().any(|present| present == finalizer) {
            finalizers.push((*finalizer).to_owned());
            object.set_finalizers(&finalizers);
        }
        Ok(())
    }
}
