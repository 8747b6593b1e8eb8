//! Costs are upstream's, to the last unit: its stability tests fix them for the same shapes of expressions.

use serde_json::{Value as Json, json};

use super::run_typed;
use crate::{DeclType, Env, Program};

fn schema() -> Json {
    let text = json!({"type": "string"});
    let ints = json!({"type": "array", "items": {"type": "integer"}});
    json!({"type": "object", "properties": {
        "s": text, "t": text, "n": {"type": "integer"}, "short": {"type": "string", "maxLength": 10},
        "ints": ints, "few": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 10}},
        "m": {"type": "object", "additionalProperties": {"type": "integer"}},
        "o": {"type": "object", "properties": {"x": text}}}})
}

fn value() -> Json {
    json!({"s": "Rook takes 👑", "t": "Rook takes 👑", "n": 5, "short": "abc", "ints": [1, 2, 3, 4, 5, 6, 7, 8],
        "few": ["a", "b"], "m": {"b": 1, "d": 2}, "o": {"x": "y"}})
}

#[test]
fn evaluation_costs_what_it_costs_upstream() {
    for (source, cost) in [
        ("self.n == 5", 3),
        ("self.n + 1 == 6", 4),
        ("type(self.n) == int", 4),
        ("5 < int(10.0)", 1),
        ("double(self.n) < 10.0", 4),
        ("self.s == self.t", 6),
        ("self.s.startsWith('Rook')", 4),
        ("self.s.matches('^[^0-9]*$')", 8),
        ("size(self.s) == 12", 4),
        ("self.s.replace(' ', 'x') == 'Rookxtakesx👑'", 7),
        ("self.s.split(' ') == ['Rook', 'takes', '👑']", 6),
        ("self.s.lowerAscii() == self.s.lowerAscii()", 10),
        ("self.s in ['a', 'b']", 2),
        ("1 in self.ints", 10),
        ("self.ints.all(e, e > 0)", 43),
        ("self.ints.exists(e, e > 2)", 24),
        ("self.ints[0] == 1", 4),
        ("has(self.n)", 1),
        ("has(self.o.x)", 2),
        ("!has(self.o.x)", 3),
        ("has(self.n) && has(self.o)", 2),
        ("self.m.all(k, self.m[k] > 0)", 17),
        ("self.m.all(k, v, v > 0)", 13),
        ("self.m.exists_one(k, self.m[k] == 2)", 14),
        ("size(self.m.filter(k, self.m[k] > 1)) == 1", 26),
        ("self.m.transformMap(k, v, v > 1, v + 1).size() == 1", 14),
        ("'b' in self.m", 3),
        ("duration('1h') + duration('1m') == duration('61m')", 2),
        ("sets.contains(self.ints, [1])", 2 + 1 + 8),
    ] {
        assert_eq!(run_typed(&schema(), &value(), source).1, cost, "{source}");
    }
}

#[test]
fn estimates_are_upstreams() {
    let decl = DeclType::from_json_schema(&schema(), false).unwrap();
    let env = Env::new().variable("self", decl.cel_type());
    let max = |source: &str| Program::compile(source, &env).unwrap().estimate(Some(&decl)).max;
    // Text that nothing bounds is as long as a request: 3 MiB without its quotes, a tenth of a unit for each character.
    assert_eq!(max("isQuantity(self.s)"), 314_575);
    assert_eq!(max("self.s == self.t"), 4 + 314_573);
    // Lengths are in characters of up to four bytes.
    assert_eq!(max("self.short == self.s"), 4 + 4);
    assert_eq!(max("self.few.all(x, x == 'abc')"), 3 + 5 * (2 + 1 + 1 + 1));
    assert_eq!(max("self.n == 1"), 2);
    assert_eq!(max("has(self.o.x)"), 2);
    assert_eq!(max("optional.of('a').hasValue()"), 2);
    assert_eq!(max("quantity('50k').isInteger()"), 2);
    assert!(max("self.s.matches(self.t)") > crate::PER_CRD_ESTIMATE);
}
