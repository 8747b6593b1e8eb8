//! What an expression costs at most (and at least), from the sizes that a schema allows.

use std::collections::HashMap;
use std::sync::Arc;

use super::{
    CHAR, CHECK, FORMAT_NAME, FORMAT_REGEX, LIST, MAP, REGEX, STRUCT, is_equality, is_nominal, is_ordering, scaled,
};
use crate::ast::{ACCU, Expr, Fold, Kind, Literal, op};
use crate::check::{Checked, Meaning};
use crate::decl::{DeclKind, DeclType, UNSIZED};
use crate::types::Type;

/// Bounds of a cost or size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

const UNKNOWN: Range = Range { min: 0, max: u64::MAX };
/// No number is a longer text.
const NUMBER_CHARS: u64 = 32;

fn scaled_up(size: u64, factor: f64) -> u64 {
    if size as f64 > u64::MAX as f64 / factor { u64::MAX } else { scaled(size, factor) }
}

impl Range {
    const fn fixed(n: u64) -> Self {
        Range { min: n, max: n }
    }

    fn add(self, other: Self) -> Self {
        Range { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn multiply(self, other: Self) -> Self {
        Range { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn scale(self, factor: f64) -> Self {
        Range { min: scaled_up(self.min, factor), max: scaled_up(self.max, factor) }
    }

    fn union(self, other: Self) -> Self {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// The sizes of a list's or map's entries.
#[derive(Clone, Copy)]
struct Entries {
    list: bool,
    key: Range,
    value: Range,
}

impl Entries {
    fn union(self, other: Self) -> Self {
        Entries { list: self.list, key: self.key.union(other.key), value: self.value.union(other.value) }
    }
}

type Path = Vec<Arc<str>>;

struct Local {
    name: Arc<str>,
    path: Path,
    size: Option<Range>,
    entries: Option<Entries>,
}

struct Estimator<'c> {
    checked: &'c Checked,
    root: Option<&'c DeclType>,
    paths: HashMap<usize, Path>,
    locals: Vec<Local>,
    sizes: HashMap<usize, Range>,
    entries: HashMap<usize, Entries>,
}

/// Bounds of the cost; `root` is the type of the variables' objects.
pub(crate) fn estimate(expr: &Expr, checked: &Checked, root: Option<&DeclType>) -> Range {
    let mut estimator = Estimator {
        checked,
        root,
        paths: HashMap::new(),
        locals: Vec::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
    };
    estimator.cost(expr)
}

/// An argument as the functions' estimates see it.
struct Arg<'e> {
    expr: &'e Expr,
    size: Range,
    known: bool,
    path: Path,
}

impl<'c> Estimator<'c> {
    fn type_of(&self, expr: &Expr) -> &Type {
        self.checked.types.get(expr.id).unwrap_or(&Type::Dyn)
    }

    fn local(&self, expr: &Expr) -> Option<&Local> {
        match &expr.kind {
            Kind::Ident(name) => self.locals.iter().rev().find(|l| l.name == *name),
            _ => None,
        }
    }

    fn path(&self, expr: &Expr) -> Path {
        match self.local(expr) {
            Some(local) => local.path.clone(),
            None => self.paths.get(&expr.id).cloned().unwrap_or_default(),
        }
    }

    fn extend(&mut self, expr: &Expr, base: &Expr, step: &str) {
        let mut path = self.path(base);
        path.push(step.into());
        self.paths.insert(expr.id, path);
    }

    /// The size that the schema allows at a path. The first step names the variable, which is the root.
    fn size_at(&self, path: &[Arc<str>]) -> Option<Range> {
        let mut node = self.root?;
        let (_, steps) = path.split_first()?;
        for (i, step) in steps.iter().enumerate() {
            match &**step {
                "@items" | "@values" => node = node.element()?,
                "@keys" => {
                    let last = i + 1 == steps.len() && matches!(node.kind, DeclKind::Map { .. });
                    return last.then_some(Range { min: 0, max: UNSIZED });
                }
                name => node = &node.field(name)?.decl,
            }
        }
        Some(Range { min: 0, max: node.max_elements })
    }

    fn size(&mut self, expr: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        let own = match &expr.kind {
            Kind::Literal(Literal::String(s)) => Some(s.chars().count()),
            Kind::Literal(Literal::Bytes(b)) => Some(b.len()),
            Kind::Literal(_) => Some(1),
            Kind::List { elements, .. } => Some(elements.len()),
            Kind::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(own) = own {
            return Some(Range::fixed(own as u64));
        }
        if let Some(size) = self.size_at(&self.path(expr)) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.type_of(expr)) {
            return Some(Range::fixed(1));
        }
        self.local(expr).and_then(|l| l.size)
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(UNKNOWN)
    }

    fn entries(&self, expr: &Expr) -> Option<Entries> {
        self.entries.get(&expr.id).copied().or_else(|| self.local(expr).and_then(|l| l.entries))
    }

    fn cost(&mut self, expr: &Expr) -> Range {
        match &expr.kind {
            Kind::Literal(_) => Range::fixed(0),
            Kind::Ident(name) => {
                let path = self.local(expr).map_or_else(|| vec![name.clone()], |l| l.path.clone());
                self.paths.insert(expr.id, path);
                Range::fixed(1)
            }
            Kind::Select { operand, field, test } => {
                let mut sum = self.cost(operand);
                if *test {
                    return sum;
                }
                if matches!(self.type_of(operand), Type::Map(_) | Type::Object(_) | Type::Named(_) | Type::Param(_)) {
                    sum = sum.add(Range::fixed(1));
                }
                self.extend(expr, operand, field);
                sum
            }
            Kind::Call { .. } => self.call(expr),
            Kind::List { elements, .. } => {
                let mut sum = Range::fixed(LIST);
                let mut item = Range { min: if elements.is_empty() { 0 } else { u64::MAX }, max: 0 };
                for element in elements {
                    sum = sum.add(self.cost(element));
                    item = item.union(self.size_or_unknown(element));
                }
                self.entries.insert(expr.id, Entries { list: true, key: Range::fixed(1), value: item });
                sum
            }
            Kind::Map(entries) => {
                let mut sum = Range::fixed(MAP);
                let none = Range { min: if entries.is_empty() { 0 } else { u64::MAX }, max: 0 };
                let (mut key, mut value) = (none, none);
                for entry in entries {
                    sum = sum.add(self.cost(&entry.key)).add(self.cost(&entry.value));
                    key = key.union(self.size_or_unknown(&entry.key));
                    value = value.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, Entries { list: false, key, value });
                sum
            }
            Kind::Struct { fields, .. } => {
                fields.iter().fold(Range::fixed(STRUCT), |sum, field| sum.add(self.cost(&field.value)))
            }
            Kind::Fold(fold) => {
                let bound = matches!(&fold.range.kind, Kind::List { elements, .. } if elements.is_empty())
                    && matches!(fold.condition.kind, Kind::Literal(Literal::Bool(false)))
                    && &*fold.accu != ACCU;
                if bound { self.bind(expr, fold) } else { self.fold(expr, fold) }
            }
        }
    }

    fn push_value(&mut self, name: &Arc<str>, value: &Expr) {
        let local =
            Local { name: name.clone(), path: self.path(value), size: self.size(value), entries: self.entries(value) };
        self.locals.push(local);
    }

    /// Pushes a variable that runs over a range's keys or values.
    fn push_element(&mut self, name: &Arc<str>, range: &Expr, value: Option<bool>) {
        let entries = self.entries(range);
        let list = entries.map_or_else(|| matches!(self.type_of(range), Type::List(_)), |e| e.list);
        // A single variable runs over a list's elements but over a map's keys.
        let value = value.unwrap_or(list);
        let step = match (value, list) {
            (true, true) => "@items",
            (true, false) => "@values",
            (false, true) => "@indices",
            (false, false) => "@keys",
        };
        let mut path = self.path(range);
        path.push(step.into());
        let size = entries.map(|e| if value { e.value } else { e.key });
        self.locals.push(Local { name: name.clone(), path, size, entries: None });
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> Range {
        let mut sum = self.cost(&fold.range).add(self.cost(&fold.init));
        let depth = self.locals.len();
        self.push_value(&fold.accu, &fold.init);
        match &fold.var2 {
            Some(var2) => {
                self.push_element(&fold.var, &fold.range, Some(false));
                self.push_element(var2, &fold.range, Some(true));
            }
            None => self.push_element(&fold.var, &fold.range, None),
        }
        let round = self.cost(&fold.condition).add(self.cost(&fold.step));
        self.locals.truncate(depth + 1);
        sum = sum.add(self.cost(&fold.result));
        self.locals.truncate(depth);
        let rounds = self.size_or_unknown(&fold.range);
        sum = sum.add(rounds.multiply(round));
        match &fold.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List { .. } | Kind::Map(_) => {
                self.sizes.insert(expr.id, rounds);
                if let Some(entries) = self.entries(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        sum
    }

    fn bind(&mut self, expr: &Expr, fold: &Fold) -> Range {
        let sum = self.cost(&fold.range).add(self.cost(&fold.init));
        self.push_value(&fold.accu, &fold.init);
        let sum = sum.add(self.cost(&fold.result));
        self.locals.pop();
        self.copy_sizes(expr, &fold.result);
        sum
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entries) = self.entries(from) {
            self.entries.insert(to.id, entries);
        }
    }

    fn arg<'e>(&mut self, expr: &'e Expr) -> Arg<'e> {
        let mut path = self.path(expr);
        if path.first().is_some_and(|p| &**p == ACCU) {
            path.clear();
        }
        let size = self.size(expr);
        Arg { expr, size: size.unwrap_or(UNKNOWN), known: size.is_some(), path }
    }

    fn call(&mut self, expr: &Expr) -> Range {
        let Kind::Call { function, target, args } = &expr.kind else { return Range::fixed(0) };
        if let ("dyn", [arg], None) = (&**function, args.as_slice(), target) {
            let cost = self.cost(arg).add(Range::fixed(1));
            self.copy_sizes(expr, arg);
            return cost;
        }
        let (mut costs, mut nodes) = (Vec::with_capacity(args.len()), Vec::with_capacity(args.len()));
        for arg in args {
            costs.push(self.cost(arg));
            nodes.push(self.arg(arg));
        }
        let Some(Meaning::Call(overloads)) = self.checked.meanings.get(expr.id) else { return Range::fixed(0) };
        let base = target.as_ref().map_or(Range::fixed(0), |t| self.cost(t));
        let node = target.as_ref().map(|t| self.arg(t));
        let mut sum = Range { min: u64::MAX, max: 0 };
        let mut size: Option<Range> = None;
        for overload in overloads {
            let (cost, result) = self.overload(expr, function, overload.id, node.as_ref(), &nodes, &costs);
            sum = sum.union(cost);
            size = match (size, result) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            match (overload.id, args.first()) {
                ("index_list", Some(list)) => {
                    size = self.entries(list).map(|e| e.value);
                    self.extend(expr, list, "@items");
                }
                ("index_map", Some(map)) => {
                    size = self.entries(map).map(|e| e.value);
                    self.extend(expr, map, "@values");
                }
                _ => {}
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
        base.add(sum)
    }

    /// An overload's cost with its arguments', and the size of its result.
    fn overload(
        &mut self,
        expr: &Expr,
        function: &str,
        id: &str,
        target: Option<&Arg<'_>>,
        args: &[Arg<'_>],
        costs: &[Range],
    ) -> (Range, Option<Range>) {
        let spent = costs.iter().fold(Range::fixed(0), |sum, c| sum.add(*c));
        if let Some((cost, size)) =
            self.list_extension(id, target, args).or_else(|| self.extension(function, id, target, args))
        {
            return (cost.add(spent), size);
        }
        let size = |i: usize| args.get(i).map_or(UNKNOWN, |a| a.size);
        let target_size = target.map_or(UNKNOWN, |t| t.size);
        let (cost, result) = match id {
            "string_format" => (target_size.scale(CHAR), None),
            "string_to_bytes" => {
                let s = size(0);
                (s.scale(CHAR), Some(Range { min: s.min, max: s.max.saturating_mul(4) }))
            }
            "bytes_to_string" => (size(0).scale(CHAR), Some(Range { min: size(0).min / 4, max: size(0).max })),
            "strings_quote" => {
                let s = size(0);
                let quoted = Range { min: s.min.saturating_add(2), max: s.max.saturating_mul(2).saturating_add(2) };
                (s.scale(CHAR), Some(quoted))
            }
            // What a message says of a number is short.
            "bool_to_string" | "int64_to_string" | "uint64_to_string" | "double_to_string" => {
                (Range::fixed(1), Some(Range { min: 1, max: NUMBER_CHARS }))
            }
            "starts_with_string" | "ends_with_string" => (size(0).scale(CHAR), None),
            "in_list" => (size(1).scale(1.0), None),
            "matches_string" => (target_size.add(Range::fixed(1)).scale(CHAR).multiply(size(0).scale(REGEX)), None),
            "contains_string" => (target_size.scale(CHAR).multiply(size(0).scale(CHAR)), None),
            "logical_or" | "logical_and" => {
                let (a, b) = (costs.first().copied().unwrap_or(UNKNOWN), costs.get(1).copied().unwrap_or(UNKNOWN));
                return (Range { min: a.min, max: a.add(b).max }, None);
            }
            "conditional" => {
                if let [_, yes, no] = args
                    && let (Some(a), Some(b)) = (self.entries(yes.expr), self.entries(no.expr))
                {
                    self.entries.insert(expr.id, a.union(b));
                }
                let [condition, yes, no] = costs else { return (spent, None) };
                return (condition.add(yes.union(*no)), Some(size(1).union(size(2))));
            }
            "add_string" | "add_bytes" | "add_list" => {
                let sum = size(0).add(size(1));
                if let [a, b] = args
                    && let (Some(a), Some(b)) = (self.entries(a.expr), self.entries(b.expr))
                {
                    self.entries.insert(expr.id, a.union(b));
                }
                let cost = if id == "add_list" { Range::fixed(1) } else { sum.scale(CHAR) };
                (cost, Some(sum))
            }
            id if is_ordering(id) || is_equality(id) => {
                let max = size(0).max.min(size(1).max);
                (Range { min: u64::from(max > 0), max }.scale(CHAR), None)
            }
            _ => (Range::fixed(1), None),
        };
        (cost.add(spent), result)
    }

    /// The extension of lists and the sets.
    fn list_extension(
        &mut self,
        id: &str,
        target: Option<&Arg<'_>>,
        args: &[Arg<'_>],
    ) -> Option<(Range, Option<Range>)> {
        let literal = |i: usize, default: u64| match args.get(i).map(|a| &a.expr.kind) {
            Some(Kind::Literal(Literal::Int(n))) => u64::try_from(*n).unwrap_or_default(),
            _ => default,
        };
        let listed = |factor: f64, size: Range| Some((size.scale(factor).add(Range::fixed(1 + LIST)), Some(size)));
        let squared = |size: Range, text: bool| listed(if text { 2.0 + CHAR } else { 2.0 }, size.multiply(size));
        let text = id.contains("string") || id.contains("bytes");
        match id {
            "list_slice" => {
                let max = target?.size.max;
                listed(1.0, Range::fixed(literal(1, max).saturating_sub(literal(0, 0))))
            }
            "lists_range" => listed(1.0, Range::fixed(literal(0, u64::MAX))),
            "list_reverse" => listed(1.0, target?.size),
            "list_flatten" => listed(1.0, target?.size),
            "list_flatten_int" => listed(literal(0, u64::MAX) as f64, target?.size),
            "list_distinct" => squared(target?.size, false),
            "list_sets_contains_list" | "list_sets_intersects_list" | "list_sets_equivalent_list" => {
                let factor = if id == "list_sets_equivalent_list" { 2.0 } else { 1.0 };
                let [a, b] = args else { return None };
                Some((a.size.multiply(b.size).scale(factor).add(Range::fixed(1)), None))
            }
            id if id.ends_with("_sort") => squared(target?.size, text),
            id if id.ends_with("_sortByAssociatedKeys") => squared(args.first()?.size, text),
            _ => None,
        }
    }

    /// The libraries of Kubernetes, and the strings'.
    fn extension(
        &mut self,
        function: &str,
        id: &str,
        target: Option<&Arg<'_>>,
        args: &[Arg<'_>],
    ) -> Option<(Range, Option<Range>)> {
        if is_nominal(function) {
            return Some((Range::fixed(1), None));
        }
        let first = args.first().map(|a| a.size);
        Some(match function {
            "check" => (Range::fixed(CHECK), None),
            "fieldSelector" | "labelSelector" if args.len() == 1 => {
                let length = first?;
                let requirements = length.scale(0.5).scale((LIST + STRUCT) as f64);
                (Range::fixed(LIST).add(length.scale(CHAR)).add(requirements), None)
            }
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => self.walk(target?),
            "url" | "jsonpatch.escapeKey" if args.len() == 1 => (first?.scale(CHAR), first),
            "lowerAscii" | "upperAscii" | "substring" | "trim" => (target?.size.scale(CHAR), Some(target?.size)),
            "replace" if args.len() >= 2 => {
                let size = target?.size;
                (size.scale(2.0 * CHAR), Some(replaced(size, first?, args.get(1)?.size)))
            }
            "split" => {
                let size = target?.size;
                let max = match args.get(1).map(|a| &a.expr.kind) {
                    Some(Kind::Literal(Literal::Int(n))) => *n as u64,
                    _ => size.max,
                };
                (size.scale(2.0 * CHAR), Some(Range { min: 0, max }))
            }
            "join" => {
                let list = target?;
                let mut size = match self.item(list) {
                    Some((_, item)) => list.size.multiply(item),
                    None => Range::fixed(0),
                };
                if let Some(separator) = first {
                    let separators =
                        Range { min: list.size.min.saturating_sub(1), max: list.size.max.saturating_sub(1) };
                    size = size.add(separator.multiply(separators));
                }
                (size.scale(CHAR), Some(size))
            }
            "find" | "findAll" => {
                let size = target?.size;
                let cost = size.add(Range::fixed(1)).scale(CHAR).multiply(first?.scale(REGEX));
                (cost, Some(Range { min: 0, max: size.max }))
            }
            "ip" if id == "cidr_ip" => (Range::fixed(1), None),
            "cidr" | "ip" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                (first?.scale(CHAR), None)
            }
            "ip.isCanonical" => (first?.scale(2.0 * CHAR), None),
            "containsIP" | "containsCIDR" => {
                let address = Range { min: 4, max: 16 };
                let mut cost = address.add(address).scale(CHAR);
                if function == "containsCIDR" {
                    cost = cost.add(address.scale(CHAR)).add(Range::fixed(1));
                }
                if matches!(id, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
                    cost = cost.add(first?.scale(CHAR));
                }
                (cost, None)
            }
            "validate" => (first?.scale(CHAR).scale(FORMAT_REGEX * REGEX), None),
            op::EQUALS => {
                let [a, b] = args else { return None };
                let (Type::Named(ours), Type::Named(theirs)) = (self.type_of(a.expr), self.type_of(b.expr)) else {
                    return None;
                };
                if ours != theirs {
                    return None;
                }
                match *ours {
                    "kubernetes.NamedFormat" => (Range { min: 1, max: FORMAT_NAME }.scale(CHAR), None),
                    "kubernetes.URL" => {
                        let max = if b.known { b.size.max } else { 1 };
                        (Range { min: 1, max }.scale(CHAR), None)
                    }
                    _ => (Range::fixed(1), None),
                }
            }
            _ => return None,
        })
    }

    /// A list's element type and size; `None` for what is no list.
    fn item(&self, list: &Arg<'_>) -> Option<(Type, Range)> {
        let Type::List(item) = self.type_of(list.expr) else { return None };
        let mut path = list.path.clone();
        let size = if path.is_empty() {
            None
        } else {
            path.push("@items".into());
            self.size_at(&path)
        };
        Some(((**item).clone(), size.unwrap_or(UNKNOWN)))
    }

    /// Walking through a list, or a string.
    fn walk(&self, target: &Arg<'_>) -> (Range, Option<Range>) {
        match self.item(target) {
            Some((item, size)) => {
                let mut each = Range::fixed(1);
                if matches!(item, Type::String | Type::Bytes) {
                    each = each.add(size.scale(CHAR));
                }
                (target.size.multiply(each), None)
            }
            None => (target.size.scale(CHAR), None),
        }
    }
}

/// The size of a string in which substrings are replaced.
fn replaced(size: Range, from: Range, to: Range) -> Range {
    let divide = |a: u64, b: u64| (a as f64 / b as f64).ceil() as u64;
    let (mut count, mut kept) = (Range::fixed(0), Range::fixed(0));
    if from.min == 0 {
        (count.max, kept.max) = (size.max.saturating_add(1), size.max);
    } else if to.max <= from.min {
        kept.max = size.max;
    } else {
        count.max = divide(size.max, from.min);
    }
    if from.max == 0 {
        (count.min, kept.min) = (size.min.saturating_add(1), size.min);
    } else if from.max <= to.min {
        kept.min = size.min;
    } else {
        count.min = divide(size.min, from.max);
    }
    count.multiply(to).add(kept)
}

fn is_scalar(t: &Type) -> bool {
    match t {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(inner) => is_scalar(inner),
        _ => false,
    }
}
