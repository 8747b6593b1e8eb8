//! The claims of a StatefulSet's pods: made before the pod, mounted by it, kept or removed as the retention policy says.
//!
//! A claim to be removed with the set is owned by the set, one to be removed when the set shrinks by the pod that goes; the garbage
//! collector does the rest.

use k8s_openapi::api::apps::v1::StatefulSetPersistentVolumeClaimRetentionPolicy as Policy;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kminik_client::ObjectKey;
use kube::ResourceExt;

use super::Sync;
use crate::error::Error;
use crate::owners::controller_reference;

impl Sync<'_> {
    fn templates(&self) -> &[PersistentVolumeClaim] {
        self.spec.volume_claim_templates.as_deref().unwrap_or_default()
    }

    fn claim_name(&self, template: &PersistentVolumeClaim, number: i32) -> String {
        format!("{}-{}-{number}", template.name_any(), self.key.name)
    }

    /// The policy for that occasion is `Delete`.
    fn policy(&self, when: fn(&Policy) -> &Option<String>) -> bool {
        let policy = self.spec.persistent_volume_claim_retention_policy.as_ref();
        policy.and_then(|policy| when(policy).as_deref()) == Some("Delete")
    }

    /// Creates the claims that the pod of this number lacks.
    pub(super) async fn make_claims(&self, pod: &str, number: i32) -> Result<(), Error> {
        let (context, claims) = (&self.controller.context, &self.controller.claims);
        for template in self.templates() {
            let name = self.claim_name(template, number);
            if claims.get(&ObjectKey::new(self.key.namespace.clone(), name.clone())).is_some() {
                continue;
            }
            let mut labels = template.metadata.labels.clone().unwrap_or_default();
            labels.extend(self.spec.selector.match_labels.clone().unwrap_or_default());
            let owned = self.policy(|policy| &policy.when_deleted);
            let claim = PersistentVolumeClaim {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: Some(self.key.namespace.clone()),
                    labels: Some(labels),
                    annotations: template.metadata.annotations.clone(),
                    owner_references: owned.then(|| vec![self.set_reference()]),
                    ..ObjectMeta::default()
                },
                spec: template.spec.clone(),
                status: None,
            };
            match context.create(&self.key, claims, &claim).await {
                Ok(_) => {
                    let set = &self.key.name;
                    let message = format!("create Claim {name} Pod {pod} in StatefulSet {set} success");
                    context.recorder.normal(self.set.as_ref(), "SuccessfulCreate", message);
                }
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts the claims in place of the volumes that are named like their templates.
    pub(super) fn mount_claims(&self, spec: &mut PodSpec, number: i32) {
        let volumes = spec.volumes.get_or_insert_default();
        for template in self.templates() {
            let name = template.name_any();
            volumes.retain(|volume| volume.name != name);
            volumes.push(Volume {
                name,
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: self.claim_name(template, number),
                    read_only: Some(false),
                }),
                ..Volume::default()
            });
        }
    }

    /// Gives the claims of members the owner that the policy for the set's deletion wants.
    pub(super) async fn keep_claims_owned(&self) -> Result<(), Error> {
        let by_set = self.policy(|policy| &policy.when_deleted);
        for (number, _) in self.pods.iter().filter(|(number, _)| !self.is_condemned(*number)) {
            let wanted: Vec<_> = by_set.then(|| self.set_reference()).into_iter().collect();
            self.own_claims(*number, &wanted).await?;
        }
        Ok(())
    }

    /// Lets the claims of a pod that goes because the set shrinks go with it, if the policy says so.
    pub(super) async fn give_claims_to_pod(&self, pod: &Pod, number: i32) -> Result<(), Error> {
        if !self.policy(|policy| &policy.when_scaled) {
            return Ok(());
        }
        let reference = OwnerReference { block_owner_deletion: None, controller: None, ..controller_reference(pod) };
        self.own_claims(number, &[reference]).await
    }

    fn set_reference(&self) -> OwnerReference {
        controller_reference(self.set.as_ref())
    }

    async fn own_claims(&self, number: i32, wanted: &[OwnerReference]) -> Result<(), Error> {
        let (context, claims) = (&self.controller.context, &self.controller.claims);
        // References to the set and to its pods are ours, any other stays.
        let is_ours = |reference: &OwnerReference| {
            reference.uid == self.set.uid().unwrap_or_default()
                || (reference.kind == "Pod" && super::number_of(&self.key.name, &reference.name).is_some())
        };
        for template in self.templates() {
            let key = ObjectKey::new(self.key.namespace.clone(), self.claim_name(template, number));
            let Some(claim) = claims.get(&key) else { continue };
            let mut updated = claim.as_ref().clone();
            let mut references = claim.metadata.owner_references.clone().unwrap_or_default();
            references.retain(|reference| !is_ours(reference));
            references.extend_from_slice(wanted);
            updated.metadata.owner_references = Some(references).filter(|references| !references.is_empty());
            match context.update(&self.key, claims, &claim, &updated).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
