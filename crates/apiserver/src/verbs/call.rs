//! A request whose row is pinned: what every verb works from.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};
use jiff::Timestamp;
use kminik_meta::decode::FieldValidation;
use kminik_meta::patch::PatchType;
use kminik_meta::schema::{Ref, Schema};
use kminik_meta::{Gvk, Object, StatusError};
use serde_json::Value;

use crate::Server;
use crate::admission::{Attributes, Operation, Reinvocation};
use crate::audit::Audit;
use crate::auth::{self, UserInfo};
use crate::http::accept::{self, Accepted};
use crate::http::body::RequestBody;
use crate::http::chain::Warnings;
use crate::http::info::{Query, RequestInfo};
use crate::metrics::requests::Waited;
use crate::registry::action::ActionContext;
use crate::registry::def::{Conversion, ResourceDef, ScalePaths, Storage, SubresourceKind, VersionDef, api_version};
use crate::registry::storage_prefix;
use crate::registry::strategy::{Strategy, StrategyContext};
use crate::schema;
use crate::storage::entry::Entry;

/// One authorised request of a resource.
pub(crate) struct Call {
    pub(crate) server: Arc<Server>,
    pub(crate) row: Arc<ResourceDef>,
    pub(crate) version: VersionDef,
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) user: UserInfo,
    pub(crate) accepted: Accepted,
    pub(crate) now: Timestamp,
    pub(crate) warnings: Warnings,
    /// How long others were waited for.
    pub(crate) waited: Arc<Waited>,
    pub(crate) audit: Audit,
}

/// The object of an entry of a row in one of its versions.
///
/// # Errors
/// 500 where the entry cannot be decoded.
pub(crate) fn object_of(row: &ResourceDef, version: &VersionDef, entry: &Entry) -> Result<Object, StatusError> {
    let mut object = entry.decode()?;
    if !entry.is_normal(row.normal_since()) {
        row.normalize(&mut object);
    }
    row.from_stored(version, &mut object);
    Ok(object)
}

impl Call {
    /// `apiVersion` of the request.
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.row.group, &self.version.name)
    }

    /// apiVersion and kind of the objects that the row works with; those of the request for virtual rows.
    pub(crate) fn stored_type(&self) -> (String, String) {
        match &self.row.storage {
            Storage::Stored { api_version, kind, .. } => (api_version.to_string(), kind.to_string()),
            Storage::Virtual(_) | Storage::Computed(_) => (self.api_version(), self.row.kind.to_string()),
        }
    }

    /// Type of the objects that the row works with; that of the request for virtual rows.
    pub(crate) fn stored_schema(&self) -> &Schema {
        match &self.row.storage {
            Storage::Stored { schema, .. } => schema,
            Storage::Virtual(_) | Storage::Computed(_) => &self.version.schema,
        }
    }

    /// Whether the row works in the request's version.
    pub(crate) fn reads_stored_form(&self) -> bool {
        let (stored_version, stored_kind) = self.stored_type();
        self.version.conversion.is_none() && stored_version == self.api_version() && stored_kind == self.row.kind
    }

    /// Whether what is stored is the object in the request's version.
    pub(crate) fn shows_stored(&self, entry: &Entry) -> bool {
        self.reads_stored_form() && entry.is_normal(self.row.normal_since())
    }

    /// As [`Call::shows_stored`], of all entries.
    pub(crate) fn shows_all_stored(&self, entries: &[Arc<Entry>]) -> bool {
        let since = self.row.normal_since();
        self.reads_stored_form() && (since == 0 || entries.iter().all(|entry| entry.is_normal(since)))
    }

    /// The object of an entry in the request's version.
    ///
    /// # Errors
    /// 500 where the entry cannot be decoded.
    pub(crate) fn object_of(&self, entry: &Entry) -> Result<Object, StatusError> {
        object_of(&self.row, &self.version, entry)
    }

    /// As [`Call::object_of`]; kept with the entry where that is possible, as [`Entry::object`] does.
    ///
    /// # Errors
    /// 500 where the entry cannot be decoded.
    pub(crate) fn kept_object_of(&self, entry: &Entry) -> Result<Arc<Object>, StatusError> {
        if self.shows_stored(entry) { entry.object() } else { self.object_of(entry).map(Arc::new) }
    }

    /// Brings an object of the version that the row works in into the request's.
    pub(crate) fn to_request_version(&self, object: &mut Object) {
        let since = self.row.normal_since();
        if since > 0 && !object.resource_version().parse::<u64>().is_ok_and(|revision| revision > since) {
            self.row.normalize(object);
        }
        self.row.from_stored(&self.version, object);
    }

    /// Brings an object of the request's version into the one that the row works in.
    pub(crate) fn to_stored_version(&self, object: &mut Object) {
        self.row.to_stored(&self.version, object);
    }

    /// The versions under which the row's objects are seen: its own, and those of other rows that share its storage.
    pub(crate) fn forms(&self) -> Vec<Form> {
        let of = |row: &ResourceDef| -> Vec<Form> {
            let form = |version: &VersionDef| Form {
                gvk: row.gvk(version),
                conversion: version.conversion,
                schema: version.schema.clone(),
            };
            row.versions.iter().map(form).collect()
        };
        let mut forms = of(&self.row);
        if let Ok(prefix) = storage_prefix(&self.row) {
            let table = self.server.registry().table();
            let others = table.rows().iter().filter(|row| storage_prefix(row).is_ok_and(|other| other == prefix));
            forms.extend(others.flat_map(|row| of(row)));
        }
        forms
    }

    /// Group, version and kind of the request.
    pub(crate) fn gvk(&self) -> Gvk {
        self.row.gvk(&self.version)
    }

    /// The request as code behind a path sees it.
    pub(crate) fn action_context<'a>(&'a self, options: Option<&'a WriteOptions>) -> ActionContext<'a> {
        ActionContext {
            server: &self.server,
            row: &self.row,
            version: &self.version,
            user: &self.user,
            namespace: &self.info.namespace,
            name: &self.info.name,
            subresource: &self.info.subresource,
            path: &self.info.rest,
            verb: self.info.verb.as_str(),
            dry_run: options.is_some_and(|options| options.dry_run),
            field_manager: options.map_or("", |options| options.field_manager.as_str()),
            now: self.now,
        }
    }

    pub(crate) fn not_found(&self) -> StatusError {
        StatusError::not_found(&self.row.group, &self.row.plural, &self.info.name)
    }

    pub(crate) fn strategy_context(&self, dry_run: bool) -> StrategyContext<'_> {
        StrategyContext {
            registry: self.server.registry(),
            row: &self.row,
            user: &self.user,
            namespace: &self.info.namespace,
            dry_run,
            now: self.now,
        }
    }

    /// The request as authorisation sees it, with another verb.
    pub(crate) fn authorization(&self, verb: &str) -> auth::Attributes {
        auth::Attributes {
            user: self.user.clone(),
            verb: verb.to_owned(),
            resource_request: true,
            group: self.info.group.clone(),
            version: self.info.version.clone(),
            resource: self.info.resource.clone(),
            subresource: self.info.subresource.clone(),
            namespace: self.info.namespace.clone(),
            name: self.info.name.clone(),
            path: self.info.path.clone(),
            field_selector: String::new(),
            label_selector: String::new(),
        }
    }

    /// The request as admission sees it.
    pub(crate) fn attributes<'a>(
        &'a self,
        operation: Operation,
        name: &'a str,
        old: Option<&'a Object>,
        options: &'a WriteOptions,
    ) -> Attributes<'a> {
        Attributes {
            registry: self.server.registry(),
            row: &self.row,
            version: &self.version,
            operation,
            user: &self.user,
            namespace: &self.info.namespace,
            name,
            subresource: &self.info.subresource,
            old,
            dry_run: options.dry_run,
            audit: &self.audit,
            options,
            warnings: &self.warnings,
            waited: &self.waited,
            reinvocation: Reinvocation::default(),
        }
    }

    /// The whole body of the request.
    ///
    /// # Errors
    /// Those of [`schema::read_body`].
    pub(crate) async fn body(&self, request: Request<RequestBody>) -> Result<Bytes, StatusError> {
        let bytes = schema::read_body(request.into_body()).await?;
        let verb = match self.info.verb.as_str() {
            "deletecollection" => "delete_collection",
            verb => verb,
        };
        let sizes = &self.server.metrics().table.requests.body_size;
        sizes.with([&self.row.group, &self.row.plural, verb]).observe(bytes.len() as f64);
        Ok(bytes)
    }

    /// The view that the path names, if it names one: the object itself through another door.
    pub(crate) fn view(&self) -> Option<&str> {
        let subresource = self.row.subresource(&self.info.subresource)?;
        matches!(subresource.kind, SubresourceKind::View(_)).then_some(subresource.name.as_ref())
    }

    /// Where the object has its replicas, if the path is its scale.
    pub(crate) fn scale_paths(&self) -> Option<&ScalePaths> {
        match &self.row.subresource(&self.info.subresource)?.kind {
            SubresourceKind::Scale(paths) => Some(paths),
            _ => None,
        }
    }

    /// The strategy of the path: the row's, or its view's.
    pub(crate) fn strategy(&self) -> &dyn Strategy {
        match self.row.subresource(&self.info.subresource).map(|sub| &sub.kind) {
            Some(SubresourceKind::View(strategy)) => strategy.as_ref(),
            _ => self.row.strategy.as_ref(),
        }
    }

    /// Whether a namespaced resource is asked for in a namespace.
    pub(crate) fn scope_given(&self) -> bool {
        !self.row.namespaced() || !self.info.namespace.is_empty()
    }

    pub(crate) fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.lock().extend(warnings);
    }
}

/// One of the versions of an object.
pub(crate) struct Form {
    pub(crate) gvk: Gvk,
    pub(crate) conversion: Option<Conversion>,
    pub(crate) schema: Ref,
}

/// The options every write takes.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    /// Name of the manager of the written fields; defaults to the head of the user agent.
    pub(crate) field_manager: String,
    pub(crate) field_validation: FieldValidation,
    /// Server-side apply: fields are tracked by the merge itself.
    pub(crate) applying: bool,
    /// `force` of server-side apply.
    pub(crate) force: bool,
    /// `fieldManager` was asked for, and is no guess.
    pub(crate) named_manager: bool,
    /// `fieldValidation` was asked for.
    pub(crate) asked_validation: bool,
    /// The body of a delete, its options.
    pub(crate) object: Option<Object>,
}

impl WriteOptions {
    /// Reads the query.
    ///
    /// # Errors
    /// 400 or 422 for values that are not known, in upstream's words.
    pub(crate) fn of(query: &Query, headers: &HeaderMap, kind: &str) -> Result<Self, StatusError> {
        use kminik_meta::{ErrorList, FieldError, Path};
        let mut errors = ErrorList::new();
        let dry_run: Vec<&str> = query.all("dryRun").filter(|value| !value.is_empty()).collect();
        if let Some(unknown) = dry_run.iter().find(|value| **value != "All") {
            errors.push(FieldError::not_supported(&Path::new("dryRun"), *unknown, &["All"]));
        }
        let asked = query.get("fieldValidation").unwrap_or_default();
        let field_validation = FieldValidation::parse(asked).unwrap_or_else(|| {
            let path = Path::new("fieldValidation");
            errors.push(FieldError::not_supported(&path, asked, &["", "Ignore", "Strict", "Warn"]));
            FieldValidation::Warn
        });
        let named = query.get("fieldManager");
        if named.is_some_and(|name| name.len() > 128) {
            errors.push(FieldError::too_long(&Path::new("fieldManager"), 128));
        }
        if let Some(name) = named.filter(|name| name.chars().any(char::is_control)) {
            let detail = "should only contain printable characters";
            errors.push(FieldError::invalid(&Path::new("fieldManager"), name, detail));
        }
        let applying = accept::content_type(headers).is_some_and(|text| text == PatchType::Apply.content_type());
        if applying && named.is_none() {
            errors.push(FieldError::required(&Path::new("fieldManager"), "is required for apply patch"));
        }
        if !applying && kind == "PatchOptions" && query.get("force").is_some() {
            errors.push(FieldError::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
        }
        if !errors.is_empty() {
            return Err(StatusError::invalid("meta.k8s.io", kind, "", &errors));
        }
        let agent = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let head: String = agent.split('/').next().unwrap_or_default().chars().take(128).collect();
        Ok(WriteOptions {
            dry_run: !dry_run.is_empty(),
            field_manager: named.map_or_else(|| if head.is_empty() { "unknown".into() } else { head }, str::to_owned),
            applying,
            field_validation,
            force: query.flag("force"),
            named_manager: named.is_some(),
            asked_validation: !asked.is_empty(),
            object: None,
        })
    }

    /// The options as an object of this kind of meta.k8s.io, as admission shows them.
    pub(crate) fn to_object(&self, kind: &str) -> Object {
        let mut object = self.object.clone().unwrap_or_default();
        object.set_gvk(&Gvk::new("meta.k8s.io", "v1", kind));
        if self.dry_run {
            object.set(&["dryRun"], vec![Value::from("All")]);
        }
        if self.named_manager {
            object.set(&["fieldManager"], self.field_manager.as_str());
        }
        if self.asked_validation {
            object.set(&["fieldValidation"], format!("{:?}", self.field_validation));
        }
        object
    }
}
