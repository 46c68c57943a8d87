//! Checks that no line of a doc comment starts with a string in `FORBIDDEN_STARTS`, for example a question word. A doc
//! comment says what its item does.

use crate::layers::{root, rust_files};

const FORBIDDEN_STARTS: [&str; 12] =
    ["What", "How", "Whether", "Who", "Whoever", "Which", "Where", "When", "Of", "Those", "So many", "That"];

#[test]
fn doc_comments_do_not_start_with_a_forbidden_word() {
    let folders = ["src", "entity", "migration", "tests", "benches"].map(|folder| rust_files(&root().join(folder)));
    let files = folders.concat();
    assert!(files.len() > 100, "the test found too few files: {}", files.len());
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let Some(comment) = line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! ")) else { continue };
            let starts_with = |start: &&str| {
                comment.strip_prefix(*start).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
            };
            if FORBIDDEN_STARTS.iter().any(starts_with) {
                found.push(format!("{}:{}: {comment}", file.strip_prefix(root()).unwrap().display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "say what the item does, starting with a verb or a noun: {found:#?}");
}
