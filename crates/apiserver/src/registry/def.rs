//! What a resource is, as plain data: one [`ResourceDef`] a resource, built-in or custom.
//!
//! Everything a client can see of a resource (routes, discovery, OpenAPI, tables, storage keys, RBAC names) is derived
//! from its row; nothing is listed a second time.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kminik_meta::apply::Resets;
use kminik_meta::columns::{self, Columns};
use kminik_meta::schema::{self, Ref};
use kminik_meta::{Gvk, Object};

use tokio_util::sync::CancellationToken;

use super::action::{Action, Connect, Create, Source};
use super::hub::Hub;
use super::strategy::Strategy;

/// Static text for built-in rows, owned text for rows that come from custom resource definitions.
pub type Text = Cow<'static, str>;

/// Where the objects of a resource live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// What a request wants done, in RBAC's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// All verbs, in the (alphabetical) order of discovery documents.
    pub const ALL: [Verb; 8] = [
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];
    /// What a resource that can only be asked (a review) offers.
    pub const CREATE_ONLY: [Verb; 1] = [Verb::Create];

    /// The verb as RBAC rules and discovery write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One resource: a group's plural with all its versions.
#[derive(Clone)]
pub struct ResourceDef {
    /// Empty for the core group.
    pub group: Text,
    pub plural: Text,
    pub singular: Text,
    pub kind: Text,
    pub list_kind: Text,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    pub scope: Scope,
    pub verbs: Vec<Verb>,
    /// The versions, preferred one first. Exactly one is `stored`, unless the storage is virtual.
    pub versions: Vec<VersionDef>,
    pub storage: Storage,
    pub subresources: Vec<Subresource>,
    pub policy: Policy,
    pub strategy: Arc<dyn Strategy>,
    /// Where this row is one of another row's `forms`: how its objects come from the store and go there.
    pub hub: Option<Hub>,
    /// The resource as requests in each version have it, where versions differ in more than functions can tell; else empty.
    pub forms: Vec<(Text, Arc<ResourceDef>)>,
    /// Which edition of the object that defines it the row was made from; empty for built-in rows.
    pub edition: Text,
    /// Cancelled when the row was removed from the table or replaced: watches end.
    pub retired: CancellationToken,
}

/// One version of a resource.
#[derive(Clone)]
pub struct VersionDef {
    pub name: Text,
    /// Clients may use it; a version that is not served can still be the stored one.
    pub served: bool,
    /// Objects are persisted in this version.
    pub stored: bool,
    /// The type of its objects: decoding, defaults, patches, apply and OpenAPI read it.
    pub schema: Ref,
    /// How to reach the stored version and back; `None` where only apiVersion differs, or where the row has forms.
    pub conversion: Option<Conversion>,
    /// Paths (`status.phase`) that field selectors may use besides metadata.name and metadata.namespace.
    pub selectable_fields: Vec<SelectableField>,
    /// What `kubectl get` shows.
    pub columns: Columns,
    /// Answered with a `Warning` header on every use.
    pub deprecation: Option<Text>,
}

/// A field that field selectors can name.
#[derive(Clone, Debug)]
pub struct SelectableField {
    /// The label of the selector, as `spec.nodeName`.
    pub label: Text,
    /// Where the field is in the stored version, as `spec.nodeName`.
    pub path: Text,
    /// What an object without the field counts as.
    pub default: Text,
}

/// Conversion between a version and the stored one. Must keep every field a round trip needs.
#[derive(Clone, Copy)]
pub struct Conversion {
    pub to_stored: fn(&mut Object),
    pub from_stored: fn(&mut Object),
}

/// Where the objects are.
#[derive(Clone)]
pub enum Storage {
    /// In the store.
    Stored {
        /// Key prefix below the registry's root, without slashes at its ends (`core/pods`). Two rows that share it are two views of one set.
        prefix: Text,
        /// apiVersion of the stored bytes; in one of a row's forms, of the objects that it works with.
        api_version: Text,
        /// Kind of the stored bytes.
        kind: Text,
        /// Type of the stored bytes.
        schema: Ref,
        /// What was written after this revision is in the normal form of its present type, with defaults; what is older is brought
        /// into it when it is read.
        normal_since: u64,
        /// Objects disappear this long after their last write.
        ttl: Option<Duration>,
    },
    /// Nowhere: a create is answered by code (reviews).
    Virtual(Arc<dyn Create>),
    /// Nowhere: reads are answered by code.
    Computed(Arc<dyn Source>),
}

/// A path below an object.
#[derive(Clone)]
pub struct Subresource {
    /// As in the URL, `status`.
    pub name: Text,
    pub kind: SubresourceKind,
}

/// What stands behind a subresource.
#[derive(Clone)]
pub enum SubresourceKind {
    /// The object itself through another strategy: get, update, patch (`status`, `resize`, `ephemeralcontainers`).
    View(Arc<dyn Strategy>),
    /// autoscaling/v1 Scale over paths of the object: get, update, patch.
    Scale(ScalePaths),
    /// Code that answers one verb with an object (`binding`, `eviction`, `token`, `finalize`).
    Action(Arc<dyn Action>),
    /// A raw connection (`exec`, `attach`, `portforward`, `log`, `proxy`).
    Connect(Arc<dyn Connect>),
}

impl SubresourceKind {
    /// Whether requests are taken over as they are.
    pub fn connects(&self) -> bool {
        matches!(self, SubresourceKind::Connect(_))
    }
}

/// Where Scale finds its fields.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    /// `.spec.replicas`
    pub spec_replicas: Text,
    /// `.status.replicas`
    pub status_replicas: Text,
    /// `.spec.selector` (a LabelSelector, a map, or a string).
    pub selector: Option<Text>,
}

impl ScalePaths {
    /// The kind of every `scale` subresource.
    pub fn gvk() -> Gvk {
        Gvk::new("autoscaling", "v1", "Scale")
    }
}

/// Differences that need no code.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// PUT to an absent name creates it.
    pub create_on_update: bool,
    /// PUT without resourceVersion overwrites.
    pub unconditional_update: bool,
    /// What becomes of dependents when the client does not say.
    pub propagation: Propagation,
    /// The main resource ignores changes of `status`, creates drop it; `/status` ignores all but it and metadata.
    pub status_reset: bool,
    /// What a door below the row (`""` for the row's own) leaves as it was, and nobody comes to own by writing there: upstream's
    /// `GetResetFields` and `GetResetFieldsFilter` of that resource, where they differ from [`ResourceDef::resets`].
    pub resets: &'static [(&'static str, Resets<'static>)],
    /// Said to who deletes without saying what becomes of dependents.
    pub silent_delete: Option<&'static str>,
    /// `metadata.generation` counts changes outside metadata and status.
    pub generation: bool,
    /// DELETE answers with the object it removed instead of a Status.
    pub returns_deleted: bool,
}

/// Deletion of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            create_on_update: false,
            unconditional_update: true,
            propagation: Propagation::Background,
            silent_delete: None,
            status_reset: true,
            resets: &[],
            generation: false,
            returns_deleted: false,
        }
    }
}

impl Policy {
    /// [`Policy::resets`] where `/status` changes nothing but the status, not even metadata.
    pub const STATUS_ALONE: &'static [(&'static str, Resets<'static>)] =
        &[("status", Resets::Fields(&[&["spec"], &["metadata"]]))];
}

impl VersionDef {
    /// A served and stored version of a built-in kind, without conversion or selectable fields.
    pub fn stored(gvk: &Gvk) -> Self {
        VersionDef {
            name: gvk.version.clone().into(),
            served: true,
            stored: true,
            // A row that names a kind the table lacks fails the test of the rows.
            schema: schema::reference(gvk).unwrap_or_else(schema::any_object),
            conversion: None,
            selectable_fields: Vec::new(),
            columns: Columns::Known(columns::columns(gvk)),
            deprecation: None,
        }
    }
}

impl ResourceDef {
    /// A stored, namespaced row of one version with all verbs and the default strategy.
    pub fn new(group: &'static str, version: &'static str, plural: &'static str, kind: &'static str) -> Self {
        let group_dir = if group.is_empty() { "core" } else { group };
        let stored = VersionDef::stored(&Gvk::new(group, version, kind));
        ResourceDef {
            group: group.into(),
            plural: plural.into(),
            singular: kind.to_lowercase().into(),
            kind: kind.into(),
            list_kind: format!("{kind}List").into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            scope: Scope::Namespaced,
            verbs: Verb::ALL.to_vec(),
            storage: Storage::Stored {
                prefix: format!("{group_dir}/{plural}").into(),
                api_version: api_version(group, version).into(),
                kind: kind.into(),
                schema: stored.schema.clone(),
                normal_since: 0,
                ttl: None,
            },
            versions: vec![stored],
            subresources: Vec::new(),
            policy: Policy::default(),
            strategy: Arc::new(super::strategy::Default),
            hub: None,
            forms: Vec::new(),
            edition: Text::default(),
            retired: CancellationToken::new(),
        }
    }

    /// A row that only answers creates.
    pub fn answering(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
        create: Arc<dyn Create>,
    ) -> Self {
        let mut row = Self::new(group, version, plural, kind).cluster();
        row.verbs = Verb::CREATE_ONLY.to_vec();
        row.storage = Storage::Virtual(create);
        row
    }

    /// Nothing is stored; what is read is made when it is asked for.
    pub fn computed(mut self, verbs: &[Verb], source: impl Source) -> Self {
        self.verbs = verbs.to_vec();
        self.storage = Storage::Computed(Arc::new(source));
        self
    }

    pub fn cluster(mut self) -> Self {
        self.scope = Scope::Cluster;
        self
    }

    /// Does not offer this verb.
    pub fn without(mut self, verb: Verb) -> Self {
        self.verbs.retain(|offered| *offered != verb);
        self
    }

    pub fn short(mut self, names: &[&'static str]) -> Self {
        self.short_names = names.iter().map(|name| Text::from(*name)).collect();
        self
    }

    /// Member of `kubectl get all`.
    pub fn in_all(self) -> Self {
        self.in_category("all")
    }

    /// Member of what `kubectl get <category>` lists.
    pub fn in_category(mut self, category: &'static str) -> Self {
        self.categories.push(category.into());
        self
    }

    pub fn strategy(mut self, strategy: impl Strategy) -> Self {
        self.strategy = Arc::new(strategy);
        self
    }

    pub fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        self
    }

    /// Adds `/status` with the default strategy of the row's policy.
    pub fn with_status(self) -> Self {
        self.with_view("status", super::strategy::Status)
    }

    /// Adds a subresource that is the object through another strategy.
    pub fn with_view(mut self, name: &'static str, strategy: impl Strategy) -> Self {
        self.subresources.push(Subresource { name: name.into(), kind: SubresourceKind::View(Arc::new(strategy)) });
        self
    }

    /// Adds `/scale` over `.spec.replicas`, `.status.replicas` and `.spec.selector`.
    pub fn with_scale(mut self) -> Self {
        self.subresources.push(Subresource {
            name: "scale".into(),
            kind: SubresourceKind::Scale(ScalePaths {
                spec_replicas: ".spec.replicas".into(),
                status_replicas: ".status.replicas".into(),
                selector: Some(".spec.selector".into()),
            }),
        });
        self
    }

    pub fn with_action(mut self, name: &'static str, action: impl Action) -> Self {
        self.subresources.push(Subresource { name: name.into(), kind: SubresourceKind::Action(Arc::new(action)) });
        self
    }

    pub fn with_connect(mut self, name: &'static str, connect: impl Connect) -> Self {
        self.subresources.push(Subresource { name: name.into(), kind: SubresourceKind::Connect(Arc::new(connect)) });
        self
    }

    /// Makes JSON paths usable in field selectors of every version.
    pub fn selectable(mut self, labels: &[&'static str]) -> Self {
        for label in labels {
            self = self.selectable_as(label, label, "");
        }
        self
    }

    /// Makes one field usable in field selectors of every version, under a label of its own and with a default.
    pub fn selectable_as(mut self, label: &'static str, path: &'static str, default: &'static str) -> Self {
        for version in &mut self.versions {
            let field = SelectableField { label: label.into(), path: path.into(), default: default.into() };
            version.selectable_fields.push(field);
        }
        self
    }

    /// Every use of its only version is answered with this warning.
    pub fn deprecated(mut self, warning: &'static str) -> Self {
        for version in &mut self.versions {
            version.deprecation = Some(warning.into());
        }
        self
    }

    /// Makes the row a second view of another row's objects.
    pub fn view_of(mut self, stored: &ResourceDef, conversion: Conversion) -> Self {
        self.storage = stored.storage.clone();
        for version in &mut self.versions {
            version.stored = false;
            version.conversion = Some(conversion);
        }
        self
    }

    /// Objects disappear this long after their last write.
    pub fn expiring(mut self, after: Duration) -> Self {
        if let Storage::Stored { ttl, .. } = &mut self.storage {
            *ttl = Some(after);
        }
        self
    }

    /// The version of that name, if served.
    pub fn version(&self, name: &str) -> Option<&VersionDef> {
        self.versions.iter().find(|version| version.served && version.name == name)
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether an answer may be a Table. As upstream, what only answers a create (reviews, bindings, tokens) has none.
    pub fn has_tables(&self, below: Option<&SubresourceKind>) -> bool {
        match below {
            Some(SubresourceKind::Action(action)) => action.kind().verb != Verb::Create,
            Some(_) => true,
            None => !matches!(self.storage, Storage::Virtual(_)),
        }
    }

    /// What a door below the row leaves as it was: by policy, or `status` for the row's own and `spec` for `/status`.
    pub fn resets(&self, subresource: &str) -> Resets<'static> {
        if let Some((_, resets)) = self.policy.resets.iter().find(|(door, _)| *door == subresource) {
            return *resets;
        }
        match subresource {
            "" if self.subresource("status").is_some() => Resets::Fields(&[&["status"]]),
            "status" => Resets::Fields(&[&["spec"]]),
            _ => Resets::Fields(&[]),
        }
    }

    /// `plural` or `plural.group`: how errors and logs name the resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Group, version and kind of one of the versions.
    pub fn gvk(&self, version: &VersionDef) -> Gvk {
        Gvk::new(self.group.clone(), version.name.clone(), self.kind.clone())
    }

    /// Group, version and kind of the objects that requests for a path below this row carry; `None` if there is no such
    /// path.
    pub fn kind_of(&self, version: &VersionDef, subresource: &str) -> Option<Gvk> {
        if subresource.is_empty() {
            return Some(self.gvk(version));
        }
        Some(match &self.subresource(subresource)?.kind {
            SubresourceKind::View(_) => self.gvk(version),
            SubresourceKind::Scale(_) => ScalePaths::gvk(),
            SubresourceKind::Action(action) => {
                let kind = action.kind();
                Gvk::new(kind.group, kind.version, kind.kind)
            }
            SubresourceKind::Connect(connect) => Gvk::new("", "v1", connect.options_kind()),
        })
    }

    /// Brings an object of the stored version into another one.
    pub fn from_stored(&self, version: &VersionDef, object: &mut Object) {
        if let Some(conversion) = version.conversion {
            (conversion.from_stored)(object);
        }
        object.set_gvk(&self.gvk(version));
    }

    /// Brings an object of one of the versions into the stored one.
    pub fn to_stored(&self, version: &VersionDef, object: &mut Object) {
        if let Some(conversion) = version.conversion {
            (conversion.to_stored)(object);
        }
        if let Storage::Stored { api_version, kind, .. } = &self.storage {
            object.set(&["apiVersion"], api_version.as_ref());
            object.set(&["kind"], kind.as_ref());
        }
    }

    /// Whether requests for a path below this row carry the row's own objects.
    pub fn carries_own(&self, subresource: &str) -> bool {
        let own = |sub: &Subresource| matches!(sub.kind, SubresourceKind::View(_));
        subresource.is_empty() || self.subresource(subresource).is_some_and(own)
    }

    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
}

/// `v1` for the core group, else `group/version`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
