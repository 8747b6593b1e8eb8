//! Reading and writing by a path of member names; the one place that walks JSON maps.

use serde_json::{Map, Value};

/// The value at `path` below `root`; `None` for an empty path.
pub fn get<'a>(root: &'a Map<String, Value>, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(root.get(*first)?, |value, key| value.get(key))
}

/// The value at `path` below `root`, mutable.
pub fn get_mut<'a>(root: &'a mut Map<String, Value>, path: &[&str]) -> Option<&'a mut Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(root.get_mut(*first)?, |value, key| value.get_mut(key))
}

/// Sets the value at `path`, creating objects on the way and replacing what is not one. An empty path changes nothing.
pub fn set(root: &mut Map<String, Value>, path: &[&str], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let parent = parents.iter().fold(root, |map, key| object_at(map, key));
    parent.insert((*last).to_owned(), value);
}

/// Removes and returns the value at `path`.
pub fn remove(root: &mut Map<String, Value>, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    if parents.is_empty() {
        return root.remove(*last);
    }
    get_mut(root, parents)?.as_object_mut()?.remove(*last)
}

/// The object in member `key`, created when it is absent or something else.
pub fn object_at<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    as_object_slot(slot)
}

/// The object in a slot, which is overwritten with an empty one when it holds something else.
pub fn as_object_slot(slot: &mut Value) -> &mut Map<String, Value> {
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("the slot was just made an object"),
    }
}

/// Splits an RFC 6901 pointer in its first member name, unescaped, and the pointer that remains.
pub(crate) fn split_pointer(pointer: &str) -> Option<(String, &str)> {
    let rest = pointer.strip_prefix('/')?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (key, rest) = rest.split_at(end);
    Some((key.replace("~1", "/").replace("~0", "~"), rest))
}
