//! Which standard a namespace holds its pods to, by its labels.

use std::fmt;

use kminik_meta::{ErrorList, FieldError, Object, Path};

/// Of the labels, and of the annotations of audit events.
pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much is allowed; later is stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })
    }
}

/// A level as of a minor version of Kubernetes, `None` for the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub(super) level: Level,
    pub(super) version: Option<u32>,
}

impl LevelVersion {
    pub(super) const PRIVILEGED: LevelVersion = LevelVersion { level: Level::Privileged, version: None };

    pub(super) fn is_privileged(self) -> bool {
        self.level == Level::Privileged
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(minor) => write!(f, "{}:v1.{minor}", self.level),
            None => write!(f, "{}:latest", self.level),
        }
    }
}

/// What a namespace's labels ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: LevelVersion,
    pub(super) warn: LevelVersion,
    pub(super) audit: LevelVersion,
}

impl Policy {
    /// Reads the labels. What cannot be read is an error and counts as the strictest where pods are refused, as the
    /// loosest where they are not.
    pub(super) fn of(namespace: &Object) -> (Policy, ErrorList) {
        let mut errors = ErrorList::new();
        let none = LevelVersion::PRIVILEGED;
        let mut policy = Policy { enforce: none, warn: none, audit: none };
        let label = |key: &str| namespace.label(&format!("{PREFIX}{key}"));
        let mut read = |mode: &str, level_of_errors: Level| {
            let mut wrong = |key: String, value: &str, why: &str| {
                let path = Path::new("metadata").child("labels").key(&format!("{PREFIX}{key}"));
                errors.push(FieldError::invalid(&path, value, why));
            };
            let mut read = LevelVersion::PRIVILEGED;
            let mut valid = false;
            if let Some(text) = label(mode) {
                valid = Level::parse(text).is_some();
                read.level = Level::parse(text).unwrap_or(level_of_errors);
                if !valid {
                    wrong(mode.to_owned(), text, "must be one of privileged, baseline, restricted");
                }
            }
            if let Some(text) = label(&format!("{mode}-version")) {
                match parse_version(text) {
                    Some(version) => read.version = version,
                    None => wrong(format!("{mode}-version"), text, "must be \"latest\" or \"v1.x\""),
                }
            }
            (read, valid)
        };
        let (enforce, enforces) = read("enforce", Level::Restricted);
        policy.enforce = enforce;
        (policy.audit, _) = read("audit", Level::Privileged);
        (policy.warn, _) = read("warn", Level::Privileged);
        // Who enforces and says nothing of warnings wants them for what makes pods, too.
        if label("warn").is_none() && enforces && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if label("warn-version").is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.warn, self.audit].into_iter().all(LevelVersion::is_privileged)
    }
}

/// `latest` or `v1.x`; the outer `None` is for anything else.
fn parse_version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor.chars().all(|c| c.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
    if plain { minor.parse().ok().map(Some) } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(labels: &[(&str, &str)]) -> (String, String, Vec<String>) {
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(key, value)| (format!("{PREFIX}{key}"), json!(value))).collect();
        let namespace = Object::try_from(json!({"metadata": {"name": "n", "labels": labels}})).unwrap();
        let (policy, errors) = Policy::of(&namespace);
        (policy.enforce.to_string(), policy.warn.to_string(), errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn labels_are_read_as_upstream_reads_them() {
        let privileged = "privileged:latest";
        for (labels, enforce, warn) in [
            (&[][..], privileged, privileged),
            (&[("enforce", "baseline")], "baseline:latest", "baseline:latest"),
            (&[("enforce", "restricted"), ("enforce-version", "v1.25")], "restricted:v1.25", "restricted:v1.25"),
            (&[("enforce", "baseline"), ("warn", "restricted")], "baseline:latest", "restricted:latest"),
            (&[("enforce", "restricted"), ("warn", "privileged")], "restricted:latest", privileged),
            (&[("enforce", "restricted"), ("warn-version", "v1.9")], "restricted:latest", "restricted:v1.9"),
        ] {
            assert_eq!(policy(labels), (enforce.to_owned(), warn.to_owned(), vec![]), "{labels:?}");
        }
        let (enforce, warn, errors) = policy(&[("enforce", "bad"), ("warn", "bad"), ("audit-version", "1.2")]);
        assert_eq!((enforce.as_str(), warn.as_str()), ("restricted:latest", privileged));
        assert_eq!(
            errors[0],
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"bad\": must be one of privileged, \
             baseline, restricted"
        );
        assert_eq!(errors.len(), 3);
    }
}
