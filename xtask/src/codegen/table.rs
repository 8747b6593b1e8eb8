//! Turns Go declarations into the rows of the field table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Context, Result, bail};

use super::go::{Body, Member, Package, marker};

/// Go types that are leaves of the table, by import path and name.
const LEAVES: &[(&str, &str, &str)] = &[
    ("k8s.io/apimachinery/pkg/api/resource", "Quantity", "Quantity"),
    ("k8s.io/apimachinery/pkg/util/intstr", "IntOrString", "IntOrString"),
    ("k8s.io/apimachinery/pkg/runtime", "RawExtension", "RawExtension"),
    ("k8s.io/apimachinery/pkg/runtime", "Object", "RawExtension"),
    ("k8s.io/apimachinery/pkg/types", "UID", "String"),
    ("k8s.io/apimachinery/pkg/types", "NodeName", "String"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "Time", "Time"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "MicroTime", "MicroTime"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "Duration", "Duration"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "FieldsV1", "FieldsV1"),
    ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", "JSON", "Json"),
    ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", "JSONSchemaPropsOrArray", "SchemaOrArray"),
    ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", "JSONSchemaPropsOrBool", "SchemaOrBool"),
    ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", "JSONSchemaPropsOrStringArray", "SchemaOrStringArray"),
];

/// Go's own types.
const BUILT_IN: &[(&str, &str)] = &[
    ("string", "String"),
    ("bool", "Boolean"),
    ("int32", "Int32"),
    ("int", "Int32"),
    ("int64", "Int64"),
    ("float64", "Double"),
    ("[]byte", "Bytes"),
    ("interface{}", "Json"),
    ("any", "Json"),
];

/// A node of the table, by what makes it distinct.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Leaf { kind: &'static str, values: String },
    Struct { definition: String, atomic: bool },
    List { item: Box<Node>, topology: Topology, wrapped: bool },
    Map { value: Box<Node>, atomic: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Atomic,
    Set,
    Map,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Topology {
    kind: Kind,
    keys: String,
}

/// One row: a member of a struct, inlined ones flattened.
#[derive(Clone, Debug)]
struct Row {
    json: String,
    node: Node,
    flags: Vec<&'static str>,
    number: u32,
    /// Numbers of the inlined messages around it, outermost first, a byte each, lowest first.
    via: u32,
    default: String,
    merge_key: String,
    strategy: String,
}

/// Everything read so far.
#[derive(Default)]
pub(crate) struct Table {
    packages: BTreeMap<String, (String, Package)>,
    /// The kinds of packages of which not all are wanted.
    only: BTreeMap<String, &'static [&'static str]>,
}

/// The generated source and the definitions with their field names.
pub(crate) struct Built {
    pub(crate) source: String,
    pub(crate) definitions: BTreeMap<String, Vec<String>>,
}

impl Table {
    /// Adds a package, or only these kinds of it and what they refer to.
    pub(crate) fn add_package(
        &mut self,
        import: &str,
        prefix: &str,
        package: Package,
        only: Option<&'static [&'static str]>,
    ) {
        self.only.extend(only.map(|kinds| (import.to_owned(), kinds)));
        self.packages.insert(import.to_owned(), (prefix.to_owned(), package));
    }

    /// Builds the table from every kind, that is every struct that inlines `TypeMeta`, and all it refers to.
    pub(crate) fn build(&self) -> Result<Built> {
        let mut structs: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        let mut kinds: BTreeMap<(String, String, String), String> = BTreeMap::new();
        let mut pending: Vec<(String, String)> = Vec::new();
        for (import, (prefix, package)) in &self.packages {
            let version = import.rsplit('/').next().unwrap_or_default();
            for (name, declaration) in &package.types {
                let Body::Struct(members) = &declaration.body else { continue };
                // Fields carry metadata and lists of metadata without being kinds themselves.
                let is_kind = members.iter().any(|m| m.inline && m.expression.ends_with("TypeMeta"));
                let wanted = self.only.get(import).is_none_or(|kinds| kinds.contains(&name.as_str()));
                if is_kind && wanted {
                    let definition = format!("{prefix}.{name}");
                    let version = if package.group == "meta.k8s.io" { "v1" } else { version };
                    kinds.insert((package.group.clone(), version.to_owned(), name.clone()), definition);
                    pending.push((import.clone(), name.clone()));
                }
            }
        }
        let mut seen = BTreeSet::new();
        while let Some((import, name)) = pending.pop() {
            if !seen.insert((import.clone(), name.clone())) {
                continue;
            }
            let mut rows = self.rows(&import, &name, 0, 0, &mut pending)?;
            rows.sort_by(|a, b| a.json.cmp(&b.json));
            if let Some(pair) = rows.windows(2).find(|p| p[0].json == p[1].json) {
                bail!("{name} has {} twice", pair[0].json);
            }
            structs.insert(self.definition(&import, &name)?, rows);
        }
        Ok(render(&structs, &kinds))
    }

    fn definition(&self, import: &str, name: &str) -> Result<String> {
        let (prefix, _) = self.packages.get(import).with_context(|| format!("package {import} is not read"))?;
        Ok(format!("{prefix}.{name}"))
    }

    fn rows(
        &self,
        import: &str,
        name: &str,
        via: u32,
        depth: u32,
        pending: &mut Vec<(String, String)>,
    ) -> Result<Vec<Row>> {
        let (_, package) = self.packages.get(import).with_context(|| format!("package {import} is not read"))?;
        let declaration = package.types.get(name).with_context(|| format!("no type {name} in {import}"))?;
        let members = match &declaration.body {
            Body::Struct(members) => members,
            Body::Named(other) => {
                let (import, name) = self.named(import, other, &declaration.imports)?;
                return self.rows(&import, &name, via, depth, pending);
            }
        };
        let mut rows = Vec::new();
        for member in members {
            if member.inline {
                let (import, name) =
                    self.named(import, member.expression.trim_start_matches('*'), &declaration.imports)?;
                let inner = via | (member.number() << (8 * depth));
                let deeper = if member.number() == 0 { depth } else { depth + 1 };
                let mut inlined = self.rows(&import, &name, inner, deeper, pending)?;
                if member.number() == 0 {
                    // Protobuf does not carry what is inlined without a number: apiVersion and kind.
                    inlined.iter_mut().for_each(|row| row.number = 0);
                }
                rows.extend(inlined);
            } else {
                let row = self.row(import, member, via, &declaration.imports, pending);
                rows.push(row.with_context(|| format!("{import}.{name}.{}", member.json))?);
            }
        }
        Ok(rows)
    }

    /// Package and name of a type expression that names a struct.
    fn named(&self, import: &str, expression: &str, imports: &BTreeMap<String, String>) -> Result<(String, String)> {
        match expression.split_once('.') {
            None => Ok((import.to_owned(), expression.to_owned())),
            Some((package, name)) => {
                let path = imports.get(package).with_context(|| format!("{package} is not imported"))?;
                Ok((path.clone(), name.to_owned()))
            }
        }
    }

    fn row(
        &self,
        import: &str,
        member: &Member,
        via: u32,
        imports: &BTreeMap<String, String>,
        pending: &mut Vec<(String, String)>,
    ) -> Result<Row> {
        let pointer = member.expression.starts_with('*');
        let expression = member.expression.trim_start_matches('*');
        let mut node = self.node(import, expression, imports, pending)?;
        match &mut node {
            Node::List { topology, .. } => {
                topology.kind = match member.marker("listType") {
                    Some("map") => Kind::Map,
                    Some("set") => Kind::Set,
                    _ => Kind::Atomic,
                };
                let keys = member
                    .markers
                    .iter()
                    .filter_map(|m| m.strip_prefix("k8s:").unwrap_or(m).strip_prefix("listMapKey="));
                // Both spellings of the marker may stand beside each other.
                let mut unique: Vec<&str> = Vec::new();
                for key in keys {
                    if !unique.contains(&key) {
                        unique.push(key);
                    }
                }
                topology.keys = unique.join(",");
            }
            Node::Map { atomic, .. } => *atomic = member.marker("mapType") == Some("atomic"),
            Node::Struct { atomic, .. } => {
                if let Some(kind) = member.marker("structType") {
                    *atomic = kind == "atomic";
                }
                // The object form of a selector and references are declared atomic by a marker for maps.
                if let Some(kind) = member.marker("mapType") {
                    *atomic = kind == "atomic";
                }
            }
            Node::Leaf { .. } => {}
        }
        let optional = member.omitempty || member.marker("optional").is_some();
        let mut flags = Vec::new();
        if !optional {
            flags.push("REQUIRED");
        }
        // Go writes structs although they are empty, unless told otherwise; times among them as null.
        let is_struct = matches!(
            &node,
            Node::Struct { .. }
                | Node::Leaf {
                    kind: "Time" | "MicroTime" | "Duration" | "Quantity" | "IntOrString" | "RawExtension",
                    ..
                }
        );
        if pointer {
            flags.push("POINTER");
        }
        if (!member.omitempty || (is_struct && !pointer)) && !member.omitzero {
            flags.push("ALWAYS");
        }
        let default = match member.marker("default").map(|d| d.replace('`', "\"")) {
            None => String::new(),
            Some(d) => match d.strip_prefix("ref(").and_then(|r| r.strip_suffix(')')) {
                None => d,
                Some(constant) => {
                    let (_, package) = &self.packages[import];
                    let value = package.values.get(constant).with_context(|| format!("no constant {constant}"))?;
                    format!("\"{value}\"")
                }
            },
        };
        let tag = |name: &str| member.tags.get(name).cloned().unwrap_or_default();
        Ok(Row {
            json: member.json.clone(),
            node,
            flags,
            number: member.number(),
            via,
            default,
            merge_key: tag("patchMergeKey"),
            strategy: tag("patchStrategy"),
        })
    }

    fn node(
        &self,
        import: &str,
        expression: &str,
        imports: &BTreeMap<String, String>,
        pending: &mut Vec<(String, String)>,
    ) -> Result<Node> {
        let leaf = |kind: &'static str| Node::Leaf { kind, values: String::new() };
        if let Some((_, kind)) = BUILT_IN.iter().find(|(name, _)| *name == expression) {
            return Ok(leaf(kind));
        }
        if let Some(item) = expression.strip_prefix("[]") {
            let item = self.node(import, item.trim_start_matches('*'), imports, pending)?;
            let topology = Topology { kind: Kind::Atomic, keys: String::new() };
            return Ok(Node::List { item: Box::new(item), topology, wrapped: false });
        }
        if let Some(map) = expression.strip_prefix("map[") {
            let (_, value) = map.split_once(']').context("map without value")?;
            let value = self.node(import, value.trim_start_matches('*'), imports, pending)?;
            return Ok(Node::Map { value: Box::new(value), atomic: false });
        }
        let (path, name) = self.named(import, expression, imports)?;
        if let Some((_, _, kind)) = LEAVES.iter().find(|(p, n, _)| *p == path && *n == name) {
            return Ok(leaf(kind));
        }
        let (_, package) = self.packages.get(&path).with_context(|| format!("package {path} of {name} is not read"))?;
        let declaration = package.types.get(&name).with_context(|| format!("no type {name} in {path}"))?;
        match &declaration.body {
            Body::Struct(_) => {
                pending.push((path.clone(), name.clone()));
                let atomic = marker(&declaration.markers, "structType") == Some("atomic");
                Ok(Node::Struct { definition: self.definition(&path, &name)?, atomic })
            }
            Body::Named(other) => {
                let mut node = self.node(&path, other, &declaration.imports, pending)?;
                match &mut node {
                    Node::Leaf { values, .. } if marker(&declaration.markers, "enum").is_some() => {
                        let mut all = package.constants.get(&name).cloned().unwrap_or_default();
                        for reference in package.references.get(&name).into_iter().flatten() {
                            let (path, constant) = self.named(&path, reference, &declaration.imports)?;
                            let value = self.packages.get(&path).and_then(|(_, p)| p.values.get(&constant));
                            all.push(value.with_context(|| format!("no constant {reference}"))?.clone());
                        }
                        all.sort();
                        all.dedup();
                        *values = all.join(",");
                    }
                    // A named slice is a message of its own in protobuf.
                    Node::List { wrapped, .. } => *wrapped = true,
                    _ => {}
                }
                Ok(node)
            }
        }
    }
}

fn render(structs: &BTreeMap<String, Vec<Row>>, kinds: &BTreeMap<(String, String, String), String>) -> Built {
    let mut nodes: BTreeSet<Node> = BTreeSet::new();
    for (definition, rows) in structs {
        nodes.insert(Node::Struct { definition: definition.clone(), atomic: false });
        for row in rows {
            collect(&row.node, &mut nodes);
        }
    }
    let index: BTreeMap<&Node, usize> = nodes.iter().enumerate().map(|(i, n)| (n, i)).collect();
    let mut starts = BTreeMap::new();
    let mut fields = String::new();
    let mut count = 0;
    for (definition, rows) in structs {
        starts.insert(definition.as_str(), (count, count + rows.len()));
        let _ = writeln!(fields, "    // {definition}");
        for row in rows {
            let flags = if row.flags.is_empty() { "0".to_owned() } else { row.flags.join(" | ") };
            let _ = writeln!(
                fields,
                "    f({:?}, {}, {flags}, {}, {}, {:?}, {:?}, {:?}),",
                row.json, index[&row.node], row.number, row.via, row.default, row.merge_key, row.strategy
            );
        }
        count += rows.len();
    }
    let mut source = String::from(
        "//! @generated by `cargo xtask codegen`: every type of the built-in API of\n\
         //! Kubernetes 1.35, a row a field. Do not edit.\n\n\
         use super::build::{ALWAYS, POINTER, REQUIRED, f, leaf, list, map, record};\n\
         use super::{Field, Leaf, ListType, Schema};\n\n\
         /// The types. Fields and elements refer to them by position.\n",
    );
    let _ = writeln!(source, "pub(super) static NODES: [Schema; {}] = [", nodes.len());
    for node in &nodes {
        let line = match node {
            Node::Leaf { kind, values } => format!("leaf(Leaf::{kind}, {values:?})"),
            Node::Struct { definition, atomic } => {
                let (start, end) = starts[definition.as_str()];
                format!("record({definition:?}, {start}, {end}, {atomic})")
            }
            Node::List { item, topology, wrapped } => {
                format!("list({}, ListType::{:?}, {:?}, {wrapped})", index[&**item], topology.kind, topology.keys)
            }
            Node::Map { value, atomic } => format!("map({}, {atomic})", index[&**value]),
        };
        let _ = writeln!(source, "    {line},");
    }
    let _ = writeln!(source, "];\n\n/// The fields of all structs, those of one struct in order of their names.");
    let _ = writeln!(source, "pub(super) static FIELDS: [Field; {count}] = [\n{fields}];\n");
    let _ = writeln!(source, "/// Group, version, kind and position of its type, sorted.");
    let _ = writeln!(source, "pub(super) static KINDS: [(&str, &str, &str, u16); {}] = [", kinds.len());
    for ((group, version, kind), definition) in kinds {
        let position = index[&Node::Struct { definition: definition.clone(), atomic: false }];
        let _ = writeln!(source, "    ({group:?}, {version:?}, {kind:?}, {position}),");
    }
    source.push_str("];\n");
    let definitions =
        structs.iter().map(|(d, rows)| (d.clone(), rows.iter().map(|r| r.json.clone()).collect())).collect();
    Built { source, definitions }
}

fn collect(node: &Node, nodes: &mut BTreeSet<Node>) {
    match node {
        Node::List { item, .. } => collect(item, nodes),
        Node::Map { value, .. } => collect(value, nodes),
        Node::Leaf { .. } | Node::Struct { .. } => {}
    }
    nodes.insert(node.clone());
}
