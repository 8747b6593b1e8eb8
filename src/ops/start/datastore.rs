//! `--datastore-*`: an etcd cluster that keeps the objects instead of the node's own store.

use std::path::{Path, PathBuf};

use kminik_base::atomic_file::SECRET;

use crate::drivers::NodeFile;
use crate::home::Home;
use crate::node::config::{DATASTORE_CA, DATASTORE_CERT, DATASTORE_KEY};
use crate::profile::{Datastore, Profile};
use crate::reason::{Failure, GUEST_DATASTORE_MISMATCH, MK_BAD_DATASTORE, MK_PROFILE_BROKEN, OrFail, Outcome};

/// What the user gave; nothing of it is no wish.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `http(s)://host:port` of each member.
    pub endpoints: Vec<String>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

impl Request {
    /// What a new profile keeps of it.
    pub fn wanted(&self) -> Option<Datastore> {
        (!self.endpoints.is_empty()).then(|| Datastore { endpoints: self.endpoints.clone() })
    }

    /// Each file, and the name under which the profile and the node have it.
    fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        [(DATASTORE_CA, &self.ca_file), (DATASTORE_CERT, &self.cert_file), (DATASTORE_KEY, &self.key_file)]
            .into_iter()
            .filter_map(|(name, file)| Some((name, file.as_deref()?)))
    }
}

fn refuse(message: impl Into<String>) -> Failure {
    Failure::new(&MK_BAD_DATASTORE, message)
}

/// Whether addresses and files can be what they should be; the cluster itself is not asked, for it is the node that must
/// reach it.
///
/// # Errors
/// `MK_BAD_DATASTORE`, saying which of them and why.
pub fn check(request: &Request) -> Outcome<()> {
    let mut tls = false;
    for endpoint in &request.endpoints {
        let url = url::Url::parse(endpoint)
            .map_err(|error| refuse(format!("--datastore-endpoint {endpoint:?} is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse(format!("--datastore-endpoint {endpoint:?} begins with neither http:// nor https://")));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || !url.username().is_empty() {
            return Err(refuse(format!("--datastore-endpoint {endpoint:?} has more than a host and a port")));
        }
        let loopback = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
            Some(url::Host::Ipv6(address)) => address.is_loopback() || address.is_unspecified(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => return Err(refuse(format!("--datastore-endpoint {endpoint:?} has no host"))),
        };
        if loopback {
            return Err(refuse(format!("--datastore-endpoint {endpoint:?} would be the node itself"))
                .advise("Let etcd listen on an address of this machine that the node can reach, and name that one."));
        }
        tls |= url.scheme() == "https";
    }
    if request.files().next().is_some() && !request.endpoints.is_empty() && !tls {
        return Err(refuse("certificates for the datastore are given, but no --datastore-endpoint with https://"));
    }
    if request.cert_file.is_some() != request.key_file.is_some() {
        return Err(refuse("--datastore-certfile and --datastore-keyfile belong together"));
    }
    for (name, path) in request.files() {
        let text =
            std::fs::read_to_string(path).or_fail(&MK_BAD_DATASTORE, format_args!("cannot read {}", path.display()))?;
        let wanted = if name == DATASTORE_KEY { "PRIVATE KEY-----" } else { "-----BEGIN CERTIFICATE-----" };
        if !text.contains(wanted) {
            let what = if name == DATASTORE_KEY { "key" } else { "certificate" };
            return Err(refuse(format!("{} is no {what} in PEM form", path.display())));
        }
    }
    Ok(())
}

/// Other members of the same etcd cluster may be named; objects do not move from one kind of store to the other.
///
/// # Errors
/// `GUEST_DATASTORE_MISMATCH` if the cluster keeps its objects itself.
pub fn update(request: &Request, profile: &mut Profile) -> Outcome<()> {
    let Some(wanted) = request.wanted() else { return Ok(()) };
    if profile.datastore.is_none() {
        let name = &profile.name;
        return Err(Failure::new(
            &GUEST_DATASTORE_MISMATCH,
            format!("the existing \"{name}\" cluster keeps its objects in its own store, not in etcd"),
        )
        .advise(format!("Delete it first: kminik delete -p {name}   or start it without --datastore-endpoint")));
    }
    profile.datastore = Some(wanted);
    Ok(())
}

/// Copies the files that were given into the profile, so that later starts need them no more.
pub fn keep_files(request: &Request, home: &Home, profile: &Profile) -> Outcome<()> {
    for (name, path) in request.files() {
        let bytes = std::fs::read(path).or_fail(&MK_BAD_DATASTORE, format_args!("cannot read {}", path.display()))?;
        home.write(&profile.pki_dir(home).join(name), &bytes, SECRET)?;
    }
    Ok(())
}

/// The files that the node gets.
pub fn node_files(home: &Home, profile: &Profile) -> Outcome<Vec<NodeFile>> {
    if profile.datastore.is_none() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for name in [DATASTORE_CA, DATASTORE_CERT, DATASTORE_KEY] {
        let path = profile.pki_dir(home).join(name);
        match std::fs::read(&path) {
            Ok(content) => files.push(NodeFile { path: Path::new("pki").join(name), content, mode: SECRET }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::because(
                    &MK_PROFILE_BROKEN,
                    format_args!("cannot read {}", path.display()),
                    &error,
                ));
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(endpoint: &str) -> Request {
        Request { endpoints: vec![endpoint.to_owned()], ..Request::default() }
    }

    #[test]
    fn endpoints_are_addresses_that_a_node_can_reach() {
        for good in ["http://10.0.0.1:2379", "https://etcd.example:2379/", "http://[fd00::1]:2379"] {
            assert!(check(&with(good)).is_ok(), "{good}");
        }
        for bad in [
            "etcd:2379",
            "10.0.0.1:2379",
            "mysql://u@h/db",
            "http://10.0.0.1:2379/v3",
            "http://127.0.0.1:2379",
            "http://localhost:2379",
            "https://[::1]:2379",
            "http://",
            "",
        ] {
            assert_eq!(check(&with(bad)).unwrap_err().reason.id, "MK_BAD_DATASTORE", "{bad}");
        }
    }

    #[test]
    fn certificates_are_whole_and_of_use() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let certificate = write("c", "-----BEGIN CERTIFICATE-----\n");
        let key = write("k", "-----BEGIN PRIVATE KEY-----\n");
        let tls = with("https://10.0.0.1:2379");
        let (ca_file, cert_file, key_file) = (certificate.clone(), certificate.clone(), key.clone());
        assert!(check(&Request { ca_file, cert_file, key_file, ..tls.clone() }).is_ok());
        let wrong = [
            Request { cert_file: certificate.clone(), ..tls.clone() },
            Request { cert_file: key, key_file: certificate.clone(), ..tls.clone() },
            Request { ca_file: Some(directory.path().join("absent")), ..tls },
            Request { ca_file: certificate, ..with("http://10.0.0.1:2379") },
        ];
        for request in wrong {
            assert_eq!(check(&request).unwrap_err().reason.id, "MK_BAD_DATASTORE", "{request:?}");
        }
    }
}
