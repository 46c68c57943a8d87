//! Limits on documents, and what a document costs.
//!
//! Each limit is checked before the work that it bounds. Length, tokens and nesting are checked before parsing, because the
//! parser is recursive and would overflow the stack. Selections are counted before validation, because async-graphql's
//! validation visits a fragment once per spread: 31 fragments that each spread the next one twice would be visited 2^31
//! times. Here each fragment is counted once.

use std::collections::{HashMap, HashSet};

use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, FragmentDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql::parser::{self, parse_query};
use async_graphql::{Name, Pos, Positioned};

/// Operations of GraphiQL, code generators and dashboards reach at most a tenth of each limit, except for the standard
/// introspection query: 1.6 KiB, 15 levels, 229 fields.
mod limits {
    pub const BYTES: usize = 16 * 1024;
    pub const TOKENS: usize = 1500;
    /// The parser overflows its stack at about 2,000.
    pub const NESTING: usize = 40;
    pub const OPERATIONS: usize = 10;
    pub const FRAGMENTS: usize = 50;
    /// Fields, fragment spreads and inline fragments of an operation, with all spreads expanded.
    pub const SELECTIONS: usize = 500;
    pub const ALIASES: usize = 30;
    pub const DIRECTIVES: usize = 20;
    /// Nesting of introspection fields that lead from a type to other types. The standard query has 1.
    pub const INTROSPECTION_DEPTH: usize = 3;
    pub const QUERY_ROOT_FIELDS: usize = 10;
    pub const MUTATION_ROOT_FIELDS: usize = 5;
}

/// Names of operations are logged up to this length.
const MAX_LOGGED_NAME: usize = 64;

/// Why a document, or a document with its variables, is rejected. The message holds no value of a variable.
#[derive(Debug, PartialEq, Eq)]
pub struct DocumentError {
    pub message: String,
    pub position: Option<Pos>,
}

fn reject<T>(message: impl Into<String>) -> Result<T, DocumentError> {
    Err(DocumentError { message: message.into(), position: None })
}

/// Parses a document and checks it against the limits.
pub fn parse(text: &str) -> Result<ExecutableDocument, DocumentError> {
    check_size(text)?;
    let document = parse_query(text).map_err(syntax_error)?;
    check_operations(&document)?;
    Ok(document)
}

fn syntax_error(error: parser::Error) -> DocumentError {
    let (message, position) = (error.to_string(), error.positions().next());
    // The parser quotes the whole line. The end of its message says what it expected, as names of grammar rules.
    let reason = message.rsplit("= ").next().unwrap_or_default().replace('_', " ");
    let place = position.map(|Pos { line, column }| format!(" at line {line}, column {column}")).unwrap_or_default();
    DocumentError { message: format!("Syntax error{place}: {}.", reason.trim_end_matches(['.', ' '])), position }
}

/// Checks length, tokens and nesting. Follows GraphQL's lexical rules: brackets in strings and comments do not count.
fn check_size(text: &str) -> Result<(), DocumentError> {
    if text.len() > limits::BYTES {
        return reject(format!("The document is longer than {} KiB.", limits::BYTES / 1024));
    }
    let (mut tokens, mut nesting) = (0, 0_usize);
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let length = match char {
            '#' => rest.find(['\n', '\r']).unwrap_or(rest.len()),
            '"' => string_length(rest)?,
            _ if is_name_char(char) => rest.find(|char| !is_name_char(char)).unwrap_or(rest.len()),
            _ => char.len_utf8(),
        };
        match char {
            '{' | '[' | '(' => nesting += 1,
            '}' | ']' | ')' => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        if !(char.is_whitespace() || matches!(char, ',' | '#' | '\u{feff}')) {
            tokens += 1;
        }
        if tokens > limits::TOKENS {
            return reject(format!("The document has more than {} tokens.", limits::TOKENS));
        }
        if nesting > limits::NESTING {
            return reject(format!("The document nests more than {} levels of brackets.", limits::NESTING));
        }
        rest = &rest[length..];
    }
    Ok(())
}

fn is_name_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

/// Returns the length in bytes of the string literal at the start of a text, with its quotes. An unterminated string is
/// rejected here: the parser would read an unterminated `"""` as an empty string, and then parse the text that this scan
/// has skipped.
fn string_length(text: &str) -> Result<usize, DocumentError> {
    let (quote, escaped_quote) = if text.starts_with("\"\"\"") { ("\"\"\"", "\\\"\"\"") } else { ("\"", "\\\"") };
    let mut end = quote.len();
    while end < text.len() {
        let rest = &text[end..];
        if rest.starts_with(escaped_quote) {
            end += escaped_quote.len();
        } else if quote == "\"" && rest.starts_with("\\\\") {
            end += 2;
        } else if rest.starts_with(quote) {
            return Ok(end + quote.len());
        } else if quote == "\"" && rest.starts_with(['\n', '\r']) {
            break;
        } else {
            end += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    reject("The document has an unterminated string.")
}

/// The operation that a request executes.
#[derive(Clone, Debug)]
pub struct Operation {
    /// `query` or `mutation`; `unknown` if the document has no such operation.
    pub kind: &'static str,
    pub name: Option<String>,
    /// Cost for the rate limit of the key: 1 per root field of a query, 10 per root field of a mutation.
    pub cost: u32,
}

/// Returns the operation with this name, or the first one if no name is given. The document must have passed [`parse`].
pub fn operation(document: &ExecutableDocument, name: Option<&str>) -> Operation {
    let is_selected =
        |own_name: Option<&Name>| name.is_none_or(|name| own_name.is_some_and(|own_name| own_name == name));
    let selected = document.operations.iter().find(|(own_name, _)| is_selected(*own_name));
    let Some((name, operation)) = selected else { return Operation { kind: "unknown", name: None, cost: 1 } };
    let (kind, cost_per_field) = match operation.node.ty {
        OperationType::Mutation => ("mutation", 10),
        OperationType::Query | OperationType::Subscription => ("query", 1),
    };
    let fields = root_response_keys(&operation.node.selection_set.node, &document.fragments).len();
    let cost = cost_per_field * u32::try_from(fields).unwrap_or(u32::MAX);
    Operation { kind, name: name.map(|name| name.chars().take(MAX_LOGGED_NAME).collect()), cost }
}

type Fragments = HashMap<Name, Positioned<FragmentDefinition>>;

/// Checks the number of operations and fragments, and the selections of each operation.
fn check_operations(document: &ExecutableDocument) -> Result<(), DocumentError> {
    let operations: Vec<_> = match &document.operations {
        DocumentOperations::Single(operation) => vec![&operation.node],
        DocumentOperations::Multiple(operations) => operations.values().map(|operation| &operation.node).collect(),
    };
    if operations.len() > limits::OPERATIONS {
        return reject(format!("The document has more than {} operations.", limits::OPERATIONS));
    }
    if document.fragments.len() > limits::FRAGMENTS {
        return reject(format!("The document has more than {} fragments.", limits::FRAGMENTS));
    }
    let mut counter = CostCounter { fragments: &document.fragments, counted: HashMap::new(), open: HashSet::new() };
    for operation in operations {
        let cost = counter.selection_set(&operation.selection_set.node)?;
        if cost.selections > limits::SELECTIONS {
            return reject(format!("The operation selects more than {} fields.", limits::SELECTIONS));
        }
        if cost.aliases > limits::ALIASES {
            return reject(format!("The operation has more than {} aliases.", limits::ALIASES));
        }
        if cost.directives.saturating_add(operation.directives.len()) > limits::DIRECTIVES {
            return reject(format!("The operation has more than {} directives.", limits::DIRECTIVES));
        }
        if cost.introspection_depth > limits::INTROSPECTION_DEPTH {
            let message = format!("The introspection nests more than {} levels of types.", limits::INTROSPECTION_DEPTH);
            return reject(message);
        }
        let keys = root_response_keys(&operation.selection_set.node, &document.fragments);
        let is_mutation = operation.ty == OperationType::Mutation;
        let max_fields = if is_mutation { limits::MUTATION_ROOT_FIELDS } else { limits::QUERY_ROOT_FIELDS };
        if keys.len() > max_fields {
            return reject(format!("The operation has more than {max_fields} root fields."));
        }
        // async-graphql would execute each occurrence, but the response has room for the result of one.
        if is_mutation && keys.iter().collect::<HashSet<_>>().len() < keys.len() {
            return reject("The mutation has two root fields with the same response key. Give each its own alias.");
        }
    }
    Ok(())
}

/// Size of a selection set, with all fragment spreads expanded.
#[derive(Clone, Copy, Default)]
struct SelectionCost {
    selections: usize,
    aliases: usize,
    directives: usize,
    introspection_depth: usize,
}

/// Computes the cost of selection sets, of each fragment once.
struct CostCounter<'d> {
    fragments: &'d Fragments,
    counted: HashMap<&'d Name, SelectionCost>,
    /// Fragments that are being counted, to detect fragments that contain themselves.
    open: HashSet<&'d Name>,
}

impl<'d> CostCounter<'d> {
    fn selection_set(&mut self, set: &'d SelectionSet) -> Result<SelectionCost, DocumentError> {
        let mut sum = SelectionCost::default();
        for selection in &set.items {
            sum.directives = sum.directives.saturating_add(selection.node.directives().len());
            let inner = match &selection.node {
                Selection::Field(field) => {
                    sum.aliases = sum.aliases.saturating_add(usize::from(field.node.alias.is_some()));
                    let mut inner = self.selection_set(&field.node.selection_set.node)?;
                    inner.introspection_depth += usize::from(leads_to_types(&field.node.name.node));
                    inner
                }
                Selection::InlineFragment(fragment) => self.selection_set(&fragment.node.selection_set.node)?,
                Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node)?,
            };
            sum.selections = sum.selections.saturating_add(1).saturating_add(inner.selections);
            sum.aliases = sum.aliases.saturating_add(inner.aliases);
            sum.directives = sum.directives.saturating_add(inner.directives);
            sum.introspection_depth = sum.introspection_depth.max(inner.introspection_depth);
        }
        Ok(sum)
    }

    fn fragment(&mut self, name: &Name) -> Result<SelectionCost, DocumentError> {
        // Validation reports a fragment that does not exist.
        let Some((name, fragment)) = self.fragments.get_key_value(name) else { return Ok(SelectionCost::default()) };
        if let Some(cost) = self.counted.get(name) {
            return Ok(*cost);
        }
        if !self.open.insert(name) {
            return reject(format!("The fragment {name} contains itself."));
        }
        let cost = self.selection_set(&fragment.node.selection_set.node)?;
        self.open.remove(name);
        self.counted.insert(name, cost);
        Ok(cost)
    }
}

/// Returns whether an introspection field leads from a type to other types.
fn leads_to_types(field: &str) -> bool {
    ["fields", "inputFields", "interfaces", "possibleTypes"].contains(&field)
}

/// Returns the response keys of the root fields. The fragments must not contain themselves.
fn root_response_keys(set: &SelectionSet, fragments: &Fragments) -> Vec<Name> {
    let keys = |selection: &Positioned<Selection>| match &selection.node {
        Selection::Field(field) => vec![field.node.response_key().node.clone()],
        Selection::InlineFragment(inline) => root_response_keys(&inline.node.selection_set.node, fragments),
        Selection::FragmentSpread(spread) => match fragments.get(&spread.node.fragment_name.node) {
            Some(fragment) => root_response_keys(&fragment.node.selection_set.node, fragments),
            None => Vec::new(),
        },
    };
    set.items.iter().flat_map(keys).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rejection(text: &str) -> String {
        parse(text).map(drop).unwrap_err().message
    }

    #[test]
    fn brackets_in_strings_and_comments_do_not_count() {
        let brackets = "[".repeat(100);
        for text in [
            format!("{{ a(x: \"{brackets}\") }}"),
            format!("{{ a(x: \"\\\"{brackets}\\\\\") }}"),
            format!("{{ a(x: \"\"\"{brackets} \\\"\"\" \" {brackets}\"\"\") }}"),
            format!("{{ a # {brackets}\n }}"),
        ] {
            assert!(parse(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn an_unterminated_string_does_not_hide_nesting() {
        let nested = "[".repeat(3000);
        for quotes in
            ["\"\n", "\"\r", "\"\"\"\"", "\"\"\"", "\"\"\"\\\"\"\"", "\"\"\"x\" ", "\"\\\"", "\"\"\"\"\"\"\"\"\"\""]
        {
            assert!(rejection(&format!("{{ a(x: [{quotes}{nested}")).contains("unterminated string"), "{quotes}");
        }
        assert!(rejection(&format!("{{ a(x: \"b\" y: {nested}")).contains("nests more than 40 levels"));
    }

    #[test]
    fn ordinary_documents_are_within_the_limits() {
        assert!(parse(include_str!("introspection.graphql")).is_ok());
        assert!(
            parse("query ($a: Int = 1) @x { a: b(c: [1, {d: $a}]) { ...f } } fragment f on T { __typename }").is_ok()
        );
    }

    #[test]
    fn a_syntax_error_says_what_was_expected_and_where() {
        for (text, message) in [
            ("{ viewer {\n  role(x: ) } }", "Syntax error at line 2, column 11: expected value."),
            (
                "{ a ... }",
                "Syntax error at line 1, column 9: expected selection set, type condition, directive, or name.",
            ),
            ("{ a } query B { b }", "Syntax error at line 1, column 1: document contains multiple operations."),
            ("fragment a on B { c }", "Syntax error: document does not contain an operation."),
        ] {
            assert_eq!(rejection(text), message);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_a_panic(text in "\\PC{0,200}|[{}()\\[\\]\"#\\\\\n a-z$:.]{0,200}") {
            drop(parse(&text));
        }
    }
}
