//! `mirrors.toml`, the user's own list, read and edited; comments and order of what is not touched stay.
//!
//! ```toml
//! [registry."docker.io"]
//! mirrors = ["https://mirror.example", "http://127.0.0.1:5000/hub"]   # asked first to last
//! replace = false     # leave the country's mirrors out
//! upstream = true     # ask the registry itself too
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;
use toml_edit::{Array, DocumentMut, Item, Table, Value, value};

use super::{MirrorArgument, bad};
use crate::ImageError;

/// What the file says of one registry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registry {
    #[serde(default)]
    pub(super) mirrors: Vec<String>,
    /// Leave the country's preset out.
    #[serde(default)]
    pub(super) replace: bool,
    /// Ask the registry itself.
    #[serde(default = "yes")]
    pub(super) upstream: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parsed {
    #[serde(default)]
    registry: BTreeMap<String, Registry>,
}

const NAME: &str = "mirrors.toml";

/// Registry → what is said of it; nothing written is nothing said.
pub(super) fn parse(text: Option<&str>) -> Result<BTreeMap<String, Registry>, ImageError> {
    let parsed: Parsed = toml::from_str(text.unwrap_or_default()).map_err(|error| bad(NAME, &error))?;
    for mirror in parsed.registry.values().flat_map(|registry| &registry.mirrors) {
        MirrorArgument::parse(mirror).map_err(|error| bad(NAME, &error))?;
    }
    Ok(parsed.registry)
}

/// The file, open for changes.
#[derive(Clone, Debug)]
pub struct MirrorsFile(DocumentMut);

impl MirrorsFile {
    /// # Errors
    /// [`ImageError::BadConfig`] for a file that a resolver would refuse.
    pub fn parse(text: &str) -> Result<MirrorsFile, ImageError> {
        parse(Some(text))?;
        text.parse().map(MirrorsFile).map_err(|error: toml_edit::TomlError| bad(NAME, &error))
    }

    /// Adds a mirror at the end of its registry's list, or at its head. False if it is there already.
    pub fn add(&mut self, mirror: &MirrorArgument, first: bool) -> bool {
        let mut list = self.list(mirror.registry());
        let address = mirror.address();
        if list.contains(&address) {
            return false;
        }
        let at = if first { 0 } else { list.len() };
        list.insert(at, address);
        self.set(mirror.registry(), &list);
        true
    }

    /// False if it is not there.
    pub fn remove(&mut self, mirror: &MirrorArgument) -> bool {
        let mut list = self.list(mirror.registry());
        let before = list.len();
        let address = mirror.address();
        list.retain(|known| *known != address);
        if list.len() == before {
            return false;
        }
        self.set(mirror.registry(), &list);
        true
    }

    /// Puts these mirrors of one registry first, in this order; the others follow as they were. The one that is not there,
    /// if any.
    pub fn order<'a>(&mut self, registry: &str, wanted: &'a [MirrorArgument]) -> Result<(), &'a MirrorArgument> {
        let list = self.list(registry);
        let mut ordered: Vec<String> = Vec::new();
        for mirror in wanted {
            let address = mirror.address();
            if !list.contains(&address) {
                return Err(mirror);
            }
            if !ordered.contains(&address) {
                ordered.push(address);
            }
        }
        let rest: Vec<String> = list.into_iter().filter(|known| !ordered.contains(known)).collect();
        ordered.extend(rest);
        self.set(registry, &ordered);
        Ok(())
    }

    /// The text to write.
    pub fn text(&self) -> String {
        self.0.to_string()
    }

    /// The addresses as [`MirrorArgument::address`] writes them.
    fn list(&self, registry: &str) -> Vec<String> {
        let mirrors = self.0.get("registry").and_then(|all| all.get(registry)).and_then(|row| row.get("mirrors"));
        let texts = mirrors.and_then(Item::as_array).into_iter().flatten().filter_map(Value::as_str);
        texts.filter_map(|text| MirrorArgument::parse(text).ok()).map(|mirror| mirror.address()).collect()
    }

    fn set(&mut self, registry: &str, list: &[String]) {
        let all = self.0.entry("registry").or_insert_with(|| {
            let mut table = Table::new();
            // Only the rows below it have a head of their own.
            table.set_implicit(true);
            Item::Table(table)
        });
        let Some(all) = all.as_table_like_mut() else { return };
        let row = all.entry(registry).or_insert_with(|| Item::Table(Table::new()));
        if let Some(row) = row.as_table_like_mut() {
            row.insert("mirrors", value(list.iter().collect::<Array>()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(text: &str) -> MirrorArgument {
        MirrorArgument::parse(text).unwrap()
    }

    #[test]
    fn mirrors_come_go_and_change_places_and_the_rest_stays() {
        let text = "# mine\n[registry.\"quay.io\"]\nupstream = false # never\n";
        let mut file = MirrorsFile::parse(text).unwrap();
        assert!(file.add(&mirror("https://b.example/x/"), false));
        assert!(file.add(&mirror("https://a.example"), true));
        assert!(file.add(&mirror("quay.io=http://q.example:5000/{name}"), false));
        assert!(!file.add(&mirror("https://a.example/"), false));
        let [a, b] = [mirror("https://a.example"), mirror("https://b.example/x")];
        file.order("docker.io", std::slice::from_ref(&b)).unwrap();
        assert_eq!(file.list("docker.io"), [b.address(), a.address()]);
        assert!(file.order("quay.io", std::slice::from_ref(&a)).is_err());
        let written = file.text();
        assert!(written.contains("# mine") && written.contains("# never"), "{written}");
        let rows = parse(Some(&written)).unwrap();
        assert_eq!(rows["docker.io"].mirrors, ["https://b.example/x", "https://a.example"]);
        assert_eq!(rows["quay.io"].mirrors, ["http://q.example:5000/{name}"]);
        assert!(!rows["quay.io"].upstream);
        assert!(file.remove(&a) && !file.remove(&a));
        assert_eq!(file.list("docker.io"), [b.address()]);
    }
}
