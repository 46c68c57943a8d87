//! Search words: the form in which customers are indexed and searched.
//!
//! A stored value is split into words with [`SearchWord::tokenize`], and each word becomes a row of `customer_word`. A
//! search is split with [`SearchQuery::parse`]. A customer matches if each word of the query is a prefix of one of its
//! words. `ada lovel` finds `Ada Lovelace`; `415 555` finds `+14155552671`.
//!
//! Both sides are folded alike: case, accents, ligatures and character width are removed, and digits become ASCII
//! (`Łukasz` becomes `lukasz`, `٣` becomes `3`). After a change of the folding or of the word rules, the stored words
//! no longer match: delete all rows of `customer_word` and run `vivamo migrate`, which writes them again.
//!
//! The word column is compared byte by byte on both databases, so a prefix is a range of the index:
//! `word >= 'ada' AND word < 'ada\u{10ffff}'`.

use std::ops::Range;

use any_ascii::any_ascii_char;
use sea_orm::DeriveValueType;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::phone::ascii_digit;
use super::{Reason, is_invisible, masked_debug};

/// A folded word: letters and digits only, at most 50 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
pub struct SearchWord(String);

impl SearchWord {
    /// Longer words are cut off here, because an index entry has a maximum size.
    pub const MAX_CHARACTERS: usize = 50;

    /// Splits a stored value into its words: runs of letters and digits. `O'Brien-Smith` has `o`, `brien` and `smith`.
    ///
    /// Users may type a number without its separators, and may start at any part of the number. So for each part of a
    /// run of adjacent numbers, that part joined with all later parts is also a word: `2026-0017` has `2026`, `0017`
    /// and `20260017`. A word that starts with digits may end the run: `1-22-3b` also has `1223b` and `223b`.
    pub fn tokenize(text: &str) -> Vec<Self> {
        let folded = fold(text);
        let words: Vec<_> = split(&folded).collect();
        let joined_numbers = (0..words.len()).filter_map(|first| {
            let numbers = words[first..].iter().take_while(|word| is_number(word)).count();
            let starts_with_digit = |word: &&str| word.starts_with(|char: char| char.is_ascii_digit());
            let has_suffix = numbers > 0 && words.get(first + numbers).is_some_and(starts_with_digit);
            let length = numbers + usize::from(has_suffix);
            (length > 1).then(|| Self::new(&words[first..first + length].concat()))
        });
        words.iter().map(|word| Self::new(word)).chain(joined_numbers).collect()
    }

    /// The half-open ranges of stored words that start with this word. The first range is for the unchanged word.
    ///
    /// A number with leading zeros has a second range without them, because phones are stored without a trunk prefix
    /// and without `00`: `020` matches `020…` and `20…`.
    pub fn prefix_ranges(&self) -> Vec<Range<String>> {
        let without_zeros = self.0.trim_start_matches('0');
        let has_leading_zeros = is_number(&self.0) && without_zeros != self.0 && !without_zeros.is_empty();
        let prefixes = [self.as_str()].into_iter().chain(has_leading_zeros.then_some(without_zeros));
        // `char::MAX` is not a letter or digit, so no stored word reaches the end of the range.
        prefixes.map(|prefix| prefix.to_owned()..format!("{prefix}{}", char::MAX)).collect()
    }

    fn new(text: &str) -> Self {
        Self(text.chars().take(Self::MAX_CHARACTERS).collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

masked_debug!(SearchWord);

/// A search: word prefixes that must all match. An empty query matches nobody.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SearchQuery(Vec<SearchWord>);

impl SearchQuery {
    /// The maximum length of an external id; no searchable value is longer.
    pub const MAX_CHARACTERS: usize = 255;
    pub const MAX_WORDS: usize = 8;

    /// Parses what a user typed. Rejects a text of more than 255 characters or 8 words.
    ///
    /// Adjacent numbers are joined and a trunk prefix in brackets is dropped, so that a phone is found in any spelling:
    /// `+44 (0)20 7183` becomes `44207183`. A word that is a prefix of another one is dropped.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        if text.chars().count() > Self::MAX_CHARACTERS {
            return Err(Reason::TooLong(Self::MAX_CHARACTERS));
        }
        let folded = fold(&text.replace("(0)", ""));
        let mut words: Vec<String> = Vec::new();
        let mut was_number = false;
        for word in split(&folded) {
            match words.last_mut() {
                Some(number) if was_number && is_number(word) => number.push_str(word),
                _ => words.push(word.to_owned()),
            }
            was_number = is_number(word);
        }
        let mut words: Vec<_> = words.iter().map(|word| SearchWord::new(word)).collect();
        // In descending order, a prefix comes directly after the words that start with it.
        words.sort_unstable_by(|a, b| b.cmp(a));
        words.dedup_by(|prefix, word| word.as_str().starts_with(prefix.as_str()));
        if words.len() > Self::MAX_WORDS { Err(Reason::TooManyWords(Self::MAX_WORDS)) } else { Ok(Self(words)) }
    }

    /// The words, none of which is a prefix of another one.
    pub fn words(&self) -> &[SearchWord] {
        &self.0
    }
}

masked_debug!(SearchQuery);

/// Removes case, accents, ligatures, width and invisible characters. Folding twice is the same as folding once.
fn fold(text: &str) -> String {
    let visible = text.nfkd().filter(|char| !is_combining_mark(*char) && !is_invisible(*char));
    visible.fold(String::new(), |mut folded, char| {
        if let Some(digit) = ascii_digit(char) {
            folded.push(digit);
            return folded;
        }
        // Upper case first: it maps variants such as the Greek final sigma to one letter.
        for char in char.to_uppercase().flat_map(char::to_lowercase) {
            if is_extended_latin(char) {
                // NFKD does not decompose letters such as ł and ø.
                folded.extend(any_ascii_char(char).chars().flat_map(char::to_lowercase));
            } else {
                folded.push(char);
            }
        }
        folded
    })
}

fn split(folded: &str) -> impl Iterator<Item = &str> {
    folded.split(|char: char| !char.is_alphanumeric()).filter(|word| !word.is_empty())
}

fn is_number(word: &str) -> bool {
    word.chars().all(|char| char.is_ascii_digit())
}

/// The Unicode blocks of Latin letters with diacritics.
fn is_extended_latin(char: char) -> bool {
    matches!(char, '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(words: &[SearchWord]) -> Vec<&str> {
        words.iter().map(SearchWord::as_str).collect()
    }

    #[test]
    fn tokenize_folds_words_and_joins_numbers() {
        for (text, words) in [
            ("Ada Lovelace", &["ada", "lovelace"][..]),
            ("JOSÉ Jose\u{301}", &["jose", "jose"]),
            ("Łukasz Søren Groß Đặng ﬁn", &["lukasz", "soren", "gross", "dang", "fin"]),
            ("İstanbul ılık", &["istanbul", "ilik"]),
            ("Ὀδυσσεύς ΟΔΥΣΣΕΥΣ", &["οδυσσευσ", "οδυσσευσ"]),
            ("Ёлка ЖУК", &["елка", "жук"]),
            ("王小明", &["王小明"]),
            ("ada.lovelace+x@example.com", &["ada", "lovelace", "x", "example", "com"]),
            ("O'Brien-Smith", &["o", "brien", "smith"]),
            ("user_1%", &["user", "1"]),
            ("ＡＢＣ １２ ٣٤", &["abc", "12", "34", "1234"]),
            ("2026-0017", &["2026", "0017", "20260017"]),
            ("ORD-1-22-3b c 4", &["ord", "1", "22", "3b", "c", "4", "1223b", "223b"]),
            ("Schiff\u{ad}fahrt", &["schifffahrt"]),
            ("4711", &["4711"]),
            (" %_*", &[]),
            ("", &[]),
        ] {
            assert_eq!(texts(&SearchWord::tokenize(text)), words, "{text}");
        }
    }

    #[test]
    fn parse_joins_numbers_and_drops_redundant_prefixes() {
        for (text, words) in [
            ("Ada love", &["love", "ada"][..]),
            ("smith SM smit", &["smith"]),
            ("+1 (415) 555-26", &["141555526"]),
            ("+44 (0)20 7183", &["44207183"]),
            ("ada 415 555", &["ada", "415555"]),
            ("%", &[]),
        ] {
            assert_eq!(texts(SearchQuery::parse(text).unwrap().words()), words, "{text}");
        }
        assert_eq!(SearchQuery::parse(&"x".repeat(256)), Err(Reason::TooLong(255)));
        assert_eq!(SearchQuery::parse("a b c d e f g h i"), Err(Reason::TooManyWords(8)));
    }

    #[test]
    fn a_number_with_leading_zeros_has_a_second_range_without_them() {
        let ranges = |text: &str| SearchWord::tokenize(text)[0].prefix_ranges();
        let range = |prefix: &str| prefix.to_owned()..format!("{prefix}\u{10ffff}");
        assert_eq!(ranges("0042"), [range("0042"), range("42")]);
        assert_eq!(["42", "00", "0a"].map(ranges), ["42", "00", "0a"].map(|prefix| vec![range(prefix)]));
    }

    #[test]
    fn debug_output_hides_the_text() {
        assert_eq!(format!("{:?}", SearchQuery::parse("Ada").unwrap()), "SearchQuery(***)");
        assert_eq!(format!("{:?}", SearchWord::tokenize("Ada")), "[SearchWord(***)]");
    }

    proptest! {
        #[test]
        fn tokenizing_a_word_returns_the_same_word(text in "\\PC{0,40}") {
            let words = SearchWord::tokenize(&text);
            for word in &words {
                prop_assert!(word.as_str().chars().count() <= SearchWord::MAX_CHARACTERS);
                prop_assert_eq!(&SearchWord::tokenize(word.as_str()), std::slice::from_ref(word));
            }
        }

        #[test]
        fn a_text_and_each_of_its_prefixes_find_the_text(text in "\\PC{0,40}", length in 0..40_usize) {
            let words = SearchWord::tokenize(&text);
            let prefix: String = text.chars().take(length).collect();
            for search in [&text, &prefix] {
                // `parse` would drop it as the trunk prefix of a phone.
                if search.contains("(0)") { continue }
                let Ok(query) = SearchQuery::parse(search) else { continue };
                for searched in query.words() {
                    let range = searched.prefix_ranges().swap_remove(0);
                    prop_assert!(words.iter().any(|word| range.contains(&word.0)));
                }
            }
        }
    }
}
