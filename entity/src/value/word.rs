use any_ascii::any_ascii_char;
use sea_orm::DeriveValueType;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::phone::ascii_digit;
use super::{Reason, is_invisible, masked_debug};

/// A word in the form in which words are compared: without case, accents, width and ligatures; digits are ASCII.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
pub struct Word(String);

impl Word {
    /// What follows after so many characters is not looked at: an index has room for no more.
    pub const MAX_CHARACTERS: usize = 50;

    /// The words of a text: whatever stands between characters that are neither letters nor digits. Digits next to each
    /// other, as in `2026-0017`, are one number too, from each of them on.
    pub fn all_of(text: &str) -> Vec<Self> {
        let folded = fold(text);
        let words: Vec<_> = split(&folded).collect();
        let numbers = (0..words.len()).filter_map(|first| {
            let length = words[first..].iter().take_while(|word| is_number(word)).count();
            // What begins with digits may be read as the end of the number.
            let ends =
                words.get(first + length).is_some_and(|word| word.starts_with(|char: char| char.is_ascii_digit()));
            let length = if length > 0 { length + usize::from(ends) } else { 0 };
            (length > 1).then(|| Self::new(&words[first..first + length].concat()))
        });
        words.iter().map(|word| Self::new(word)).chain(numbers).collect()
    }

    /// The words that are meant by it: a number that begins with zeros may be a phone with a trunk prefix, or with `00` for `+`.
    pub fn meanings(&self) -> Vec<Self> {
        let without_zeros = self.0.trim_start_matches('0');
        let is_other = is_number(&self.0) && without_zeros.len() < self.0.len() && !without_zeros.is_empty();
        let other = is_other.then(|| Self(without_zeros.to_owned()));
        [self.clone()].into_iter().chain(other).collect()
    }

    /// The least text that comes, byte by byte, after all that begin with this word.
    pub fn end(&self) -> String {
        format!("{}{}", self.0, char::MAX)
    }

    fn new(text: &str) -> Self {
        Self(text.chars().take(Self::MAX_CHARACTERS).collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

masked_debug!(Word);

/// What somebody looks for: beginnings of words. Without any, nobody is found.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SearchText(Vec<Word>);

impl SearchText {
    /// An external id, or an email, has no more.
    pub const MAX_CHARACTERS: usize = 255;
    pub const MAX_WORDS: usize = 8;

    /// A number may be written with separators of any kind, and a phone with its trunk prefix in brackets.
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
        let mut words: Vec<_> = words.iter().map(|word| Word::new(word)).collect();
        // Whoever has a word that begins with the longer one has one that begins with the shorter.
        words.sort_unstable_by(|one, other| other.cmp(one));
        words.dedup_by(|shorter, longer| longer.as_str().starts_with(shorter.as_str()));
        if words.len() > Self::MAX_WORDS { Err(Reason::TooManyWords(Self::MAX_WORDS)) } else { Ok(Self(words)) }
    }

    /// No word begins another.
    pub fn words(&self) -> &[Word] {
        &self.0
    }
}

masked_debug!(SearchText);

fn fold(text: &str) -> String {
    let seen = text.nfkd().filter(|char| !is_combining_mark(*char) && !is_invisible(*char));
    seen.fold(String::new(), |mut folded, char| {
        if let Some(digit) = ascii_digit(char) {
            folded.push(digit);
            return folded;
        }
        // By way of upper case, where forms such as the Greek final sigma are one letter.
        for char in char.to_uppercase().flat_map(char::to_lowercase) {
            if is_latin(char) {
                // Letters such as ł and ø do not decompose.
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

/// The blocks of Unicode that hold Latin letters with something added.
fn is_latin(char: char) -> bool {
    matches!(char, '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(words: &[Word]) -> Vec<&str> {
        words.iter().map(Word::as_str).collect()
    }

    #[test]
    fn words_are_folded() {
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
            assert_eq!(texts(&Word::all_of(text)), words, "{text}");
        }
    }

    #[test]
    fn a_search_is_beginnings_of_words() {
        for (text, words) in [
            ("Ada love", &["love", "ada"][..]),
            ("smith SM smit", &["smith"]),
            ("+1 (415) 555-26", &["141555526"]),
            ("+44 (0)20 7183", &["44207183"]),
            ("ada 415 555", &["ada", "415555"]),
            ("%", &[]),
        ] {
            assert_eq!(texts(SearchText::parse(text).unwrap().words()), words, "{text}");
        }
        assert_eq!(SearchText::parse(&"x".repeat(256)), Err(Reason::TooLong(255)));
        assert_eq!(SearchText::parse("a b c d e f g h i"), Err(Reason::TooManyWords(8)));
    }

    #[test]
    fn a_number_with_zeros_in_front_may_be_one_without() {
        let meanings = |text: &str| texts(&Word::all_of(text)[0].meanings()).join(" ");
        assert_eq!(meanings("0042"), "0042 42");
        assert_eq!(["42", "00", "0a"].map(meanings), ["42", "00", "0a"]);
    }

    #[test]
    fn a_person_is_never_printed() {
        assert_eq!(format!("{:?}", SearchText::parse("Ada").unwrap()), "SearchText(***)");
        assert_eq!(format!("{:?}", Word::all_of("Ada")), "[Word(***)]");
    }

    proptest! {
        #[test]
        fn folding_twice_is_folding_once(text in "\\PC{0,40}") {
            let words = Word::all_of(&text);
            for word in &words {
                prop_assert!(word.as_str().chars().count() <= Word::MAX_CHARACTERS);
                prop_assert_eq!(&Word::all_of(word.as_str()), std::slice::from_ref(word));
            }
        }

        #[test]
        fn a_text_is_found_by_itself_and_by_its_beginning(text in "\\PC{0,40}", length in 0..40_usize) {
            let words = Word::all_of(&text);
            let beginning: String = text.chars().take(length).collect();
            for search in [&text, &beginning] {
                // It would be read as the trunk prefix of a phone.
                if search.contains("(0)") { continue }
                let Ok(search) = SearchText::parse(search) else { continue };
                for looked_for in search.words() {
                    prop_assert!(words.iter().any(|word| word >= looked_for && *word.as_str() < *looked_for.end()));
                }
            }
        }
    }
}
