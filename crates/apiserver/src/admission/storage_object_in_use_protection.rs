//! StorageObjectInUseProtection: volumes and claims are held by a finalizer until nobody uses them.

use async_trait::async_trait;
use kminik_meta::{Object, StatusError};

use super::{Admission, Attributes, Operation};

const FINALIZERS: [(&str, &str); 2] =
    [("persistentvolumeclaims", "kubernetes.io/pvc-protection"), ("persistentvolumes", "kubernetes.io/pv-protection")];

pub(super) struct StorageObjectInUseProtection;

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        FINALIZERS.iter().any(|(plural, _)| attributes.is(Operation::Create, "", plural))
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), StatusError> {
        let Some((_, finalizer)) = FINALIZERS.iter().find(|(plural, _)| attributes.row.plural == *plural) else {
            return Ok(());
        };
        let mut finalizers: Vec<String> = object.finalizers().into_iter().map(str::to_owned).collect();
        if !finalizers.iter().any(|present| present == finalizer) {
            finalizers.push((*finalizer).to_owned());
            object.set_finalizers(&finalizers);
        }
        Ok(())
    }
}
