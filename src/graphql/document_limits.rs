//! Limits on documents, and the description of the operation that a request executes.
//!
//! Each limit is checked before the work that it limits. Length, tokens and nesting are checked before parsing. The
//! parser is recursive, so deep nesting would overflow the stack. Selections are counted before validation, because
//! async-graphql's validation visits a fragment once per spread. For example, if each of 31 fragments spreads the next
//! fragment twice, the validation makes 2^31 visits. Here each fragment is counted once.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::num::Saturating;

use async_graphql::parser::types::{
    ExecutableDocument, Field, OperationDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql::parser::{self, parse_query};
use async_graphql::{Name, Pos, Positioned, ServerError, ServerResult, Variables};
use async_graphql_value::Value;

use super::cost::{self, DocumentCost};
use super::document_size::{values_in_arguments, values_of_directives};
use super::pagination::PAGE_SIZE_ARGUMENTS;
use super::rewrite::Fragments;

/// The operations of dashboards and other clients stay well below these limits. The standard introspection query is
/// larger than these operations, but stays below these limits too: it has 1.6 KiB and 229 fields. It has 15 levels of
/// fields, the most that `schema` allows.
mod limits {
    pub const KIBIBYTES: usize = 16;
    pub const TOKENS: usize = 1500;
    /// Limits the size of the response, because the response repeats an alias for each item of a list.
    pub const NAME_LENGTH: usize = 100;
    /// The parser overflows its stack at about 2,000.
    pub const NESTING: usize = 40;
    pub const OPERATIONS: usize = 10;
    pub const FRAGMENTS: usize = 50;
    /// Fields, fragment spreads and inline fragments of an operation, with all spreads expanded.
    pub const SELECTIONS: usize = 500;
    pub const ALIASES: usize = 30;
    pub const DIRECTIVES: usize = 20;
    /// Values in the arguments of an operation and of its directives, with all fragments expanded. A fragment that is
    /// spread often copies its arguments.
    pub const VALUES: usize = 2000;
    /// Nesting of the introspection fields in `FIELDS_TO_TYPES`. The standard introspection query has a depth of 1.
    pub const INTROSPECTION_DEPTH: usize = 3;
    /// Aliases of `__typename`. This field has no complexity, so its number in a response has no other limit.
    pub const TYPE_NAME_ALIASES: usize = 3;
    pub const QUERY_ROOT_FIELDS: usize = 10;
    pub const MUTATION_ROOT_FIELDS: usize = 5;
}

/// Names of operations are logged up to this length.
const MAX_LOGGED_NAME: usize = 64;

fn reject<T>(message: impl Into<String>) -> ServerResult<T> {
    Err(ServerError::new(message, None))
}

/// Rejects a count above its limit. For example, the words `("The document has more than", "tokens")` make the message
/// "The document has more than 1500 tokens."
fn check_limit(count: usize, limit: usize, (start, unit): (&str, &str)) -> ServerResult<()> {
    if count > limit { reject(format!("{start} {limit} {unit}.")) } else { Ok(()) }
}

/// Parses a document and checks it against the limits.
pub fn parse(text: &str) -> ServerResult<ExecutableDocument> {
    let document = parse_query(check_size(text)?).map_err(syntax_error)?;
    check_operations(&document)?;
    Ok(document)
}

fn syntax_error(error: parser::Error) -> ServerError {
    let (message, position) = (error.to_string(), error.positions().next());
    // The parser quotes the whole line. Only the end of the parser's message is used: the names of the grammar rules
    // that the parser expected. `EOI` is the end of the document.
    let reason = message.rsplit("= ").next().unwrap_or_default().replace('_', " ").replace("EOI", "end of document");
    let place = position.map(|Pos { line, column }| format!(" at line {line}, column {column}")).unwrap_or_default();
    ServerError::new(format!("Syntax error{place}: {}.", reason.trim_end_matches(['.', ' '])), position)
}

/// Checks length, tokens and nesting, and rejects input objects that have a field twice: the parser would use the last
/// value. Follows GraphQL's lexical rules: brackets in strings and comments do not count. Returns the text for the
/// parser. The escapes that the parser does not know are decoded ([`decode_escapes`]).
fn check_size(text: &str) -> ServerResult<Cow<'_, str>> {
    check_limit(text.len().div_ceil(1024), limits::KIBIBYTES, ("The document is longer than", "KiB"))?;
    let (mut tokens, mut brackets) = (0, Vec::new());
    let (mut decoded, mut copied) = (String::new(), 0);
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let mut length = char.len_utf8();
        match char {
            '#' => length = rest.find(['\n', '\r']).unwrap_or(rest.len()),
            '"' => {
                length = string_length(rest)?;
                if let Some(literal) = decode_escapes(&rest[..length])? {
                    let start = text.len() - rest.len();
                    decoded += &text[copied..start];
                    decoded += &literal;
                    copied = start + length;
                }
            }
            '(' | '[' => brackets.push(Bracket::List),
            '{' if matches!(brackets.last(), None | Some(Bracket::Selections)) => brackets.push(Bracket::Selections),
            '{' => brackets.push(Bracket::Object(Vec::new())),
            '}' | ']' | ')' => drop(brackets.pop()),
            '.' if rest.starts_with("...") => length = "...".len(),
            _ if is_name_char(char) => {
                length = rest.find(|char| !is_name_char(char)).unwrap_or(rest.len());
                check_limit(length, limits::NAME_LENGTH, ("The document has a name longer than", "characters"))?;
                if let Some(Bracket::Object(fields)) = brackets.last_mut() {
                    let (name, after) = rest.split_at(length);
                    let is_field = skip_ignored(after).starts_with(':');
                    if is_field && fields.contains(&name) {
                        return reject(format!("An input object has the field {name} twice."));
                    }
                    fields.extend(is_field.then_some(name));
                }
            }
            _ => {}
        }
        tokens += usize::from(!char.is_whitespace() && !matches!(char, ',' | '#' | '\u{feff}'));
        check_limit(tokens, limits::TOKENS, ("The document has more than", "tokens"))?;
        check_limit(brackets.len(), limits::NESTING, ("The document nests more than", "levels of brackets"))?;
        rest = &rest[length..];
    }
    Ok(if copied == 0 { Cow::Borrowed(text) } else { Cow::Owned(decoded + &text[copied..]) })
}

/// An open bracket of a document.
enum Bracket<'d> {
    /// The start of arguments or of a list.
    List,
    /// The start of a selection set.
    Selections,
    /// The start of an input object, with the names of its fields so far.
    Object(Vec<&'d str>),
}

/// Returns the text after white space, commas and comments.
fn skip_ignored(text: &str) -> &str {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', ',', '\u{feff}']);
        let Some(comment) = rest.strip_prefix('#') else { return rest };
        rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
    }
}

fn is_name_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

/// Returns the length in bytes of the string literal at the start of a string, with its quotes. An unterminated string
/// is rejected here: the parser would read an unterminated `"""` as an empty string, and then parse the text after it.
/// This scan has skipped that text as part of the string, so its nesting is not checked.
fn string_length(text: &str) -> ServerResult<usize> {
    let is_block = text.starts_with("\"\"\"");
    let quote = if is_block { "\"\"\"" } else { "\"" };
    let escapes: &[_] = if is_block { &["\\\"\"\""] } else { &["\\\"", "\\\\"] };
    let mut end = quote.len();
    while let Some(char) = text[end..].chars().next() {
        let rest = &text[end..];
        if rest.starts_with(quote) {
            return Ok(end + quote.len());
        } else if matches!(char, '\n' | '\r') && !is_block {
            break;
        }
        let escape = escapes.iter().find(|escape| rest.starts_with(**escape));
        end += escape.map_or(char.len_utf8(), |escape| escape.len());
    }
    reject("The document has an unterminated string.")
}

/// Decodes two kinds of escapes in a string literal: `\u{1F600}`, and the surrogate pairs that JSON encoders write,
/// such as `\ud83d\ude00`. The GraphQL specification of September 2025 allows these escapes, but the parser does not
/// know them. The decoded literal is shorter. Spaces after the literal fill the difference, so that positions in errors
/// stay correct. Returns `None` if the literal cannot have such escapes.
fn decode_escapes(literal: &str) -> ServerResult<Option<String>> {
    let is_block = literal.starts_with("\"\"\"");
    if is_block || !["\\u{", "\\ud", "\\uD"].iter().any(|escape| literal.contains(escape)) {
        return Ok(None);
    }
    let mut decoded = String::new();
    let mut rest = literal;
    while let Some(char) = rest.chars().next() {
        let mut length = char.len_utf8();
        match unicode_escape(rest)? {
            Some((char, escape_length)) => {
                length = escape_length;
                match char {
                    '"' | '\\' => decoded.extend(['\\', char]),
                    '\n' => decoded += "\\n",
                    '\r' => decoded += "\\r",
                    _ => decoded.push(char),
                }
            }
            None => {
                // Also takes the character after a backslash: in `\\u{41}`, the second backslash does not begin an
                // escape.
                length += if char == '\\' { rest[1..].chars().next().map_or(0, char::len_utf8) } else { 0 };
                decoded += &rest[..length];
            }
        }
        rest = &rest[length..];
    }
    let shorter = literal.chars().count().saturating_sub(decoded.chars().count());
    Ok(Some(decoded + &" ".repeat(shorter)))
}

/// Returns the character of an escape `\u{…}` or of a surrogate pair at the start of a string, and the length of the
/// escape.
fn unicode_escape(text: &str) -> ServerResult<Option<(char, usize)>> {
    let invalid = || ServerError::new("Syntax error: a string has an escape that is not a Unicode character.", None);
    let unit = |text: &str| u32::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    if let Some(digits) = text.strip_prefix("\\u{") {
        let digits = digits.split_once('}').ok_or_else(invalid)?.0;
        let value = digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok());
        let char = value.flatten().and_then(char::from_u32).ok_or_else(invalid)?;
        return Ok(Some((char, "\\u{}".len() + digits.len())));
    }
    let Some(first @ 0xd800..=0xdfff) = unit(text) else { return Ok(None) };
    let (Some(second), true) = (text.get(6..).and_then(unit), first < 0xdc00) else { return Err(invalid()) };
    let char = char::decode_utf16([first as u16, second as u16]).next().and_then(Result::ok).ok_or_else(invalid)?;
    Ok(Some((char, 12)))
}

/// The operation that a request executes.
#[derive(Clone, Debug)]
pub struct Operation {
    /// `query` or `mutation`.
    pub kind: &'static str,
    pub name: Option<String>,
    pub cost: DocumentCost,
    /// If true, at most one root field is executed at a time.
    pub is_sequential: bool,
    /// True if the operation selects `__schema` or `__type`.
    pub introspects: bool,
}

/// Returns the operation with this name, or the only operation if no name is given. Returns `None` if there is no such
/// operation; [`operation`] then rejects the request.
pub fn selected_operation<'d>(
    document: &'d ExecutableDocument,
    name: Option<&str>,
) -> Option<(Option<&'d Name>, &'d Positioned<OperationDefinition>)> {
    let is_named = |own_name: Option<&Name>| name.is_none_or(|name| own_name.is_some_and(|own_name| own_name == name));
    let mut operations = document.operations.iter().filter(|(own_name, _)| is_named(*own_name));
    operations.next().filter(|_| operations.next().is_none())
}

/// Describes the [`selected_operation`] of a normalised document. Fails if there is none.
pub fn operation(document: &ExecutableDocument, name: Option<&str>, variables: &Variables) -> ServerResult<Operation> {
    let (name, operation) = selected_operation(document, name).ok_or_else(|| {
        let message = name.map_or_else(
            || "Operation name required in request.".to_owned(),
            |name| format!("Unknown operation named \"{}\"", name.chars().take(MAX_LOGGED_NAME).collect::<String>()),
        );
        ServerError::new(message, None)
    })?;
    let kind = match operation.node.ty {
        OperationType::Mutation => "mutation",
        OperationType::Query | OperationType::Subscription => "query",
    };
    let name = name.map(|name| name.chars().take(MAX_LOGGED_NAME).collect());
    let has_one_field =
        matches!(operation.node.selection_set.node.items.as_slice(), [one] if matches!(one.node, Selection::Field(_)));
    let is_sequential = operation.node.ty == OperationType::Mutation || has_one_field;
    let mut fields = Vec::new();
    collect_fields(&operation.node.selection_set.node, &document.fragments, &mut fields);
    let cost = cost::estimate(&operation.node, fields.len(), variables);
    let introspects = fields.iter().any(|field| ["__schema", "__type"].contains(&field.name.node.as_str()));
    Ok(Operation { kind, name, cost, is_sequential, introspects })
}

/// Checks the number of operations and fragments, and the selections of each operation.
fn check_operations(document: &ExecutableDocument) -> ServerResult<()> {
    check_limit(document.operations.iter().count(), limits::OPERATIONS, ("The document has more than", "operations"))?;
    check_limit(document.fragments.len(), limits::FRAGMENTS, ("The document has more than", "fragments"))?;
    let mut counter = SizeCounter { fragments: &document.fragments, counted: HashMap::new() };
    for (_, Positioned { node: operation, .. }) in document.operations.iter() {
        let mut size = counter.selection_set(&operation.selection_set.node)?;
        size.directives += operation.directives.len();
        check_limit(size.selections.0, limits::SELECTIONS, ("The operation selects more than", "fields"))?;
        check_limit(size.aliases.0, limits::ALIASES, ("The operation has more than", "aliases"))?;
        let type_names = ("The operation has more than", "aliases of `__typename`");
        check_limit(size.type_name_aliases.0, limits::TYPE_NAME_ALIASES, type_names)?;
        check_limit(size.directives.0, limits::DIRECTIVES, ("The operation has more than", "directives"))?;
        check_limit(size.values.0, limits::VALUES, ("The operation has more than", "values in arguments"))?;
        let nesting = ("The introspection nests more than", "levels of types");
        check_limit(size.introspection_depth, limits::INTROSPECTION_DEPTH, nesting)?;
        let mut fields = Vec::new();
        collect_fields(&operation.selection_set.node, &document.fragments, &mut fields);
        let is_mutation = operation.ty == OperationType::Mutation;
        let max_fields = if is_mutation { limits::MUTATION_ROOT_FIELDS } else { limits::QUERY_ROOT_FIELDS };
        check_limit(fields.len(), max_fields, ("The operation has more than", "root fields"))?;
        // If two root fields of a mutation have the same response key, async-graphql would execute both, but the
        // response can contain only one result per key.
        let keys: HashSet<_> = fields.iter().map(|field| &field.response_key().node).collect();
        if is_mutation && keys.len() < fields.len() {
            return reject("The mutation has two root fields with the same response key. Give each its own alias.");
        }
    }
    // Validation would visit unused fragments, although they are not part of any count above.
    if document.fragments.values().any(|fragment| !fragment.node.directives.is_empty()) {
        return reject("A fragment definition has a directive. No directive may be used there.");
    }
    if let Some(unused) = document.fragments.keys().filter(|name| !counter.counted.contains_key(*name)).min() {
        return reject(format!("The fragment {unused} is not used."));
    }
    Ok(())
}

/// Returns true if a selection set of the document, with its fragments expanded, has several fields with the same
/// response key. A repeated field that has no arguments and no selections does not count, because its repetition
/// changes nothing.
pub fn merges_fields(document: &ExecutableDocument) -> bool {
    let mut sets = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    sets.any(|set| has_merged_fields(set, &document.fragments))
}

fn has_merged_fields(set: &SelectionSet, fragments: &Fragments) -> bool {
    let mut fields = Vec::new();
    collect_fields(set, fragments, &mut fields);
    let mut keys = HashMap::new();
    fields.into_iter().any(|field| {
        let Field { name, arguments, selection_set: set, .. } = field;
        let is_plain = arguments.is_empty() && set.node.items.is_empty();
        let other = keys.insert(&field.response_key().node, (is_plain, &name.node));
        other.is_some_and(|other| other != (true, &name.node) || !is_plain) || has_merged_fields(&set.node, fragments)
    })
}

/// Returns true if a variable sets the size of a page. Then the variables decide how complex the document is.
pub fn has_variable_page_size(document: &ExecutableDocument) -> bool {
    has_argument(document, |name, value| PAGE_SIZE_ARGUMENTS.contains(&name) && matches!(value, Value::Variable(_)))
}

/// Returns true if a field of the document has such an argument.
fn has_argument(document: &ExecutableDocument, is_such: impl Fn(&str, &Value) -> bool + Copy) -> bool {
    fn selects(set: &SelectionSet, is_such: impl Fn(&str, &Value) -> bool + Copy) -> bool {
        set.items.iter().any(|selection| match &selection.node {
            Selection::Field(Positioned { node: Field { arguments, selection_set, .. }, .. }) => {
                arguments.iter().any(|(name, value)| is_such(&name.node, &value.node))
                    || selects(&selection_set.node, is_such)
            }
            Selection::InlineFragment(inline) => selects(&inline.node.selection_set.node, is_such),
            Selection::FragmentSpread(_) => false,
        })
    }
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    operations.chain(fragments).any(|set| selects(set, is_such))
}

/// Adds the fields of a selection set, with its fragments expanded. The fragments must not contain themselves.
fn collect_fields<'d>(set: &'d SelectionSet, fragments: &'d Fragments, fields: &mut Vec<&'d Field>) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => fields.push(&field.node),
            Selection::InlineFragment(inline) => collect_fields(&inline.node.selection_set.node, fragments, fields),
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = fragments.get(&spread.node.fragment_name.node) {
                    collect_fields(&fragment.node.selection_set.node, fragments, fields);
                }
            }
        }
    }
}

/// Size of a selection set, with all fragment spreads expanded.
#[derive(Clone, Copy, Default)]
struct SelectionSize {
    selections: Saturating<usize>,
    aliases: Saturating<usize>,
    type_name_aliases: Saturating<usize>,
    directives: Saturating<usize>,
    values: Saturating<usize>,
    introspection_depth: usize,
}

/// Computes the size of selection sets. Visits each fragment only once.
struct SizeCounter<'d> {
    fragments: &'d Fragments,
    /// Sizes of fragments. `None` while a fragment is being counted, to detect fragments that contain themselves.
    counted: HashMap<&'d Name, Option<SelectionSize>>,
}

/// Introspection fields that lead from one type to several other types. Each field returns a list of types, or a list
/// of items that have types.
const FIELDS_TO_TYPES: [&str; 4] = ["fields", "inputFields", "interfaces", "possibleTypes"];

impl<'d> SizeCounter<'d> {
    fn selection_set(&mut self, set: &'d SelectionSet) -> ServerResult<SelectionSize> {
        let mut sum = SelectionSize::default();
        for Positioned { node: selection, .. } in &set.items {
            let mut inner = match selection {
                Selection::Field(Positioned { node: field, .. }) => {
                    let mut inner = self.selection_set(&field.selection_set.node)?;
                    inner.aliases += usize::from(field.alias.is_some());
                    let is_type_name = field.name.node == "__typename";
                    inner.type_name_aliases += usize::from(is_type_name && field.alias.is_some());
                    inner.values += values_in_arguments(&field.arguments);
                    inner.introspection_depth += usize::from(FIELDS_TO_TYPES.contains(&field.name.node.as_str()));
                    inner
                }
                Selection::InlineFragment(fragment) => self.selection_set(&fragment.node.selection_set.node)?,
                Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node)?,
            };
            inner.directives += selection.directives().len();
            inner.values += values_of_directives(selection.directives());
            sum.selections += inner.selections + Saturating(1);
            sum.aliases += inner.aliases;
            sum.type_name_aliases += inner.type_name_aliases;
            sum.directives += inner.directives;
            sum.values += inner.values;
            sum.introspection_depth = sum.introspection_depth.max(inner.introspection_depth);
        }
        Ok(sum)
    }

    fn fragment(&mut self, name: &Name) -> ServerResult<SelectionSize> {
        // Validation reports a fragment that does not exist.
        let Some((name, fragment)) = self.fragments.get_key_value(name) else { return Ok(SelectionSize::default()) };
        match self.counted.get(name) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => return reject(format!("The fragment {name} contains itself.")),
            None => self.counted.insert(name, None),
        };
        let size = self.selection_set(&fragment.node.selection_set.node)?;
        self.counted.insert(name, Some(size));
        Ok(size)
    }
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
    fn a_page_size_may_be_a_variable() {
        for (text, expected) in [
            ("{ a(first: 10) { b(last: 5) } }", false),
            ("query ($x: ID) { a(id: $x, first: 10) { b(input: { first: $x }) } }", false),
            ("query ($n: Int) { a(first: $n) { b } }", true),
            ("query ($n: Int) { a { b { c(last: $n) } } }", true),
            ("query ($n: Int) { a { ... { b(first: $n) } } }", true),
            ("query ($n: Int) { ...A } fragment A on B { c(first: $n) }", true),
            ("query A { a } query B ($n: Int) { a(first: $n) }", true),
        ] {
            assert_eq!(has_variable_page_size(&parse_query(text).unwrap()), expected, "{text}");
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
    fn a_document_at_a_limit_is_accepted_and_a_larger_one_is_not() {
        fn repeat(count: usize, part: impl Fn(usize) -> String) -> String {
            (0..count).map(part).collect()
        }
        fn fields(count: usize) -> String {
            repeat(count, |number| format!("a{number} "))
        }
        // A document of a given size, and the message if that size is above the limit.
        type Case = (usize, fn(usize) -> String, &'static str);
        let cases: [Case; 14] = [
            (limits::KIBIBYTES, |size| format!("{{ a }}{}", " ".repeat(size * 1024 - 5)), "is longer than 16 KiB"),
            (limits::TOKENS, |size| format!("{{ a(b: [{}]) }}", "1 ".repeat(size - 9)), "has more than 1500 tokens"),
            (limits::TOKENS, |size| format!("{{ ...a b(c: [{}]) }}", "1 ".repeat(size - 11)), "has more than 1500"),
            (limits::NAME_LENGTH, |size| format!("{{ {} }}", "a".repeat(size)), "a name longer than 100 characters"),
            (
                limits::NESTING,
                |size| format!("{{ a(b: {}{}) }}", "[".repeat(size - 2), "]".repeat(size - 2)),
                "nests more than 40 levels of brackets",
            ),
            (
                limits::OPERATIONS,
                |size| repeat(size, |number| format!("query Q{number} {{ a }} ")),
                "has more than 10 operations",
            ),
            (
                limits::FRAGMENTS,
                |size| {
                    let spreads = repeat(size, |number| format!("...F{number} "));
                    let fragments = repeat(size, |number| format!("fragment F{number} on T {{ a }} "));
                    format!("{{ a {{ {spreads} }} }} {fragments}")
                },
                "has more than 50 fragments",
            ),
            (limits::SELECTIONS, |size| format!("{{ a {{ {} }} }}", fields(size - 1)), "selects more than 500 fields"),
            (
                limits::ALIASES,
                |size| format!("{{ a {{ {} }} }}", repeat(size, |number| format!("b{number}: c "))),
                "has more than 30 aliases",
            ),
            (
                limits::DIRECTIVES,
                |size| format!("query @x {{ a {} }}", "@x ".repeat(size - 1)),
                "more than 20 directives",
            ),
            (
                limits::INTROSPECTION_DEPTH,
                |size| format!("{{ __schema {}a{} }}", "{ fields ".repeat(size) + "{ ", " }".repeat(size + 1)),
                "nests more than 3 levels of types",
            ),
            (
                limits::VALUES,
                |size| {
                    let (spreads, rest) = ("...F ".repeat(9), "1 ".repeat(size - 1999));
                    format!("{{ a {{ {spreads} b(c: [{rest}]) }} }} fragment F on T {{ x(y: [{}]) }}", "1 ".repeat(221))
                },
                "more than 2000 values in arguments",
            ),
            (limits::QUERY_ROOT_FIELDS, |size| format!("{{ {} }}", fields(size)), "has more than 10 root fields"),
            (
                limits::MUTATION_ROOT_FIELDS,
                |size| format!("mutation {{ {} }}", fields(size)),
                "has more than 5 root fields",
            ),
        ];
        for (limit, document, message) in cases {
            let accepted = parse(&document(limit));
            assert!(accepted.is_ok(), "{message}: {accepted:?}");
            let rejected = rejection(&document(limit + 1));
            assert!(rejected.contains(message), "{message}: {rejected}");
        }
    }

    #[test]
    fn an_input_object_has_each_field_once() {
        for text in [
            "{ a(b: { c: 1, c: 2 }) }",
            "{ a(b: { c: 1 d: { c: 1 } # c:\n c # d\n : 2 }) }",
            "{ a @x(b: [{ c: 1 }, { d: 1, d: 2 }]) }",
            "query ($a: A = { b: 1, b: 1 }) { c }",
        ] {
            assert!(rejection(text).contains(" twice"), "{text}");
        }
        for text in [
            "{ a(b: { c: { c: 1 }, d: [{ c: 1 }, { c: 1 }] }) { c: d c: d } }",
            "{ a(b: { c: d, d: c, e: \"c: c:\" }) { b { c } b { c } } }",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
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
            ("{ a } }", "Syntax error at line 1, column 7: expected end of document or executable definition."),
            ("{ a } query B { b }", "Syntax error at line 1, column 1: document contains multiple operations."),
            ("fragment a on B { c }", "Syntax error: document does not contain an operation."),
        ] {
            assert_eq!(rejection(text), message);
        }
    }

    #[test]
    fn escapes_of_any_character_are_decoded() {
        for (literal, decoded) in [
            (r#""Ana \ud83d\ude00""#, r#""Ana 😀""#),
            (r#""\uD83D\uDE00\u{1F600}x""#, r#""😀😀x""#),
            (r#""\u{22}\u{5c}\u{a}\u{000d}\u{9}""#, "\"\\\"\\\\\\n\\r\t\""),
            (r#""\\ud83d \u{41}""#, r#""\\ud83d A""#),
            (r#""\n\"\u{7A}é\u00e9""#, r#""\n\"zé\u00e9""#),
        ] {
            let padded = decode_escapes(literal).unwrap().unwrap();
            assert_eq!((padded.trim_end(), padded.chars().count()), (decoded, literal.chars().count()));
            let document = format!("{{ a(x: {literal}) b(x: ) }}");
            let column = document.find("x: )").unwrap() - (document.len() - document.chars().count()) + 4;
            assert!(
                rejection(&document).starts_with(&format!("Syntax error at line 1, column {column}")),
                "{document}"
            );
        }
        for literal in [r#""\u00e9""#, r#""\\u{1F600}""#, r#""\\ud83d""#, r#""""\u{1F600}""""#, r#""\n""#] {
            assert!(matches!(decode_escapes(literal), Ok(None)) || literal.contains(r"\\u"), "{literal}");
            assert!(parse(&format!("{{ a(x: {literal}) }}")).is_ok(), "{literal}");
        }
        for literal in [
            r"\ud83d",
            r"\ude00",
            r"\ude00\ud83d",
            r"\ud83d\u0041",
            r"\ud83d\ud83d",
            r"\ud83dé",
            r"\u{}",
            r"\u{110000}",
            r"\u{d83d}",
            r"\u{+41}",
            r"\u{1F600",
            r"\u{FFFFFFFFFF}",
        ] {
            let message = rejection(&format!("{{ a(x: \"{literal}\") }}"));
            assert!(message.starts_with("Syntax error"), "{literal}: {message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_a_panic(text in "\\PC{0,200}|[{}()\\[\\]\"#\\\\\n a-z$:.]{0,200}|\"(\\\\u|[{}0d8c\\\\é]){0,40}\"") {
            drop(parse(&text));
        }
    }
}
