//! Tokens to the syntax tree: a precedence climber, bounded in depth.

use std::sync::Arc;

use crate::ast::{Entry, Expr, Field, Fold, Kind, Literal, op};
use crate::error::Issue;
use crate::lexer::{self, NumberKind, Spanned, Token};
use crate::macros;

/// Code points an expression may have.
const MAX_SOURCE: usize = 100_000;
/// How deeply an expression may be nested, chains of operators included.
const MAX_DEPTH: usize = 250;
/// How many links of a chain a nesting counts as.
const NESTING: usize = 4;

/// Nodes that macros may expand to.
const MAX_NODES: usize = 100_000;

const OPERAND: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Binary operators that associate to the left, by how tightly they bind.
const LEVELS: &[&[(&str, &str)]] = &[
    &[
        ("<", op::LESS),
        ("<=", op::LESS_EQUALS),
        (">=", op::GREATER_EQUALS),
        (">", op::GREATER),
        ("==", op::EQUALS),
        ("!=", op::NOT_EQUALS),
        ("in", op::IN),
    ],
    &[("+", op::ADD), ("-", op::SUBTRACT)],
    &[("*", op::MULTIPLY), ("/", op::DIVIDE), ("%", op::MODULO)],
];

/// Stops parsing; the issue is already noted.
pub(crate) struct Stop;
type Parsed = Result<Expr, Stop>;

pub(crate) struct Parser {
    chars: Vec<char>,
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
    next_id: usize,
    pub(crate) issues: Vec<Issue>,
}

/// Parses and expands macros; gives the tree and how many ids it uses.
pub(crate) fn parse(source: &str) -> Result<(Expr, usize), Vec<Issue>> {
    let size = source.chars().count();
    if size > MAX_SOURCE {
        let message = format!("expression code point size exceeds limit: size: {size}, limit {MAX_SOURCE}");
        return Err(vec![Issue { offset: 0, message }]);
    }
    let chars: Vec<char> = source.chars().collect();
    let mut issues = Vec::new();
    let tokens = lexer::tokens(&chars, &mut issues);
    let mut parser = Parser { chars, tokens, at: 0, depth: 0, next_id: 0, issues };
    let parsed = parser.expr();
    let parsed =
        parsed.and_then(|expr| if *parser.peek() == Token::End { Ok(expr) } else { Err(parser.unexpected("<EOF>")) });
    match parsed {
        Ok(expr) if parser.issues.is_empty() => Ok((expr, parser.next_id)),
        _ => Err(parser.issues),
    }
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |t| &t.token)
    }

    fn offset(&self) -> usize {
        self.tokens.get(self.at).map_or(self.chars.len(), |t| t.start)
    }

    fn is(&self, punct: &str) -> bool {
        matches!(self.peek(), Token::Punct(p) if *p == punct)
    }

    /// Steps over `punct` when it is next.
    fn eat(&mut self, punct: &str) -> bool {
        let found = self.is(punct);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, punct: &str, expecting: &str) -> Result<(), Stop> {
        if self.eat(punct) { Ok(()) } else { Err(self.unexpected(expecting)) }
    }

    /// Notes that the next token fits nowhere: as superfluous when what follows it would fit, as the wrong one otherwise.
    fn unexpected(&mut self, expecting: &str) -> Stop {
        let token = self.tokens.get(self.at);
        let text = match token {
            Some(t) if t.token != Token::End => self.chars.get(t.start..t.end).unwrap_or_default().iter().collect(),
            _ => "<EOF>".to_owned(),
        };
        let after = self.tokens.get(self.at + 1).map(|t| &t.token);
        let superfluous = match after {
            Some(Token::End) => expecting == "<EOF>",
            Some(Token::Ident(_) | Token::Literal(_) | Token::Number(_)) => expecting == OPERAND,
            Some(Token::Punct(p)) => expecting == format!("'{p}'"),
            None => false,
        };
        let how = if superfluous { "extraneous" } else { "mismatched" };
        let message = format!("Syntax error: {how} input '{text}' expecting {expecting}");
        self.issue(self.offset(), message);
        Stop
    }

    pub(crate) fn issue(&mut self, offset: usize, message: impl Into<String>) {
        self.issues.push(Issue { offset, message: message.into() });
    }

    pub(crate) fn node(&mut self, offset: usize, kind: Kind) -> Expr {
        let id = self.next_id;
        self.next_id += 1;
        Expr { id, offset, kind }
    }

    pub(crate) fn call(&mut self, offset: usize, function: &str, args: Vec<Expr>) -> Expr {
        self.node(offset, Kind::Call { function: function.into(), target: None, args })
    }

    /// Goes deeper by one link of a chain, or by a nesting, which takes as much stack as several links.
    fn enter(&mut self, by: usize) -> Result<(), Stop> {
        self.depth += by;
        if self.depth > MAX_DEPTH {
            self.issue(0, format!("expression recursion limit exceeded: {MAX_DEPTH}"));
            return Err(Stop);
        }
        Ok(())
    }

    fn expr(&mut self) -> Parsed {
        self.enter(NESTING)?;
        let condition = self.logical(op::OR)?;
        let offset = self.offset();
        let parsed = if self.eat("?") {
            let yes = self.logical(op::OR)?;
            self.expect(":", "':'")?;
            let no = self.expr()?;
            self.call(offset, op::CONDITIONAL, vec![condition, yes, no])
        } else {
            condition
        };
        self.depth -= NESTING;
        Ok(parsed)
    }

    /// A chain of `||` over chains of `&&`; each becomes a balanced tree, so that long chains are not deep.
    fn logical(&mut self, function: &'static str) -> Parsed {
        let sign = if function == op::OR { "||" } else { "&&" };
        let mut terms = Vec::new();
        let mut offsets = Vec::new();
        loop {
            terms.push(if function == op::OR { self.logical(op::AND)? } else { self.binary(0)? });
            let offset = self.offset();
            if !self.eat(sign) {
                break;
            }
            offsets.push(offset);
        }
        let mut terms = terms.into_iter();
        self.balance(function, &mut terms, &offsets)
    }

    fn balance(&mut self, function: &str, terms: &mut std::vec::IntoIter<Expr>, offsets: &[usize]) -> Parsed {
        let Some(offset) = offsets.get(offsets.len().saturating_sub(1) / 2).copied() else {
            return terms.next().ok_or(Stop);
        };
        let middle = offsets.len().saturating_sub(1) / 2;
        let left = self.balance(function, terms, &offsets[..middle])?;
        let right = self.balance(function, terms, &offsets[middle + 1..])?;
        Ok(self.call(offset, function, vec![left, right]))
    }

    fn binary(&mut self, level: usize) -> Parsed {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        let outer = self.depth;
        while let Token::Punct(sign) = self.peek() {
            let Some((_, function)) = operators.iter().find(|(s, _)| s == sign) else { break };
            let offset = self.offset();
            self.at += 1;
            self.enter(1)?;
            let right = self.binary(level + 1)?;
            left = self.call(offset, function, vec![left, right]);
        }
        self.depth = outer;
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let offset = self.offset();
        for (sign, function) in [("!", op::NOT), ("-", op::NEGATE)] {
            let mut count = 0;
            while self.is(sign) {
                // The minus right before a number belongs to it.
                let number = matches!(self.tokens.get(self.at + 1).map(|t| &t.token), Some(Token::Number(_)));
                if sign == "-" && number {
                    break;
                }
                self.at += 1;
                count += 1;
            }
            if count > 0 {
                let operand = self.member()?;
                return Ok(if count % 2 == 0 { operand } else { self.call(offset, function, vec![operand]) });
            }
        }
        self.member()
    }

    fn member(&mut self) -> Parsed {
        let mut left = self.primary()?;
        let outer = self.depth;
        loop {
            let offset = self.offset();
            if self.eat(".") {
                self.enter(1)?;
                let optional = self.eat("?");
                let Token::Ident(name) = self.peek().clone() else {
                    return Err(self.unexpected("IDENTIFIER"));
                };
                self.at += 1;
                let open = self.offset();
                left = if optional {
                    let field = self.node(offset, Kind::Literal(Literal::String(name)));
                    self.call(offset, op::OPT_SELECT, vec![left, field])
                } else if self.eat("(") {
                    let args = self.arguments(")")?;
                    self.expand(open, &name, Some(left), args)?
                } else {
                    self.node(offset, Kind::Select { operand: Box::new(left), field: name, test: false })
                };
            } else if self.eat("[") {
                self.enter(1)?;
                let function = if self.eat("?") { op::OPT_INDEX } else { op::INDEX };
                let index = self.expr()?;
                self.expect("]", "']'")?;
                left = self.call(offset, function, vec![left, index]);
            } else if self.is("{")
                && let Some(name) = qualified(&left)
            {
                self.at += 1;
                let fields = self.fields()?;
                left = self.node(offset, Kind::Struct { name: name.into(), fields });
            } else {
                break;
            }
        }
        self.depth = outer;
        Ok(left)
    }

    fn primary(&mut self) -> Parsed {
        let offset = self.offset();
        let token = self.peek().clone();
        match token {
            Token::Literal(literal) => {
                self.at += 1;
                Ok(self.node(offset, Kind::Literal(literal)))
            }
            Token::Number(kind) => self.number(offset, kind),
            Token::Punct("-") => {
                self.at += 1;
                match *self.peek() {
                    Token::Number(kind) => self.number(offset, kind),
                    _ => Err(self.unexpected(OPERAND)),
                }
            }
            Token::Punct("(") => {
                self.at += 1;
                let inner = self.expr()?;
                self.expect(")", "')'")?;
                Ok(inner)
            }
            Token::Punct("[") => {
                self.at += 1;
                self.list(offset)
            }
            Token::Punct("{") => {
                self.at += 1;
                self.map(offset)
            }
            Token::Punct(".") => {
                // A leading dot means the root container, which is the only one.
                self.at += 1;
                match self.peek().clone() {
                    Token::Ident(name) => self.name(offset, name),
                    _ => Err(self.unexpected("IDENTIFIER")),
                }
            }
            Token::Ident(name) => self.name(offset, name),
            _ => Err(self.unexpected(OPERAND)),
        }
    }

    fn name(&mut self, offset: usize, name: Arc<str>) -> Parsed {
        self.at += 1;
        if kminik_meta::names::CEL_RESERVED.contains(&&*name) {
            self.issue(offset, format!("reserved identifier: {name}"));
        }
        let open = self.offset();
        if self.eat("(") {
            let args = self.arguments(")")?;
            return self.expand(open, &name, None, args);
        }
        Ok(self.node(offset, Kind::Ident(name)))
    }

    fn number(&mut self, offset: usize, kind: NumberKind) -> Parsed {
        let end = self.tokens.get(self.at).map_or(offset, |t| t.end);
        let text: String =
            self.chars.get(offset..end).unwrap_or_default().iter().filter(|c| !c.is_whitespace()).collect();
        self.at += 1;
        let literal = lexer::number_value(&text, kind).unwrap_or_else(|message| {
            self.issue(offset, message);
            Literal::Null
        });
        Ok(self.node(offset, Kind::Literal(literal)))
    }

    fn arguments(&mut self, close: &'static str) -> Result<Vec<Expr>, Stop> {
        let mut args = Vec::new();
        if self.eat(close) {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if !self.eat(",") {
                break;
            }
        }
        self.expect(close, &format!("'{close}'"))?;
        Ok(args)
    }

    fn expand(&mut self, offset: usize, function: &Arc<str>, target: Option<Expr>, args: Vec<Expr>) -> Parsed {
        macros::expand(self, offset, function, target, args)
    }

    fn list(&mut self, offset: usize) -> Parsed {
        let (mut elements, mut optional) = (Vec::new(), Vec::new());
        while !self.is("]") {
            if self.eat("?") {
                optional.push(elements.len());
            }
            elements.push(self.expr()?);
            if !self.eat(",") {
                break;
            }
        }
        self.expect("]", "']'")?;
        Ok(self.node(offset, Kind::List { elements, optional }))
    }

    fn map(&mut self, offset: usize) -> Parsed {
        let mut entries = Vec::new();
        while !self.is("}") {
            let optional = self.eat("?");
            let key = self.expr()?;
            self.expect(":", "':'")?;
            let value = self.expr()?;
            entries.push(Entry { key, value, optional });
            if !self.eat(",") {
                break;
            }
        }
        self.expect("}", "'}'")?;
        Ok(self.node(offset, Kind::Map(entries)))
    }

    fn fields(&mut self) -> Result<Vec<Field>, Stop> {
        let mut fields = Vec::new();
        while !self.is("}") {
            let optional = self.eat("?");
            let Token::Ident(name) = self.peek().clone() else {
                return Err(self.unexpected("{'}', ',', '?', IDENTIFIER}"));
            };
            self.at += 1;
            let offset = self.offset();
            self.expect(":", "':'")?;
            let value = self.expr()?;
            fields.push(Field { offset, name, value, optional });
            if !self.eat(",") {
                break;
            }
        }
        self.expect("}", "'}'")?;
        Ok(fields)
    }
}

/// The dotted name that an expression of names and selections spells.
pub(crate) fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select { operand, field, test: false } => Some(format!("{}.{field}", qualified(operand)?)),
        _ => None,
    }
}

impl Parser {
    /// The same expression with ids of its own.
    pub(crate) fn copy(&mut self, expr: &Expr) -> Parsed {
        if self.next_id > MAX_NODES {
            self.issue(expr.offset, format!("expression has more than {MAX_NODES} nodes"));
            return Err(Stop);
        }
        let kind = match &expr.kind {
            Kind::Literal(_) | Kind::Ident(_) => expr.kind.clone(),
            Kind::Select { operand, field, test } => {
                Kind::Select { operand: Box::new(self.copy(operand)?), field: field.clone(), test: *test }
            }
            Kind::Call { function, target, args } => {
                let target = target.as_ref().map(|t| self.copy(t)).transpose()?.map(Box::new);
                Kind::Call { function: function.clone(), target, args: self.copy_all(args)? }
            }
            Kind::List { elements, optional } => {
                Kind::List { elements: self.copy_all(elements)?, optional: optional.clone() }
            }
            Kind::Map(entries) => {
                let copied = entries
                    .iter()
                    .map(|e| Ok(Entry { key: self.copy(&e.key)?, value: self.copy(&e.value)?, optional: e.optional }));
                Kind::Map(copied.collect::<Result<_, Stop>>()?)
            }
            Kind::Struct { name, fields } => {
                let copied = fields.iter().map(|f| Ok(Field { value: self.copy(&f.value)?, ..f.clone() }));
                Kind::Struct { name: name.clone(), fields: copied.collect::<Result<_, Stop>>()? }
            }
            Kind::Fold(fold) => Kind::Fold(Box::new(Fold {
                range: self.copy(&fold.range)?,
                init: self.copy(&fold.init)?,
                condition: self.copy(&fold.condition)?,
                step: self.copy(&fold.step)?,
                result: self.copy(&fold.result)?,
                ..(**fold).clone()
            })),
        };
        Ok(self.node(expr.offset, kind))
    }

    fn copy_all(&mut self, exprs: &[Expr]) -> Result<Vec<Expr>, Stop> {
        exprs.iter().map(|e| self.copy(e)).collect()
    }
}
