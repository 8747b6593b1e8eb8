//! The cluster's keys on the host: its authority, the key that signs service-account tokens, the admin's certificate.
//! The node gets the authority and issues its own certificates from it at every start, so that they never expire unseen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kminik_base::atomic_file::{PUBLIC, SECRET};
use kminik_base::pki::{Authority, Subject, Usage, Validity, generate_key};

use crate::drivers::NodeFile;
use crate::home::Home;
use crate::kubeconfig::{self, Entry, Material};
use crate::profile::Profile;
use crate::reason::{Failure, HOST_CLOCK, MK_INTERNAL, MK_PROFILE_BROKEN, OrFail, Outcome};

const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// The admin's certificate.
const ADMIN: &str = "client.crt";

/// The files that every node of the cluster gets.
const SHARED: &[(&str, u32)] = &[
    ("ca.crt", PUBLIC),
    ("ca.key", SECRET),
    ("front-proxy-ca.crt", PUBLIC),
    ("front-proxy-ca.key", SECRET),
    ("sa.key", SECRET),
    ("sa.pub", PUBLIC),
];

/// Makes what is missing, renews what expires; returns what the node gets.
pub fn ensure(home: &Home, profile: &Profile) -> Outcome<Vec<NodeFile>> {
    let dir = profile.pki_dir(home);
    let authority = if dir.join("ca.key").exists() {
        Authority::from_pem(&read(&dir, "ca.crt")?, &read(&dir, "ca.key")?)
            .or_fail(&MK_PROFILE_BROKEN, "the cluster's authority cannot be used")?
    } else {
        let authority =
            Authority::generate("kminikCA", 10 * YEAR).or_fail(&MK_INTERNAL, "cannot make the cluster's authority")?;
        let (private, public) = generate_key().or_fail(&MK_INTERNAL, "cannot make a key")?;
        home.write(&dir.join("sa.pub"), public.as_bytes(), PUBLIC)?;
        home.write(&dir.join("sa.key"), private.as_bytes(), SECRET)?;
        home.write(&dir.join("ca.crt"), authority.cert_pem().as_bytes(), PUBLIC)?;
        // Last: its presence says that the set is whole.
        home.write(&dir.join("ca.key"), authority.key_pem().as_bytes(), SECRET)?;
        authority
    };
    // The authority by which extension servers know the API server; clusters of older versions have none yet.
    if !dir.join("front-proxy-ca.key").exists() {
        let proxies = Authority::generate("front-proxy-ca", 10 * YEAR)
            .or_fail(&MK_INTERNAL, "cannot make the front proxy's authority")?;
        home.write(&dir.join("front-proxy-ca.crt"), proxies.cert_pem().as_bytes(), PUBLIC)?;
        home.write(&dir.join("front-proxy-ca.key"), proxies.key_pem().as_bytes(), SECRET)?;
    }
    check_clock(authority.cert_pem())?;
    let admin = std::fs::read_to_string(dir.join(ADMIN)).unwrap_or_default();
    if !is_fresh(&admin, profile.cert_expiration()) || !dir.join("client.key").exists() {
        let admin = authority
            .issue(&Subject::new("kubernetes-admin", Some("system:masters")), &Usage::Client, profile.cert_expiration())
            .or_fail(&MK_INTERNAL, "cannot issue the admin's certificate")?;
        home.write(&dir.join("client.key"), admin.key_pem.as_bytes(), SECRET)?;
        home.write(&dir.join(ADMIN), admin.cert_pem.as_bytes(), PUBLIC)?;
    }
    SHARED
        .iter()
        .map(|(name, mode)| {
            Ok(NodeFile { path: Path::new("pki").join(name), content: read(&dir, name)?.into_bytes(), mode: *mode })
        })
        .collect()
}

/// Whether the certificate was issued for so long, and is neither near its end nor from the future; what is none is not fresh.
pub fn is_fresh(cert_pem: &str, life: Duration) -> bool {
    let now = crate::clock::now();
    Validity::of(cert_pem)
        .is_ok_and(|validity| validity.is_fresh(now) && validity.life() == life.as_secs().cast_signed())
}

/// Of the admin's certificate, by which this machine's clients reach the cluster.
pub fn admin_validity(home: &Home, profile: &Profile) -> Option<Validity> {
    Validity::of(&std::fs::read_to_string(profile.pki_dir(home).join(ADMIN)).ok()?).ok()
}

/// An authority that is not valid now makes every connection fail: said before any is tried.
fn check_clock(authority: &str) -> Outcome<()> {
    let validity = Validity::of(authority).or_fail(&MK_PROFILE_BROKEN, "the cluster's authority cannot be used")?;
    let now = jiff::Timestamp::now();
    if (validity.not_before..validity.not_after).contains(&now.as_second()) {
        return Ok(());
    }
    let shown = |second| jiff::Timestamp::from_second(second).unwrap_or_default();
    let (from, to) = (shown(validity.not_before), shown(validity.not_after));
    Err(Failure::new(
        &HOST_CLOCK,
        format!("this machine's clock says {now:.0}, the cluster's authority is valid from {from} to {to}"),
    ))
}

/// A PEM file of the profile.
pub fn read(dir: &Path, name: &str) -> Outcome<String> {
    let path = dir.join(name);
    std::fs::read_to_string(&path).or_fail(&MK_PROFILE_BROKEN, format_args!("cannot read {}", path.display()))
}

/// Puts the cluster into a kubeconfig. Its context gets this namespace, or keeps the one it has.
pub fn merge_kubeconfig(
    home: &Home,
    profile: &Profile,
    path: &Path,
    namespace: Option<&str>,
    make_current: bool,
) -> Outcome<()> {
    merge(home, profile, path, &profile.kubeconfig_url(), namespace, make_current)
}

fn merge(
    home: &Home,
    profile: &Profile,
    path: &Path,
    server: &str,
    namespace: Option<&str>,
    make_current: bool,
) -> Outcome<()> {
    let dir = profile.pki_dir(home);
    let (ca, cert, key) = (read(&dir, "ca.crt")?, read(&dir, ADMIN)?, read(&dir, "client.key")?);
    let (ca_path, cert_path, key_path) = (dir.join("ca.crt"), dir.join(ADMIN), dir.join("client.key"));
    fn material<'a>(embed: bool, path: &'a Path, pem: &'a str) -> Material<'a> {
        if embed { Material::Inline(pem) } else { Material::File(path) }
    }
    let embed = profile.embed_certs;
    let entry = Entry {
        name: &profile.name,
        server,
        ca: material(embed, &ca_path, &ca),
        client_cert: material(embed, &cert_path, &cert),
        client_key: material(embed, &key_path, &key),
        namespace,
        make_current,
    };
    kubeconfig::merge(home, path, &entry)
}

/// The profile's own kubeconfig, for kubectl run by kminik: its namespace is that of the user's, where the cluster is in there.
pub fn write_kubeconfig(home: &Home, profile: &Profile) -> Outcome<PathBuf> {
    let path = home.profile(&profile.name).join("kubeconfig");
    let namespace = kubeconfig::namespace(&kubeconfig::path(home), &profile.name);
    // By its address, whatever its name leads to.
    merge(home, profile, &path, &profile.api_url(), namespace.as_deref(), true)?;
    Ok(path)
}
