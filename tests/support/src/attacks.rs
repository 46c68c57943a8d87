//! Malicious GraphQL documents: deep nesting, many aliases, fragments that multiply, and unterminated strings.

/// A document in which each fragment spreads the next fragment twice, so that each level doubles the size.
fn fragment_bomb(levels: usize) -> String {
    let fragments: String =
        (0..levels).map(|n| format!("fragment f{n} on Query {{ ...f{m} ...f{m} }} ", m = n + 1)).collect();
    format!("{{ ...f0 }} {fragments} fragment f{levels} on Query {{ viewer {{ role }} }}")
}

/// A document with 43,400 lists of customers that have the given arguments, if the caller has 100 customers.
fn lists_without_fields(arguments: &str) -> String {
    let lists: String = (0..31).map(|n| format!("a{n}: customers({arguments}) {{ __typename }} ")).collect();
    let lists = lists.replacen("a30: ", "", 1);
    format!(
        "{{ customers(first: 100) {{ nodes {{ operators(first: 1) {{ nodes {{ customers(first: 14) {{ nodes {{ \
         operators(first: 1) {{ nodes {{ {lists} }} }} }} }} }} }} }} }} }}"
    )
}

/// The documents. Each comes after its description, and a part of the message with which it is rejected.
pub fn attacks() -> Vec<(&'static str, &'static str, String)> {
    let repeat = |text: &str, times: usize| text.repeat(times);
    let numbered = |count: usize, field: &dyn Fn(usize) -> String| (0..count).map(field).collect::<String>();
    let create = |id: usize| {
        format!("createCustomer(input: {{externalCustomerId: \"{id}\", data: {{email: \"{id}@example.com\"}}}})")
    };
    let (first, second) = (format!("{} {{ outcome }}", create(1)), format!("{} {{ outcome }}", create(2)));
    let skip = "@skip(if: false) ";
    let (open, close) = ("{ customers(first: 1) { edges { node { operators(first: 1) { edges { node ", "} } } } } } ");
    let mut attacks = vec![
        ("31 levels of fragments", "more than 500 fields and fragments", fragment_bomb(31)),
        ("300 levels of fragments", "more than 1500 tokens", fragment_bomb(300)),
        (
            "a fragment in itself",
            "contains itself",
            "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }".into(),
        ),
        ("aliases", "more than 30 aliases", format!("{{ {} }}", numbered(101, &|n| format!("a{n}: __typename ")))),
        (
            "10,000 aliases",
            "longer than 64 KiB",
            format!("{{ {} }}", numbered(10_000, &|n| format!("a{n}: __typename "))),
        ),
        ("a long alias", "a name longer than 100 characters", format!("{{ viewer {{ {}: role }} }}", repeat("x", 101))),
        ("one field 600 times", "more than 500 fields and fragments", format!("{{ {} }}", repeat("__typename ", 600))),
        ("one field 20,000 times", "longer than 64 KiB", format!("{{ {} }}", repeat("__typename ", 20_000))),
        ("10,000 directives", "longer than 64 KiB", format!("{{ viewer {} {{ role }} }}", repeat(skip, 10_000))),
        ("unknown fields", "longer than 16 KiB", format!("{{ {} }}", numbered(5000, &|n| format!("x{n} ")))),
        ("a long line", "longer than 16 KiB", format!("{{ {} }}", repeat("x", 20_000))),
        ("two mutations with one key", "Different fields", format!("mutation {{ {first} {second} }}")),
        (
            "two mutations with one key, by a fragment",
            "Different fields",
            format!("mutation {{ ...f {first} }} fragment f on Mutation {{ {second} }}"),
        ),
        (
            "six mutations",
            "more than 5 root fields",
            format!("mutation {{ {} }}", numbered(6, &|n| format!("a{n}: {} {{ outcome }} ", create(n)))),
        ),
        ("fields of several types, 29 times nested", "Unknown field", {
            let level = "... on Customer { a } ... on Operator { a } ... on Erasure { a } a { ";
            format!("{{ z {{ {} b {} }} }}", repeat(level, 29), repeat("}", 29))
        }),
        ("fields of a field without fields, 14 times nested", "must not have a selection", {
            let types = "... on Customer { id } ... on Operator { id } ... on Erasure { id } ... on Webhook { id } ";
            let (open, close) = (format!("{types} ... on Node {{ id {{ "), "} } ");
            format!("{{ node(id: \"x\") {{ {} __typename {} }} }}", repeat(&open, 14), repeat(close, 14))
        }),
        ("unknown fields of an interface, 14 times nested", "Unknown field", {
            let types = "... on Customer { a } ... on Operator { a } ... on Erasure { a } ... on Webhook { a } ";
            let (open, close) = (format!("{types} ... on Node {{ a {{ "), "} } ");
            format!("{{ node(id: \"x\") {{ {} __typename {} }} }}", repeat(&open, 14), repeat(close, 14))
        }),
        ("470 unknown fields with long names", "Unknown field", {
            let roots = numbered(10, &|n| format!("r{n}: webhooks {{ nodes {{ ...F }} }} "));
            let fields = numbered(47, &|n| format!("{}{n} ", repeat("x", 97)));
            format!("{{ {roots} }} fragment F on Webhook {{ {fields} }}")
        }),
        ("488 unknown fields in two operations", "Unknown field", {
            let operations = numbered(2, &|n| format!("query Q{n} {{ a {{ ...F }} }} "));
            format!("{operations} fragment F on T {{ {} }}", numbered(488, &|n| format!("x{n} ")))
        }),
        ("488 fields in ten operations", "The operations have more than 1000 fields", {
            let operations = numbered(10, &|n| format!("query Q{n} {{ a {{ ...F }} }} "));
            format!("{operations} fragment F on T {{ {} }}", numbered(488, &|n| format!("x{n} ")))
        }),
        ("millions of conflicts", "Different fields have the response key", {
            let (arguments, levels) = (numbered(386, &|n| format!("a{n}: 1 ")), 28);
            let open: String = (0..levels).map(|n| format!("... on {} {{ ", ["A", "B"][n % 2])).collect();
            let fields = numbered(21, &|n| format!("x(b: {n}) "));
            let spreads = repeat("...F ", 21);
            format!(
                "{{ u {{ {open} ... on C {{ x({arguments}) }} {spreads} {} }} }} fragment F on C {{ {fields} }}",
                repeat("}", levels)
            )
        }),
        ("conflicts in introspection", "Different fields have the response key", {
            let open = repeat("... on __Field { ... on __Type { ", 14);
            let fields = numbered(200, &|n| format!("x(b: {n}) "));
            format!("{{ __type(name: \"A\") {{ {open} x {fields} {} }} }}", repeat("} }", 14))
        }),
        (
            "a directive of a fragment",
            "A fragment definition has a directive",
            "{ viewer { ...F } } fragment F on Viewer @skip(if: false) { role }".into(),
        ),
        (
            "four aliases of a name",
            "more than 3 aliases of `__typename`",
            "{ a: __typename b: __typename c: __typename d: __typename }".into(),
        ),
        (
            "an argument of a directive that a missing variable would remove",
            "Unknown argument",
            "query ($x: Int) { viewer { role @include(if: true, foo: $x) } }".into(),
        ),
        ("fields of a name", "has no arguments and no fields", "{ viewer { __typename { x } } }".into()),
        ("arguments of a name", "has no arguments and no fields", "{ viewer { __typename(a: 1) } }".into()),
        ("a list that fragments copy", "more than 2000 values in arguments", {
            let (spreads, list) = (repeat("...F ", 240), repeat("1 ", 900));
            let fragments =
                format!("fragment G on Customer {{ {spreads} }} fragment F on Operator {{ a(x: [{list}]) }}");
            format!("{} {fragments}", numbered(10, &|n| format!("query Q{n} {{ q {{ ...G }} }} ")))
        }),
        ("a variable of an unknown type", "Unknown input type", "query ($a: [Foo] = [1]) { viewer { role } }".into()),
        ("440 nested sets in fragments", "more than 32 levels of fields and fragments", {
            let (open, close) = (repeat("a { ", 36), repeat("} ", 36));
            let fragments = numbered(11, &|n| format!("fragment F{n} on T {{ {open} ...F{} {close} }} ", n + 1));
            format!("{{ a {{ ...F0 }} }} {fragments} fragment F11 on T {{ a }}")
        }),
        ("a null byte", "Syntax error", "{ viewer \0 { role } }".into()),
        (
            "30 directives",
            "more than 20 directives",
            format!("{{ viewer {{ {} }} }}", repeat(&format!("role {skip}"), 30)),
        ),
        (
            "one directive 15 times",
            "A directive is repeated at the same place",
            format!("{{ viewer {} {{ role }} }}", repeat(skip, 15)),
        ),
        (
            "one argument 300 times",
            "has the same argument twice",
            format!("{{ customers({}) {{ totalCount }} }}", repeat("first: 1 ", 300)),
        ),
        (
            "an introspection in cycles",
            "more than 3 levels of types",
            "{ __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }"
                .into(),
        ),
        (
            "lists of lists",
            "more than 50000 fields",
            "{ operators(first: 100) { edges { node { customers(first: 100) { edges { node { operators(first: 100) { \
             edges { cursor } } } } } } } } }"
                .into(),
        ),
        (
            "lists of lists by nodes",
            "more than 50000 fields",
            "{ operators(first: 100) { nodes { customers(first: 100) { nodes { operators(first: 100) { \
             nodes { id } } } } } } }"
                .into(),
        ),
        // Each of these lists reads a page, or has an error, although the response repeats only a name.
        ("lists of lists without fields", "more than 50000 fields", lists_without_fields("first: 100")),
        ("lists of lists with errors", "more than 50000 fields", lists_without_fields("first: 0")),
        (
            "a field 20 levels deep",
            "more than 15 levels of fields",
            format!("{{ operator {} {{ id }} {} }}", repeat(open, 3), repeat(close, 3)),
        ),
    ];
    for levels in [430, 3000, 20_000] {
        let limit = |other| if levels == 20_000 { "is longer than" } else { other };
        attacks.extend([
            (
                "nested lists",
                limit("more than 40 levels of brackets"),
                format!("{{ viewer(x: {}1{}) {{ role }} }}", repeat("[", levels), repeat("]", levels)),
            ),
            (
                "nested objects",
                limit("more than 40 levels of brackets"),
                format!("{{ viewer(x: {}1{}) {{ role }} }}", repeat("{a:", levels), repeat("}", levels)),
            ),
            (
                "nested default values",
                limit("more than 40 levels of brackets"),
                format!("query ($x: Int = {}) {{ viewer {{ role }} }}", repeat("[", levels)),
            ),
            (
                "nested arguments of directives",
                limit("more than 40 levels of brackets"),
                format!("{{ viewer @x(y: {}) {{ role }} }}", repeat("[", levels)),
            ),
            (
                "nested lists after a string without an end",
                limit("an unterminated string"),
                format!("{{a(x:[\"\"\"\"{}{}])}}", repeat("[", levels), repeat("]", levels)),
            ),
            (
                "nested lists within a string without an end",
                limit("an unterminated string"),
                format!("{{a(x:[\"\"\"[[[\" {}{}])}}", repeat("[", levels), repeat("]", levels)),
            ),
            ("nested selections", limit("more than 40 levels of brackets"), repeat("{ a ", levels)),
            (
                "nested types of variables",
                limit("more than 40 levels of brackets"),
                format!("query ($x: {}Int) {{ viewer {{ role }} }}", repeat("[", levels)),
            ),
        ]);
    }
    attacks
}
