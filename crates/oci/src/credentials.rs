//! Logins as Docker keeps them: `config.json`, and the helper programs it names.
//!
//! Shapes and precedence are the Docker command line's (`cli/config/configfile` of docker/cli, docker-credential-helpers):
//! a helper for the registry, else the helper for all, else what is written in the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::{Credential, ImageError};

/// The user name under which an identity token is kept.
pub(crate) const IDENTITY_TOKEN_USER: &str = "<token>";
/// What Docker's own registry is called in configurations.
const DOCKER_SERVER: &str = "https://index.docker.io/v1/";
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Bounds of a helper.
const HELPER_TIME: Duration = Duration::from_secs(15);
const HELPER_BYTES: u64 = 64 * 1024;
/// What a helper says, with a failure, when it simply has no login.
const NOT_FOUND: &str = "credentials not found";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Login {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
}

impl Login {
    fn credential(self, registry: &str) -> Option<Credential> {
        let full = |text: &String| !text.is_empty();
        let pair = self.auth.filter(full).and_then(|auth| BASE64_STANDARD.decode(auth.trim()).ok());
        let pair = pair.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = pair.as_deref().and_then(|pair| pair.split_once(':'));
        let (username, password) = match (self.identity_token.filter(full), self.username.filter(full), pair) {
            (Some(token), ..) => (IDENTITY_TOKEN_USER.to_owned(), token),
            (None, Some(username), _) if self.password.as_ref().is_some_and(full) => {
                (username, self.password.unwrap_or_default())
            }
            (None, _, Some((username, password))) => (username.to_owned(), password.trim_end_matches('\0').to_owned()),
            _ => return None,
        };
        Some(Credential { registry: registry.to_owned(), username, password })
    }
}

/// A Docker configuration, as far as it is about logins.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DockerConfig {
    auths: BTreeMap<String, Login>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

/// Whose helpers are run.
#[derive(Clone, Debug)]
pub struct HelperUser {
    pub home: PathBuf,
    /// User and group, where this process runs as another.
    pub owner: Option<(u32, u32)>,
}

impl DockerConfig {
    /// A `config.json`, or the content of a `kubernetes.io/dockerconfigjson` secret.
    ///
    /// # Errors
    /// [`ImageError::BadConfig`] for what is no such document.
    pub fn parse(bytes: &[u8]) -> Result<DockerConfig, ImageError> {
        serde_json::from_slice(bytes).map_err(|error| bad(&error))
    }

    /// The older form, which is the table of logins alone.
    ///
    /// # Errors
    /// As [`DockerConfig::parse`].
    pub fn parse_old(bytes: &[u8]) -> Result<DockerConfig, ImageError> {
        let auths = serde_json::from_slice(bytes).map_err(|error| bad(&error))?;
        Ok(DockerConfig { auths, ..DockerConfig::default() })
    }

    /// The file, or an empty configuration if there is none.
    ///
    /// # Errors
    /// As [`DockerConfig::parse`]; a file that cannot be read.
    pub fn load(path: &Path) -> Result<DockerConfig, ImageError> {
        match kminik_base::atomic_file::read_optional(path, MAX_FILE_BYTES)? {
            Some(bytes) => DockerConfig::parse(&bytes),
            None => Ok(DockerConfig::default()),
        }
    }

    /// The logins that are written in it.
    pub fn logins(self) -> Vec<Credential> {
        self.auths.into_iter().filter_map(|(registry, login)| login.credential(&registry)).collect()
    }

    /// Logins for these hosts, also those that helper programs keep; and what went wrong with a helper, for the user to know.
    pub async fn logins_for(self, hosts: &[String], user: &HelperUser) -> (Vec<Credential>, Vec<String>) {
        let asked = hosts.iter().filter_map(|host| {
            let keys = [server(host), host.as_str()];
            let own = keys.iter().find_map(|key| self.cred_helpers.get(*key));
            let helper = own.or(self.creds_store.as_ref()).filter(|name| !name.is_empty())?;
            Some(ask_helper(helper, server(host), user))
        });
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(credential) => found.extend(credential),
                Err(problem) => problems.push(problem),
            }
        }
        // The last of equally fitting ones is taken: what a helper says goes before what is written.
        let mut logins = self.logins();
        logins.retain(|login| hosts.iter().any(|host| server(host_of(&login.registry)) == server(host)));
        logins.extend(found);
        (logins, problems)
    }
}

fn bad(error: &dyn std::fmt::Display) -> ImageError {
    ImageError::BadConfig { what: "the Docker configuration".to_owned(), detail: error.to_string() }
}

/// How a helper knows a host.
fn server(host: &str) -> &str {
    if matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io") { DOCKER_SERVER } else { host }
}

/// The host, with its port, in a key of the configuration.
fn host_of(key: &str) -> &str {
    let bare = key.split_once("://").map_or(key, |(_, bare)| bare);
    bare.split('/').next().unwrap_or(bare)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Runs `docker-credential-<name> get`. `None` if it has no login for this server.
async fn ask_helper(name: &str, server: &str, user: &HelperUser) -> Result<Option<Credential>, String> {
    let program = format!("docker-credential-{name}");
    let problem = |detail: &dyn std::fmt::Display| format!("{program}: {detail}");
    if name.contains(['/', '\\']) {
        return Err(problem(&"its name is a path"));
    }
    let mut command = Command::new(&program);
    command.arg("get").env("HOME", &user.home).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some((uid, gid)) = user.owner {
        command.uid(uid).gid(gid);
    }
    let mut child = command.spawn().map_err(|error| problem(&error))?;
    let conversation = async {
        if let Some(mut stdin) = child.stdin.take() {
            // One that reads nothing may answer all the same.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        let mut text = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(HELPER_BYTES).read_to_end(&mut text).await?;
        }
        // What it says beyond the limit breaks its pipe.
        Ok::<_, std::io::Error>((child.wait().await?, text))
    };
    let ended = tokio::time::timeout(HELPER_TIME, conversation).await;
    let ended = ended.map_err(|_| problem(&format!("no answer within {} s", HELPER_TIME.as_secs())))?;
    let (status, text) = ended.map_err(|error| problem(&error))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&text);
        let said = said.trim();
        return if said.starts_with(NOT_FOUND) { Ok(None) } else { Err(problem(&said)) };
    }
    let answer: Answer = serde_json::from_slice(&text).map_err(|_| problem(&"its answer is not understood"))?;
    let (username, password) = (answer.username, answer.secret);
    Ok((!password.is_empty()).then(|| Credential { registry: server.to_owned(), username, password }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_read_in_every_form() {
        let auth = BASE64_STANDARD.encode("user:pa:ss");
        let config = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": auth}, "r.example:5000": {"username": "u", "password": "p"},
            "azure.example": {"auth": BASE64_STANDARD.encode("00:"), "identitytoken": "t"}, "empty.example": {},
        }, "HttpHeaders": {}, "psFormat": "x"});
        let logins = DockerConfig::parse(config.to_string().as_bytes()).unwrap().logins();
        let rows: Vec<_> =
            logins.iter().map(|l| (l.registry.as_str(), l.username.as_str(), l.password.as_str())).collect();
        assert_eq!(
            rows,
            [
                ("azure.example", "<token>", "t"),
                ("https://index.docker.io/v1/", "user", "pa:ss"),
                ("r.example:5000", "u", "p")
            ]
        );
        assert_eq!(DockerConfig::parse_old(config["auths"].to_string().as_bytes()).unwrap().logins().len(), 3);
        assert!(DockerConfig::parse(b"[").is_err());
    }

    #[tokio::test]
    async fn only_logins_for_the_hosts_asked_leave_it() {
        let login = serde_json::json!({"username": "u", "password": "p"});
        let config = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": login, "r.example:5000/team": login, "other.example": login,
        }});
        let config = DockerConfig::parse(config.to_string().as_bytes()).unwrap();
        let user = HelperUser { home: "/".into(), owner: None };
        let hosts = ["registry-1.docker.io", "r.example:5000", "r.example"].map(str::to_owned);
        let (logins, problems) = config.logins_for(&hosts, &user).await;
        let registries: Vec<_> = logins.iter().map(|login| login.registry.as_str()).collect();
        assert_eq!(registries, ["https://index.docker.io/v1/", "r.example:5000/team"]);
        assert!(problems.is_empty());
    }
}
