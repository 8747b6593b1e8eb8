//! k3s's `registries.yaml`: mirrors and how hosts are spoken to.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_yaml::Value;

use super::{Declared, path};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    mirrors: BTreeMap<String, Option<Mirror>>,
    #[serde(default)]
    configs: BTreeMap<String, Option<Config>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirror {
    #[serde(default)]
    endpoint: Vec<String>,
    /// Regular expression → replacement, of repositories.
    #[serde(default)]
    rewrite: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    auth: Option<Auth>,
    tls: Option<Tls>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identity_token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    #[serde(default)]
    cert_file: String,
    #[serde(default)]
    key_file: String,
    #[serde(default)]
    ca_file: String,
    #[serde(default)]
    insecure_skip_verify: bool,
}

const LOGIN: &str = "log in with docker login on this machine, whose logins kminik uses";

pub(super) fn read(value: &Value, base: &Path) -> Result<Declared, String> {
    let file: File = serde_yaml::from_value(value.clone()).map_err(|error| error.to_string())?;
    let mut declared = Declared::default();
    let logins: BTreeMap<&str, &Auth> = file
        .configs
        .iter()
        .filter_map(|(host, config)| Some((host.as_str(), config.as_ref()?.auth.as_ref()?)))
        .collect();
    let mut used = Vec::new();
    for (registry, mirror) in &file.mirrors {
        let Some(mirror) = mirror else { continue };
        let field = format!("mirrors.{registry}");
        let Some(place) = rewritten(&mirror.rewrite) else {
            declared.refuse(&format!("{field}.rewrite"), "only one rule for every repository, ^(.*)$, can be followed");
            continue;
        };
        let mut mirrors = Vec::new();
        for endpoint in &mirror.endpoint {
            let mut url =
                url::Url::parse(endpoint).map_err(|error| format!("{field}: {endpoint:?} is no URL: {error}"))?;
            let host = host(&url);
            if let Some(login) = logins.get(host.as_str()).filter(|login| !login.username.is_empty()) {
                // It has a host, so it can have a login.
                let _ = url.set_username(&login.username);
                let _ = url.set_password(Some(&login.password));
                used.push(host);
            }
            // The path names `v2` where the protocol has it.
            let trimmed = url.path().trim_end_matches('/');
            let root = trimmed.strip_suffix("/v2").unwrap_or(trimmed).to_owned();
            url.set_path(&root);
            let address = url.to_string();
            mirrors.push(format!("{registry}={}{place}", address.trim_end_matches('/')));
        }
        declared.wish("registry-mirror", field, mirrors);
    }
    for (host, config) in &file.configs {
        let Some(config) = config else { continue };
        let field = format!("configs.{host}");
        if let Some(auth) = &config.auth
            && !(used.contains(host) && auth.auth.is_empty() && auth.identity_token.is_empty())
        {
            declared.refuse(&format!("{field}.auth"), LOGIN);
        }
        let Some(tls) = &config.tls else { continue };
        if !tls.cert_file.is_empty() || !tls.key_file.is_empty() {
            declared.refuse(&format!("{field}.tls"), "certificates of clients are not shown to registries");
        }
        if !tls.ca_file.is_empty() {
            declared.wish("ca-cert", format!("{field}.tls.ca_file"), vec![path(base, &tls.ca_file)]);
        }
        if tls.insecure_skip_verify {
            declared.wish("insecure-registry", format!("{field}.tls.insecure_skip_verify"), vec![host.clone()]);
        }
    }
    Ok(declared)
}

/// Host and port as `configs` names them.
fn host(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The path behind an address that does what the rule does: nothing, or a prefix for every repository.
fn rewritten(rules: &BTreeMap<String, String>) -> Option<String> {
    let mut rules = rules.iter();
    match (rules.next(), rules.next()) {
        (None, _) => Some(String::new()),
        (Some((pattern, target)), None) if matches!(pattern.as_str(), "^(.*)$" | "(.*)" | "^(.*)" | "(.*)$") => {
            let prefix = target.strip_suffix("$1").or_else(|| target.strip_suffix("${1}"))?;
            let plain = !prefix.contains(['$', '{', '}']) && (prefix.is_empty() || prefix.ends_with('/'));
            plain.then(|| format!("/{}", prefix.trim_matches('/'))).map(|path| path.trim_end_matches('/').to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> (Vec<String>, Vec<String>) {
        let declared = read(&serde_yaml::from_str(text).unwrap(), Path::new("/base")).unwrap();
        let said = declared.wishes.iter().flat_map(|wish| wish.values.iter().map(|v| format!("{} {v}", wish.flag)));
        (said.collect(), declared.refused)
    }

    #[test]
    fn mirrors_and_hosts_become_flags() {
        let (flags, refused) = said(
            "mirrors:\n  docker.io:\n    endpoint: ['https://one.example/v2', 'http://two.example:5000']\n    rewrite: {'^(.*)$': 'hub/$1'}\n  '*': {endpoint: ['https://all.example']}\n  empty:\n\
             configs:\n  two.example:5000: {auth: {username: me, password: 'p@ss'}, tls: {ca_file: ca.crt, insecure_skip_verify: true}}\n",
        );
        assert_eq!(
            flags,
            [
                "registry-mirror *=https://all.example",
                "registry-mirror docker.io=https://one.example/hub",
                "registry-mirror docker.io=http://me:p%40ss@two.example:5000/hub",
                "ca-cert /base/ca.crt",
                "insecure-registry two.example:5000",
            ]
        );
        assert!(refused.is_empty(), "{refused:?}");
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let (flags, refused) = said(
            "mirrors: {a: {endpoint: ['https://a.example'], rewrite: {'^rancher/(.*)': 'x/$1'}}}\n\
             configs: {r.example: {auth: {username: me, password: p}, tls: {cert_file: c, key_file: k}}}",
        );
        assert!(flags.is_empty(), "{flags:?}");
        assert_eq!(refused.len(), 3, "{refused:?}");
        for text in
            ["mirrors: {a: {endpoint: ['a.example']}}", "mirrors: {a: {endpoints: []}}", "mirror: {}\nconfigs: {}"]
        {
            assert!(read(&serde_yaml::from_str(text).unwrap(), Path::new("/")).is_err(), "{text}");
        }
    }
}
