//! Objects of custom resources from version to version: by a webhook, or by their apiVersion alone.

mod review;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kminik_meta::decode::{self, FieldValidation};
use kminik_meta::schema::{Ref, Schema};
use kminik_meta::{Object, StatusError};
use serde_json::Value;

use crate::outbound::review::ReviewVersion;
use crate::outbound::{Bounds, Outbound, Target, TargetError};
use crate::registry::hub::Converter;

/// A webhook may take so long, as upstream's client lets it.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer, in bytes. What is asked about together is a fraction of it.
const ANSWER_LIMIT: usize = 16 << 20;

/// The versions of a custom resource.
pub(super) struct Versions {
    /// By apiVersion.
    schemas: Vec<(String, Ref)>,
    /// Without one, versions differ in their apiVersion only.
    webhook: Option<ConversionWebhook>,
}

impl Versions {
    pub(super) fn new(schemas: Vec<(String, Ref)>, webhook: Option<ConversionWebhook>) -> Self {
        Versions { schemas, webhook }
    }
}

#[async_trait]
impl Converter for Versions {
    async fn convert(&self, mut objects: Vec<Object>, api_version: &str) -> Result<Vec<Object>, StatusError> {
        let mut sources: Vec<String> = Vec::new();
        for object in objects.iter().filter(|object| object.api_version() != api_version) {
            if !sources.iter().any(|source| source == object.api_version()) {
                sources.push(object.api_version().to_owned());
            }
        }
        for source in sources {
            let mut of_source: Vec<&mut Object> =
                objects.iter_mut().filter(|object| object.api_version() == source).collect();
            match &self.webhook {
                Some(webhook) => webhook.convert(&mut of_source, api_version).await?,
                None => of_source.iter_mut().for_each(|object| object.set(&["apiVersion"], api_version)),
            }
            let Some(schema) = self.schema(api_version) else { continue };
            for object in of_source {
                let mut known = object.clone();
                // What is of another type than the schema's is for validation to find.
                if decode::conform(&mut known, schema, FieldValidation::Ignore).is_ok() {
                    *object = known;
                }
            }
        }
        Ok(objects)
    }

    fn schema(&self, api_version: &str) -> Option<&Schema> {
        self.schemas.iter().find(|(version, _)| version == api_version).map(|(_, schema)| schema.get())
    }
}

/// A webhook that converts.
pub(super) struct ConversionWebhook {
    target: Result<Target, TargetError>,
    /// The first version it takes that is known here.
    review: Option<ReviewVersion>,
    outbound: Arc<Outbound>,
}

impl ConversionWebhook {
    /// Reads `clientConfig` and `conversionReviewVersions`.
    pub(super) fn new(client_config: &Value, review_versions: &[String], outbound: Arc<Outbound>) -> Self {
        ConversionWebhook {
            target: Target::of_client_config(client_config),
            review: review_versions.iter().find_map(|version| ReviewVersion::parse(version)),
            outbound,
        }
    }

    /// Converts objects that all are of one version.
    async fn convert(&self, objects: &mut [&mut Object], api_version: &str) -> Result<(), StatusError> {
        let Some(first) = objects.first() else { return Ok(()) };
        let kind = first.gvk();
        let failed =
            |why: &dyn std::fmt::Display| StatusError::unknown(format!("conversion webhook for {kind} failed: {why}"));
        let target = self.target.as_ref().map_err(|error| failed(error))?;
        let review = self.review.ok_or_else(|| StatusError::unknown("no supported conversion review versions"))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let sent: Vec<&Object> = objects.iter().map(|object| &**object).collect();
        let question = review::question(review, &uid, api_version, &sent)?;
        let bounds = Bounds { timeout: TIMEOUT, body: ANSWER_LIMIT };
        let answer = self.outbound.ask(target, question, bounds).await.map_err(|error| failed(&error))?;
        let converted = review::answer(review, &uid, &answer).map_err(|error| failed(&error))?;
        let taken = review::take(objects, converted, api_version);
        taken.map_err(|error| StatusError::unknown(format!("conversion webhook for {kind} returned {error}")))
    }
}
