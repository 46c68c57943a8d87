//! What a document may ask, judged before it costs anything: its length and nesting before it is parsed, since the parser
//! recurses, and what its fragments expand to before it is validated, since validation expands them without memory.

use std::collections::{HashMap, HashSet};

use async_graphql::parser::parse_query;
use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, FragmentDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql::{Name, Pos, Positioned};

/// The longest of the operations that GraphiQL, code generators and dashboards send are a tenth of each limit, but for the
/// standard introspection query: 1.6 KiB, 15 levels, 229 fields.
mod limits {
    pub const BYTES: usize = 16 * 1024;
    pub const TOKENS: usize = 1500;
    /// The parser's stack lasts for some 2,000.
    pub const NESTING: usize = 40;
    pub const OPERATIONS: usize = 10;
    pub const FRAGMENTS: usize = 50;
    /// Fields, spreads and inline fragments, after each spread is replaced by what it stands for.
    pub const SELECTIONS: usize = 500;
    pub const ALIASES: usize = 30;
    pub const DIRECTIVES: usize = 20;
    /// Fields of introspection that lead from a type to others, within each other: the standard query has one.
    pub const INTROSPECTION: usize = 3;
    pub const ROOT_FIELDS: usize = 10;
    pub const ROOT_FIELDS_OF_A_MUTATION: usize = 5;
}

/// Why a document is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub message: String,
    pub at: Option<Pos>,
}

fn refuse<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { message: message.into(), at: None })
}

/// The document, if it is one that may be executed.
pub fn parse(text: &str) -> Result<ExecutableDocument, Refusal> {
    measure(text)?;
    let document = parse_query(text).map_err(|error| Refusal {
        // The parser's own words quote the whole line, twice.
        message: "The document is not valid GraphQL.".to_owned(),
        at: error.positions().next(),
    })?;
    weigh(&document)?;
    Ok(document)
}

/// Length, tokens and nesting, by the lexical rules of GraphQL: brackets in strings and comments do not count.
fn measure(text: &str) -> Result<(), Refusal> {
    if text.len() > limits::BYTES {
        return refuse(format!("The document is longer than {} KiB.", limits::BYTES / 1024));
    }
    let (mut tokens, mut nesting) = (0, 0_usize);
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let length = match char {
            '#' => rest.find(['\n', '\r']).unwrap_or(rest.len()),
            '"' => string(rest)?,
            _ if is_of_word(char) => rest.find(|char| !is_of_word(char)).unwrap_or(rest.len()),
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
            return refuse(format!("The document has more than {} tokens.", limits::TOKENS));
        }
        if nesting > limits::NESTING {
            return refuse(format!("The document nests more than {} levels.", limits::NESTING));
        }
        rest = &rest[length..];
    }
    Ok(())
}

fn is_of_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

/// The length of the string that a text begins with. One that does not end is refused here: the parser would read three
/// quotes without an end as an empty string and the beginning of another, and go on.
fn string(text: &str) -> Result<usize, Refusal> {
    let (quote, escape) = if text.starts_with("\"\"\"") { ("\"\"\"", "\\\"\"\"") } else { ("\"", "\\\"") };
    let mut end = quote.len();
    while end < text.len() {
        let rest = &text[end..];
        if rest.starts_with(escape) {
            end += escape.len();
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
    refuse("The document has a string that does not end.")
}

/// The operation that a request asks for.
#[derive(Clone, Debug)]
pub struct Operation {
    /// `query` or `mutation`; `unknown` if there is no such operation.
    pub kind: &'static str,
    pub name: Option<String>,
    /// What it costs its key: 1 for each field at the root of a query, 10 for each of a mutation.
    pub cost: u32,
}

/// What a document that has passed asks for under this name.
pub fn operation(document: &ExecutableDocument, name: Option<&str>) -> Operation {
    let found = document.operations.iter().find(|(own, _)| name.is_none_or(|name| own.is_some_and(|own| own == name)));
    let Some((own, operation)) = found else { return Operation { kind: "unknown", name: None, cost: 1 } };
    let mut keys = Vec::new();
    response_keys(&operation.node.selection_set.node, &document.fragments, &mut keys);
    let (kind, cost) = match operation.node.ty {
        OperationType::Mutation => ("mutation", 10),
        OperationType::Query | OperationType::Subscription => ("query", 1),
    };
    let cost = cost * u32::try_from(keys.len()).unwrap_or(u32::MAX);
    Operation { kind, name: own.map(|name| name.chars().take(MAX_SHOWN).collect()), cost }
}

/// Of an operation's name, in the log.
const MAX_SHOWN: usize = 64;

/// What a selection set comes to with all its fragments.
#[derive(Clone, Copy, Default)]
struct Weight {
    selections: usize,
    aliases: usize,
    directives: usize,
    introspection: usize,
}

type Fragments = HashMap<Name, Positioned<FragmentDefinition>>;

fn weigh(document: &ExecutableDocument) -> Result<(), Refusal> {
    let operations: Vec<_> = match &document.operations {
        DocumentOperations::Single(operation) => vec![&operation.node],
        DocumentOperations::Multiple(operations) => operations.values().map(|operation| &operation.node).collect(),
    };
    if operations.len() > limits::OPERATIONS {
        return refuse(format!("The document has more than {} operations.", limits::OPERATIONS));
    }
    if document.fragments.len() > limits::FRAGMENTS {
        return refuse(format!("The document has more than {} fragments.", limits::FRAGMENTS));
    }
    let mut scale = Scale { fragments: &document.fragments, known: HashMap::new(), open: HashSet::new() };
    for operation in operations {
        let weight = scale.weigh(&operation.selection_set.node)?;
        if weight.selections > limits::SELECTIONS {
            return refuse(format!("The operation selects more than {} fields.", limits::SELECTIONS));
        }
        if weight.aliases > limits::ALIASES {
            return refuse(format!("The operation has more than {} aliases.", limits::ALIASES));
        }
        if weight.directives.saturating_add(operation.directives.len()) > limits::DIRECTIVES {
            return refuse(format!("The operation has more than {} directives.", limits::DIRECTIVES));
        }
        if weight.introspection > limits::INTROSPECTION {
            return refuse(format!("The introspection nests more than {} levels of types.", limits::INTROSPECTION));
        }
        let mut keys = Vec::new();
        response_keys(&operation.selection_set.node, &document.fragments, &mut keys);
        let is_mutation = operation.ty == OperationType::Mutation;
        let most = if is_mutation { limits::ROOT_FIELDS_OF_A_MUTATION } else { limits::ROOT_FIELDS };
        if keys.len() > most {
            return refuse(format!("The operation has more than {most} fields at its root."));
        }
        // Each occurrence would be executed, though the answer has room for one.
        if is_mutation && keys.iter().collect::<HashSet<_>>().len() < keys.len() {
            return refuse("A mutation has the same response key twice. Give each an alias of its own.");
        }
    }
    Ok(())
}

/// Weighs each fragment once.
struct Scale<'d> {
    fragments: &'d Fragments,
    known: HashMap<&'d Name, Weight>,
    open: HashSet<&'d Name>,
}

impl<'d> Scale<'d> {
    fn weigh(&mut self, set: &'d SelectionSet) -> Result<Weight, Refusal> {
        let mut sum = Weight::default();
        for selection in &set.items {
            sum.directives = sum.directives.saturating_add(selection.node.directives().len());
            let inner = match &selection.node {
                Selection::Field(field) => {
                    sum.aliases = sum.aliases.saturating_add(usize::from(field.node.alias.is_some()));
                    let mut inner = self.weigh(&field.node.selection_set.node)?;
                    inner.introspection += usize::from(leads_to_types(&field.node.name.node));
                    inner
                }
                Selection::InlineFragment(fragment) => self.weigh(&fragment.node.selection_set.node)?,
                Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node)?,
            };
            sum.selections = sum.selections.saturating_add(1).saturating_add(inner.selections);
            sum.aliases = sum.aliases.saturating_add(inner.aliases);
            sum.directives = sum.directives.saturating_add(inner.directives);
            sum.introspection = sum.introspection.max(inner.introspection);
        }
        Ok(sum)
    }

    fn fragment(&mut self, name: &Name) -> Result<Weight, Refusal> {
        // One that is missing is for the validation to name.
        let Some((name, fragment)) = self.fragments.get_key_value(name) else { return Ok(Weight::default()) };
        if let Some(weight) = self.known.get(name) {
            return Ok(*weight);
        }
        if !self.open.insert(name) {
            return refuse("A fragment contains itself.");
        }
        let weight = self.weigh(&fragment.node.selection_set.node)?;
        self.open.remove(name);
        self.known.insert(name, weight);
        Ok(weight)
    }
}

/// Whether a field of introspection has whole types within it.
fn leads_to_types(field: &str) -> bool {
    ["fields", "inputFields", "interfaces", "possibleTypes"].contains(&field)
}

/// The response keys at the root. The document was weighed before, so this ends, and soon.
fn response_keys(set: &SelectionSet, fragments: &Fragments, keys: &mut Vec<Name>) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => keys.push(field.node.response_key().node.clone()),
            Selection::InlineFragment(inline) => response_keys(&inline.node.selection_set.node, fragments, keys),
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = fragments.get(&spread.node.fragment_name.node) {
                    response_keys(&fragment.node.selection_set.node, fragments, keys);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
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
    fn a_string_that_does_not_end_hides_nothing_from_the_measure() {
        let nested = "[".repeat(3000);
        for quotes in
            ["\"\n", "\"\r", "\"\"\"\"", "\"\"\"", "\"\"\"\\\"\"\"", "\"\"\"x\" ", "\"\\\"", "\"\"\"\"\"\"\"\"\"\""]
        {
            assert!(refusal(&format!("{{ a(x: [{quotes}{nested}")).contains("does not end"), "{quotes}");
        }
        assert!(refusal(&format!("{{ a(x: \"b\" y: {nested}")).contains("nests"));
    }

    #[test]
    fn what_people_send_passes() {
        assert!(parse(include_str!("introspection.graphql")).is_ok());
        assert!(
            parse("query ($a: Int = 1) @x { a: b(c: [1, {d: $a}]) { ...f } } fragment f on T { __typename }").is_ok()
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}|[{}()\\[\\]\"#\\\\\n a-z$:.]{0,200}") {
            drop(parse(&text));
        }
    }
}
