//! What is wrong with a policy's expressions for the kinds that it is about, by those kinds' schemas.
//!
//! Expressions are compiled without types when a policy is written, since it may be for kinds that come later; this only warns.

use std::collections::{BTreeMap, BTreeSet};

use kminik_cel::{DeclType, Env, Program, Type};
use kminik_meta::field::Path;
use kminik_meta::{GroupVersion, Gvk, Object};
use serde_json::{Value as Json, json};

use super::super::expressions::{VariablesType, environment};
use crate::registry::table::ResourceTable;

/// Kinds of a policy that are looked at, as upstream's limit.
const MAX_KINDS: usize = 10;

/// The `status.typeChecking.expressionWarnings` of a policy.
pub(super) fn warnings(policy: &Object, table: &ResourceTable) -> Vec<Json> {
    let params = policy.get(&["spec", "paramKind"]).and_then(|kind| param_type(kind, table));
    let environments: Vec<(Gvk, Env)> = kinds(policy, table)
        .into_values()
        .map(|(gvk, object)| (gvk, typed(policy, &object, params.as_ref())))
        .collect();
    let mut warnings = Vec::new();
    for (index, validation) in policy.array(&["spec", "validations"]).iter().enumerate() {
        for member in ["expression", "messageExpression"] {
            let Some(source) = validation.get(member).and_then(Json::as_str).filter(|source| !source.is_empty()) else {
                continue;
            };
            let found: Vec<String> = environments
                .iter()
                .filter_map(|(gvk, env)| Some(format!("{gvk}: {}\n", Program::compile(source, env).err()?)))
                .collect();
            if !found.is_empty() {
                let field = Path::new("spec").child("validations").index(index).child(member);
                warnings.push(json!({"fieldRef": field.to_string(), "warning": found.join("\n")}));
            }
        }
    }
    warnings
}

/// What expressions may name where objects are of one kind.
fn typed(policy: &Object, object: &Type, params: Option<&Type>) -> Env {
    let mut env =
        environment(params.is_some(), true).variable("object", object.clone()).variable("oldObject", object.clone());
    if let Some(params) = params {
        env = env.variable("params", params.clone());
    }
    VariablesType::of(policy.get(&["spec", "variables"]), &env).declare(env)
}

fn param_type(kind: &Json, table: &ResourceTable) -> Option<Type> {
    let text = |key: &str| kind.get(key).and_then(Json::as_str);
    let version = GroupVersion::parse(text("apiVersion")?)?;
    let row = table.by_kind(&version.group, text("kind")?)?;
    let served = row.version(&version.version).filter(|version| version.served)?;
    Some(DeclType::from_schema(&served.schema).cel_type())
}

/// The kinds that the policy's rules name, by group, version and kind. A rule with a wildcard names none.
fn kinds(policy: &Object, table: &ResourceTable) -> BTreeMap<(String, String, String), (Gvk, Type)> {
    let mut kinds = BTreeMap::new();
    for rule in policy.array(&["spec", "matchConstraints", "resourceRules"]) {
        let words = |key: &str| -> BTreeSet<&str> {
            rule.get(key).and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect()
        };
        let (groups, versions) = (words("apiGroups"), words("apiVersions"));
        if groups.iter().chain(&versions).any(|word| word.contains('*')) {
            continue;
        }
        let mut resources = words("resources");
        resources.retain(|resource| !resource.contains(['*', '/']));
        let mut count = 0;
        for group in &groups {
            for version in &versions {
                for resource in &resources {
                    let Some((row, served)) = table.resolve(group, version, resource) else { continue };
                    let gvk = row.gvk(&served);
                    let key = (gvk.group.to_string(), gvk.version.to_string(), gvk.kind.to_string());
                    kinds.entry(key).or_insert_with(|| (gvk, DeclType::from_schema(&served.schema).cel_type()));
                    count += 1;
                    if count == MAX_KINDS {
                        return kinds;
                    }
                }
            }
        }
    }
    kinds
}
