//! Documents that were written to do harm.

/// Fragments of which each spreads the next one twice.
fn bomb(levels: usize) -> String {
    let fragments: String =
        (0..levels).map(|n| format!("fragment f{n} on Query {{ ...f{m} ...f{m} }} ", m = n + 1)).collect();
    format!("{{ ...f0 }} {fragments} fragment f{levels} on Query {{ viewer {{ role }} }}")
}

pub fn attacks() -> Vec<(&'static str, String)> {
    let nested = |open: &str, levels: usize| open.repeat(levels);
    let mut attacks = vec![
        ("31 levels of fragments", bomb(31)),
        ("300 levels of fragments", bomb(300)),
        ("a fragment in itself", "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }".into()),
        ("aliases", format!("{{ {} }}", (0..101).map(|n| format!("a{n}: __typename ")).collect::<String>())),
        ("10,000 aliases", format!("{{ {} }}", (0..10_000).map(|n| format!("a{n}: __typename ")).collect::<String>())),
        ("one field 600 times", format!("{{ {} }}", "__typename ".repeat(600))),
        ("one field 20,000 times", format!("{{ {} }}", "__typename ".repeat(20_000))),
        ("10,000 directives", format!("{{ viewer {} {{ role }} }}", "@skip(if: false) ".repeat(10_000))),
        ("unknown fields", format!("{{ {} }}", (0..5000).map(|n| format!("x{n} ")).collect::<String>())),
        ("a long line", format!("{{ {} }}", "x".repeat(20_000))),
        ("the same mutation twice", "mutation { createCustomer(input: {externalCustomerId: \"1\", data: {email: \"a@example.com\"}}) { outcome } \
          createCustomer(input: {externalCustomerId: \"1\", data: {email: \"a@example.com\"}}) { replayed } }".into()),
        ("the same mutation twice by a fragment", "mutation { ...f createCustomer(input: {externalCustomerId: \"1\", data: {email: \"a@example.com\"}}) { outcome } } \
          fragment f on Mutation { createCustomer(input: {externalCustomerId: \"1\", data: {email: \"a@example.com\"}}) { replayed } }".into()),
        ("six mutations", format!("mutation {{ {} }}", (0..6).map(|n| format!("a{n}: createCustomer(input: {{externalCustomerId: \"{n}\", data: {{email: \"{n}@example.com\"}}}}) {{ outcome }} ")).collect::<String>())),
        ("a null byte", "{ viewer \0 { role } }".into()),
        ("30 directives", format!("{{ viewer {} {{ role }} }}", "@skip(if: false) ".repeat(30))),
        ("an introspection in circles", "{ __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }".into()),
        ("lists of lists", "{ operators(first: 100) { edges { node { customers(first: 100) { edges { node { operators(first: 100) { edges { cursor } } } } } } } } }".into()),
        ("a field 20 levels deep", format!("{{ operator {} id {} }}", "{ customers { edges { node { operators { edges { node ".repeat(4), "} } } } } } ".repeat(4))),
    ];
    for levels in [430, 3000, 20_000] {
        attacks.extend([
            ("nested lists", format!("{{ viewer(x: {}1{}) {{ role }} }}", nested("[", levels), "]".repeat(levels))),
            ("nested objects", format!("{{ viewer(x: {}1{}) {{ role }} }}", nested("{a:", levels), "}".repeat(levels))),
            ("nested default values", format!("query ($x: Int = {}) {{ viewer {{ role }} }}", nested("[", levels))),
            ("nested arguments of directives", format!("{{ viewer @x(y: {}) {{ role }} }}", nested("[", levels))),
            (
                "nested lists after a string without an end",
                format!("{{a(x:[\"\"\"\"{}{}])}}", nested("[", levels), "]".repeat(levels)),
            ),
            (
                "nested lists within a string without an end",
                format!("{{a(x:[\"\"\"[[[\" {}{}])}}", nested("[", levels), "]".repeat(levels)),
            ),
            ("nested selections", nested("{ a ", levels)),
            ("nested types of variables", format!("query ($x: {}Int) {{ viewer {{ role }} }}", nested("[", levels))),
        ]);
    }
    attacks
}
