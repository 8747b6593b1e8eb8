//! Expressions of admission: what they may name, and the values of a request.
//!
//! Policies and the match conditions of webhooks see the same variables: `object`, `oldObject`, `request`, `namespaceObject`, and where
//! they are given `params`, `authorizer`, `authorizer.requestResource` and `variables`.

mod conditions;
mod variables;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use futures::FutureExt;
use kminik_cel::{Activation, Decision, DeclKind, DeclType, Env, ListMerge, Program, ResourceCheck, Type, Value};
use kminik_meta::{Object, StatusError};
use serde_json::{Value as Json, json};

pub(crate) use self::conditions::{Conditions, Owner, Verdict};
pub(crate) use self::variables::{Variables, VariablesType};
use super::Attributes;
use super::matching::Sighting;
use crate::auth;
use crate::auth::UserInfo;

/// The types of `request` and `namespaceObject`.
static REQUEST: LazyLock<Arc<DeclType>> = LazyLock::new(|| {
    let kind = |last| {
        DeclType::object("kubernetes.GroupVersionKind", &[("group", text()), ("version", text()), (last, text())])
    };
    let resource = DeclType::object(
        "kubernetes.GroupVersionResource",
        &[("group", text()), ("version", text()), ("resource", text())],
    );
    let user = DeclType::object(
        "kubernetes.UserInfo",
        &[("username", text()), ("uid", text()), ("groups", list(text())), ("extra", map(list(text())))],
    );
    DeclType::object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind("kind")),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind("kind")),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", DeclType::of(DeclKind::Bool)),
            ("options", DeclType::of(DeclKind::Dyn)),
        ],
    )
});

static NAMESPACE: LazyLock<Arc<DeclType>> = LazyLock::new(|| {
    let time = || DeclType::of(DeclKind::Timestamp { date: false });
    let int = || DeclType::of(DeclKind::Int);
    let metadata = DeclType::object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", map(text())),
            ("annotations", map(text())),
            ("UID", text()),
            ("creationTimestamp", time()),
            ("deletionGracePeriodSeconds", int()),
            ("deletionTimestamp", time()),
            ("generation", int()),
            ("resourceVersion", text()),
            ("finalizers", list(text())),
        ],
    );
    let condition = DeclType::object(
        "kubernetes.NamespaceCondition",
        &[
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", time()),
            ("message", text()),
            ("reason", text()),
        ],
    );
    let status = DeclType::object("kubernetes.NamespaceStatus", &[("conditions", list(condition)), ("phase", text())]);
    let spec = DeclType::object("kubernetes.NamespaceSpec", &[("finalizers", list(text()))]);
    DeclType::object("kubernetes.Namespace", &[("metadata", metadata), ("spec", spec), ("status", status)])
});

fn text() -> Arc<DeclType> {
    DeclType::of(DeclKind::String)
}

fn list(item: Arc<DeclType>) -> Arc<DeclType> {
    DeclType::of(DeclKind::List { item, merge: ListMerge::Atomic })
}

fn map(value: Arc<DeclType>) -> Arc<DeclType> {
    DeclType::of(DeclKind::Map { value })
}

/// What expressions may name; `params` and `authorizer` where they are given.
pub(crate) fn environment(params: bool, authorizer: bool) -> Env {
    let mut env = Env::new()
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .variable("request", REQUEST.cel_type())
        .variable("namespaceObject", NAMESPACE.cel_type());
    if params {
        env = env.variable("params", Type::Dyn);
    }
    if authorizer {
        env = env
            .variable("authorizer", Type::Named("kubernetes.authorization.Authorizer"))
            .variable("authorizer.requestResource", Type::Named("kubernetes.authorization.ResourceCheck"));
    }
    env
}

/// Compiles an expression whose value must be of one of these types.
///
/// # Errors
/// In upstream's words.
pub(crate) fn compile(source: &str, env: &Env, wanted: &[Type]) -> Result<Program, String> {
    let program = Program::compile(source, env).map_err(|error| format!("compilation failed: {error}"))?;
    let found = program.result_type();
    if wanted.is_empty() || wanted.contains(found) {
        return Ok(program);
    }
    Err(match wanted {
        [one] => format!("must evaluate to {one} but got {found}"),
        several => {
            let names: Vec<String> =
                several.iter().map(|t| if *t == Type::Null { "null_type".into() } else { t.to_string() }).collect();
            format!("must evaluate to one of [{}] but got {found}", names.join(" "))
        }
    })
}

/// A request as expressions see it.
pub(crate) struct Subject<'r> {
    object: Option<Cow<'r, Object>>,
    old: Option<Cow<'r, Object>>,
    request: Json,
    namespace: Option<Arc<Object>>,
    authorizer: Arc<dyn kminik_cel::Authorizer>,
    check: ResourceCheck,
}

impl<'r> Subject<'r> {
    /// Looks at a request as it is sighted. `object` is what it would leave, in the version that its row
    /// works in.
    ///
    /// # Errors
    /// 404 if the request's namespace does not exist, 500 for a conversion that fails.
    pub(crate) async fn new(
        attributes: &Attributes<'r>,
        sighting: &Sighting,
        object: Option<&'r Object>,
        authorizer: Arc<dyn auth::Authorizer>,
    ) -> Result<Self, StatusError> {
        let namespaced = !attributes.is_namespace() && !attributes.namespace.is_empty();
        let namespace = if namespaced { Some(attributes.namespace_object().await?) } else { None };
        let row = attributes.row;
        Ok(Subject {
            object: sighting.seen_if_any(object).await?,
            old: sighting.seen_if_any(attributes.old).await?,
            request: request(attributes, sighting),
            namespace,
            authorizer: Arc::new(Asker { authorizer, user: attributes.user.clone() }),
            check: ResourceCheck {
                group: row.group.to_string(),
                resource: row.plural.to_string(),
                subresource: attributes.subresource.to_owned(),
                namespace: attributes.namespace.to_owned(),
                name: attributes.name.to_owned(),
                ..ResourceCheck::default()
            },
        })
    }

    /// What the request would leave, as it is seen.
    pub(crate) fn into_object(self) -> Option<Cow<'r, Object>> {
        self.object
    }

    /// The values of the variables.
    pub(crate) fn activation<'a>(&'a self, params: Option<&'a Object>) -> Activation<'a> {
        let view = |object: Option<&'a Object>| object.map_or(Value::Null, |o| Value::object(o.map(), None));
        let typed = |json: &'a Json, decl: &'static DeclType| {
            json.as_object().map_or(Value::Null, |o| Value::object(o, Some(decl)))
        };
        Activation::new()
            .with("object", view(self.object.as_deref()))
            .with("oldObject", view(self.old.as_deref()))
            .with("request", typed(&self.request, &REQUEST))
            .with(
                "namespaceObject",
                self.namespace.as_deref().map_or(Value::Null, |n| Value::object(n.map(), Some(&NAMESPACE))),
            )
            .with("params", view(params))
            .with("authorizer", Value::authorizer(self.authorizer.clone()))
            .with("authorizer.requestResource", Value::resource_check(self.authorizer.clone(), self.check.clone()))
    }
}

/// The AdmissionRequest without its objects and identifier.
fn request(attributes: &Attributes<'_>, sighting: &Sighting) -> Json {
    let kind = |gvk: &kminik_meta::Gvk| json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
    let (row, user) = (attributes.row, attributes.user);
    let mut request = json!({
        "kind": kind(&sighting.kind),
        "resource": {"group": sighting.row.group, "version": sighting.version.name, "resource": sighting.row.plural},
        "requestKind": kind(&attributes.kind()),
        "requestResource": {"group": row.group, "version": attributes.version.name, "resource": row.plural},
        "operation": attributes.operation.as_str(),
        "userInfo": {"username": user.name},
        "dryRun": attributes.dry_run,
        "options": attributes.options_object().map(|o| o.to_value()),
    });
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            request[key] = Json::from(value);
        }
    };
    put("subResource", attributes.subresource);
    put("requestSubResource", attributes.subresource);
    put("name", attributes.name);
    put("namespace", attributes.effective_namespace());
    if !user.uid.is_empty() {
        request["userInfo"]["uid"] = Json::from(user.uid.as_str());
    }
    if !user.groups.is_empty() {
        request["userInfo"]["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        request["userInfo"]["extra"] = json!(user.extra);
    }
    request
}

/// Asks the server's authorizer on behalf of expressions. It answers from memory, so nothing need be waited for.
struct Asker {
    authorizer: Arc<dyn auth::Authorizer>,
    user: UserInfo,
}

impl Asker {
    fn ask(&self, subject: &kminik_cel::Subject, attributes: auth::Attributes) -> Decision {
        let user = match subject {
            kminik_cel::Subject::Requester => self.user.clone(),
            kminik_cel::Subject::ServiceAccount { namespace, name } => UserInfo::new(
                format!("system:serviceaccount:{namespace}:{name}"),
                &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")],
            ),
        };
        match self.authorizer.authorize(&auth::Attributes { user, ..attributes }).now_or_never() {
            Some(decision) => {
                Decision { allowed: decision.allowed(), reason: decision.reason().to_owned(), error: None }
            }
            None => Decision { error: Some("the authorizer did not answer at once".to_owned()), ..Decision::default() },
        }
    }
}

impl kminik_cel::Authorizer for Asker {
    fn path(&self, subject: &kminik_cel::Subject, verb: &str, path: &str) -> Decision {
        self.ask(subject, auth::Attributes { verb: verb.to_owned(), path: path.to_owned(), ..Default::default() })
    }

    fn resource(&self, subject: &kminik_cel::Subject, verb: &str, check: &ResourceCheck) -> Decision {
        let attributes = auth::Attributes {
            verb: verb.to_owned(),
            resource_request: true,
            group: check.group.clone(),
            version: "*".to_owned(),
            resource: check.resource.clone(),
            subresource: check.subresource.clone(),
            namespace: check.namespace.clone(),
            name: check.name.clone(),
            field_selector: check.field_selector.clone(),
            label_selector: check.label_selector.clone(),
            ..Default::default()
        };
        self.ask(subject, attributes)
    }
}
