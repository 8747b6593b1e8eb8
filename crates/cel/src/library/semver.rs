//! Semantic versions.

use std::cmp::Ordering;
use std::sync::Arc;

use super::opaque::Opaque;
use super::{Outcome, text};
use crate::CallContext;
use crate::env::Row;
use crate::error::EvalError;
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    ("semver", "string_to_semver", "(string) kubernetes.Semver", parse),
    ("semver", "string_bool_to_semver", "(string, bool) kubernetes.Semver", parse),
    ("isSemver", "is_semver_string", "(string) bool", |_, args| Ok(read(args)?.is_ok().into())),
    ("isSemver", "is_semver_string_bool", "(string, bool) bool", |_, args| Ok(read(args)?.is_ok().into())),
    ("isGreaterThan", "semver_is_greater_than", "kubernetes.Semver.(kubernetes.Semver) bool", |_, args| {
        Ok(get(args, 0)?.cmp(get(args, 1)?).is_gt().into())
    }),
    ("isLessThan", "semver_is_less_than", "kubernetes.Semver.(kubernetes.Semver) bool", |_, args| {
        Ok(get(args, 0)?.cmp(get(args, 1)?).is_lt().into())
    }),
    ("compareTo", "semver_compare_to", "kubernetes.Semver.(kubernetes.Semver) int", |_, args| {
        Ok(Value::Int(get(args, 0)?.cmp(get(args, 1)?) as i64))
    }),
    ("major", "semver_major", "kubernetes.Semver.() int", |_, args| part(args, 0)),
    ("minor", "semver_minor", "kubernetes.Semver.() int", |_, args| part(args, 1)),
    ("patch", "semver_patch", "kubernetes.Semver.() int", |_, args| part(args, 2)),
];

/// A version; what follows `+` plays no part in its order.
#[derive(Debug)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<String>,
}

impl Semver {
    /// The order of precedence of the specification.
    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let parts = self.pre.iter().zip(&other.pre).map(|(a, b)| match (a.parse::<u64>(), b.parse::<u64>()) {
                    (Ok(a), Ok(b)) => a.cmp(&b),
                    (Ok(_), Err(_)) => Ordering::Less,
                    (Err(_), Ok(_)) => Ordering::Greater,
                    _ => a.cmp(b),
                });
                parts.fold(Ordering::Equal, Ordering::then).then(self.pre.len().cmp(&other.pre.len()))
            }
        })
    }

    fn parse(source: &str) -> Result<Self, String> {
        if source.is_empty() {
            return Err("Version string empty".into());
        }
        let (rest, build) = source.split_once('+').map_or((source, None), |(a, b)| (a, Some(b)));
        let (core, pre) = rest.split_once('-').map_or((rest, None), |(a, b)| (a, Some(b)));
        let parts: Vec<&str> = core.splitn(3, '.').collect();
        let [major, minor, patch] = parts.as_slice() else {
            return Err("No Major.Minor.Patch elements found".into());
        };
        let number = |what: &str, text: &str| {
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                return Err(format!("Invalid character(s) found in {what} number {text:?}"));
            }
            if text.len() > 1 && text.starts_with('0') {
                return Err(format!("{what} number must not contain leading zeroes {text:?}"));
            }
            text.parse::<u64>().map_err(|e| e.to_string())
        };
        let numbers = [number("major", major)?, number("minor", minor)?, number("patch", patch)?];
        let identifiers = |text: &str, what: &str| {
            text.split('.')
                .map(|part| {
                    if part.is_empty() {
                        return Err(format!("{what} is empty"));
                    }
                    if !part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                        return Err(format!("Invalid character(s) found in {what} {part:?}"));
                    }
                    Ok(part.to_owned())
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let pre = pre.map(|p| identifiers(p, "prerelease")).transpose()?.unwrap_or_default();
        let padded = |p: &String| p.len() > 1 && p.starts_with('0') && p.bytes().all(|b| b.is_ascii_digit());
        if let Some(part) = pre.iter().find(|p| padded(p)) {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {part:?}"));
        }
        if let Some(build) = build {
            identifiers(build, "build meta data")?;
        }
        Ok(Semver { numbers, pre })
    }

    /// Accepts `v1.2`, `01.02.03` and the like.
    fn parse_loosely(source: &str) -> Result<Self, String> {
        let source = source.strip_prefix('v').unwrap_or(source);
        let mut parts: Vec<String> = source.splitn(3, '.').map(str::to_owned).collect();
        for part in &mut parts {
            if part.len() > 1 {
                let trimmed = part.trim_start_matches('0');
                *part = if trimmed.starts_with(|c: char| c.is_ascii_digit()) {
                    trimmed.to_owned()
                } else {
                    format!("0{trimmed}")
                };
            }
        }
        if parts.len() < 3 {
            if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
                return Err("Short version cannot contain PreRelease/Build meta data".into());
            }
            parts.resize(3, "0".into());
        }
        Self::parse(&parts.join("."))
    }
}

fn read(args: &[Value<'_>]) -> Result<Result<Semver, String>, EvalError> {
    let source = text(args, 0)?;
    Ok(match args.get(1) {
        Some(Value::Bool(true)) => Semver::parse_loosely(source),
        _ => Semver::parse(source),
    })
}

fn get<'v>(args: &'v [Value<'_>], i: usize) -> Result<&'v Semver, EvalError> {
    match args.get(i) {
        Some(Value::Opaque(Opaque::Semver(version))) => Ok(version),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn parse<'a>(_: &mut CallContext<'_>, args: &mut [Value<'a>]) -> Outcome<'a> {
    read(args)?.map(|v| Value::Opaque(Opaque::Semver(Arc::new(v)))).map_err(EvalError::new)
}

fn part<'a>(args: &[Value<'a>], i: usize) -> Outcome<'a> {
    let number = get(args, 0)?.numbers.get(i).copied().unwrap_or_default();
    Ok(Value::Int(i64::try_from(number).unwrap_or(i64::MAX)))
}
