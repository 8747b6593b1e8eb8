//! Macros: what looks like a call but expands to a test of presence or a fold, exactly as upstream expands it, since costs count nodes.

use std::sync::Arc;

use crate::ast::{ACCU, Expr, Fold, Kind, Literal, op};
use crate::parser::{Parser, Stop};

type Expanded = Result<Expr, Stop>;

/// The call, or what it expands to.
pub(crate) fn expand(
    p: &mut Parser,
    offset: usize,
    function: &Arc<str>,
    target: Option<Expr>,
    args: Vec<Expr>,
) -> Expanded {
    let Some(target) = target else {
        if &**function == "has" && args.len() == 1 {
            return has(p, offset, args);
        }
        return Ok(p.node(offset, Kind::Call { function: function.clone(), target: None, args }));
    };
    match (&**function, args.len()) {
        ("all", 2 | 3) => quantifier(p, offset, Quantifier::All, target, args),
        ("exists", 2 | 3) => quantifier(p, offset, Quantifier::Exists, target, args),
        ("exists_one" | "existsOne", 2 | 3) => quantifier(p, offset, Quantifier::One, target, args),
        ("map", 2 | 3) => map(p, offset, target, args),
        ("filter", 2) => filter(p, offset, target, args),
        ("transformList", 3 | 4) => transform(p, offset, Transform::List, target, args),
        ("transformMap", 3 | 4) => transform(p, offset, Transform::Map, target, args),
        ("transformMapEntry", 3 | 4) => transform(p, offset, Transform::Entry, target, args),
        ("optMap", 2) => optional(p, offset, target, args, true),
        ("optFlatMap", 2) => optional(p, offset, target, args, false),
        ("sortBy", 2) => sort_by(p, offset, target, args),
        _ => Ok(p.node(offset, Kind::Call { function: function.clone(), target: Some(Box::new(target)), args })),
    }
}

fn has(p: &mut Parser, offset: usize, mut args: Vec<Expr>) -> Expanded {
    match args.pop() {
        Some(Expr { kind: Kind::Select { operand, field, test: false }, .. }) => {
            Ok(p.node(offset, Kind::Select { operand, field, test: true }))
        }
        other => {
            p.issue(other.map_or(offset, |o| o.offset), "invalid argument to has() macro");
            Err(Stop)
        }
    }
}

/// The variable that an argument names.
fn variable(p: &mut Parser, arg: &Expr) -> Result<Arc<str>, Stop> {
    match &arg.kind {
        Kind::Ident(name) => Ok(name.clone()),
        _ => {
            p.issue(arg.offset, "argument must be a simple name");
            Err(Stop)
        }
    }
}

/// Two distinct variables.
fn variables(p: &mut Parser, first: &Expr, second: &Expr) -> Result<(Arc<str>, Arc<str>), Stop> {
    let (a, b) = (variable(p, first)?, variable(p, second)?);
    if a == b {
        p.issue(second.offset, format!("duplicate variable name: {a}"));
        return Err(Stop);
    }
    Ok((a, b))
}

fn accu(p: &mut Parser, offset: usize) -> Expr {
    p.node(offset, Kind::Ident(ACCU.into()))
}

fn literal(p: &mut Parser, offset: usize, literal: Literal) -> Expr {
    p.node(offset, Kind::Literal(literal))
}

/// The pieces of a fold besides its range and variables.
struct Pieces {
    init: Expr,
    condition: Expr,
    step: Expr,
    result: Expr,
}

fn fold(p: &mut Parser, offset: usize, range: Expr, vars: (Arc<str>, Option<Arc<str>>), pieces: Pieces) -> Expr {
    let Pieces { init, condition, step, result } = pieces;
    let fold = Fold { range, var: vars.0, var2: vars.1, accu: ACCU.into(), init, condition, step, result };
    p.node(offset, Kind::Fold(Box::new(fold)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    All,
    Exists,
    One,
}

fn quantifier(p: &mut Parser, at: usize, kind: Quantifier, target: Expr, mut args: Vec<Expr>) -> Expanded {
    let Some(predicate) = args.pop() else { return Err(Stop) };
    let vars = match args.as_slice() {
        [one] => (variable(p, one)?, None),
        [one, two] => variables(p, one, two).map(|(a, b)| (a, Some(b)))?,
        _ => return Err(Stop),
    };
    let accumulator = accu(p, at);
    let pieces = match kind {
        Quantifier::All => Pieces {
            init: literal(p, at, Literal::Bool(true)),
            condition: {
                let inner = accu(p, at);
                p.call(at, op::NOT_STRICTLY_FALSE, vec![inner])
            },
            step: p.call(at, op::AND, vec![accumulator, predicate]),
            result: accu(p, at),
        },
        Quantifier::Exists => Pieces {
            init: literal(p, at, Literal::Bool(false)),
            condition: {
                let inner = accu(p, at);
                let inner = p.call(at, op::NOT, vec![inner]);
                p.call(at, op::NOT_STRICTLY_FALSE, vec![inner])
            },
            step: p.call(at, op::OR, vec![accumulator, predicate]),
            result: accu(p, at),
        },
        Quantifier::One => {
            let one = literal(p, at, Literal::Int(1));
            let more = p.call(at, op::ADD, vec![accumulator, one]);
            let same = accu(p, at);
            let (last, one) = (accu(p, at), literal(p, at, Literal::Int(1)));
            Pieces {
                init: literal(p, at, Literal::Int(0)),
                condition: literal(p, at, Literal::Bool(true)),
                step: p.call(at, op::CONDITIONAL, vec![predicate, more, same]),
                result: p.call(at, op::EQUALS, vec![last, one]),
            }
        }
    };
    Ok(fold(p, at, target, vars, pieces))
}

/// Appends `element` to the accumulated list, if `predicate` holds.
fn collect(p: &mut Parser, at: usize, predicate: Option<Expr>, element: Expr) -> Pieces {
    let accumulator = accu(p, at);
    let list = p.node(at, Kind::List { elements: vec![element], optional: Vec::new() });
    let mut step = p.call(at, op::ADD, vec![accumulator, list]);
    if let Some(predicate) = predicate {
        let same = accu(p, at);
        step = p.call(at, op::CONDITIONAL, vec![predicate, step, same]);
    }
    Pieces {
        init: p.node(at, Kind::List { elements: Vec::new(), optional: Vec::new() }),
        condition: literal(p, at, Literal::Bool(true)),
        step,
        result: accu(p, at),
    }
}

fn map(p: &mut Parser, at: usize, target: Expr, mut args: Vec<Expr>) -> Expanded {
    let (element, mut rest) = (args.pop(), args.into_iter());
    let (Some(element), Some(name)) = (element, rest.next()) else { return Err(Stop) };
    let var = variable(p, &name)?;
    let pieces = collect(p, at, rest.next(), element);
    Ok(fold(p, at, target, (var, None), pieces))
}

fn filter(p: &mut Parser, at: usize, target: Expr, mut args: Vec<Expr>) -> Expanded {
    let (Some(predicate), Some(name)) = (args.pop(), args.pop()) else { return Err(Stop) };
    let var = variable(p, &name)?;
    let pieces = collect(p, at, Some(predicate), name);
    Ok(fold(p, at, target, (var, None), pieces))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transform {
    List,
    Map,
    Entry,
}

fn transform(p: &mut Parser, at: usize, kind: Transform, target: Expr, mut args: Vec<Expr>) -> Expanded {
    let (element, mut rest) = (args.pop(), args.into_iter());
    let (Some(element), Some(first), Some(second)) = (element, rest.next(), rest.next()) else { return Err(Stop) };
    let (a, b) = variables(p, &first, &second)?;
    let predicate = rest.next();
    let pieces = if kind == Transform::List {
        collect(p, at, predicate, element)
    } else {
        let mut insert = vec![accu(p, at)];
        if kind == Transform::Map {
            insert.push(p.node(at, Kind::Ident(a.clone())));
        }
        insert.push(element);
        let mut step = p.call(at, op::MAP_INSERT, insert);
        if let Some(predicate) = predicate {
            let same = accu(p, at);
            step = p.call(at, op::CONDITIONAL, vec![predicate, step, same]);
        }
        Pieces {
            init: p.node(at, Kind::Map(Vec::new())),
            condition: literal(p, at, Literal::Bool(true)),
            step,
            result: accu(p, at),
        }
    };
    Ok(fold(p, at, target, (a, Some(b)), pieces))
}

/// `let name = value in result`, as a fold over nothing.
fn bind(p: &mut Parser, at: usize, name: Arc<str>, value: Expr, result: Expr) -> Expr {
    let range = p.node(at, Kind::List { elements: Vec::new(), optional: Vec::new() });
    let condition = literal(p, at, Literal::Bool(false));
    let step = p.node(at, Kind::Ident(name.clone()));
    let fold = Fold { range, var: "#unused".into(), var2: None, accu: name, init: value, condition, step, result };
    p.node(at, Kind::Fold(Box::new(fold)))
}

fn optional(p: &mut Parser, at: usize, target: Expr, mut args: Vec<Expr>, wrap: bool) -> Expanded {
    let (Some(body), Some(name)) = (args.pop(), args.pop()) else { return Err(Stop) };
    let Kind::Ident(var) = &name.kind else {
        let macro_name = if wrap { "optMap" } else { "optFlatMap" };
        p.issue(name.offset, format!("{macro_name}() variable name must be a simple identifier"));
        return Err(Stop);
    };
    let var = var.clone();
    // As upstream has it, the target is evaluated twice.
    let again = p.copy(&target)?;
    let present =
        p.node(at, Kind::Call { function: "hasValue".into(), target: Some(Box::new(target)), args: Vec::new() });
    let value = p.node(at, Kind::Call { function: "value".into(), target: Some(Box::new(again)), args: Vec::new() });
    let mut yes = bind(p, at, var, value, body);
    if wrap {
        yes = p.call(at, "optional.of", vec![yes]);
    }
    let no = p.call(at, "optional.none", Vec::new());
    Ok(p.call(at, op::CONDITIONAL, vec![present, yes, no]))
}

fn sort_by(p: &mut Parser, at: usize, target: Expr, args: Vec<Expr>) -> Expanded {
    let input: Arc<str> = "@__sortBy_input__".into();
    let range = p.node(at, Kind::Ident(input.clone()));
    let keys = map(p, at, range, args)?;
    let list = p.node(at, Kind::Ident(input.clone()));
    let function = op::SORT_BY_KEYS.into();
    let sorted = p.node(at, Kind::Call { function, target: Some(Box::new(list)), args: vec![keys] });
    Ok(bind(p, at, input, target, sorted))
}
