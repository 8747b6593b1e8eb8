//! DefaultStorageClass: a claim that names no class gets the default one.

use async_trait::async_trait;
use kminik_meta::{Object, StatusError};

use super::{Admission, Attributes, Operation};

const IS_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) struct DefaultStorageClass;

#[async_trait]
impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is(Operation::Create, "", "persistentvolumeclaims")
    }

    async fn mutate(&self, attributes: &Attributes<'_>, claim: &mut Object) -> Result<(), StatusError> {
        // An empty class is a choice: no provisioning.
        if claim.get(&["spec", "storageClassName"]).is_some() || claim.annotation(CLASS_ANNOTATION).is_some() {
            return Ok(());
        }
        let classes = attributes.registry.cached("storage.k8s.io", "storageclasses");
        let classes = classes.entries.values().filter_map(|entry| entry.object().ok());
        let defaults = classes.filter(|class| IS_DEFAULT.iter().any(|key| class.annotation(key) == Some("true")));
        // The newest wins; of equally old ones, the first by name.
        let newest = defaults
            .max_by(|a, b| a.creation_timestamp().cmp(&b.creation_timestamp()).then_with(|| b.name().cmp(a.name())));
        if let Some(class) = newest {
            claim.set(&["spec", "storageClassName"], class.name());
        }
        Ok(())
    }
}
