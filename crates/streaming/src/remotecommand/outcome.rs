//! How a command ended, and the two forms in which a client is told.

use serde::{Deserialize, Serialize};

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// It ran and exited with a code other than 0.
    ExitCode(i32),
    /// It could not be run, or its end is unknown.
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Status {
    #[serde(default)]
    metadata: Empty,
    #[serde(default)]
    status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Empty {}

#[derive(Debug, Serialize, Deserialize)]
struct Details {
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

impl Outcome {
    /// The JSON status of protocol v4 and later.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut status = Status {
            metadata: Empty {},
            status: "Failure".to_owned(),
            message: None,
            reason: None,
            details: None,
            code: None,
        };
        match self {
            Outcome::Success => status.status = "Success".to_owned(),
            Outcome::ExitCode(code) => {
                status.message = Some(format!("command terminated with non-zero exit code: {code}"));
                status.reason = Some("NonZeroExitCode".to_owned());
                let cause = Cause { reason: "ExitCode".to_owned(), message: code.to_string() };
                status.details = Some(Details { causes: vec![cause] });
            }
            Outcome::Failed(message) => {
                let message = format!("error executing command in container: {message}");
                status.message = Some(format!("Internal error occurred: {message}"));
                status.reason = Some("InternalError".to_owned());
                status.details = Some(Details { causes: vec![Cause { reason: String::new(), message }] });
                status.code = Some(500);
            }
        }
        serde_json::to_vec(&status).unwrap_or_default()
    }

    /// The text of earlier protocols; nothing on success.
    pub(crate) fn to_text(&self) -> Vec<u8> {
        match self {
            Outcome::Success => Vec::new(),
            Outcome::ExitCode(code) => format!("command terminated with exit code {code}").into_bytes(),
            Outcome::Failed(message) => format!("error executing command in container: {message}").into_bytes(),
        }
    }

    /// What a server of protocol v4 or later said; `None` if it is no status.
    pub(crate) fn from_json(json: &[u8]) -> Option<Outcome> {
        let status: Status = serde_json::from_slice(json).ok()?;
        if status.status == "Success" {
            return Some(Outcome::Success);
        }
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        let code = causes.iter().find(|cause| cause.reason == "ExitCode").and_then(|cause| cause.message.parse().ok());
        match code {
            Some(code) => Some(Outcome::ExitCode(code)),
            None => Some(Outcome::Failed(status.message.unwrap_or_default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_what_clients_parse() {
        let json = String::from_utf8(Outcome::ExitCode(3).to_json()).unwrap();
        assert_eq!(
            json,
            r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#
        );
        assert_eq!(Outcome::Success.to_json(), br#"{"metadata":{},"status":"Success"}"#);
    }

    #[test]
    fn json_round_trips() {
        for outcome in [Outcome::Success, Outcome::ExitCode(137)] {
            assert_eq!(Outcome::from_json(&outcome.to_json()), Some(outcome));
        }
        let failed = Outcome::from_json(&Outcome::Failed("no such file".into()).to_json());
        assert!(matches!(failed, Some(Outcome::Failed(text)) if text.ends_with("no such file")));
        assert_eq!(Outcome::from_json(b"not json"), None);
    }
}
