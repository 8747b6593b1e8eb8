//! Objects of custom resources from version to version: by a webhook, or by their apiVersion alone.

mod review;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kminik_meta::decode::{self, FieldValidation};
use kminik_meta::schema::{Ref, Schema};
use kminik_meta::{Object, StatusError};
use serde_json::Value;

use self::review::BadObjects;
use crate::metrics::flag;
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
                Some(webhook) => webhook.convert_counted(&mut of_source, &source, api_version).await?,
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
    /// The definition's.
    name: String,
    target: Result<Target, TargetError>,
    /// The first version it takes that is known here.
    review: Option<ReviewVersion>,
    outbound: Arc<Outbound>,
}

impl ConversionWebhook {
    /// Reads `clientConfig` and `conversionReviewVersions`.
    pub(super) fn new(name: String, client_config: &Value, versions: &[String], outbound: Arc<Outbound>) -> Self {
        ConversionWebhook {
            name,
            target: Target::of_client_config(client_config),
            review: versions.iter().find_map(|version| ReviewVersion::parse(version)),
            outbound,
        }
    }

    /// Converts objects that all are of one version, and counts what came of it.
    async fn convert_counted(
        &self,
        objects: &mut [&mut Object],
        source: &str,
        api_version: &str,
    ) -> Result<(), StatusError> {
        let started = Instant::now();
        let converted = self.convert(objects, api_version).await;
        let (took, table) = (started.elapsed(), &self.outbound.metrics().table.custom);
        let version = |api_version: &str| api_version.rsplit('/').next().unwrap_or_default().to_owned();
        let (from, to) = (version(source), version(api_version));
        table.conversions.with([&self.name, &from, flag(converted.is_ok()), &to]).took(took);
        let (failure, result) = match &converted {
            Ok(()) => ("", "success"),
            Err(Failed { kind, .. }) => (*kind, "failure"),
        };
        table.conversion_requests.with([failure, result]).inc();
        table.conversion_duration.with([failure, result]).took(took);
        converted.map_err(|failed| failed.status)
    }

    /// Converts objects that all are of one version.
    async fn convert(&self, objects: &mut [&mut Object], api_version: &str) -> Result<(), Failed> {
        let Some(first) = objects.first() else { return Ok(()) };
        let kind = first.gvk();
        let failed = |failure: &'static str, why: &dyn std::fmt::Display| {
            Failed::new(failure, format!("conversion webhook for {kind} failed: {why}"))
        };
        let target = self.target.as_ref().map_err(|error| failed(CALL, error))?;
        let review = self.review.ok_or_else(|| Failed::new(CALL, "no supported conversion review versions"))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let sent: Vec<&Object> = objects.iter().map(|object| &**object).collect();
        let question = review::question(review, &uid, api_version, &sent);
        let question = question.map_err(|status| Failed { kind: CALL, status })?;
        let bounds = Bounds { timeout: TIMEOUT, body: ANSWER_LIMIT };
        let answer = self.outbound.ask(target, question, bounds).await.map_err(|error| failed(CALL, &error))?;
        let converted = review::answer(review, &uid, &answer).map_err(|error| failed(MALFORMED, &error))?;
        let taken = review::take(objects, converted, api_version);
        taken.map_err(|error| {
            let failure = match error {
                BadObjects::Count { .. } => PARTIAL,
                BadObjects::One(_) | BadObjects::OfMany(..) => INVALID,
            };
            Failed::new(failure, format!("conversion webhook for {kind} returned {error}"))
        })
    }
}

// What went wrong, as metrics name it.
const CALL: &str = "conversion_webhook_call_failure";
const MALFORMED: &str = "conversion_webhook_malformed_response_failure";
const PARTIAL: &str = "conversion_webhook_partial_response_failure";
const INVALID: &str = "conversion_webhook_invalid_converted_object_failure";

/// No conversion.
struct Failed {
    kind: &'static str,
    status: StatusError,
}

impl Failed {
    fn new(kind: &'static str, why: impl std::fmt::Display) -> Self {
        Failed { kind, status: StatusError::unknown(why.to_string()) }
    }
}
