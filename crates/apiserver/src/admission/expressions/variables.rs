//! The variables of a policy: computed when first asked for, once per request, and known to those that come after them.

use std::collections::HashMap;

use kminik_cel::{Activation, Budget, Env, EvalError, Fields, Program, Type, Value};
use parking_lot::Mutex;
use serde_json::Value as Json;

use super::compile;

/// The compiled variables of a policy.
pub(crate) struct VariablesType {
    definitions: Vec<Definition>,
}

struct Definition {
    name: String,
    source: String,
    program: Result<Program, String>,
}

impl VariablesType {
    /// Reads `spec.variables`: a list of names and expressions, each of which may use those before it.
    pub(crate) fn of(variables: Option<&Json>, env: &Env) -> Self {
        let mut known = VariablesType { definitions: Vec::new() };
        for variable in variables.and_then(Json::as_array).into_iter().flatten() {
            let text = |key: &str| variable.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
            let (name, source) = (text("name"), text("expression"));
            let program = compile(&source, &known.declare(env.clone()), &[]);
            known.definitions.push(Definition { name, source, program });
        }
        known
    }

    /// Adds `variables` to what expressions may name.
    pub(crate) fn declare(&self, env: Env) -> Env {
        let t = |d: &Definition| d.program.as_ref().map_or(Type::Dyn, |p| p.result_type().clone());
        let fields = self.definitions.iter().map(|d| (d.name.clone(), t(d))).collect();
        env.variable("variables", Type::declared("kubernetes.variables", fields))
    }

    /// The errors of each variable's expression by position.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        self.definitions.iter().enumerate().filter_map(|(i, d)| Some((i, &*d.source, &**d.program.as_ref().err()?)))
    }
}

/// The variables of one evaluation.
pub(crate) struct Variables<'a> {
    known: &'a VariablesType,
    base: Activation<'a>,
    computed: Mutex<HashMap<usize, Result<Value<'a>, EvalError>>>,
    spent: Mutex<u64>,
}

impl<'a> Variables<'a> {
    pub(crate) fn new(known: &'a VariablesType, base: Activation<'a>) -> Self {
        Variables { known, base, computed: Mutex::default(), spent: Mutex::default() }
    }

    /// The values that expressions see, these variables among them.
    pub(crate) fn activation(&'a self) -> Activation<'a> {
        self.base.clone().with_lazy("variables", self)
    }

    /// What computing variables has cost since this was last asked.
    pub(crate) fn take_cost(&self) -> u64 {
        std::mem::take(&mut *self.spent.lock())
    }
}

impl<'a> Fields<'a> for Variables<'a> {
    fn field(&'a self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        let position = self.known.definitions.iter().position(|d| d.name == name)?;
        let known = self.computed.lock().get(&position).cloned();
        if known.is_some() {
            return known;
        }
        let definition = self.known.definitions.get(position)?;
        // Variables name only those before them, so this ends.
        let value = match &definition.program {
            Ok(program) => {
                let mut budget = Budget::default();
                let value = program.eval(&self.activation(), &mut budget);
                let mut spent = self.spent.lock();
                *spent = spent.saturating_add(budget.spent());
                drop(spent);
                value.map_err(|error| {
                    EvalError::Failed(format!("composited variable {name:?} fails to evaluate: {error}"))
                })
            }
            Err(why) => Err(EvalError::Failed(format!("composited variable {name:?} fails to compile: {why}"))),
        };
        self.computed.lock().insert(position, value.clone());
        Some(value)
    }
}
