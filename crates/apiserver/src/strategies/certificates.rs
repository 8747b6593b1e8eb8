//! Certificate signing requests: who asks is recorded, what was asked stays, and each door changes its own part: `approval`
//! what was decided, `status` all else that became of it.

use base64::Engine as _;
use kminik_base::pki::Request;
use kminik_meta::{ErrorList, FieldError, Object, Path, time, validate};
use serde_json::{Value, json};

use crate::registry::strategy::{Strategy, StrategyContext, copy_member, keep_all_but_status};

const DECISIONS: [&str; 2] = ["Approved", "Denied"];

/// The requests themselves.
pub(crate) struct Requests;

impl Strategy for Requests {
    fn prepare_create(&self, ctx: &StrategyContext<'_>, request: &mut Object) {
        request.map_mut().remove("status");
        for member in ["username", "uid", "groups", "extra"] {
            request.remove(&["spec", member]);
        }
        request.set(&["spec", "username"], ctx.user.name.as_str());
        if !ctx.user.uid.is_empty() {
            request.set(&["spec", "uid"], ctx.user.uid.as_str());
        }
        if !ctx.user.groups.is_empty() {
            request.set(&["spec", "groups"], json!(ctx.user.groups));
        }
        if !ctx.user.extra.is_empty() {
            request.set(&["spec", "extra"], json!(ctx.user.extra));
        }
    }

    fn prepare_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        copy_member(old, new, "spec");
        copy_member(old, new, "status");
    }

    fn validate(&self, _ctx: &StrategyContext<'_>, request: &Object) -> ErrorList {
        readable(request)
    }
}

/// `certificatesigningrequests/approval`.
pub(crate) struct Approval;

impl Strategy for Approval {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        let conditions = new.remove(&["status", "conditions"]);
        keep_all_but_status(old, new);
        copy_member(old, new, "status");
        match conditions {
            Some(conditions) => new.set(&["status", "conditions"], conditions),
            None => drop(new.remove(&["status", "conditions"])),
        }
        stamp(ctx, old, new);
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        validate::transition(&new.gvk(), new, old)
    }
}

/// `certificatesigningrequests/status`.
pub(crate) struct RequestStatus;

impl Strategy for RequestStatus {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        keep_all_but_status(old, new);
        // Decisions are made elsewhere: they stay as they are, and new ones are for validation to find.
        for kind in DECISIONS {
            let kept: Vec<Value> = decisions(old, kind).cloned().collect();
            if kept.len() != decisions(new, kind).count() {
                continue;
            }
            let conditions = new.get_mut(&["status", "conditions"]).and_then(Value::as_array_mut);
            let places = conditions.into_iter().flatten().filter(|condition| condition["type"] == kind);
            places.zip(kept).for_each(|(place, kept)| *place = kept);
        }
        stamp(ctx, old, new);
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        let added = DECISIONS.iter().filter(|kind| decisions(new, kind).count() > decisions(old, kind).count());
        let mut errors = ErrorList::new();
        for kind in added {
            let detail = format!("updates may not add a condition of type {}", kminik_meta::field::quote(kind));
            errors.push(FieldError::forbidden(&Path::new("status").child("conditions"), detail));
        }
        errors
    }

    fn validate(&self, _ctx: &StrategyContext<'_>, request: &Object) -> ErrorList {
        let text = request.str(&["status", "certificate"]).unwrap_or_default();
        match check_certificate(text) {
            Ok(()) => ErrorList::new(),
            Err(detail) => {
                let path = Path::new("status").child("certificate");
                FieldError::invalid(&path, "<certificate data>", detail).into()
            }
        }
    }
}

fn decisions<'a>(request: &'a Object, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    request.array(&["status", "conditions"]).iter().filter(move |condition| condition["type"] == kind)
}

/// Says when conditions were updated and when they changed.
fn stamp(ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
    let now = Value::from(time::format(ctx.now));
    let before = old.array(&["status", "conditions"]).to_vec();
    let conditions = new.get_mut(&["status", "conditions"]).and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let same = before.iter().find(|b| b["type"] == condition["type"] && b["status"] == condition["status"]);
        let since = same.map_or(Value::Null, |same| same["lastTransitionTime"].clone());
        for (member, value) in [("lastUpdateTime", Value::Null), ("lastTransitionTime", since)] {
            if condition[member].is_null() {
                condition[member] = if value.is_null() { now.clone() } else { value };
            }
        }
    }
}

/// Whether the request is one, signed by its own key.
fn readable(request: &Object) -> ErrorList {
    match asked(request) {
        Ok(_) => ErrorList::new(),
        Err(detail) => {
            let given = request.str(&["spec", "request"]).unwrap_or_default();
            FieldError::invalid(&Path::new("spec").child("request"), given, detail).into()
        }
    }
}

/// What the certificate that is asked for would say.
///
/// # Errors
/// What is wrong with the request, in words.
pub(crate) fn asked(request: &Object) -> Result<Request, String> {
    let given = request.str(&["spec", "request"]).unwrap_or_default();
    let pem = base64::prelude::BASE64_STANDARD.decode(given).map_err(|error| error.to_string())?;
    Request::parse(&pem).map_err(|error| error.to_string())
}

/// Whether a text is certificates in PEM and nothing else, or empty.
fn check_certificate(base64: &str) -> Result<(), String> {
    if base64.is_empty() {
        return Ok(());
    }
    let pem = base64::prelude::BASE64_STANDARD.decode(base64).map_err(|error| error.to_string())?;
    if has_headers(&String::from_utf8_lossy(&pem)) {
        return Err("no PEM block headers are permitted".into());
    }
    let mut blocks = 0;
    for block in x509_parser::pem::Pem::iter_from_buffer(&pem) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label != "CERTIFICATE" {
            let label = kminik_meta::field::quote(&block.label);
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {label}"));
        }
        block.parse_x509().map_err(|error| error.to_string())?;
        blocks += 1;
    }
    if blocks == 0 { Err("must contain at least one CERTIFICATE PEM block".into()) } else { Ok(()) }
}

/// Whether a certificate in PEM has lines of headers before its text.
fn has_headers(pem: &str) -> bool {
    let mut inside = false;
    pem.lines().any(|line| {
        inside = match line.trim_end() {
            "-----BEGIN CERTIFICATE-----" => true,
            "-----END CERTIFICATE-----" => false,
            _ => inside,
        };
        inside && line.contains(':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_have_no_headers() {
        let check = |pem: &str| check_certificate(&base64::prelude::BASE64_STANDARD.encode(pem));
        let block = |inner: &str| format!("-----BEGIN CERTIFICATE-----\n{inner}AA==\n-----END CERTIFICATE-----\n");
        let refused = Err("no PEM block headers are permitted".to_owned());
        assert_eq!(check(&block("Proc-Type: 4\n\n")), refused);
        // What stands around the blocks is anybody's.
        assert_ne!(check(&format!("subject: x\n{}", block(""))), refused);
        assert_eq!(check("subject: x"), Err("must contain at least one CERTIFICATE PEM block".into()));
    }
}
