use serde_json::json;

use crate::{DeclType, Env, Program, Type};

fn compile(source: &str) -> String {
    let schema = json!({"type": "object", "properties": {
        "s": {"type": "string"}, "n": {"type": "integer"}, "o": {"type": "object", "properties": {"x": {"type": "string"}}},
        "l": {"type": "array", "items": {"type": "string"}}, "m": {"type": "object", "additionalProperties": {"type": "integer"}}}});
    let decl = DeclType::from_json_schema(&schema, false).unwrap();
    let env = Env::new().variable("self", decl.cel_type()).variable("any", Type::Dyn);
    match Program::compile(source, &env) {
        Ok(program) => program.result_type().to_string(),
        Err(error) => error.issues.first().map(|i| i.message.clone()).unwrap_or_default(),
    }
}

#[test]
fn types_are_found() {
    for (source, expected) in [
        ("1", "int"),
        ("1 + 1", "int"),
        ("self.s", "string"),
        ("self.l[0]", "string"),
        ("self.m['a']", "int"),
        ("self.m", "map(string, int)"),
        ("any.foo.bar", "dyn"),
        ("any + 1", "int"),
        ("any + any", "dyn"),
        ("[1, 2].map(x, string(x))", "list(string)"),
        ("self.l.filter(x, x != '')", "list(string)"),
        ("true ? 1 : 2", "int"),
        ("self.?s", "optional_type(string)"),
        ("self.?o.x", "optional_type(string)"),
        ("self.?s.orValue('')", "string"),
        ("{'a': [1]}", "map(string, list(int))"),
        ("[]", "list(dyn)"),
        ("self.l.all(x, x.size() > 1)", "bool"),
        ("type(1)", "type(int)"),
        ("self.l.transformMap(i, v, v)", "map(int, string)"),
        ("ip('::1')", "net.IP"),
        ("self.o == null", "bool"),
    ] {
        assert_eq!(compile(source), expected, "{source}");
    }
}

#[test]
fn mistakes_are_named_in_upstreams_words() {
    for (source, expected) in [
        ("x", "undeclared reference to 'x' (in container '')"),
        ("self.nope", "undefined field 'nope'"),
        ("self.s + 1", "found no matching overload for '_+_' applied to '(string, int)'"),
        ("self.s.foo()", "undeclared reference to 'foo' (in container '')"),
        ("self.n.startsWith('a')", "found no matching overload for 'startsWith' applied to 'int.(string)'"),
        ("nope(1)", "undeclared reference to 'nope' (in container '')"),
        ("self.n.x", "type 'int' does not support field selection"),
        (
            "self.n.all(x, true)",
            "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
        ("[1, 'a']", "expected type 'int' but found 'string'"),
        ("self.s == 1", "found no matching overload for '_==_' applied to '(string, int)'"),
        ("self.s == null", "found no matching overload for '_==_' applied to '(string, null)'"),
        ("self.l.all(x, 1)", "found no matching overload for '_&&_' applied to '(bool, int)'"),
        ("self.l.all(x + 1, true)", "argument must be a simple name"),
        ("has(self)", "invalid argument to has() macro"),
        ("'a'.matches('(')", "invalid matches argument"),
        ("duration('x')", "invalid duration argument"),
        ("timestamp('x')", "invalid timestamp argument"),
        ("Object{}", "undeclared reference to 'Object' (in container '')"),
        (
            "1 +",
            "Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
        ),
        ("a b", "Syntax error: extraneous input 'b' expecting <EOF>"),
        ("(1", "Syntax error: mismatched input '<EOF>' expecting ')'"),
        ("'a", "Syntax error: token recognition error at: ''a'"),
        ("namespace", "reserved identifier: namespace"),
        ("99999999999999999999", "invalid int literal"),
        ("[1].all(x, x, true)", "duplicate variable name: x"),
    ] {
        assert_eq!(compile(source), expected, "{source}");
    }
}

#[test]
fn errors_show_the_place() {
    let error = Program::compile("1 +\n  foo.bar", &Env::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ERROR: <input>:2:3: undeclared reference to 'foo' (in container '')\n |   foo.bar\n | ..^"
    );
    let error = Program::compile("'é' + 1", &Env::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ERROR: <input>:1:5: found no matching overload for '_+_' applied to '(string, int)'\n | 'é' + 1\n | .\u{ff0e}..^"
    );
}

#[test]
fn constructed_objects_are_checked() {
    let env = Env::new().variable("object", Type::Dyn).mutation();
    for (source, expected) in [
        ("Object{spec: Object.spec{replicas: 1}}", "Object"),
        ("[JSONPatch{op: 'add', path: '/a', value: 1}]", "list(JSONPatch)"),
        ("jsonpatch.escapeKey('a/b')", "string"),
    ] {
        assert_eq!(Program::compile(source, &env).unwrap().result_type().to_string(), expected, "{source}");
    }
    let error = Program::compile("JSONPatch{op: 1}", &env).unwrap_err();
    assert_eq!(error.issues[0].message, "expected type of field 'op' is 'string' but provided type is 'int'");
    let error = Program::compile("JSONPatch{nope: 1}", &env).unwrap_err();
    assert_eq!(error.issues[0].message, "undefined field 'nope'");
}
