//! Which requests a webhook or a policy is asked about: rules over operations and resources, and selectors over
//! namespaces and objects. One matcher for all kinds of admissionregistration.k8s.io.

use std::borrow::Cow;
use std::sync::Arc;

use kminik_meta::decode::FieldValidation;
use kminik_meta::schema::Schema;
use kminik_meta::{Gvk, LabelSelector, Object, StatusError};
use serde_json::Value;

use super::{Attributes, Operation};
use crate::registry::def::{ResourceDef, Storage, VersionDef};
use crate::schema;

const GROUP: &str = "admissionregistration.k8s.io";
/// Nobody is asked about the kinds that say who is asked: a mistake in one could never be mended.
const EXEMPT: [&str; 6] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

/// Whether no webhook and no policy is asked about this request.
pub fn is_exempt(attributes: &Attributes<'_>) -> bool {
    attributes.row.group == GROUP && EXEMPT.contains(&attributes.row.kind.as_ref())
}

/// The members of a webhook, or of a policy's `matchConstraints` or a binding's `matchResources`, that choose requests.
pub struct Criteria {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// What no rules mean: everything in policies, nothing in webhooks.
    all_without_rules: bool,
    /// Rules also match requests for the same objects in other versions or groups (`matchPolicy: Equivalent`).
    equivalent: bool,
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
}

/// How the one who is asked sees the request: its resource and version, or an equivalent one that the rules name.
pub struct Sighting {
    pub row: Arc<ResourceDef>,
    pub version: VersionDef,
    /// Kind of the request's object there, that of a subresource if it has its own.
    pub kind: Gvk,
    /// Whether that is the row's own kind, which has other versions.
    own: bool,
    /// apiVersion that the request's row works in.
    hub: String,
}

impl Sighting {
    /// An object of the request as it is seen.
    ///
    /// # Errors
    /// 500 for a conversion that fails.
    pub async fn seen<'o>(&self, object: &'o Object) -> Result<Cow<'o, Object>, StatusError> {
        if !self.own || (object.kind() == self.kind.kind && object.api_version() == self.kind.api_version()) {
            return Ok(Cow::Borrowed(object));
        }
        let mut seen = object.clone();
        match &self.row.hub {
            Some(hub) => seen = hub.convert_one(seen, &self.kind.api_version()).await?,
            None => self.row.from_stored(&self.version, &mut seen),
        }
        Ok(Cow::Owned(seen))
    }

    /// As [`Self::seen`], where there is an object.
    ///
    /// # Errors
    /// 500 for a conversion that fails.
    pub async fn seen_if_any<'o>(&self, object: Option<&'o Object>) -> Result<Option<Cow<'o, Object>>, StatusError> {
        match object {
            Some(object) => self.seen(object).await.map(Some),
            None => Ok(None),
        }
    }

    /// The type of the request's object there.
    ///
    /// # Errors
    /// 500 for a kind that has none: a mistake in the program.
    pub fn schema(&self) -> Result<&Schema, StatusError> {
        if self.own { Ok(&self.version.schema) } else { schema::of(&self.kind) }
    }

    /// Brings an object that was changed, as it is seen, into normal form with defaults.
    ///
    /// # Errors
    /// 500 where it does not fit its type.
    pub fn normalize(&self, object: &mut Object) -> Result<(), StatusError> {
        let normal = schema::normalize(&self.kind, self.schema()?, object, FieldValidation::Ignore);
        normal.map_err(StatusError::internal)?;
        object.set_gvk(&self.kind);
        Ok(())
    }

    /// An object as it is seen, back in the version that the request's row works in.
    ///
    /// # Errors
    /// 500 for a conversion that fails.
    pub async fn taken_back(&self, mut seen: Object) -> Result<Object, StatusError> {
        match &self.row.hub {
            Some(hub) if self.own => return hub.convert_one(seen, &self.hub).await,
            None if self.own => self.row.to_stored(&self.version, &mut seen),
            _ => {}
        }
        Ok(seen)
    }
}

struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource, the latter empty where only the former is meant.
    resources: Vec<(String, String)>,
    /// Names of objects; empty means all.
    names: Vec<String>,
    scope: String,
}

impl Criteria {
    /// Reads a webhook of a webhook configuration.
    pub fn of_webhook(webhook: &Value) -> Self {
        Self::of(webhook, "rules", false)
    }

    /// Reads `matchConstraints` of a policy or `matchResources` of a binding.
    pub fn of_policy(resources: &Value) -> Self {
        Self::of(resources, "resourceRules", true)
    }

    fn of(value: &Value, rules: &str, all_without_rules: bool) -> Self {
        let read = |key: &str| value.get(key).and_then(Value::as_array).into_iter().flatten().map(Rule::of).collect();
        // An absent selector of these kinds is an empty one, which selects everything.
        let selector = |key: &str| match value.get(key) {
            Some(selector) if !selector.is_null() => {
                LabelSelector::from_value(Some(selector)).map_err(|e| e.to_string())
            }
            _ => Ok(LabelSelector::everything()),
        };
        Criteria {
            rules: read(rules),
            excluded: read("excludeResourceRules"),
            all_without_rules,
            equivalent: value.get("matchPolicy").and_then(Value::as_str) != Some("Exact"),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// Whether the request is one to be asked about, and as what. `object` is what the request would leave, in the
    /// version that its row works in; `None` on delete.
    ///
    /// # Errors
    /// 404 if the request's namespace does not exist, 500 for a selector that cannot be read; only where the rules match.
    pub async fn matches(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Object>,
    ) -> Result<Option<Sighting>, StatusError> {
        // The rules go first: most requests fail there, and no label need be read.
        let Some(sighting) = self.sighting(attributes) else { return Ok(None) };
        let namespace = self.selects_namespace(attributes, object).await;
        if matches!(namespace, Ok(false)) {
            return Ok(None);
        }
        let objects = self.objects.as_ref().map_err(StatusError::internal);
        let selected = objects.map(|selector| {
            let selects = |object: Option<&Object>| object.is_some_and(|object| selector.matches(object));
            selector.is_everything() || selects(object) || selects(attributes.old)
        });
        if matches!(selected, Ok(false)) {
            return Ok(None);
        }
        namespace?;
        selected?;
        Ok(Some(sighting))
    }

    fn sighting(&self, attributes: &Attributes<'_>) -> Option<Sighting> {
        let (row, version) = (attributes.row, attributes.version);
        let matched = |rules: &[Rule], row: &ResourceDef, version: &VersionDef| {
            rules.iter().any(|rule| rule.matches(attributes, row, version))
        };
        if matched(&self.excluded, row, version) {
            return None;
        }
        let found = |row: Arc<ResourceDef>, version: &VersionDef| {
            let kind = row.kind_of(version, attributes.subresource)?;
            let own = row.carries_own(attributes.subresource);
            let hub = attributes.row.api_version().unwrap_or_default().to_owned();
            Some(Sighting { row, version: version.clone(), kind, own, hub })
        };
        if matched(&self.rules, row, version) || (self.all_without_rules && self.rules.is_empty()) {
            return found(attributes.row.clone(), version);
        }
        if !self.equivalent {
            return None;
        }
        let equivalents = equivalents(attributes);
        if self.excluded.iter().any(|rule| equivalents.iter().any(|(row, v)| rule.matches(attributes, row, v))) {
            return None;
        }
        // Earlier rules choose first.
        let chosen = self
            .rules
            .iter()
            .find_map(|rule| equivalents.iter().find(|(row, version)| rule.matches(attributes, row, version)));
        chosen.and_then(|(row, version)| found(row.clone(), version))
    }

    /// Cluster-scoped objects are in no namespace, so no selector of namespaces spares them; namespaces count as in
    /// themselves.
    async fn selects_namespace(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&Object>,
    ) -> Result<bool, StatusError> {
        let namespace = attributes.effective_namespace();
        if namespace.is_empty() && attributes.row.plural != "namespaces" {
            return Ok(true);
        }
        let selector = self.namespaces.as_ref().map_err(StatusError::internal)?;
        if selector.is_everything() {
            return Ok(true);
        }
        if attributes.is_namespace() && matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(object.is_some_and(|object| selector.matches(object)));
        }
        Ok(selector.matches(&*attributes.namespace_object().await?))
    }
}

/// The other resources and versions in which the request's objects can be had.
fn equivalents(attributes: &Attributes<'_>) -> Vec<(Arc<ResourceDef>, VersionDef)> {
    let prefix_of = |row: &ResourceDef| match &row.storage {
        Storage::Stored { prefix, .. } => Some(prefix.clone()),
        Storage::Virtual(_) | Storage::Computed(_) => None,
    };
    let Some(prefix) = prefix_of(attributes.row) else { return Vec::new() };
    let table = attributes.registry.table();
    let mut found = Vec::new();
    for row in table.rows().iter().filter(|row| prefix_of(row).as_ref() == Some(&prefix)) {
        for version in row.versions.iter().filter(|version| version.served) {
            let same = row.group == attributes.row.group
                && row.plural == attributes.row.plural
                && version.name == attributes.version.name;
            if !same {
                found.push((row.in_version(&version.name), version.clone()));
            }
        }
    }
    found
}

impl Rule {
    fn of(rule: &Value) -> Self {
        let words = |key: &str| -> Vec<String> {
            let words = rule.get(key).and_then(Value::as_array).into_iter().flatten();
            words.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let split = |name: String| match name.split_once('/') {
            Some((resource, subresource)) => (resource.to_owned(), subresource.to_owned()),
            None => (name, String::new()),
        };
        Rule {
            operations: words("operations"),
            groups: words("apiGroups"),
            versions: words("apiVersions"),
            resources: words("resources").into_iter().map(split).collect(),
            names: words("resourceNames"),
            scope: rule.get("scope").and_then(Value::as_str).unwrap_or("*").to_owned(),
        }
    }

    fn matches(&self, attributes: &Attributes<'_>, row: &ResourceDef, version: &VersionDef) -> bool {
        let lists = |items: &[String], wanted: &str| items.iter().any(|item| item == "*" || item == wanted);
        let in_namespace = !attributes.is_namespace() && !attributes.namespace.is_empty();
        let in_scope = match self.scope.as_str() {
            "*" => true,
            "Namespaced" => in_namespace,
            "Cluster" => !in_namespace,
            _ => false,
        };
        in_scope
            && lists(&self.operations, attributes.operation.as_str())
            && lists(&self.groups, &row.group)
            && lists(&self.versions, &version.name)
            && self.resources.iter().any(|(resource, subresource)| {
                (resource == "*" || *resource == row.plural)
                    && (subresource == "*" || *subresource == attributes.subresource)
            })
            && (self.names.is_empty() || self.names.iter().any(|name| name == attributes.name))
    }
}
