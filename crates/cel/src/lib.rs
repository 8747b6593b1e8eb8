//! The Common Expression Language as Kubernetes speaks it: parser, type checker, cost estimate, evaluator, and the libraries that
//! upstream's API server offers to validation rules, admission policies and match conditions.
//!
//! An expression is compiled once against an [`Env`] and evaluated against [`Activation`]s that look at the caller's JSON in place.
//! [`rules`] walks the `x-kubernetes-validations` of a schema.
//!
//! Why an implementation of its own: the crate `cel` (0.15) has no type checker, so `undeclared reference`, `undefined field` and
//! `no matching overload` could not be told when a rule is written; no estimate and no running account of costs, on which upstream's
//! limits rest; no two-variable comprehensions; and it copies whole objects into its own values. What is left of it after adding those is
//! the grammar.
//!
//! **Invariant:** no I/O and no tokio; the host passes authorizers and computed variables in. **Invariant:** no expression, however
//! deep, long or hostile, panics or recurses without bound; sizes, depths, regular expressions and costs have limits.
//! **Invariant:** messages and costs are upstream's, as clients and stored definitions depend on both. Known differences: an expression
//! may be nested 62 deep where upstream takes 250, and a time forgets the zone it was written in.

mod ast;
mod budget;
mod check;
mod cost;
mod decl;
mod env;
mod error;
mod eval;
mod lexer;
mod library;
mod macros;
mod parser;
pub mod rules;
mod time;
mod types;
mod value;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

pub use budget::{
    Budget, MATCH_CONDITIONS_BUDGET, PER_CALL_LIMIT, PER_CRD_ESTIMATE, PER_EXPRESSION_ESTIMATE, RUNTIME_BUDGET,
};
pub use cost::estimate::Range;
pub use decl::{DeclField, DeclKind, DeclType, ListMerge, escape};
pub use env::{Env, json_patch_type};
pub use error::{CompileError, EvalError, Issue};
pub use eval::Activation;
pub(crate) use eval::CallContext;
pub use library::authorizer::{Authorizer, Decision, ResourceCheck, Subject};
pub use types::{DeclaredObject, ObjectType, Type};
pub use value::{Fields, Key, Lazy, List, Map, Text, Value};

use ast::{Expr, Kind, Literal};

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    expr: Expr,
    checked: check::Checked,
    regexes: HashMap<String, regex::Regex>,
    /// Whether a node is known before evaluation, by its id.
    constants: Vec<bool>,
}

impl Program {
    /// Parses and checks an expression.
    ///
    /// # Errors
    /// All issues of the first of parsing, checking and validating literals that finds any.
    pub fn compile(source: &str, env: &Env) -> Result<Program, CompileError> {
        let fail = |issues| CompileError::new(source, issues);
        let (mut expr, ids) = parser::parse(source).map_err(fail)?;
        let checked = check::check(env, &mut expr, ids).map_err(fail)?;
        let mut program = Program { expr, checked, regexes: HashMap::new(), constants: vec![false; ids] };
        let mut issues = Vec::new();
        let mut regexes = HashMap::new();
        visit(&program.expr, &mut |expr| literals(expr, &mut regexes, &mut issues));
        if !issues.is_empty() {
            return Err(CompileError::new(source, issues));
        }
        program.regexes = regexes;
        let mut constants = vec![false; ids];
        visit(&program.expr, &mut |expr| {
            if let Some(slot) = constants.get_mut(expr.id) {
                *slot = eval::is_constant(expr);
            }
        });
        program.constants = constants;
        Ok(program)
    }

    /// The type of the expression's value.
    pub fn result_type(&self) -> &Type {
        self.checked.types.get(self.expr.id).unwrap_or(&Type::Dyn)
    }

    /// The declared variables that the expression uses.
    pub fn variables(&self) -> &BTreeSet<String> {
        &self.checked.variables
    }

    /// Bounds of the cost of an evaluation. `root` is the type of the objects that variables stand for and bounds the sizes of their
    /// parts.
    pub fn estimate(&self, root: Option<&DeclType>) -> Range {
        cost::estimate::estimate(&self.expr, &self.checked, root)
    }

    /// Evaluates the expression.
    ///
    /// # Errors
    /// [`EvalError::CostLimit`] when the budget is spent, else what the expression failed with.
    pub fn eval<'a>(&self, activation: &Activation<'a>, budget: &mut Budget) -> Result<Value<'a>, EvalError> {
        eval::Evaluator { program: self, activation, budget, locals: Vec::new() }.eval(&self.expr)
    }
}

/// Calls `see` for every node.
fn visit(expr: &Expr, see: &mut dyn FnMut(&Expr)) {
    see(expr);
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => visit(operand, see),
        Kind::Call { target, args, .. } => target.iter().map(|t| &**t).chain(args).for_each(|e| visit(e, see)),
        Kind::List { elements, .. } => elements.iter().for_each(|e| visit(e, see)),
        Kind::Map(entries) => entries.iter().for_each(|e| {
            visit(&e.key, see);
            visit(&e.value, see);
        }),
        Kind::Struct { fields, .. } => fields.iter().for_each(|f| visit(&f.value, see)),
        Kind::Fold(fold) => {
            [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result]
                .into_iter()
                .for_each(|e| visit(e, see));
        }
    }
}

/// Checks literals that are only text to the type checker: regular expressions, times and spans.
fn literals(expr: &Expr, regexes: &mut HashMap<String, regex::Regex>, issues: &mut Vec<Issue>) {
    let Kind::Call { function, target, args } = &expr.kind else { return };
    let argument = if target.is_some() { args.first() } else { args.last() };
    let Some(Expr { kind: Kind::Literal(Literal::String(text)), offset, .. }) = argument else { return };
    let mut invalid = |what: &str| issues.push(Issue { offset: *offset, message: format!("invalid {what} argument") });
    match &**function {
        "matches" => match eval::compile_regex(text) {
            Ok(regex) => {
                regexes.insert(text.to_string(), regex);
            }
            Err(_) => invalid("matches"),
        },
        "find" | "findAll" => {
            if let Ok(regex) = eval::compile_regex(text) {
                regexes.insert(text.to_string(), regex);
            }
        }
        "timestamp" if args.len() == 1 && time::parse_timestamp(text).is_none() => invalid("timestamp"),
        "duration" if args.len() == 1 && time::parse_duration(text).is_none() => invalid("duration"),
        _ => {}
    }
}
