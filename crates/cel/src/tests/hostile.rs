use super::run;
use crate::{Activation, Budget, Env, EvalError, Program};

/// Runs on a stack as small as those of the server's threads.
fn small(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(test).unwrap().join().unwrap();
}

#[test]
fn depth_is_bounded() {
    small(|| {
        for (open, middle, close) in [
            ("(", "1", ")"),
            ("[", "1", "]"),
            ("!(", "true", ")"),
            ("{'a': ", "1", "}"),
            ("true ? (", "1", ") : 1"),
            ("[1].all(x, ", "true", ")"),
            ("[1].map(x, ", "x", ")"),
            ("-(", "1", ")"),
            ("size([", "1", "])"),
        ] {
            for depth in [40, 82, 124, 200, 249, 260, 5000] {
                let _ = run(&format!("{}{middle}{}", open.repeat(depth), close.repeat(depth)));
            }
        }
        for (first, again) in [
            ("1", " + 1"),
            ("'a'", ".size()"),
            ("{}", ".a"),
            ("[1]", "[0]"),
            ("true", " && true"),
            ("1", " < 1"),
            ("'a'", ".optMap(a, a)"),
        ] {
            for times in [100, 240, 260, 20_000] {
                let _ = run(&format!("{first}{}", again.repeat(times)));
            }
        }
        let text = run(&format!("{}1{}", "(".repeat(300), ")".repeat(300))).to_string();
        assert!(text.contains("expression recursion limit exceeded: 250"), "{text}");
    });
}

#[test]
fn odd_sources_do_no_harm() {
    for source in [
        "",
        " ",
        "\u{0}",
        "'",
        "\"\"\"",
        "r'",
        "b'\\x'",
        "'\\",
        "0x",
        "1e",
        "1e999",
        "-",
        "- -1",
        "--1",
        "!",
        "a.",
        ".a",
        ".",
        "..",
        "a..b",
        "a[",
        "a[]",
        "{",
        "{1}",
        "{1:}",
        "[?",
        "[?1]",
        "x{",
        "a.b{c:",
        "has(",
        "has()",
        "has(1)",
        "[].all()",
        "[].all(1, 2)",
        "[].map(x)",
        "1 ? 2",
        "1 ? 2 :",
        "é",
        "'é",
        "\u{feff}1",
        "a ? b : c ? d : e",
        "in",
        "1 in",
        "true in true",
        "cel.bind(x, 1, x)",
        "@result",
        "_",
        "__x__",
        "\\",
        "`a`",
        "$",
        "'\\ud800'",
        "'\\U00110000'",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616u",
        "1.8e308",
        "int(1e300)",
        "uint(-1.0)",
        "-9223372036854775808 / -1",
        "-(-9223372036854775807 - 1)",
        "[1][-1]",
        "[1][9223372036854775807]",
        "'a'.charAt(-1)",
        "'a'.substring(-1)",
        "'a'.indexOf('a', -1)",
        "'ä'.lastIndexOf('', 1)",
        "''.indexOf('', 0)",
        "'ää'.lastIndexOf('ä', 0)",
        "'a'.split('a', -1)",
        "'%'.format([])",
        "'%.99999999999999999999f'.format([1.0])",
        "'%.5000f'.format([1.0])",
        "'%z'.format([1])",
        "duration('9999999999999999h')",
        "timestamp('0000-01-01T00:00:00Z')",
        "timestamp('9999-12-31T23:59:59Z') + duration('1s')",
        "timestamp(9223372036854775807)",
        "timestamp('2024-01-01T00:00:00Z').getHours('nowhere/at-all')",
        "timestamp('2024-01-01T00:00:00Z').getHours('99:99')",
        "lists.range(9223372036854775807)",
        "[[]].flatten(9223372036854775807)",
        "quantity('1e99999')",
        "cidr('1.2.3.4/99')",
        "ip('1.2.3.4.5')",
        "url('%')",
        "semver('')",
        "{1: 2}[1.0]",
        "{1.0: 2}",
        "{[]: 1}",
        "{null: 1}",
        "double('nan') == double('nan')",
        "[double('nan')].sort()",
    ] {
        let _ = run(source);
    }
}

#[test]
fn every_prefix_and_hole_of_an_expression_is_taken() {
    let source = "object.rows.all(r, r.k.matches('^[a-z]+$') && (r.v > 1 ? true : !has(r['x'])) || {'a': [1u, 2.5e3, b'x']}.size() == -1)";
    for i in 0..source.len() {
        let _ = run(&source[..i]);
        let _ = run(&format!("{}{}", &source[..i], &source[i + 1..]));
        for c in ["(", ")", "'", ".", "?", "[", "0", "\u{1f600}"] {
            let _ = run(&format!("{}{c}{}", &source[..i], &source[i..]));
        }
    }
}

#[test]
fn costs_end_what_takes_long() {
    let cut = |source: &str| {
        let program = Program::compile(source, &Env::new()).unwrap();
        program.eval(&Activation::new(), &mut Budget::default()).unwrap_err()
    };
    let big = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]";
    let nested = (0..7).fold("true".to_owned(), |inner, i| format!("{big}.all(x{i}, {inner})"));
    assert_eq!(cut(&nested), EvalError::CostLimit);
    // What is absorbed by `||` is no end for cost.
    assert_eq!(cut(&format!("{nested} || true")), EvalError::CostLimit);
    let doubled = (0..40).fold("'aaaaaaaaaa'".to_owned(), |inner, _| format!("{inner}.replace('a', 'aa')"));
    assert_eq!(cut(&doubled), EvalError::CostLimit);
    assert_eq!(cut("lists.range(1000000).map(x, x).size()"), EvalError::CostLimit);
    assert_eq!(EvalError::CostLimit.to_string(), "operation cancelled: actual cost limit exceeded");
}

#[test]
fn regular_expressions_are_bounded() {
    let text = run("'a'.find('(((a{1,1000}){1,1000}){1,1000})')").to_string();
    assert!(text.contains("error parsing regexp"), "{text}");
    assert!(run("'a'.matches('((((a{100}){100}){100}){100})')").to_string().contains("invalid matches argument"));
}
