//! Brings what is wrong with members into the order of the document, in which upstream's decoder names them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Sorts `unknown field "path"` and `duplicate field "path"` by where the JSON document has them; each is said once. The trees
/// that were checked are sorted by name, so the document is read again, which only a body with several mistakes costs.
pub(super) fn in_document_order(bytes: &[u8], issues: &mut Vec<String>) {
    if issues.len() < 2 {
        return;
    }
    let mut places: BTreeMap<&str, usize> = issues.iter().map(|issue| (issue.as_str(), usize::MAX)).collect();
    let mut finder = Finder { places: &mut places, path: String::new(), met: 0 };
    // It has been read before, so it is JSON; what could not be read would stay where it is.
    let _ = finder.deserialize(&mut serde_json::Deserializer::from_slice(bytes));
    let mut found: Vec<(usize, &str)> = places.iter().map(|(issue, place)| (*place, *issue)).collect();
    found.sort_by_key(|(place, _)| *place);
    *issues = found.into_iter().map(|(_, issue)| issue.to_owned()).collect();
}

/// Walks a document and notes at which of its members an issue stands.
struct Finder<'a, 'i> {
    places: &'a mut BTreeMap<&'i str, usize>,
    path: String,
    met: usize,
}

impl Finder<'_, '_> {
    fn meet(&mut self, again: bool) {
        self.met += 1;
        let issue = format!("{} field \"{}\"", if again { "duplicate" } else { "unknown" }, self.path);
        if let Some(place) = self.places.get_mut(issue.as_str()) {
            *place = self.met.min(*place);
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Finder<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Finder<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let outer = self.path.len();
        for index in 0.. {
            self.path.push_str(&format!("[{index}]"));
            let more = elements.next_element_seed(&mut *self)?.is_some();
            self.path.truncate(outer);
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let (outer, mut known) = (self.path.len(), BTreeSet::new());
        while let Some(key) = members.next_key::<String>()? {
            if outer > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            let again = !known.insert(key);
            self.meet(again);
            members.next_value_seed(&mut *self)?;
            self.path.truncate(outer);
        }
        Ok(())
    }
}
