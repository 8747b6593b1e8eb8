//! Lists of mirrors by country: built in, and replaceable by a file of the same form.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{MirrorArgument, bad};
use crate::ImageError;

const BUILT_IN: &str = include_str!("presets.toml");
/// Of the file; a newer one is refused.
const FORMAT: u32 = 1;

/// A mirror that a preset names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KnownMirror {
    /// As in `mirrors.toml`.
    pub url: String,
    /// Month of the last report that it worked, `2025-06`.
    #[serde(default)]
    pub known: Option<String>,
}

/// The file. Fields it does not know are a newer file's, and ignored.
#[derive(Clone, Debug, Deserialize)]
pub struct Presets {
    format: u32,
    /// Month of the file, `2026-11`.
    pub updated: String,
    /// Where a newer copy of it may be found.
    #[serde(default)]
    pub source: Option<String>,
    /// Registry → an image of it (repository and tag) that its mirrors can be tried with.
    #[serde(default)]
    pub probe: BTreeMap<String, String>,
    country: BTreeMap<String, BTreeMap<String, Vec<KnownMirror>>>,
    /// Country → host of published files → mirrors of them, best known first.
    #[serde(default)]
    files: BTreeMap<String, BTreeMap<String, Vec<KnownMirror>>>,
}

impl Presets {
    /// The file's text, or the built-in one's.
    ///
    /// # Errors
    /// [`ImageError::BadConfig`], naming what is wrong with it.
    pub fn parse(text: Option<&str>) -> Result<Presets, ImageError> {
        let what = "the list of mirrors by country";
        let presets: Presets = toml::from_str(text.unwrap_or(BUILT_IN)).map_err(|error| bad(what, &error))?;
        if presets.format > FORMAT {
            let detail = format!("it has format {}, known are formats up to {FORMAT}", presets.format);
            return Err(bad(what, &detail));
        }
        for mirror in presets.country.values().chain(presets.files.values()).flat_map(BTreeMap::values).flatten() {
            MirrorArgument::parse(&mirror.url).map_err(|error| bad(what, &error))?;
        }
        Ok(presets)
    }

    /// Host of published files → mirrors of a country, best known first; none where nothing is known for it.
    pub fn files_of(&self, country: &str) -> BTreeMap<String, Vec<KnownMirror>> {
        self.files.get(country).cloned().unwrap_or_default()
    }

    /// Names of the countries.
    pub fn countries(&self) -> Vec<&str> {
        self.country.keys().map(String::as_str).collect()
    }

    /// Registry → mirrors of a country, best known first.
    ///
    /// # Errors
    /// [`ImageError::BadConfig`] for a country that is not there, naming those that are.
    pub fn of(&self, country: &str) -> Result<BTreeMap<String, Vec<KnownMirror>>, ImageError> {
        self.country.get(country).cloned().ok_or_else(|| {
            let known = self.countries().join(", ");
            bad(&format!("mirror country {country:?}"), &format!("known are: {known}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_list_has_several_mirrors_for_each_registry() {
        let presets = Presets::parse(None).unwrap();
        assert_eq!(presets.countries(), ["cn", "global"]);
        let cn = presets.of("cn").unwrap();
        for registry in ["docker.io", "registry.k8s.io", "gcr.io", "ghcr.io", "quay.io"] {
            assert!(cn[registry].len() > 2, "{registry}");
            assert!(presets.probe.contains_key(registry), "{registry}");
        }
        assert_eq!(presets.files_of("cn")["dl.k8s.io"].len(), 2);
        assert!(presets.files_of("global").is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_with_the_reason() {
        let refused = |text: &str| Presets::parse(Some(text)).unwrap_err().to_string();
        assert!(refused("format = 2\nupdated = \"2030-01\"\n[country]\n").contains("format 2"));
        assert!(refused("nonsense").contains("the list of mirrors by country"));
        let ftp = "format = 1\nupdated = \"x\"\n[country.cn]\n\"docker.io\" = [{ url = \"ftp://x\" }]\n";
        assert!(refused(ftp).contains("neither http"));
        let files = "format = 1\nupdated = \"x\"\n[country.cn]\n[files.cn]\n\"dl.k8s.io\" = [{ url = \"x\" }]\n";
        assert!(refused(files).contains("is not a URL"));
    }
}
