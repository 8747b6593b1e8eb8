//! Changed objects: the optimistic loop of PUT and of every kind of patch.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use kminik_meta::{Object, StatusError};

use super::call::{Call, WriteOptions};
use super::{create, render, write};
use crate::http::accept;
use crate::http::body::{RequestBody, ResponseBody};
use crate::registry::strategy::Reservation;
use crate::registry::{Attempt, Change, Written};
use crate::storage::entry::Entry;

/// Answers a PUT.
pub(crate) async fn update(call: &Call, request: Request<RequestBody>) -> Result<Response<ResponseBody>, StatusError> {
    let options = WriteOptions::of(&call.query, &call.headers, "UpdateOptions")?;
    let encoding = accept::body_encoding(&call.headers)?;
    let bytes = call.body(request).await?;
    let wanted = write::decode(call, &options, &bytes, encoding)?;
    let updated = change(call, &options, |_: &Object| Ok(wanted.clone())).await;
    match updated {
        Err(error) if error.code() == 404 && call.row.policy.create_on_update && call.info.subresource.is_empty() => {
            create::create_by_other_verb(call, &options, wanted).await
        }
        updated => answer(call, updated?),
    }
}

/// What became of an update.
pub(crate) enum Changed {
    Stored(Arc<Entry>),
    /// The object as it would have been stored, in the version that the row works in.
    DryRun(Object),
}

/// What turns the present object into the wanted one, both in the request's version; asked again whenever somebody else was
/// faster.
#[async_trait]
pub(crate) trait Make: Send {
    /// # Errors
    /// The update is given up with this status.
    async fn make(&mut self, present: &Object) -> Result<Object, StatusError>;
}

#[async_trait]
impl<F> Make for F
where
    F: FnMut(&Object) -> Result<Object, StatusError> + Send,
{
    async fn make(&mut self, present: &Object) -> Result<Object, StatusError> {
        self(present)
    }
}

/// Answers with the changed object.
pub(crate) fn answer(call: &Call, changed: Changed) -> Result<Response<ResponseBody>, StatusError> {
    match changed {
        Changed::Stored(entry) => render::entry(call, StatusCode::OK, &entry),
        Changed::DryRun(mut object) => {
            call.to_request_version(&mut object);
            render::object(call, StatusCode::OK, object)
        }
    }
}

/// Changes the object the URL names.
///
/// # Errors
/// The first refusal; 404 if there is no such object.
pub(crate) async fn change(call: &Call, options: &WriteOptions, make: impl Make) -> Result<Changed, StatusError> {
    let warnings = call.warnings.lock().len();
    let mut update = Update { call, options, make, warnings, dry_run: None, reservation: None };
    let written = call.server.registry().update(&call.row, &call.info.namespace, &call.info.name, &mut update).await?;
    if let Some(object) = update.dry_run {
        return Ok(Changed::DryRun(object));
    }
    Ok(Changed::Stored(match written {
        Written::Stored(entry) => {
            if let Some(reservation) = update.reservation {
                reservation.commit(entry.revision);
            }
            entry
        }
        Written::Unchanged(entry) | Written::Deleted(entry) => entry,
    }))
}

struct Update<'a, M> {
    call: &'a Call,
    options: &'a WriteOptions,
    make: M,
    /// Warnings that were there before the first round.
    warnings: usize,
    dry_run: Option<Object>,
    reservation: Option<Box<dyn Reservation>>,
}

#[async_trait]
impl<M: Make> Attempt for Update<'_, M> {
    async fn attempt(&mut self, current: &Entry) -> Result<Change, StatusError> {
        let call = self.call;
        call.warnings.lock().truncate(self.warnings);
        // A guard of an earlier round gives back before this one takes.
        self.reservation = None;
        let present = call.kept_object_of(current)?;
        let wanted = self.make.make(&present).await?;
        let admitted = write::admit_update(call, self.options, current, wanted).await?;
        if self.options.dry_run {
            self.dry_run = Some(admitted.object);
            return Ok(Change::Keep);
        }
        self.reservation = admitted.reservation;
        Ok(admitted.change)
    }
}
