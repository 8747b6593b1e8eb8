//! Which names a definition gets: those that no other of its group has.

use std::collections::HashSet;

use kminik_meta::Object;
use serde_json::{Value, json};

use super::conditions::Condition;

/// Names that others of a group have: of resources, and of kinds.
#[derive(Debug, Default)]
pub(super) struct Taken {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl Taken {
    /// Adds what a definition was given.
    pub(super) fn add(&mut self, definition: &Object) {
        let accepted = |member: &str| definition.str(&["status", "acceptedNames", member]).map(str::to_owned);
        self.resources.extend(["plural", "singular"].into_iter().filter_map(accepted));
        self.kinds.extend(["kind", "listKind"].into_iter().filter_map(accepted));
        let short = definition.array(&["status", "acceptedNames", "shortNames"]).iter();
        self.resources.extend(short.filter_map(Value::as_str).map(str::to_owned));
        for set in [&mut self.resources, &mut self.kinds] {
            set.remove("");
        }
    }
}

/// The names a definition gets, and the condition that says whether these are all it asks for.
pub(super) fn accept(definition: &Object, taken: &Taken) -> (Value, Condition) {
    let requested = |member: &str| definition.get(&["spec", "names", member]);
    let accepted = definition.get(&["status", "acceptedNames"]).filter(|accepted| accepted.is_object());
    let mut accepted = accepted.cloned().unwrap_or_else(|| json!({}));
    let mut conflict: Option<(&'static str, String)> = None;
    for (member, reason, used) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ] {
        let wanted = requested(member);
        let had = accepted.get(member).filter(|had| had.as_str() != Some(""));
        let clashes: Vec<String> = names(wanted)
            .filter(|name| !names(had).any(|own| own == *name) && used.contains(*name))
            .map(|name| format!("{} is already in use", kminik_meta::field::quote(name)))
            .collect();
        match clashes.as_slice() {
            [] => set(&mut accepted, member, wanted),
            [one] => conflict = Some((reason, one.clone())),
            several => conflict = Some((reason, format!("[{}]", several.join(", ")))),
        }
    }
    set(&mut accepted, "categories", requested("categories"));
    let condition = match conflict {
        None => Condition::new("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
        Some((reason, message)) => Condition::new("NamesAccepted", "False", reason, message),
    };
    (accepted, condition)
}

fn names(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    value.and_then(Value::as_str).into_iter().chain(list)
}

fn set(accepted: &mut Value, member: &str, value: Option<&Value>) {
    if let Some(map) = accepted.as_object_mut() {
        match value {
            Some(value) => map.insert(member.to_owned(), value.clone()),
            None => map.remove(member),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(names: Value, accepted: Value) -> Object {
        Object::try_from(json!({"spec": {"names": names}, "status": {"acceptedNames": accepted}})).unwrap()
    }

    #[test]
    fn free_names_are_given_and_taken_ones_are_not() {
        let first = json!({"plural": "as", "singular": "a", "kind": "A", "listKind": "AList", "shortNames": ["x"]});
        let (names, condition) =
            accept(&definition(first.clone(), json!({"plural": "", "kind": ""})), &Taken::default());
        assert_eq!((names, condition.reason), (first.clone(), "NoConflicts"));
        let mut taken = Taken::default();
        taken.add(&definition(json!({}), first.clone()));
        let second = json!({"plural": "bs", "singular": "b", "kind": "A", "listKind": "BList", "shortNames": ["x"], "categories": ["c"]});
        let (names, condition) = accept(&definition(second, json!({})), &taken);
        assert_eq!(names, json!({"plural": "bs", "singular": "b", "listKind": "BList", "categories": ["c"]}));
        assert_eq!((condition.reason, condition.message.as_str()), ("KindConflict", "\"A\" is already in use"));
    }
}
