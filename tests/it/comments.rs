//! Checks the comments: no line of a doc comment starts with a string in `FORBIDDEN_STARTS`, for example a question
//! word, because a doc comment says what its item does. No line is too long, because rustfmt does not wrap comments.

use crate::layers::{root, rust_files};

const FORBIDDEN_STARTS: [&str; 12] =
    ["What", "How", "Whether", "Who", "Whoever", "Which", "Where", "When", "Of", "Those", "So many", "That"];

/// The maximum length of a line, as in `rustfmt.toml`. A row of a table may be longer.
const MAX_WIDTH: usize = 120;

/// Returns the lines of all Rust files that `is_wrong` accepts, each with its file and number.
fn find_lines(is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let folders = ["src", "entity", "migration", "tests", "benches"].map(|folder| rust_files(&root().join(folder)));
    let files = folders.concat();
    assert!(files.len() > 100, "the test found too few files: {}", files.len());
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let wrong = text.lines().enumerate().filter(|(_, line)| is_wrong(line));
        let name = file.strip_prefix(root()).unwrap().display();
        found.extend(wrong.map(|(number, line)| format!("{name}:{}: {}", number + 1, line.trim())));
    }
    found
}

#[test]
fn doc_comments_do_not_start_with_a_forbidden_word() {
    let found = find_lines(|line| {
        let line = line.trim();
        let Some(comment) = line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! ")) else { return false };
        let starts_with = |start: &&str| {
            comment.strip_prefix(*start).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
        };
        FORBIDDEN_STARTS.iter().any(starts_with)
    });
    assert!(found.is_empty(), "say what the item does, starting with a verb or a noun: {found:#?}");
}

#[test]
fn comments_are_wrapped() {
    let found = find_lines(|line| {
        let comment = line.trim().strip_prefix("//").map(|line| line.trim_start_matches(['/', '!', ' ']));
        comment.is_some_and(|comment| !comment.starts_with('|')) && line.chars().count() > MAX_WIDTH
    });
    assert!(found.is_empty(), "wrap these comments: {found:#?}");
}
