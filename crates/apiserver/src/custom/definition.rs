//! The row of a definition.

use std::cmp::Reverse;
use std::sync::Arc;

use bytes::Bytes;
use kminik_meta::columns::{Columns, Printed};
use kminik_meta::schema::{Definition, Ref};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::conversion::{ConversionWebhook, Versions};
use crate::outbound::Outbound;
use crate::registry::def::{
    Policy, ResourceDef, ScalePaths, Scope, SelectableField, Storage, Subresource, SubresourceKind, Text, Verb,
    VersionDef, api_version,
};
use crate::registry::hub::{Converter, Hub};
use crate::registry::table::version_priority;
use crate::strategies::custom::{CustomObjects, CustomStatus};

/// What of a definition makes its row: everything but the schemas, which stay in the definition's bytes.
#[derive(Debug, Deserialize)]
pub(super) struct Outline {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    uid: String,
    generation: i64,
}

#[derive(Debug, Deserialize)]
struct Spec {
    group: String,
    scope: String,
    names: Names,
    versions: Vec<Version>,
    #[serde(default)]
    conversion: Conversion,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conversion {
    strategy: String,
    webhook: Webhook,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Webhook {
    client_config: Value,
    conversion_review_versions: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Names {
    plural: String,
    singular: String,
    kind: String,
    list_kind: String,
    short_names: Vec<String>,
    categories: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Version {
    name: String,
    served: bool,
    storage: bool,
    deprecated: bool,
    deprecation_warning: Option<String>,
    subresources: Subresources,
    additional_printer_columns: Vec<Value>,
    selectable_fields: Vec<Selectable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Subresources {
    status: Option<Value>,
    scale: Option<Scale>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Scale {
    spec_replicas_path: String,
    status_replicas_path: String,
    label_selector_path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Selectable {
    json_path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    accepted_names: Names,
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
}

impl Outline {
    /// Reads a stored definition.
    ///
    /// # Errors
    /// When the bytes are none.
    pub(super) fn read(definition: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(definition)
    }

    fn is(&self, condition: &str) -> bool {
        let mut conditions = self.status.conditions.iter().flatten();
        conditions.any(|known| known.r#type == condition && known.status == "True")
    }

    /// Whether the resource is served: it has its names.
    pub(super) fn is_served(&self) -> bool {
        self.is("NamesAccepted") || self.is("Established")
    }

    /// Differs whenever the row does.
    pub(super) fn edition(&self) -> String {
        let names = &self.status.accepted_names;
        let accepted = [&names.singular, &names.kind, &names.list_kind].map(String::as_str).join(",");
        format!(
            "{} {} {accepted} {:?} {:?} {}",
            self.metadata.uid,
            self.metadata.generation,
            names.short_names,
            names.categories,
            self.is("Terminating")
        )
    }

    /// The row; `since` is the revision of the definition, `bytes` what it is stored as. Webhooks are asked over `outbound`.
    pub(super) fn row(&self, bytes: &Bytes, since: u64, outbound: &Arc<Outbound>) -> ResourceDef {
        let mut versions: Vec<VersionDef> =
            self.spec.versions.iter().map(|version| self.version(version, bytes)).collect();
        versions.sort_by_key(|version| Reverse(version_priority(&version.name)));
        let stored = versions.iter().find(|version| version.stored).or(versions.first()).cloned();
        let stored = stored.map_or_else(Text::default, |version| version.name);
        let mut row = self.form(&stored, &versions, since);
        // Where there is one version only, nothing is ever converted.
        if versions.len() > 1 {
            let converter: Arc<dyn Converter> = Arc::new(self.converter(&versions, outbound));
            let forms = versions.iter().filter_map(|version| {
                let mut form = self.form(&version.name, &versions, since);
                let api_version = |version: &str| api_version(&self.spec.group, version).into();
                let hub = Hub::new(converter.clone(), &form.kind, api_version(&version.name), api_version(&stored));
                form.hub = Some(hub.ok()?);
                form.retired = row.retired.clone();
                Some((version.name.clone(), Arc::new(form)))
            });
            row.forms = forms.collect();
        }
        row
    }

    fn converter(&self, versions: &[VersionDef], outbound: &Arc<Outbound>) -> Versions {
        let Conversion { strategy, webhook } = &self.spec.conversion;
        let schemas = versions
            .iter()
            .map(|version| (api_version(&self.spec.group, &version.name), version.schema.clone()))
            .collect();
        let webhook = (strategy == "Webhook").then(|| {
            let name = format!("{}.{}", self.spec.names.plural, self.spec.group);
            let (config, versions) = (&webhook.client_config, &webhook.conversion_review_versions);
            ConversionWebhook::new(name, config, versions, outbound.clone())
        });
        Versions::new(schemas, webhook)
    }

    /// The row as requests of one version have it.
    fn form(&self, hub: &str, versions: &[VersionDef], since: u64) -> ResourceDef {
        let (spec, names) = (&self.spec, &self.status.accepted_names);
        let kind = if names.kind.is_empty() { &spec.names.kind } else { &names.kind };
        let list_kind = if names.list_kind.is_empty() { format!("{kind}List") } else { names.list_kind.clone() };
        let schema = versions.iter().find(|version| version.name == hub).map(|version| version.schema.clone());
        let schema = schema.unwrap_or_else(kminik_meta::schema::any_object);
        let storage = Storage::Stored {
            prefix: format!("{}/{}", spec.group, spec.names.plural).into(),
            api_version: api_version(&spec.group, hub).into(),
            kind: kind.clone().into(),
            schema: schema.clone(),
            normal_since: since,
            ttl: None,
        };
        let below = spec.versions.iter().find(|version| version.name == hub).map(|version| &version.subresources);
        let scale = below.and_then(|below| below.scale.clone()).map(|scale| ScalePaths {
            spec_replicas: scale.spec_replicas_path.into(),
            status_replicas: scale.status_replicas_path.into(),
            selector: scale.label_selector_path.filter(|path| !path.is_empty()).map(Into::into),
        });
        let strategy = Arc::new(CustomObjects::new(scale.clone(), schema));
        let mut subresources = Vec::new();
        if below.is_some_and(|below| below.status.is_some()) {
            let kind = SubresourceKind::View(Arc::new(CustomStatus(strategy.clone())));
            subresources.push(Subresource { name: "status".into(), kind });
        }
        if let Some(scale) = scale {
            subresources.push(Subresource { name: "scale".into(), kind: SubresourceKind::Scale(scale) });
        }
        // What a definition that is being deleted still has may be changed, so that finalizers can let go, but nothing is added.
        let ending = self.is("Terminating");
        let verbs = Verb::ALL.into_iter().filter(|verb| !ending || *verb != Verb::Create).collect();
        ResourceDef {
            group: spec.group.clone().into(),
            plural: spec.names.plural.clone().into(),
            singular: names.singular.clone().into(),
            kind: kind.clone().into(),
            list_kind: list_kind.into(),
            short_names: names.short_names.iter().cloned().map(Into::into).collect(),
            categories: names.categories.iter().cloned().map(Into::into).collect(),
            scope: if spec.scope == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
            verbs,
            versions: versions.to_vec(),
            storage,
            subresources,
            policy: Policy { unconditional_update: false, generation: true, ..Policy::default() },
            strategy,
            hub: None,
            forms: Vec::new(),
            edition: self.edition().into(),
            retired: CancellationToken::new(),
        }
    }

    fn version(&self, version: &Version, bytes: &Bytes) -> VersionDef {
        let columns: Arc<[Printed]> = match version.additional_printer_columns.as_slice() {
            [] => [Printed::age()].into(),
            columns => columns.iter().map(Printed::new).collect(),
        };
        let selectable = version.selectable_fields.iter().map(|field| {
            let path = field.json_path.trim_start_matches('.').to_owned();
            SelectableField { label: path.clone().into(), path: path.into(), default: "".into() }
        });
        VersionDef {
            name: version.name.clone().into(),
            served: version.served,
            stored: version.storage,
            schema: Ref::Defined(Arc::new(Definition::new(bytes.clone(), version.name.clone()))),
            conversion: None,
            selectable_fields: selectable.collect(),
            columns: Columns::Printed(columns),
            deprecation: version.deprecated.then(|| match &version.deprecation_warning {
                Some(warning) => warning.clone().into(),
                None => self.deprecation(version).into(),
            }),
        }
    }

    /// What is said of a deprecated version that does not say it itself.
    fn deprecation(&self, version: &Version) -> String {
        let (group, kind) = (&self.spec.group, &self.spec.names.kind);
        let newest = self
            .spec
            .versions
            .iter()
            .filter(|other| other.served && !other.deprecated)
            .filter(|other| version_priority(&other.name) > version_priority(&version.name))
            .max_by_key(|other| version_priority(&other.name));
        let advice = newest.map(|newest| format!("; use {group}/{} {kind}", newest.name)).unwrap_or_default();
        format!("{group}/{} {kind} is deprecated{advice}", version.name)
    }
}
