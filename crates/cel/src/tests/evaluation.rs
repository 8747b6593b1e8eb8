use serde_json::{Value as Json, json};

use super::{all_true, run, run_typed};

#[test]
fn the_language_holds() {
    all_true(&[
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "7 / 2 == 3 && -7 / 2 == -3 && 7 % 3 == 1",
        "dyn(1) == 1.0 && dyn(1u) == 1 && 1 < 1.5 && 2u > 1.5",
        "!false && !(true && false)",
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(1 / 0 == 1 && false)",
        "true ? true : 1 / 0 == 1",
        "'a' + 'b' == 'ab'",
        "b'ab' + b'c' == b'abc'",
        "[1] + [2] == [1, 2]",
        "1 in [1, 2] && !(3 in [1, 2])",
        "'a' in {'a': 1} && !('b' in {'a': 1})",
        "{'a': 1}.a == 1 && {'a': 1}['a'] == 1",
        "{1: 'x'}[dyn(1u)] == 'x' && {dyn(1): 'x', true: 'y'}[true] == 'y'",
        "[1, 2][1] == 2",
        "'\\u0041\\x42\\103' == 'ABC'",
        "r'\\d' == '\\\\d'",
        "'''a'b''' == \"a'b\"",
        "0x10 == 16 && 1e3 == 1000.0 && .5 == 0.5",
        "-9223372036854775808 < 0",
        "size('äb') == 2 && size([1, 2]) == 2 && size({'a': 1}) == 1 && size(b'abc') == 3",
        "'abc'.size() == 3",
        "type(1) == int && type('') == string && type([]) == list && type({}) == map && type(type(1)) == type",
        "type(null) == null_type && type(1.0) == double && type(1u) == uint && type(b'') == bytes",
        "int('3') == 3 && int(3.9) == 3 && double('1.5') == 1.5 && string(1) == '1' && string(true) == 'true'",
        "uint(3) == 3u && bool('true') && string(1.5) == '1.5' && bytes('a') == b'a'",
        "dyn(1) == 1",
        "timestamp('2024-01-02T03:04:05Z').getFullYear() == 2024",
        "timestamp('2024-01-02T03:04:05Z').getMonth() == 0 && timestamp('2024-01-02T03:04:05Z').getDate() == 2",
        "timestamp('2024-01-02T03:04:05Z').getHours('+02:00') == 5",
        "timestamp('2024-01-02T03:04:05Z') + duration('1h') == timestamp('2024-01-02T04:04:05Z')",
        "timestamp('2024-01-02T03:04:05Z') - timestamp('2024-01-02T03:04:00Z') == duration('5s')",
        "duration('1h30m').getMinutes() == 90 && string(duration('90s')) == '90s'",
        "string(timestamp('2024-01-02T03:04:05Z')) == '2024-01-02T03:04:05Z'",
        "duration('1.5s').getMilliseconds() == 1500",
        "null == null && object.nothing == null",
        "object.map['b-c'] == 2 && object.nested.deep.er == 'x'",
        "has(object.name) && !has(object.missing) && has(object.nested.deep)",
        "object.count == 3 && object.ratio == 0.5 && object.on",
        "1 == 1 // comment",
    ]);
}

#[test]
fn macros_hold() {
    all_true(&[
        "[1, 2, 3].all(x, x > 0) && ![1, 2].all(x, x > 1)",
        "[1, 2].exists(x, x == 2) && ![1].exists(x, x == 2)",
        "[1, 2].exists_one(x, x == 2) && ![2, 2].existsOne(x, x == 2)",
        "[1, 2].map(x, x * 2) == [2, 4] && [1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
        "[1, 2, 3].filter(x, x > 1) == [2, 3]",
        "{'a': 1, 'b': 2}.all(k, k in ['a', 'b'])",
        "{'a': 1}.map(k, k) == ['a']",
        "object.rows.all(r, r.v > 0) && object.rows.exists(r, r.k == 'b')",
        "[0, 1].exists(x, 1 / x == 1)",
        "![0, 2].all(x, 1 / x == 1)",
        "[[1, 2], [3]].all(l, l.all(x, x > 0))",
        "[1, 2].all(i, v, v == i + 1) && {'a': 1}.all(k, v, k == 'a' && v == 1)",
        "[1, 2].exists(i, v, i == 1 && v == 2) && [1, 2].existsOne(i, v, v == 1)",
        "[1, 2].transformList(i, v, i + v) == [1, 3] && [1, 2, 3].transformList(i, v, v > 1, v) == [2, 3]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && {'a': 1, 'b': 2}.transformMap(k, v, v > 1, v) == {'b': 2}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}",
        "optional.of(1).optMap(x, x + 1).value() == 2 && !optional.none().optMap(x, x).hasValue()",
        "optional.of(1).optFlatMap(x, optional.of(x)).value() == 1",
        "object.?name.orValue('d') == 'web' && object.?missing.orValue('d') == 'd'",
        "object.?nested.deep.?er.orValue('') == 'x' && !object.?nope.deep.er.hasValue()",
        "[1][?0].value() == 1 && ![1][?1].hasValue() && object[?'name'].hasValue()",
        "[?optional.of(1), ?optional.none()] == [1] && {?'a': optional.none()} == {}",
        "optional.none().or(optional.of(1)).value() == 1 && !optional.ofNonZeroValue('').hasValue()",
        "[1, 2].first().value() == 1 && [1, 2].last().value() == 2 && ![].first().hasValue()",
        "[3, 1, 2].sortBy(x, -x) == [3, 2, 1] && object.rows.sortBy(r, -r.v)[0].k == 'b'",
    ]);
}

#[test]
fn libraries_hold() {
    all_true(&[
        "'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo')",
        "'hello'.charAt(1) == 'e' && 'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3 && 'x'.indexOf('y') == -1",
        "'hello'.indexOf('l', 3) == 3 && 'hello mellow'.lastIndexOf('ello', 6) == 1",
        "'A-b'.lowerAscii() == 'a-b' && 'a'.upperAscii() == 'A' && ' a '.trim() == 'a'",
        "'aaa'.replace('a', 'b') == 'bbb' && 'aaa'.replace('a', 'b', 2) == 'bba'",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c'] && 'ab'.split('') == ['a', 'b']",
        "'hello'.substring(1) == 'ello' && 'hello'.substring(1, 3) == 'el'",
        "['a', 'b'].join('-') == 'a-b' && ['a', 'b'].join() == 'ab'",
        "'%s is %d, %.2f %x %b %o'.format(['a', 7, 1.5, 255, 5, 8]) == 'a is 7, 1.50 ff 101 10'",
        "'%s'.format([[1, 'a', true]]) == '[1, \"a\", true]' && '%s'.format([{'k': 1}]) == '{\"k\":1}'",
        "'%d%%'.format([5]) == '5%' && '%e'.format([1234.5]) == '1.234500×10⁰³' && '%.1f'.format([1234.5]) == '1,234.5' && '%X'.format([255]) == 'FF'",
        "strings.quote('a\\n') == '\"a\\\\n\"'",
        "'abc123'.matches('[a-z]+') && matches('a', '^a$') && !'b'.matches('^a$')",
        "'abc123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2'] && 'a1b2'.findAll('[0-9]', 1) == ['1']",
        "[1, 2, 3].isSorted() && !['b', 'a'].isSorted() && [1, 2].sum() == 3 && [1.5, 1.0].sum() == 2.5",
        "[1, 3, 2].max() == 3 && [1, 3, 2].min() == 1 && ['a', 'b'].max() == 'b'",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(5) == -1",
        "[1, 2, 3].slice(1, 3) == [2, 3] && [[1], [2]].flatten() == [1, 2] && [dyn(1), [dyn(2), [3]]].flatten(2) == [1, 2, 3]",
        "[3, 1].sort() == [1, 3] && [1, 2].reverse() == [2, 1] && [1, 1, 2].distinct() == [1, 2] && lists.range(3) == [0, 1, 2]",
        "sets.contains([1, 2], [1]) && sets.equivalent([1, 2, 1], [2, 1]) && sets.intersects([1], [1, 2])",
        "url('https://u@example.com:80/a%20b?x=1&x=2').getHost() == 'example.com:80'",
        "url('https://[::1]:80/').getHostname() == '::1' && url('https://[::1]:80/').getPort() == '80'",
        "url('https://e.com/p?x=1&x=2').getQuery()['x'] == ['1', '2'] && url('/a b').getEscapedPath() == '/a%20b'",
        "isURL('https://e.com') && !isURL('e.com') && isURL('/p') && url('http://e').getScheme() == 'http'",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('500m').isLessThan(quantity('1'))",
        "quantity('1k').asInteger() == 1000 && !quantity('1500m').isInteger() && quantity('50k').sign() == 1",
        "quantity('1').add(quantity('2')) == quantity('3') && quantity('5').sub(2) == quantity('3')",
        "quantity('1.5').asApproximateFloat() == 1.5 && isQuantity('1Mi') && !isQuantity('x') && quantity('2').compareTo(quantity('1')) == 1",
        "ip('10.0.0.1').family() == 4 && ip('::1').isLoopback() && isIP('::1') && !isIP('x') && string(ip('::0001')) == '::1'",
        "ip.isCanonical('10.0.0.1') && !ip.isCanonical('::0001') && ip('8.8.8.8').isGlobalUnicast() && !isIP('::ffff:1.2.3.4')",
        "ip('169.254.1.1').isLinkLocalUnicast() && ip('224.0.0.1').isLinkLocalMulticast() && ip('0.0.0.0').isUnspecified()",
        "cidr('10.0.0.0/8').containsIP('10.1.1.1') && cidr('10.0.0.0/8').containsIP(ip('10.1.1.1')) && isCIDR('10.0.0.0/8')",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.1.1/8').masked() == cidr('10.0.0.0/8')",
        "cidr('10.0.0.0/8').prefixLength() == 8 && cidr('10.0.0.1/8').ip() == ip('10.0.0.1') && type(ip('::1')) == net.IP",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.2.3-a').isLessThan(semver('1.2.3')) && !isSemver('v1.0')",
        "isSemver('v1.2', true) && semver('v01.2', true).major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3",
        "semver('1.0.0').compareTo(semver('1.0.0')) == 0 && semver('1.0.0+a') == semver('1.0.0+b')",
        "!format.dns1123Label().validate('my-name').hasValue() && format.dns1123Label().validate('My').hasValue()",
        "format.named('uuid').value().validate('x').value() == ['does not match the UUID format']",
        "!format.named('nope').hasValue() && !format.date().validate('2024-01-01').hasValue()",
        "!format.dns1123LabelPrefix().validate('my-').hasValue() && !format.uri().validate('http://e.com').hasValue()",
    ]);
}

#[test]
fn failures_have_upstreams_words() {
    for (source, expected) in [
        ("object.missing", "error: no such key: missing"),
        ("{'a': 1}['b']", "error: no such key: b"),
        ("[1][5]", "error: index out of bounds: 5"),
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("0u - 1u", "error: unsigned integer overflow"),
        ("object.name + 1", "error: no such overload"),
        ("[].max()", "error: max called on empty list"),
        (
            "quantity('x')",
            "error: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        ("'a'.substring(2)", "error: index out of range: 2"),
        ("{'a': 1, 'a': 2}", "error: Failed with repeated key a"),
        ("[1, 2].slice(2, 1)", "error: cannot slice(2, 1), start index must be less than or equal to end index"),
        ("optional.none().value()", "error: optional.none() dereference"),
    ] {
        assert_eq!(run(source), json!(expected), "{source}");
    }
}

#[test]
fn schemas_type_what_is_seen() {
    let schema = json!({"type": "object", "properties": {
        "at": {"type": "string", "format": "date-time"}, "day": {"type": "string", "format": "date"},
        "span": {"type": "string", "format": "duration"}, "raw": {"type": "string", "format": "byte"},
        "num": {"type": "number"}, "ios": {"x-kubernetes-int-or-string": true}, "a-b": {"type": "string"},
        "a__b": {"type": "string"}, "namespace": {"type": "string"}, "a.b/c": {"type": "string"},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "rows": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}}
    }});
    let value = json!({"at": "2024-01-02T03:04:05Z", "day": "2024-01-02", "span": "5m", "raw": "YWI=", "num": 3, "ios": "50%",
        "a-b": "x", "a__b": "y", "namespace": "z", "a.b/c": "w", "set": ["a", "b"],
        "rows": [{"k": "a", "v": 1}, {"k": "b", "v": 2}], "free": {"x": 1}, "labels": {"l-1": "v"}});
    for source in [
        "self.at.getFullYear() == 2024 && self.day.getDate() == 2 && self.span == duration('300s')",
        "self.raw == b'ab' && type(self.num) == double && self.num == 3.0",
        "type(self.ios) == string && self.ios.endsWith('%')",
        "self.a__dash__b == 'x' && self.a__underscores__b == 'y' && self.__namespace__ == 'z' && self.a__dot__b__slash__c == 'w'",
        "self.set == ['b', 'a'] && self.set + ['a', 'c'] == ['c', 'b', 'a']",
        "self.rows == [self.rows[1], self.rows[0]] && self.rows != [self.rows[0], self.rows[0]]",
        "(self.rows + self.rows).size() == 2",
        "has(self.free) && self.labels['l-1'] == 'v' && self.labels.all(k, k == 'l-1')",
    ] {
        assert_eq!(run_typed(&schema, &value, source).0, Json::Bool(true), "{source}");
    }
}
