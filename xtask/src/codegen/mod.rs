//! Generates the field table of `crates/meta` and its descriptions.

mod descriptions;
mod go;
mod table;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use self::table::Table;

/// The Kubernetes release whose types are read, as k8s-openapi writes it.
const RELEASE: &str = "v1_35";

/// Import path prefix, directory below the sources and prefix of OpenAPI names of each package that is read.
const PACKAGES: &[(&str, &str, &str)] = &[
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "apimachinery/pkg/apis/meta/v1", "io.k8s.apimachinery.pkg.apis.meta.v1"),
    ("k8s.io/api/admission/v1", "api/admission/v1", "io.k8s.api.admission.v1"),
    ("k8s.io/api/admissionregistration/v1", "api/admissionregistration/v1", "io.k8s.api.admissionregistration.v1"),
    (
        "k8s.io/api/admissionregistration/v1beta1",
        "api/admissionregistration/v1beta1",
        "io.k8s.api.admissionregistration.v1beta1",
    ),
    ("k8s.io/api/apidiscovery/v2", "api/apidiscovery/v2", "io.k8s.api.apidiscovery.v2"),
    ("k8s.io/api/apps/v1", "api/apps/v1", "io.k8s.api.apps.v1"),
    ("k8s.io/api/authentication/v1", "api/authentication/v1", "io.k8s.api.authentication.v1"),
    ("k8s.io/api/authorization/v1", "api/authorization/v1", "io.k8s.api.authorization.v1"),
    ("k8s.io/api/autoscaling/v1", "api/autoscaling/v1", "io.k8s.api.autoscaling.v1"),
    ("k8s.io/api/autoscaling/v2", "api/autoscaling/v2", "io.k8s.api.autoscaling.v2"),
    ("k8s.io/api/batch/v1", "api/batch/v1", "io.k8s.api.batch.v1"),
    ("k8s.io/api/certificates/v1", "api/certificates/v1", "io.k8s.api.certificates.v1"),
    ("k8s.io/api/coordination/v1", "api/coordination/v1", "io.k8s.api.coordination.v1"),
    ("k8s.io/api/core/v1", "api/core/v1", "io.k8s.api.core.v1"),
    ("k8s.io/api/discovery/v1", "api/discovery/v1", "io.k8s.api.discovery.v1"),
    ("k8s.io/api/events/v1", "api/events/v1", "io.k8s.api.events.v1"),
    ("k8s.io/api/flowcontrol/v1", "api/flowcontrol/v1", "io.k8s.api.flowcontrol.v1"),
    ("k8s.io/api/networking/v1", "api/networking/v1", "io.k8s.api.networking.v1"),
    ("k8s.io/api/node/v1", "api/node/v1", "io.k8s.api.node.v1"),
    ("k8s.io/api/policy/v1", "api/policy/v1", "io.k8s.api.policy.v1"),
    ("k8s.io/api/rbac/v1", "api/rbac/v1", "io.k8s.api.rbac.v1"),
    ("k8s.io/api/resource/v1", "api/resource/v1", "io.k8s.api.resource.v1"),
    ("k8s.io/api/scheduling/v1", "api/scheduling/v1", "io.k8s.api.scheduling.v1"),
    ("k8s.io/api/storage/v1", "api/storage/v1", "io.k8s.api.storage.v1"),
    (
        "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1",
        "apiextensions-apiserver/pkg/apis/apiextensions/v1",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
    ),
    (
        "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1",
        "kube-aggregator/pkg/apis/apiregistration/v1",
        "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1",
    ),
];

/// The kinds that are read of a package whose others are served in another version only.
const ONLY: &[(&str, &[&str])] = &[(
    "k8s.io/api/admissionregistration/v1beta1",
    &[
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "MutatingAdmissionPolicyBindingList",
        "MutatingAdmissionPolicyList",
    ],
)];

/// Generates both files; with `check` compares them with what is checked in instead.
pub(crate) fn run(sources: &Path, check: bool) -> Result<()> {
    let mut table = Table::default();
    for (import, directory, prefix) in PACKAGES {
        let package = go::read_package(&sources.join(directory))?;
        let only = ONLY.iter().find(|(of, _)| of == import).map(|(_, kinds)| *kinds);
        table.add_package(import, prefix, package, only);
    }
    let built = table.build()?;

    let mut texts = descriptions::Descriptions::new();
    descriptions::read(&descriptions::locate(RELEASE)?, &mut texts)?;
    let mut plain = String::new();
    for (definition, fields) in &built.definitions {
        let mut section = String::new();
        for field in std::iter::once("").chain(fields.iter().map(String::as_str)) {
            if let Some(text) = texts.get(&(definition.clone(), field.to_owned())) {
                section.push_str(&format!("{field}\t{}\n", text.replace('\\', "\\\\").replace('\n', "\\n")));
            }
        }
        if !section.is_empty() {
            plain.push_str(&format!("\u{1}{definition}\n{section}"));
        }
    }
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/meta/src/schema");
    let (table, packed) = (directory.join("table.rs"), directory.join("descriptions.txt.deflate"));
    if check {
        // Compressors differ in their output, so the texts are compared.
        let mut present = String::new();
        DeflateDecoder::new(fs::File::open(&packed)?).read_to_string(&mut present)?;
        for (path, same) in [(&table, fs::read_to_string(&table)? == built.source), (&packed, present == plain)] {
            if !same {
                bail!("{} differs from its sources; run cargo xtask codegen", path.display());
            }
        }
        return Ok(());
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain.as_bytes())?;
    for (path, content) in [(table, built.source.into_bytes()), (packed, encoder.finish()?)] {
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
