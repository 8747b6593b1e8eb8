//! MutatingAdmissionPolicy: policies with expressions change what is written.
//!
//! Who is asked is decided before anything is changed. Then each policy is asked once for each binding and parameter, and each of
//! its mutations sees what those before it have made of the object.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use kminik_cel::{Env, ObjectType, RUNTIME_BUDGET, Type, Value, json_patch_type};
use kminik_meta::field::Path;
use kminik_meta::patch::{self, PatchError};
use kminik_meta::{ErrorList, FieldError, Object, StatusError, apply};
use serde_json::Value as Json;

use super::super::expressions::{Owner, Subject, Variables, Verdict, compile};
use super::super::matching::{self, Sighting};
use super::super::{Admission, Attributes, Operation, Phase};
use super::bound::Bound;
use super::compiled::{Binding, Common, Environments, Expression, check_list, text};
use super::matched::Under;
use super::run::{Failure, NO_ERROR, Run};
use crate::auth;
use crate::storage::cache::Cache;

const NAME: &str = "MutatingAdmissionPolicy";
const FORBIDDEN: &str = "Forbidden";
const INVALID: &str = "Invalid";

/// Asks the policies that may change the object.
pub(crate) struct MutatingPolicies {
    bound: Bound<Policy>,
    authorizer: Arc<dyn auth::Authorizer>,
}

/// A policy with its bindings.
struct Policy {
    common: Common,
    mutations: Vec<Mutation>,
    /// `reinvocationPolicy: IfNeeded`.
    reinvoke: bool,
}

/// How a mutation says what to change.
#[derive(Clone, Copy)]
enum Form {
    ApplyConfiguration,
    JsonPatch,
}

struct Mutation {
    form: Form,
    expression: Expression,
}

/// Why a request is refused.
struct Refusal {
    message: String,
    /// Reason of the status, whose code is 403 in any case.
    reason: &'static str,
}

impl Form {
    /// By `patchType`, with the member that holds the expression.
    const ALL: [(&'static str, &'static str, Form); 2] = [
        ("ApplyConfiguration", "applyConfiguration", Form::ApplyConfiguration),
        ("JSONPatch", "jsonPatch", Form::JsonPatch),
    ];

    /// Type of the expression's value.
    fn wanted(self) -> Type {
        match self {
            Form::ApplyConfiguration => Type::Object(ObjectType::Dynamic("Object".into())),
            Form::JsonPatch => Type::list(json_patch_type()),
        }
    }

    fn of(mutation: &Json) -> Option<(Form, &'static str, String)> {
        let kind = text(mutation, "patchType");
        let (_, member, form) = Form::ALL.into_iter().find(|(name, ..)| *name == kind)?;
        Some((form, member, text(mutation.get(member)?, "expression")))
    }
}

fn environment_of(environments: &Environments) -> Env {
    environments.validations.clone().mutation()
}

impl Policy {
    fn of(policy: &Object, bindings: Vec<Binding>) -> Self {
        let environments = Environments::of(policy);
        let env = environment_of(&environments);
        let mutation = |mutation: &Json| {
            let (form, _, source) = Form::of(mutation)?;
            Some(Mutation { form, expression: Expression::of(source, &env, &[form.wanted()]) })
        };
        Policy {
            mutations: policy.array(&["spec", "mutations"]).iter().filter_map(mutation).collect(),
            reinvoke: policy.str(&["spec", "reinvocationPolicy"]) == Some("IfNeeded"),
            common: Common::of(policy, environments, bindings),
        }
    }

    fn refusal(&self, binding: Option<&Binding>, message: &str, reason: &'static str) -> Refusal {
        let policy = &self.common.name;
        let message = match binding {
            Some(binding) => format!("policy '{policy}' with binding '{}' denied request: {message}", binding.name),
            None => format!("policy {policy:?} denied request: {message}"),
        };
        Refusal { message, reason }
    }
}

/// What does not compile in a policy that is being written.
pub(crate) fn expression_errors(policy: &Object) -> ErrorList {
    let environments = Environments::of(policy);
    let env = environment_of(&environments);
    let mut errors = environments.errors();
    check_list(policy, "matchConditions", "expression", &environments.conditions, &[Type::Bool], &mut errors);
    for (index, mutation) in policy.array(&["spec", "mutations"]).iter().enumerate() {
        // What is empty or unknown is another check's to complain about.
        let Some((form, member, source)) = Form::of(mutation).filter(|(.., source)| !source.trim().is_empty()) else {
            continue;
        };
        if let Err(why) = compile(&source, &env, &[form.wanted()]) {
            let path = Path::new("spec").child("mutations").index(index).child(member).child("expression");
            errors.push(FieldError::invalid(&path, source, why));
        }
    }
    errors
}

impl MutatingPolicies {
    pub(crate) fn new(cache: &Cache, authorizer: Arc<dyn auth::Authorizer>) -> Self {
        let (policies, bindings) = ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings");
        MutatingPolicies { bound: Bound::new(cache, policies, bindings, Policy::of), authorizer }
    }

    /// Asks a policy under one of its bindings, with one of its parameters.
    async fn invoke(
        &self,
        asked: &Asked<'_>,
        param: Option<&Object>,
        attributes: &Attributes<'_>,
        object: &mut Object,
        refusals: &mut Vec<Refusal>,
    ) -> Result<(), StatusError> {
        let Asked { policy, sighting, binding } = asked;
        let invalid = |why: &str| policy.refusal(Some(binding), why, INVALID);
        if !policy.common.conditions.is_empty() {
            let subject = Subject::new(attributes, sighting, Some(object), self.authorizer.clone()).await?;
            let owner = Owner { kind: "policy", name: &policy.common.name, phase: Phase::Admit.as_str() };
            match policy.common.conditions.judge(&owner, attributes, &subject.activation(param)) {
                Verdict::Match => {}
                Verdict::Skip => return Ok(()),
                Verdict::Failed(_) if policy.common.fails_open => return Ok(()),
                Verdict::Failed(why) => {
                    refusals.push(invalid(&why));
                    return Ok(());
                }
            }
        }
        let with = param.map(|param| format!("{}/{}", param.namespace(), param.name())).unwrap_or_default();
        let id = format!("{}/{}/{with}", policy.common.name, binding.name);
        if !attributes.reinvocation.is_due(NAME, &id) {
            return Ok(());
        }
        let before = object.clone();
        for mutation in &policy.mutations {
            let started = Instant::now();
            let mutated = self.mutate_once(mutation, asked, param, attributes, object).await?;
            let error = mutated.as_ref().map_or_else(Failure::kind, |_| NO_ERROR);
            let labels = [error, policy.common.name.as_str(), binding.name.as_str()];
            let table = &attributes.metrics().table.admission;
            table.mutating_policies.with(labels).inc();
            table.mutating_policy_duration.with(labels).took(started.elapsed());
            match mutated.map_err(Failure::text) {
                Ok(changed) => *object = changed,
                Err(_) if policy.common.fails_open => {}
                Err(why) => refusals.push(invalid(&why)),
            }
        }
        if *object != before {
            attributes.reinvocation.changed(NAME);
        }
        if policy.reinvoke {
            attributes.reinvocation.asked(NAME, &id);
        }
        Ok(())
    }

    /// The object after one mutation, or why that fails.
    async fn mutate_once(
        &self,
        mutation: &Mutation,
        asked: &Asked<'_>,
        param: Option<&Object>,
        attributes: &Attributes<'_>,
        object: &Object,
    ) -> Result<Result<Object, Failure>, StatusError> {
        let Asked { policy, sighting, .. } = asked;
        let (seen, wanted) = {
            let subject = Subject::new(attributes, sighting, Some(object), self.authorizer.clone()).await?;
            match evaluate(policy, mutation, &subject, param) {
                Ok(wanted) => (subject.into_object().unwrap_or(Cow::Borrowed(object)), wanted),
                Err(why) => return Ok(Err(why)),
            }
        };
        let mut changed = match mutated(mutation.form, &seen, wanted, sighting) {
            Ok(changed) => changed,
            Err(why) => return Ok(Err(Failure::Error(why))),
        };
        sighting.normalize(&mut changed)?;
        sighting.taken_back(changed).await.map(Ok)
    }
}

/// A policy that is asked, as what it sees the request, and the binding under which.
struct Asked<'p> {
    policy: &'p Policy,
    sighting: &'p Sighting,
    binding: &'p Binding,
}

/// What an expression says of a request, as JSON.
fn evaluate(
    policy: &Policy,
    mutation: &Mutation,
    subject: &Subject<'_>,
    param: Option<&Object>,
) -> Result<Json, Failure> {
    let variables = Variables::new(&policy.common.variables, subject.activation(param));
    let activation = variables.activation();
    let mut run = Run { activation: &activation, variables: &variables, left: RUNTIME_BUDGET };
    match run.evaluate(&mutation.expression) {
        Ok(value @ (Value::Map(_) | Value::List(_))) => {
            value.to_json().map_err(|error| Failure::Error(error.to_string()))
        }
        Ok(_) => Err(Failure::Error("the expression gave neither an object nor a list".to_owned())),
        Err(failure) => Err(failure),
    }
}

/// The object that a mutation makes of what its policy sees.
fn mutated(form: Form, seen: &Object, wanted: Json, sighting: &Sighting) -> Result<Object, String> {
    match form {
        Form::ApplyConfiguration => {
            let mut configuration = Object::try_from(wanted).map_err(|error| error.to_string())?;
            configuration.set_gvk(&seen.gvk());
            let schema = sighting.schema().map_err(|error| error.message)?;
            let merged = apply::merge_untracked(seen, &configuration, schema);
            merged.map_err(|error| format!("error applying patch: {error}"))
        }
        Form::JsonPatch => match patch::json(seen, operations(wanted).to_string().as_bytes()) {
            Ok(patched) => Ok(patched.object),
            // A test that fails says that there is nothing to do.
            Err(PatchError::Test(_)) => Ok(seen.clone()),
            Err(error) => Err(format!("JSONPath: {error}")),
        },
    }
}

/// The operations of a patch as JSON has them: without members that are not set.
fn operations(mut patch: Json) -> Json {
    for operation in patch.as_array_mut().into_iter().flatten().filter_map(Json::as_object_mut) {
        if operation.get("from").and_then(Json::as_str) == Some("") {
            operation.remove("from");
        }
    }
    patch
}

#[async_trait]
impl Admission for MutatingPolicies {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !self.bound.is_empty() && attributes.operation != Operation::Delete && !matching::is_exempt(attributes)
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), StatusError> {
        let policies = self.bound.current();
        let (mut refusals, mut relevant) = (Vec::new(), Vec::new());
        for policy in policies.iter() {
            match policy.common.matched(attributes, Some(object)).await {
                Ok(Some(matched)) => relevant.push((policy, matched)),
                Ok(None) => {}
                Err(why) => {
                    let message = policy.common.misconfiguration(None, &why);
                    refusals.extend(message.map(|message| policy.refusal(None, &message, FORBIDDEN)));
                }
            }
        }
        attributes.reinvocation.enter(NAME, Some(object));
        for (policy, matched) in &relevant {
            for Under { binding, params } in &matched.bindings {
                let asked = Asked { policy, sighting: &matched.sighting, binding };
                match params {
                    Ok(params) => {
                        for param in params {
                            self.invoke(&asked, param.as_deref(), attributes, object, &mut refusals).await?;
                        }
                    }
                    Err(why) => {
                        let message = policy.common.misconfiguration(Some(binding), why);
                        refusals.extend(message.map(|message| policy.refusal(Some(binding), &message, FORBIDDEN)));
                    }
                }
            }
        }
        attributes.reinvocation.leave(NAME, Some(object));
        let Some(first) = refusals.first() else { return Ok(()) };
        let status = refusals
            .iter()
            .fold(attributes.forbidden(""), |status, refusal| status.with_cause("", &refusal.message, ""));
        let details = status.details.map(|details| *details);
        Err(StatusError::relayed(403, first.reason, first.message.clone(), details))
    }
}
