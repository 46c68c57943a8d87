//! Parses the text of a document.
//!
//! Length, tokens and nesting are checked before parsing. The parser is recursive, so deep nesting would overflow its
//! stack.

use std::borrow::Cow;

use async_graphql::parser::types::ExecutableDocument;
use async_graphql::parser::{self, parse_query};
use async_graphql::{Pos, ServerError, ServerResult};

use super::limit::{Limit, reject};

const KIBIBYTES: Limit = Limit::new(16, "The document is longer than", "KiB");
const TOKENS: Limit = Limit::new(1500, "The document has more than", "tokens");
/// Limits the size of the response, because the response repeats an alias for each item of a list.
const NAME_LENGTH: Limit = Limit::new(100, "The document has a name longer than", "characters");
/// The parser overflows its stack at about 2,000.
const NESTING: Limit = Limit::new(40, "The document nests more than", "levels of brackets");

/// Checks the text of a document against the limits, and parses it.
pub fn parse(text: &str) -> ServerResult<ExecutableDocument> {
    parse_query(check_and_decode(text)?).map_err(syntax_error)
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
fn check_and_decode(text: &str) -> ServerResult<Cow<'_, str>> {
    KIBIBYTES.check(text.len().div_ceil(1024))?;
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
                NAME_LENGTH.check(length)?;
                if let Some(Bracket::Object(fields)) = brackets.last_mut() {
                    let (name, after) = rest.split_at(length);
                    add_field(fields, name, after)?;
                }
            }
            _ => {}
        }
        tokens += usize::from(!char.is_whitespace() && !matches!(char, ',' | '#' | '\u{feff}'));
        TOKENS.check(tokens)?;
        NESTING.check(brackets.len())?;
        rest = &rest[length..];
    }
    Ok(if copied == 0 { Cow::Borrowed(text) } else { Cow::Owned(decoded + &text[copied..]) })
}

/// Adds a name in an input object to the names of the object's fields, if the text after the name shows that it is one.
/// Rejects a field that the object has already.
fn add_field<'d>(fields: &mut Vec<&'d str>, name: &'d str, after: &str) -> ServerResult<()> {
    if !skip_ignored(after).starts_with(':') {
        return Ok(());
    }
    if fields.contains(&name) {
        return reject(format!("An input object has the field {name} twice."));
    }
    fields.push(name);
    Ok(())
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

/// Returns the length in bytes of the string literal at the start of a text, with its quotes. An unterminated string is
/// rejected here: the parser would read an unterminated `"""` as an empty string, and then parse the text after it.
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

/// Returns the character of an escape `\u{…}` or of a surrogate pair at the start of a text, and the length of the
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::limit::test_limit;
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
    fn a_text_at_a_limit_is_accepted_and_a_larger_one_is_not() {
        type Case = (Limit, &'static str, fn(usize) -> String);
        let cases: [Case; 5] = [
            (KIBIBYTES, "The document is longer than 16 KiB.", |size| {
                format!("{{ a }}{}", " ".repeat(size * 1024 - 5))
            }),
            (TOKENS, "The document has more than 1500 tokens.", |size| {
                format!("{{ a(b: [{}]) }}", "1 ".repeat(size - 9))
            }),
            (TOKENS, "The document has more than 1500 tokens.", |size| {
                format!("{{ ...a b(c: [{}]) }}", "1 ".repeat(size - 11))
            }),
            (NAME_LENGTH, "The document has a name longer than 100 characters.", |size| {
                format!("{{ {} }}", "a".repeat(size))
            }),
            (NESTING, "The document nests more than 40 levels of brackets.", |size| {
                format!("{{ a(b: {}{}) }}", "[".repeat(size - 2), "]".repeat(size - 2))
            }),
        ];
        for (limit, message, document) in cases {
            test_limit(&limit, message, document, parse);
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
