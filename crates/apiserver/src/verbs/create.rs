//! New objects.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use kminik_meta::{Object, StatusError};

use super::call::{Call, WriteOptions};
use super::{render, write};
use crate::admission::Operation;
use crate::auth::{self, Decision};
use crate::http::accept;
use crate::http::body::{RequestBody, ResponseBody};
use crate::registry::Inserted;
use crate::registry::def::Storage;
use crate::storage::entry::Entry;

/// Tries for a generated name that is free.
const GENERATE_ATTEMPTS: usize = 8;
/// Tries for addresses and ports that no other server gives away at the same moment.
const CLAIM_ATTEMPTS: usize = 32;

/// Answers a POST.
pub(crate) async fn create(call: &Call, request: Request<RequestBody>) -> Result<Response<ResponseBody>, StatusError> {
    let options = WriteOptions::of(&call.query, &call.headers, "CreateOptions")?;
    let encoding = accept::body_encoding(&call.headers)?;
    let bytes = call.body(request).await?;
    let mut object = write::decode(call, &options, &bytes, encoding)?;
    if let Storage::Virtual(create) = &call.row.storage {
        let name = object.name().to_owned();
        let attributes = call.attributes(Operation::Create, &name, None, &options);
        call.server.admission().mutate(&attributes, &mut object).await?;
        call.server.admission().validate(&attributes, Some(&object)).await?;
        let answer = create.create(call.action_context(Some(&options)), object).await?;
        return render::object(call, StatusCode::CREATED, answer);
    }
    answer(call, create_object(call, &options, object).await?)
}

/// Creates the object that an update or a server-side apply did not find; who may only change objects may not.
///
/// # Errors
/// 403 without the right to create, and as [`create_object`].
pub(crate) async fn create_by_other_verb(
    call: &Call,
    options: &WriteOptions,
    object: Object,
) -> Result<Response<ResponseBody>, StatusError> {
    let attributes = call.authorization("create");
    match call.server.authorizer().authorize(&attributes).await {
        Decision::Allow { .. } => answer(call, create_object(call, options, object).await?),
        Decision::NoOpinion { reason } | Decision::Deny { reason } => Err(auth::forbidden(&attributes, &reason)),
    }
}

fn answer(call: &Call, created: Created) -> Result<Response<ResponseBody>, StatusError> {
    match created {
        Created::Stored(entry) => render::entry(call, StatusCode::CREATED, &entry),
        Created::DryRun(mut object) => {
            call.to_request_version(&mut object);
            render::object(call, StatusCode::CREATED, object)
        }
    }
}

/// What became of a create.
enum Created {
    Stored(Arc<Entry>),
    /// The object as it would have been stored.
    DryRun(Object),
}

/// Runs the pipeline for a new object in the request's version.
///
/// # Errors
/// The first refusal; 409 if the name is taken.
async fn create_object(call: &Call, options: &WriteOptions, object: Object) -> Result<Created, StatusError> {
    let generated = object.name().is_empty();
    let registry = call.server.registry();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut complete = object.clone();
        let reservation = write::admit_create(call, options, &mut complete).await?;
        if options.dry_run {
            if registry.get(&call.row, complete.namespace(), complete.name()).await?.is_some() {
                return Err(StatusError::already_exists(&call.row.group, &call.row.plural, complete.name()));
            }
            return Ok(Created::DryRun(complete));
        }
        match registry.insert(&call.row, &complete).await {
            Ok(Inserted::Stored(entry)) => {
                if let Some(reservation) = reservation {
                    reservation.commit(entry.revision);
                }
                return Ok(Created::Stored(entry));
            }
            Ok(Inserted::Claimed) => {
                if attempt >= CLAIM_ATTEMPTS {
                    let (group, plural) = (&call.row.group, &call.row.plural);
                    return Err(StatusError::modified(group, plural, complete.name()));
                }
            }
            Err(error) if error.code() == 409 && generated => {
                if attempt >= GENERATE_ATTEMPTS {
                    let (group, plural) = (&call.row.group, &call.row.plural);
                    return Err(StatusError::generate_name_conflict(group, plural, complete.name(), 1));
                }
            }
            Err(error) => return Err(error),
        }
    }
}
