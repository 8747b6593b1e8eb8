//! What a manifest says of other things.

use kminik_oci::Digest;
use serde_json::Value;

use crate::error::RegistryError;
use crate::name;

/// Largest manifest, in bytes: what the specification has clients count on.
pub(crate) const LIMIT_BYTES: usize = 4 << 20;
/// Most things that one manifest may name.
const MAX_PARTS: usize = 10_000;

/// A manifest, read as far as the registry must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    /// Of artifacts: what the list of referrers shows.
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: Option<Value>,
    /// Blobs that it needs: configuration and layers, but for layers that are kept elsewhere.
    pub(crate) blobs: Vec<Digest>,
    /// Manifests that it lists.
    pub(crate) children: Vec<Digest>,
    /// The manifest that it is about; it need not be there.
    pub(crate) subject: Option<Digest>,
}

impl Manifest {
    /// # Errors
    /// [`RegistryError::InvalidManifest`] for what is none, or one of another type than is said.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, RegistryError> {
        let invalid = |detail: String| RegistryError::InvalidManifest(detail);
        let document: Value = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if !document.is_object() {
            return Err(invalid("it is no object".to_owned()));
        }
        let stated = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
        let own = document["mediaType"].as_str().map(str::to_owned);
        let media_type = match (stated, own) {
            (Some(stated), Some(own)) if stated != own => {
                return Err(invalid(format!("it is sent as {stated} and says that it is {own}")));
            }
            (Some(stated), _) => stated,
            (None, Some(own)) => own,
            (None, None) => return Err(invalid("its media type is not said".to_owned())),
        };
        if media_type.is_empty() || media_type.len() > 255 || !media_type.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(invalid(format!("{media_type:?} is no media type")));
        }
        if media_type.contains("v1+prettyjws") || document["schemaVersion"] == 1 {
            return Err(invalid("manifests of schema 1 are not taken".to_owned()));
        }
        let mut blobs = Vec::new();
        let mut children = Vec::new();
        if !document["config"].is_null() {
            blobs.push(descriptor(&document["config"])?);
        }
        for layer in list(&document["layers"])? {
            let foreign = layer["urls"].as_array().is_some_and(|urls| !urls.is_empty());
            if !foreign {
                blobs.push(descriptor(layer)?);
            }
        }
        for blob in list(&document["blobs"])? {
            blobs.push(descriptor(blob)?);
        }
        for child in list(&document["manifests"])? {
            children.push(descriptor(child)?);
        }
        let subject = if document["subject"].is_null() { None } else { Some(descriptor(&document["subject"])?) };
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Self {
            media_type,
            artifact_type: text(&document["artifactType"]).or_else(|| text(&document["config"]["mediaType"])),
            annotations: Some(document["annotations"].clone()).filter(Value::is_object),
            blobs,
            children,
            subject,
        })
    }
}

fn list(value: &Value) -> Result<&[Value], RegistryError> {
    match value {
        Value::Null => Ok(&[]),
        Value::Array(items) if items.len() <= MAX_PARTS => Ok(items),
        _ => Err(RegistryError::InvalidManifest(format!("it has no list of at most {MAX_PARTS} parts"))),
    }
}

fn descriptor(value: &Value) -> Result<Digest, RegistryError> {
    let text = value["digest"].as_str().unwrap_or_default();
    name::digest(text).map_err(|_| RegistryError::InvalidManifest(format!("{text:?} is no sha256 digest")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

    #[test]
    fn what_it_needs_is_read() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let document = json!({
            "schemaVersion": 2, "mediaType": TYPE,
            "config": { "digest": digest("c"), "mediaType": "x/config" },
            "layers": [{ "digest": digest("l") }, { "digest": digest("far"), "urls": ["https://far.example"] }],
            "subject": { "digest": digest("s") },
        });
        let manifest = Manifest::parse(document.to_string().as_bytes(), None).unwrap();
        assert_eq!(manifest.blobs, [digest("c"), digest("l")]);
        assert_eq!((manifest.subject, manifest.artifact_type.as_deref()), (Some(digest("s")), Some("x/config")));
    }

    #[test]
    fn what_is_none_is_refused() {
        let index = r#"{"manifests": [{"digest": "sha256:12"}]}"#;
        for (bad, stated) in [
            ("{", Some(TYPE)),
            ("[]", Some(TYPE)),
            ("{}", None),
            (r#"{"mediaType": "a/b"}"#, Some(TYPE)),
            (r#"{"schemaVersion": 1}"#, Some(TYPE)),
            (index, Some(TYPE)),
            (r#"{"layers": 1}"#, Some(TYPE)),
        ] {
            assert!(Manifest::parse(bad.as_bytes(), stated).is_err(), "{bad}");
        }
    }
}
