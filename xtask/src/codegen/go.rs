//! Reads what the field table needs from gofmt-formatted Go type declarations: names, tags and markers. Not a Go parser.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The types of one Go package.
#[derive(Debug, Default)]
pub(crate) struct Package {
    /// Declarations by type name.
    pub(crate) types: BTreeMap<String, Declaration>,
    /// Values of string constants by the name of their type, in order of their names in the source.
    pub(crate) constants: BTreeMap<String, Vec<String>>,
    /// Values of string constants by their own name.
    pub(crate) values: BTreeMap<String, String>,
    /// Constants of a type whose value is another package's constant, as `package.Constant`.
    pub(crate) references: BTreeMap<String, Vec<String>>,
    /// `GroupName` of register.go.
    pub(crate) group: String,
}

/// One type declaration.
#[derive(Debug)]
pub(crate) struct Declaration {
    /// `+marker` lines without the plus sign.
    pub(crate) markers: Vec<String>,
    pub(crate) body: Body,
    /// Import paths by local name, of the file that holds the declaration.
    pub(crate) imports: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(crate) enum Body {
    Struct(Vec<Member>),
    /// `type A B`, the expression as it stands.
    Named(String),
}

/// One struct member with a JSON tag.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) expression: String,
    /// JSON name; empty when the member is inlined.
    pub(crate) json: String,
    pub(crate) inline: bool,
    pub(crate) omitempty: bool,
    pub(crate) omitzero: bool,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) markers: Vec<String>,
}

impl Member {
    pub(crate) fn marker(&self, name: &str) -> Option<&str> {
        marker(&self.markers, name)
    }

    /// The field number of the protobuf tag; 0 when there is none.
    pub(crate) fn number(&self) -> u32 {
        self.tags.get("protobuf").and_then(|t| t.split(',').nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

/// The value of a marker, empty when it has none; later ones win. A `k8s:` prefix is the newer spelling of the same marker.
pub(crate) fn marker<'a>(markers: &'a [String], name: &str) -> Option<&'a str> {
    markers.iter().rev().find_map(|m| {
        let (key, value) = m.split_once('=').unwrap_or((m, ""));
        (key.strip_prefix("k8s:").unwrap_or(key) == name).then_some(value)
    })
}

/// Reads all declarations of a package directory, tests and generated code aside.
pub(crate) fn read_package(directory: &Path) -> Result<Package> {
    let mut package = Package::default();
    let mut files: Vec<_> = fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?
        .collect::<std::io::Result<Vec<_>>>()?
        .into_iter()
        .map(|e| e.path())
        .collect();
    files.sort();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".go")
            && !name.ends_with("_test.go")
            && !name.starts_with("zz_")
            && !name.contains("generated")
        {
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            read_file(&text, &mut package);
        }
    }
    Ok(package)
}

fn read_file(text: &str, package: &mut Package) {
    let mut imports = BTreeMap::new();
    let mut markers: Vec<String> = Vec::new();
    let mut lines = text.lines().peekable();
    let mut in_imports = false;
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if let Some(comment) = trimmed.strip_prefix("//") {
            if let Some(m) = comment.trim().strip_prefix('+') {
                markers.push(m.trim().to_owned());
            }
            continue;
        }
        if trimmed.is_empty() {
            continue;
        }
        if trimmed == "import (" {
            in_imports = true;
        } else if in_imports {
            if trimmed == ")" {
                in_imports = false;
            } else {
                import(trimmed, &mut imports);
            }
        } else if let Some(single) = line.strip_prefix("import ") {
            import(single, &mut imports);
        } else if let Some(rest) = line.strip_prefix("type ") {
            let markers = std::mem::take(&mut markers);
            let Some((name, definition)) = rest.split_once(' ') else { continue };
            let body = if definition.starts_with("struct {") && !definition.contains('}') {
                Body::Struct(members(&mut lines))
            } else if definition.starts_with("struct") {
                Body::Struct(Vec::new())
            } else {
                let definition = definition.split("//").next().unwrap_or_default();
                Body::Named(definition.trim_start_matches("= ").trim().to_owned())
            };
            let declaration = Declaration { markers, body, imports: imports.clone() };
            package.types.insert(name.to_owned(), declaration);
        } else {
            constant(trimmed, package);
            markers.clear();
        }
    }
}

fn import(line: &str, imports: &mut BTreeMap<String, String>) {
    let Some(start) = line.find('"') else { return };
    let path = line[start..].trim_matches('"');
    let alias = line[..start].trim();
    let name = if alias.is_empty() { path.rsplit('/').next().unwrap_or_default() } else { alias };
    imports.insert(name.to_owned(), path.to_owned());
}

fn constant(line: &str, package: &mut Package) {
    let line = line.strip_prefix("const ").unwrap_or(line);
    let Some((left, right)) = line.split_once('=') else { return };
    let mut words = left.split_whitespace();
    let (Some(name), kind) = (words.next(), words.next()) else { return };
    let value = right.trim();
    if name == "GroupName" {
        package.group = value.trim_matches('"').to_owned();
    }
    // Both `Name Type = "value"` and `Name = Type("value")` declare a value of the type.
    let (kind, value) = match (kind, value.split_once('(')) {
        (Some(kind), _) => (kind, value),
        (None, Some((kind, value))) => (kind, value),
        (None, None) => return,
    };
    let Some(text) = value.split("//").next().map(|v| v.trim().trim_end_matches(')')) else { return };
    if let Some(text) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        package.constants.entry(kind.to_owned()).or_default().push(text.to_owned());
        package.values.insert(name.to_owned(), text.to_owned());
    } else if value.ends_with(')') && text.contains('.') && !text.contains(['(', ' ', '"']) {
        // `Type(package.Constant)`: another package's value.
        package.references.entry(kind.to_owned()).or_default().push(text.to_owned());
    }
}

fn members<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Vec<Member> {
    let mut out = Vec::new();
    let mut markers = Vec::new();
    for line in lines {
        let trimmed = line.trim();
        if line.starts_with('}') {
            break;
        }
        if let Some(comment) = trimmed.strip_prefix("//") {
            if let Some(m) = comment.trim().strip_prefix('+') {
                markers.push(m.trim().to_owned());
            }
            continue;
        }
        if trimmed.is_empty() {
            markers.clear();
            continue;
        }
        let markers = std::mem::take(&mut markers);
        let Some((declaration, rest)) = trimmed.split_once('`') else { continue };
        let words: Vec<&str> = declaration.split_whitespace().collect();
        let expression = match words.as_slice() {
            [embedded] => embedded,
            [_, expression] => expression,
            _ => continue,
        };
        let tags = struct_tags(rest.split('`').next().unwrap_or_default());
        let Some(json) = tags.get("json") else { continue };
        let mut parts = json.split(',');
        let name = parts.next().unwrap_or_default().to_owned();
        let options: Vec<&str> = parts.collect();
        if name == "-" {
            continue;
        }
        out.push(Member {
            expression: (*expression).to_owned(),
            inline: name.is_empty(),
            omitempty: options.contains(&"omitempty"),
            omitzero: options.contains(&"omitzero"),
            json: name,
            tags,
            markers,
        });
    }
    out
}

fn struct_tags(text: &str) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once(":\"") {
        let Some((value, after)) = after.split_once('"') else { break };
        tags.insert(key.trim().to_owned(), value.to_owned());
        rest = after;
    }
    tags
}
