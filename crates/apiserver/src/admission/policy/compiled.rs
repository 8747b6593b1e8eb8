//! Policies and bindings, compiled.

use kminik_cel::{Env, Program, Type};
use kminik_meta::field::Path;
use kminik_meta::{ErrorList, FieldError, Object};
use serde_json::Value as Json;

use super::super::expressions::{Conditions, VariablesType, compile, environment};
use super::super::matching::Criteria;

/// What policies of both kinds have.
pub(super) struct Common {
    pub(super) name: String,
    /// `failurePolicy: Ignore`.
    pub(super) fails_open: bool,
    pub(super) criteria: Criteria,
    /// Group, version and kind of its parameters.
    pub(super) param_kind: Option<ParamKind>,
    pub(super) conditions: Conditions,
    pub(super) variables: VariablesType,
    pub(super) bindings: Vec<Binding>,
}

/// A validating policy with its bindings.
pub(super) struct Policy {
    pub(super) common: Common,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<Annotation>,
}

/// What kind the parameters of a policy are of.
pub(super) struct ParamKind {
    pub(super) api_version: String,
    pub(super) kind: String,
}

/// An expression with its source.
pub(super) struct Expression {
    pub(super) source: String,
    pub(super) program: Result<Program, String>,
}

/// A validation.
pub(super) struct Validation {
    pub(super) expression: Expression,
    pub(super) message: String,
    pub(super) message_expression: Option<Expression>,
    /// Reason of the status; empty for `Invalid`.
    pub(super) reason: String,
}

/// An audit annotation.
pub(super) struct Annotation {
    pub(super) key: String,
    pub(super) value: Expression,
}

/// A binding.
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) criteria: Criteria,
    pub(super) actions: Vec<String>,
    pub(super) params: Option<ParamRef>,
}

/// Which objects of the policy's kind of parameters a binding means.
pub(super) struct ParamRef {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) selector: Option<Json>,
    /// `parameterNotFoundAction: Deny`.
    pub(super) deny_missing: bool,
}

/// A member that is text; empty where it is absent.
pub(super) fn text(value: &Json, key: &str) -> String {
    value.get(key).and_then(Json::as_str).unwrap_or_default().to_owned()
}

impl Expression {
    /// Whose value must be of one of these types.
    pub(super) fn of(source: String, env: &Env, wanted: &[Type]) -> Self {
        Expression { program: compile(&source, env, wanted), source }
    }
}

/// The environments of a policy's expressions.
pub(super) struct Environments {
    pub(super) conditions: Env,
    /// With variables.
    pub(super) validations: Env,
    messages: Env,
    variables: VariablesType,
}

impl Environments {
    pub(super) fn of(policy: &Object) -> Self {
        let params = policy.get(&["spec", "paramKind"]).is_some_and(|k| !k.is_null());
        let (with, without) = (environment(params, true), environment(params, false));
        let variables = VariablesType::of(policy.get(&["spec", "variables"]), &with);
        Environments {
            validations: variables.declare(with.clone()),
            messages: variables.declare(without),
            conditions: with,
            variables,
        }
    }

    /// What does not compile in the variables.
    pub(super) fn errors(&self) -> ErrorList {
        let variables = Path::new("spec").child("variables");
        let mut errors = ErrorList::new();
        for (i, source, why) in self.variables.errors() {
            errors.push(FieldError::invalid(&variables.index(i).child("expression"), source, why));
        }
        errors
    }
}

impl Common {
    pub(super) fn of(policy: &Object, environments: Environments, bindings: Vec<Binding>) -> Self {
        Common {
            name: policy.name().to_owned(),
            fails_open: policy.str(&["spec", "failurePolicy"]) == Some("Ignore"),
            criteria: Criteria::of_policy(policy.get(&["spec", "matchConstraints"]).unwrap_or(&Json::Null)),
            param_kind: policy
                .get(&["spec", "paramKind"])
                .filter(|k| k.is_object())
                .map(|k| ParamKind { api_version: text(k, "apiVersion"), kind: text(k, "kind") }),
            conditions: Conditions::of(policy.get(&["spec", "matchConditions"]), &environments.conditions),
            variables: environments.variables,
            bindings,
        }
    }
}

impl Policy {
    pub(super) fn of(policy: &Object, bindings: Vec<Binding>) -> Self {
        let env = Environments::of(policy);
        let validation = |v: &Json| Validation {
            expression: Expression::of(text(v, "expression"), &env.validations, &[Type::Bool]),
            message: text(v, "message"),
            message_expression: Some(text(v, "messageExpression"))
                .filter(|source| !source.is_empty())
                .map(|source| Expression::of(source, &env.messages, &[Type::String])),
            reason: text(v, "reason"),
        };
        let annotation = |a: &Json| Annotation {
            key: text(a, "key"),
            value: Expression::of(text(a, "valueExpression"), &env.validations, &[Type::String, Type::Null]),
        };
        Policy {
            validations: policy.array(&["spec", "validations"]).iter().map(validation).collect(),
            annotations: policy.array(&["spec", "auditAnnotations"]).iter().map(annotation).collect(),
            common: Common::of(policy, env, bindings),
        }
    }
}

impl Binding {
    pub(super) fn of(binding: &Object) -> Self {
        let actions = binding.array(&["spec", "validationActions"]).iter();
        let params = binding.get(&["spec", "paramRef"]).filter(|p| p.is_object());
        Binding {
            name: binding.name().to_owned(),
            criteria: Criteria::of_policy(binding.get(&["spec", "matchResources"]).unwrap_or(&Json::Null)),
            actions: actions.filter_map(Json::as_str).map(str::to_owned).collect(),
            params: params.map(|p| ParamRef {
                name: text(p, "name"),
                namespace: text(p, "namespace"),
                selector: p.get("selector").filter(|s| !s.is_null()).cloned(),
                deny_missing: text(p, "parameterNotFoundAction") == "Deny",
            }),
        }
    }
}

/// What does not compile in a validating policy that is being written.
pub(crate) fn expression_errors(policy: &Object) -> ErrorList {
    let env = Environments::of(policy);
    let mut errors = env.errors();
    let mut check = |list: &str, member: &str, env: &Env, wanted: &[Type]| {
        check_list(policy, list, member, env, wanted, &mut errors);
    };
    check("matchConditions", "expression", &env.conditions, &[Type::Bool]);
    check("validations", "expression", &env.validations, &[Type::Bool]);
    check("validations", "messageExpression", &env.messages, &[Type::String]);
    check("auditAnnotations", "valueExpression", &env.validations, &[Type::String, Type::Null]);
    errors
}

/// Adds what does not compile in one member of the elements of a list of the policy's `spec`.
pub(super) fn check_list(
    policy: &Object,
    list: &str,
    member: &str,
    env: &Env,
    wanted: &[Type],
    errors: &mut ErrorList,
) {
    for (i, item) in policy.array(&["spec", list]).iter().enumerate() {
        // What is empty is another check's to complain about.
        let Some(source) = item.get(member).and_then(Json::as_str).filter(|s| !s.trim().is_empty()) else {
            continue;
        };
        if let Err(why) = compile(source, env, wanted) {
            let path = Path::new("spec").child(list).index(i).child(member);
            errors.push(FieldError::invalid(&path, source, why));
        }
    }
}
