use serde_json::{Value as Json, json};

use super::*;

fn schema(rules: &Json) -> Json {
    json!({"type": "object", "x-kubernetes-validations": rules, "properties": {
        "n": {"type": "integer"}, "s": {"type": "string"}, "namespace": {"type": "string"}, "d": {"type": "number"},
        "list": {"type": "array", "items": {"type": "string"}},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer",
                "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "Value is immutable"}]}}}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "wait": {"type": "string", "format": "duration"},
    }})
}

fn found(schema: &Json, object: &Json, old: Option<&Json>) -> Vec<String> {
    crate::validation::texts(|errors| validate(&Schema::parse(schema), object, old, errors))
}

fn object() -> Json {
    json!({"metadata": {"name": "a"}, "n": 3, "d": 2, "s": "Hello/World", "namespace": "ns", "list": ["a", "b", "a"],
        "ports": [{"name": "x", "port": 1}, {"name": "y", "port": 2}], "map": {"k": "v", "k-2": "w"}, "wait": "90s"})
}

#[test]
fn expressions_have_the_values_of_the_language() {
    for rule in [
        "true",
        "self.n == 3 && self.n < 4 && self.n + 1 == 4 && self.n * 2 == 6 && self.n / 2 == 1 && self.n % 2 == 1",
        "self.d == 2.0 && self.d + 0.5 == 2.5",
        "self.n == 3.0 && 3u == self.n",
        "-self.n == -3 && 0x10 == 16 && 1e3 == 1000.0",
        "self.metadata.name == 'a'",
        "self.__namespace__ == 'ns' && has(self.__namespace__)",
        "!has(self.missing) || true",
        "has(self.s) && !has(self.map.zz) && has(self.map.k)",
        "self.list.size() == 3 && size(self.list) == 3 && size(self.s) == 11",
        "'a' in self.list && !('z' in self.list) && 'k' in self.map",
        "self.list.all(x, x in ['a', 'b']) && self.list.exists(x, x == 'b') && self.list.exists_one(x, x == 'b')",
        "!self.list.exists_one(x, x == 'a')",
        "self.list.filter(x, x == 'a').size() == 2 && self.list.map(x, x + '!') == ['a!', 'b!', 'a!']",
        "self.list.map(x, x == 'a', x + x) == ['aa', 'aa']",
        "self.map.all(k, k.startsWith('k')) && self.map['k-2'] == 'w'",
        "self.map.all(k, v, k != v) && self.list.exists(i, v, i == 1 && v == 'b')",
        "self.ports.map(p, p.port).sum() == 3 && self.ports.all(p, p.port > 0)",
        "self.s.split('/')[0] == 'Hello' && self.s.substring(2, 4) == 'll' && self.s.lowerAscii() == 'hello/world'",
        "self.s.matches('^H.*d$') && self.s.contains('/') && self.s.endsWith('World') && self.s.indexOf('o') == 4",
        "self.s.replace('l', 'L') == 'HeLLo/WorLd' && ' x '.trim() == 'x' && ['a', 'b'].join('-') == 'a-b'",
        "'a.b'.matches(r'^a\\.b$') && 'a.b'.matches(r\"\"\"^(?i)A\\.B$\"\"\") && \"\\x41\\u0042\" == 'AB'",
        "self.wait == duration('1m30s') && duration('1h') > self.wait && self.wait.getSeconds() == 90",
        "timestamp('2026-01-01T00:00:00Z').getFullYear() == 2026 && timestamp('2026-01-01T00:00:00Z') < timestamp('2026-01-02T00:00:00Z')",
        "isIP('::1') && !isIP('1.2.3') && ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.2.3.4')",
        "isCIDR('fd00::/8') && !isCIDR('fd00::/129') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && isQuantity('5m') && !isQuantity('x')",
        "isURL('https://a.example:8443/p?q=1') && url('https://a.example:8443/p').getPort() == '8443'",
        "format.dns1123Label().validate('a-b') == null && format.dns1123Label().validate('A_b').hasValue()",
        "self.?missing.orValue(7) == 7 && self.?n.orValue(7) == 3 && optional.none().or(optional.of(1)).value() == 1",
        "self.?n.optMap(x, x + 1).orValue(0) == 4 && self.map[?'zz'].hasValue() == false",
        "[1, 2, 3].isSorted() && [3, 1].min() == 1 && ['a', 'b'].indexOf('b') == 1 && sets.contains([1, 2], [2])",
        "int('7') == 7 && string(7) == '7' && double(2) == 2.0 && type(1) == int && bool('true')",
        // One side decides although the other has no value.
        "true || self.map['none'] == 'x'",
        "!(self.map['none'] == 'x' && false)",
        "self.n > 2 ? self.s != '' : self.map['none'] == 'x'",
        "// a comment\n self.n == 3",
    ] {
        let schema = schema(&json!([{"rule": rule}]));
        assert!(super::check(rule, &Schema::parse(&schema), true).is_ok() || rule.contains("missing"), "{rule}");
        assert_eq!(found(&schema, &object(), None), Vec::<String>::new(), "{rule}");
    }
}

#[test]
fn what_does_not_hold_is_told_as_upstream_tells_it() {
    let cases = [
        (json!({"rule": "self.n > 5"}), "<nil>: Invalid value: \"object\": failed rule: self.n > 5"),
        (json!({"rule": "self.n > 5", "message": "n is small"}), "<nil>: Invalid value: \"object\": n is small"),
        (
            json!({"rule": "self.n > 5", "messageExpression": "'n is ' + string(self.n)"}),
            "<nil>: Invalid value: \"object\": n is 3",
        ),
        (
            json!({"rule": "false", "reason": "FieldValueForbidden", "message": "no", "fieldPath": ".n"}),
            "n: Forbidden: no",
        ),
        (json!({"rule": "false", "reason": "FieldValueRequired", "message": "yes"}), "<nil>: Required value: yes"),
        (
            json!({"rule": "self.map['none'] == ''"}),
            "<nil>: Invalid value: \"object\": no such key: none evaluating rule: self.map['none'] == ''",
        ),
        (
            json!({"rule": "self.list[9] == ''", "message": "ninth"}),
            "<nil>: Invalid value: \"object\": index out of bounds: 9 evaluating rule: ninth",
        ),
        (
            json!({"rule": "1 / (self.n - 3) == 1"}),
            "<nil>: Invalid value: \"object\": division by zero evaluating rule: 1 / (self.n - 3) == 1",
        ),
        (
            json!({"rule": "9223372036854775807 + self.n > 0"}),
            "<nil>: Invalid value: \"object\": integer overflow evaluating rule: 9223372036854775807 + self.n > 0",
        ),
    ];
    for (rule, wanted) in cases {
        assert_eq!(found(&schema(&json!([rule])), &object(), None), [wanted], "{rule}");
    }
}

#[test]
fn rules_about_changes_run_on_changes_and_others_where_something_changed() {
    let rules = json!([{"rule": "self.n >= oldSelf.n", "message": "n may not shrink"}, {"rule": "self.s != 'bad'", "message": "bad"}]);
    let schema = schema(&rules);
    let with = |n: i64, s: &str, port: i64| {
        let mut object = object();
        (object["n"], object["s"], object["ports"][1]["port"]) = (n.into(), s.into(), port.into());
        object
    };
    assert_eq!(found(&schema, &with(1, "good", 2), None), Vec::<String>::new());
    let shrunk = found(&schema, &with(1, "good", 2), Some(&with(2, "good", 2)));
    assert_eq!(shrunk, ["<nil>: Invalid value: \"object\": n may not shrink"]);
    // What was wrong before and is as it was is not held against a write.
    assert_eq!(found(&schema, &with(1, "bad", 2), Some(&with(1, "bad", 2))), Vec::<String>::new());
    // Items of keyed lists have an old value, whatever their place.
    let mut moved = with(1, "good", 3);
    moved["ports"].as_array_mut().expect("ports").reverse();
    let found = found(&schema, &moved, Some(&with(1, "good", 2)));
    assert_eq!(found, ["ports[0].port: Invalid value: \"integer\": Value is immutable"]);
}

#[test]
fn an_optional_old_value_is_looked_at_on_creation_as_well() {
    let rule = json!([{"rule": "!oldSelf.hasValue() || oldSelf.value().n == self.n", "optionalOldSelf": true, "message": "fixed"}]);
    let (schema, mut changed) = (schema(&rule), object());
    changed["n"] = 4.into();
    assert_eq!(found(&schema, &object(), None), Vec::<String>::new());
    assert_eq!(found(&schema, &changed, Some(&object())), ["<nil>: Invalid value: \"object\": fixed"]);
}

#[test]
fn what_cannot_be_a_rule_is_refused() {
    let schema = Schema::parse(&schema(&json!([])));
    for (rule, why) in [
        ("self.n >", "Syntax error: mismatched input '<EOF>' expecting an expression"),
        ("self.n > 1 1", "Syntax error"),
        ("self.n = 1", "Syntax error"),
        ("'abc", "unterminated string literal"),
        ("self.s.matches('(')", "error parsing regexp"),
        ("self.zzz == 1", "undefined field 'zzz'"),
        ("self.ports.all(p, p.zzz == 1)", "undefined field 'zzz'"),
        ("other == 1", "undeclared reference to 'other'"),
        ("self.s.frobnicate()", "undeclared reference to 'frobnicate'"),
        ("frobnicate(self)", "undeclared reference to 'frobnicate'"),
        ("self.s.x == 1", "type 'string' does not support field selection"),
        ("1", "cel expression must evaluate to a bool"),
        ("has(self)", "invalid argument to has() macro"),
    ] {
        let error = check(rule, &schema, true).expect_err(rule);
        assert!(error.contains(why), "{rule}: {error}");
    }
    for deep in [
        format!("{}true{}", "(".repeat(5000), ")".repeat(5000)),
        format!("{}true", "!".repeat(5000)),
        format!("self{}", ".x".repeat(5000)),
        format!("1{} > 0", " + 1".repeat(5000)),
        "[".repeat(90_000),
    ] {
        assert!(check(&deep, &schema, true).is_err());
    }
    let wide = vec!["self.n == 3"; 5000].join(" && ");
    assert!(check(&wide, &schema, true).is_ok());
}

#[test]
fn a_rule_that_costs_too_much_is_given_up() {
    let list: Vec<String> = (0..400).map(|at| at.to_string()).collect();
    let mut big = object();
    big["list"] = json!(list);
    let rule = "self.list.all(a, self.list.all(b, self.list.all(c, a + b + c != '')))";
    let found = found(&schema(&json!([{"rule": rule, "message": "cubic"}, {"rule": "false"}])), &big, None);
    let wanted = "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to \
                  call cost exceeds limit for rule: cubic";
    assert_eq!(found, [format!("<nil>: Invalid value: \"object\": {wanted}")]);
}

#[test]
fn an_object_that_does_not_fit_its_schema_is_not_asked_for_more() {
    let schema = Schema::parse(&schema(&json!([{"rule": "false"}])));
    let found = crate::validation::texts(|errors| {
        errors.required(&Path::new("n"), "");
        validate(&schema, &json!({}), None, errors);
    });
    assert_eq!(found, ["n: Required value".to_owned(), format!("<nil>: Invalid value: null: {BLOCKED}")]);
}
