//! The part of the pipeline that create, update, patch and apply share: from the client's object to what is stored.

use kminik_meta::decode::FieldValidation;
use kminik_meta::{ErrorList, FieldError, Object, Path, StatusError, apply, defaults, gates, time, validate, warnings};
use rand::Rng;
use serde_json::Value;

use super::call::{Call, WriteOptions};
use super::{metadata, scale};
use crate::admission::Operation;
use crate::http::accept::Encoding;
use crate::registry::Change;
use crate::registry::strategy::Reservation;
use crate::schema;
use crate::storage::entry::Entry;

/// What generated names end with: no vowels, nothing that reads like another sign.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_SUFFIX: usize = 5;
const GENERATED_MAX: usize = 63;

/// Decodes a body into the request's version, checks that it is what the URL says, and sets defaults.
///
/// # Errors
/// 400 for another kind, namespace or name than the URL's, or with strict field validation.
pub(crate) fn decode(
    call: &Call,
    options: &WriteOptions,
    bytes: &[u8],
    encoding: Encoding,
) -> Result<Object, StatusError> {
    let decoded = schema::decode(bytes, encoding, &call.gvk(), &call.version.schema, options.field_validation)?;
    call.warn(decoded.warnings);
    let mut object = decoded.object;
    call.audit.request_object(|| Some(object.to_value()));
    check_identity(call, &mut object)?;
    defaults::apply(&mut object, &call.version.schema);
    Ok(object)
}

/// Fills namespace from the URL, and checks namespace and name against it.
///
/// # Errors
/// 400 in upstream's words.
pub(crate) fn check_identity(call: &Call, object: &mut Object) -> Result<(), StatusError> {
    if call.row.namespaced() {
        if object.namespace().is_empty() {
            object.set_namespace(&call.info.namespace);
        } else if object.namespace() != call.info.namespace {
            return Err(StatusError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    } else if !object.namespace().is_empty() {
        object.set_namespace("");
    }
    if !call.info.name.is_empty() && call.info.verb != "create" {
        if object.name().is_empty() {
            object.set_name(&call.info.name);
        } else if object.name() != call.info.name {
            return Err(StatusError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                object.name(),
                call.info.name
            )));
        }
    }
    Ok(())
}

/// The revision an object names; 0 for none.
///
/// # Errors
/// In Go's words for what is no number.
fn revision_of(object: &Object) -> Result<u64, StatusError> {
    match object.resource_version() {
        "" => Ok(0),
        text => text.parse().map_err(|_| {
            StatusError::unknown(format!(
                "strconv.ParseUint: parsing {}: invalid syntax",
                kminik_meta::field::quote(text)
            ))
        }),
    }
}

/// Where in the pipeline an owner was found twice.
const AFTER_ADMISSION: &str = " after mutating admission happens";

/// Removes owners that stand twice in the same words, with a warning.
fn dedup_owners(call: &Call, object: &mut Object, when: &str) {
    let owners = object.array(&["metadata", "ownerReferences"]);
    if owners.len() < 2 {
        return;
    }
    let (mut kept, mut twice): (Vec<Value>, Vec<String>) = (Vec::with_capacity(owners.len()), Vec::new());
    for owner in owners {
        if kept.contains(owner) {
            twice.push(owner.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned());
        } else {
            kept.push(owner.clone());
        }
    }
    if twice.is_empty() {
        return;
    }
    object.set(&["metadata", "ownerReferences"], kept);
    call.warn([format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may \
         reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        twice.join(", ")
    )]);
}

/// A name from a prefix and a random suffix.
pub(crate) fn generate_name(prefix: &str) -> String {
    let mut random = rand::rng();
    let suffix: String =
        (0..NAME_SUFFIX).map(|_| NAME_ALPHABET[random.random_range(0..NAME_ALPHABET.len())] as char).collect();
    let prefix: String = prefix.chars().take(GENERATED_MAX - NAME_SUFFIX).collect();
    prefix + &suffix
}

/// Everything between decoding and storing a new object. `object` is in the request's version with defaults set, and
/// leaves in the version that the row works in, complete.
///
/// # Errors
/// The first refusal.
pub(crate) async fn admit_create(
    call: &Call,
    options: &WriteOptions,
    object: &mut Object,
) -> Result<Option<Box<dyn Reservation>>, StatusError> {
    // As upstream: what is no revision is not looked at.
    if object.resource_version().parse::<u64>().is_ok_and(|revision| revision > 0) {
        return Err(StatusError::unknown("resourceVersion should not be set on objects to be created"));
    }
    call.to_stored_version(object);
    dedup_owners(call, object, "");
    let server = &call.server;
    let gvk = object.gvk();
    let name = object.name().to_owned();
    let attributes = call.attributes(Operation::Create, &name, None, options);
    let mutated = server.admission().mutate(&attributes, object).await?;
    dedup_owners(call, object, AFTER_ADMISSION);
    // It was brought into normal form as it came, in the request's version.
    if mutated || !call.reads_stored_form() {
        schema::normalize(&gvk, call.stored_schema(), object, FieldValidation::Ignore)?;
    }
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "uid", "creationTimestamp", "generation"]
    {
        object.metadata_mut().remove(key);
    }
    object.set_meta("uid", &uuid::Uuid::new_v4().to_string());
    object.set_meta("creationTimestamp", &time::format(call.now));
    if object.name().is_empty() && !object.generate_name().is_empty() {
        let name = generate_name(object.generate_name());
        object.set_name(&name);
    }
    let ctx = call.strategy_context(options.dry_run);
    let strategy = call.strategy();
    gates::drop_disabled(&gvk, None, object);
    strategy.prepare_create(&ctx, object);
    let reservation = strategy.reserve(&ctx, None, object)?;
    let mut errors = metadata::validate_scope(&call.row, object);
    errors.append(validate::create(&gvk, call.stored_schema(), object));
    strategy.check(&ctx, None, object, &mut errors);
    if !errors.is_empty() {
        return Err(StatusError::invalid(&call.row.group, &call.row.kind, object.name(), &errors));
    }
    call.warn(warnings::of(&gvk, object, None));
    call.warn(strategy.warnings(&ctx, None, object));
    strategy.canonicalize(&ctx, object);
    schema::manage_fields(call, options, None, object).await?;
    let name = object.name().to_owned();
    server.admission().validate(&call.attributes(Operation::Create, &name, None, options), Some(object)).await?;
    Ok(reservation)
}

/// How an update ended.
pub(crate) struct Admitted {
    pub(crate) change: Change,
    /// The object as it would be stored, in the version that the row works in.
    pub(crate) object: Object,
    pub(crate) reservation: Option<Box<dyn Reservation>>,
}

/// Everything between a client's new object and storing it over `current`; repeatable. `new` is in the request's version
/// with defaults set.
///
/// # Errors
/// The first refusal.
pub(crate) async fn admit_update(
    call: &Call,
    options: &WriteOptions,
    current: &Entry,
    mut new: Object,
) -> Result<Admitted, StatusError> {
    let row = &call.row;
    let old = current.object()?;
    match revision_of(&new)? {
        0 if row.policy.unconditional_update => new.set_resource_version(""),
        0 => {
            let path = Path::new("metadata").child("resourceVersion");
            let error = FieldError::invalid(&path, 0, "must be specified for an update");
            return Err(StatusError::invalid(&row.group, &row.kind, old.name(), &ErrorList::from(error)));
        }
        revision if revision == current.revision => {}
        _ => return Err(StatusError::modified(&row.group, &row.plural, old.name())),
    }
    // For a patch this is a change of an immutable field, which validation finds.
    if call.info.verb == "update" && !new.uid().is_empty() && new.uid() != old.uid() {
        let (namespace, name) = (old.namespace(), old.name());
        return Err(StatusError::another_object(&row.group, &row.plural, namespace, name, new.uid(), old.uid()));
    }
    if call.info.verb == "update" {
        dedup_owners(call, &mut new, "");
    }
    call.to_stored_version(&mut new);
    let gvk = new.gvk();
    let mutated = mutate_update(call, options, &old, &mut new).await?;
    dedup_owners(call, &mut new, AFTER_ADMISSION);
    if mutated || !call.reads_stored_form() {
        schema::normalize(&gvk, call.stored_schema(), &mut new, FieldValidation::Ignore)?;
    }
    metadata::keep_system_fields(&old, &mut new);
    let ctx = call.strategy_context(options.dry_run);
    let strategy = call.strategy();
    gates::drop_disabled(&gvk, Some(&old), &mut new);
    strategy.prepare_update(&ctx, &old, &mut new);
    let reservation = strategy.reserve(&ctx, Some(&old), &mut new)?;
    let mut errors = match call.view() {
        None => validate::update(&gvk, call.stored_schema(), &new, &old),
        Some("status") => validate::update_status(&gvk, call.stored_schema(), &new, &old),
        Some(_) => {
            let mut errors = validate::object_meta_update(&new, &old);
            errors.append(validate::specification(&gvk, call.stored_schema(), &new));
            errors
        }
    };
    strategy.check(&ctx, Some(&old), &new, &mut errors);
    if !errors.is_empty() {
        return Err(StatusError::invalid(&row.group, &row.kind, old.name(), &errors));
    }
    if call.view().is_none() {
        call.warn(warnings::of(&gvk, &new, Some(&old)));
    }
    call.warn(strategy.warnings(&ctx, Some(&old), &new));
    strategy.canonicalize(&ctx, &mut new);
    schema::manage_fields(call, options, Some(&old), &mut new).await?;
    validate_update(call, options, &old, &new).await?;
    apply::restore_times(&old, &mut new);
    // What is stored may be in another version than the one it is to be in: then the bytes tell.
    let change = if new == *old && row.hub.is_none() {
        Change::Keep
    } else if metadata::released(&new) && !strategy_holds(call, &new) {
        Change::Delete
    } else {
        Change::Put(new.clone())
    };
    Ok(Admitted { change, object: new, reservation })
}

/// The mutating phase of an update; tells whether it may have changed the object. Admission of a Scale sees Scales.
async fn mutate_update(
    call: &Call,
    options: &WriteOptions,
    old: &Object,
    new: &mut Object,
) -> Result<bool, StatusError> {
    let admission = call.server.admission();
    let Some(paths) = call.scale_paths() else {
        return admission.mutate(&call.attributes(Operation::Update, old.name(), Some(old), options), new).await;
    };
    let (old_scale, mut scale) = (scale::scale_of(paths, old)?, scale::scale_of(paths, new)?);
    let attributes = call.attributes(Operation::Update, old.name(), Some(&old_scale), options);
    let mutated = admission.mutate(&attributes, &mut scale).await?;
    scale::set_replicas(paths, &scale, new);
    Ok(mutated)
}

/// The validating phase of an update.
async fn validate_update(call: &Call, options: &WriteOptions, old: &Object, new: &Object) -> Result<(), StatusError> {
    let admission = call.server.admission();
    let Some(paths) = call.scale_paths() else {
        return admission
            .validate(&call.attributes(Operation::Update, old.name(), Some(old), options), Some(new))
            .await;
    };
    let (old_scale, scale) = (scale::scale_of(paths, old)?, scale::scale_of(paths, new)?);
    let attributes = call.attributes(Operation::Update, old.name(), Some(&old_scale), options);
    admission.validate(&attributes, Some(&scale)).await
}

/// Whether the row's own strategy (not a view's) still holds a deleted object.
pub(crate) fn strategy_holds(call: &Call, object: &Object) -> bool {
    call.row.strategy.held(object)
}
