//! Why a server could not be reached or did not answer, in the words of Go's HTTP client.

use std::error::Error;
use std::io;

use http::{Method, StatusCode};
use rustls::CertificateError;

/// No connection. Shared, for the pool hands its errors out by reference.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    #[error("service {0:?} not found")]
    NoService(String),
    #[error("no service port {port} found for service {service:?}")]
    NoPort { service: String, port: u16 },
    #[error("no endpoints available for service {0:?}")]
    NoEndpoint(String),
    #[error("dial tcp: lookup {0}: no such host")]
    NoHost(String),
    #[error("dial tcp {address}: {reason}")]
    Connect { address: String, reason: String },
    #[error("dial tcp {0}: i/o timeout")]
    Timeout(String),
    #[error("{0}")]
    Handshake(String),
    #[error("unable to load root certificates: {0}")]
    Roots(String),
    #[error("the client certificate cannot be used: {0}")]
    Identity(String),
}

impl DialError {
    /// Whether there is nowhere to go, rather than nobody there.
    pub fn nowhere(&self) -> bool {
        matches!(self, DialError::NoService(_) | DialError::NoPort { .. } | DialError::NoEndpoint(_))
    }

    pub(super) fn connect(address: &str, error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
            io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
            _ => format!("connect: {error}"),
        };
        DialError::Connect { address: address.to_owned(), reason }
    }

    pub(super) fn handshake(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        DialError::Handshake(match tls {
            Some(rustls::Error::InvalidCertificate(why)) => {
                format!("tls: failed to verify certificate: x509: {}", certificate(why))
            }
            // What is not TLS at all is most often plain HTTP.
            Some(rustls::Error::InvalidMessage(_)) => "http: server gave HTTP response to HTTPS client".to_owned(),
            Some(rustls::Error::AlertReceived(alert)) => format!("remote error: tls: {alert:?}"),
            Some(other) => format!("tls: {other}"),
            None => transport(error),
        })
    }
}

fn certificate(error: &CertificateError) -> String {
    let at = |time: &rustls_pki_types::UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default()
    };
    match error {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        CertificateError::Expired => "certificate has expired or is not yet valid".to_owned(),
        CertificateError::NotValidYet => "certificate has expired or is not yet valid".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("certificate has expired or is not yet valid: current time {} is after {}", at(time), at(not_after))
        }
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "certificate has expired or is not yet valid: current time {} is before {}",
            at(time),
            at(not_before)
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<String> = presented.iter().map(|name| bare(name).to_owned()).collect();
            match names.as_slice() {
                [] => format!("certificate is not valid for any names, but wanted to match {}", expected.to_str()),
                names => format!("certificate is valid for {}, not {}", names.join(", "), expected.to_str()),
            }
        }
        other => other.to_string(),
    }
}

/// `DnsName("x")` and `IpAddress(…)` as rustls presents names, without their kind.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

/// No answer.
#[derive(Debug, thiserror::Error)]
#[error("{} \"{url}\": {cause}", verb(.method))]
pub struct CallError {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) cause: Cause,
}

impl CallError {
    /// Whether it was the time that was up.
    pub fn is_timeout(&self) -> bool {
        matches!(self.cause, Cause::DeadlineExceeded)
    }
}

/// No answer to a webhook's question.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{0}")]
    Url(#[from] http::Error),
    #[error(transparent)]
    Call(#[from] CallError),
    /// Another status than one of success, in client-go's words.
    #[error("{1}")]
    Refused(StatusCode, String),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("{0}")]
    Transport(String),
}

impl Cause {
    /// What an error of the pool or of a connection comes from.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut link = Some(error);
        while let Some(error) = link {
            if let Some(dial) = error.downcast_ref::<DialError>() {
                return Cause::Dial(dial.clone());
            }
            link = error.source();
        }
        Cause::Transport(transport(error))
    }
}

/// The innermost of a chain of errors, and what Go calls the most frequent ones.
fn transport(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    loop {
        if last.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return "EOF".to_owned();
        }
        if let Some(io) = last.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::ConnectionReset => return "read: connection reset by peer".to_owned(),
                io::ErrorKind::BrokenPipe => return "write: broken pipe".to_owned(),
                io::ErrorKind::UnexpectedEof => return "EOF".to_owned(),
                _ => {}
            }
        }
        match last.source() {
            Some(source) => last = source,
            None => return last.to_string(),
        }
    }
}

/// `POST` as `Post`.
fn verb(method: &Method) -> String {
    let (first, rest) = method.as_str().split_at(1);
    first.to_owned() + &rest.to_ascii_lowercase()
}

/// What client-go says of an answer that is no success and no Status: the text of errors that quote it.
pub fn refusal(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = if text.trim().is_empty() { "unknown" } else { text.trim() };
    let fixed = match status.as_u16() {
        400 => "the server rejected our request for an unknown reason",
        401 => "the server has asked for the client to provide credentials",
        404 => "the server could not find the requested resource",
        405 => "the server does not allow this method on the requested resource",
        409 => "the server reported a conflict",
        422 => "the server rejected our request due to an error in our request",
        429 => "the server has received too many requests and has asked us to try again later",
        503 => "the server is currently unable to handle the request",
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
        }
        403 | 406 | 415 => return text.to_owned(),
        code if code >= 500 => {
            return format!("an error on the server ({text:?}) has prevented the request from succeeding");
        }
        code => return format!("the server responded with the status code {code} but did not return more information"),
    };
    fixed.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_those_of_go() {
        let refused = DialError::connect("10.0.0.1:443", &io::ErrorKind::ConnectionRefused.into());
        let error =
            CallError { method: Method::POST, url: "https://s.n.svc:443/p?timeout=1s".into(), cause: refused.into() };
        assert_eq!(
            error.to_string(),
            "Post \"https://s.n.svc:443/p?timeout=1s\": dial tcp 10.0.0.1:443: connect: connection refused"
        );
        let wrong_name = CertificateError::NotValidForNameContext {
            expected: rustls_pki_types::ServerName::try_from("s.n.svc").unwrap(),
            presented: vec!["DnsName(\"a\")".into(), "IpAddress(10.0.0.1)".into()],
        };
        assert_eq!(certificate(&wrong_name), "certificate is valid for a, 10.0.0.1, not s.n.svc");
    }
}
