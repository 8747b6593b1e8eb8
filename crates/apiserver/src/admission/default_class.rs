//! DefaultStorageClass and DefaultIngressClass: what names no class gets the one marked as the default.

use async_trait::async_trait;
use kminik_meta::{Object, StatusError};

use super::{Admission, Attributes, Operation};

/// A kind whose objects have a class.
pub(super) struct DefaultClass {
    name: &'static str,
    /// Group and plural of what gets a class.
    of: (&'static str, &'static str),
    /// Field that names the class.
    field: [&'static str; 2],
    /// The older way to name it.
    annotation: &'static str,
    /// Group and plural of the classes.
    classes: (&'static str, &'static str),
    /// Annotations that mark a default with `true`.
    marks: &'static [&'static str],
}

pub(super) const STORAGE: DefaultClass = DefaultClass {
    name: "DefaultStorageClass",
    of: ("", "persistentvolumeclaims"),
    field: ["spec", "storageClassName"],
    annotation: "volume.beta.kubernetes.io/storage-class",
    classes: ("storage.k8s.io", "storageclasses"),
    marks: &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"],
};

pub(super) const INGRESS: DefaultClass = DefaultClass {
    name: "DefaultIngressClass",
    of: ("networking.k8s.io", "ingresses"),
    field: ["spec", "ingressClassName"],
    annotation: "kubernetes.io/ingress.class",
    classes: ("networking.k8s.io", "ingressclasses"),
    marks: &["ingressclass.kubernetes.io/is-default-class"],
};

#[async_trait]
impl Admission for DefaultClass {
    fn name(&self) -> &'static str {
        self.name
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is(Operation::Create, self.of.0, self.of.1)
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), StatusError> {
        // An empty class is a choice: none.
        if object.get(&self.field).is_some() || object.annotation(self.annotation).is_some() {
            return Ok(());
        }
        let classes = attributes.registry.cached(self.classes.0, self.classes.1);
        let classes = classes.entries.values().filter_map(|entry| entry.object().ok());
        let defaults = classes.filter(|class| self.marks.iter().any(|mark| class.annotation(mark) == Some("true")));
        // The newest wins; of equally old ones, the first by name.
        let newest = defaults
            .max_by(|a, b| a.creation_timestamp().cmp(&b.creation_timestamp()).then_with(|| b.name().cmp(a.name())));
        if let Some(class) = newest {
            object.set(&self.field, class.name());
        }
        Ok(())
    }
}
