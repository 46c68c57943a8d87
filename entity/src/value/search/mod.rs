//! Search words: the form in which customers are indexed and searched.
//!
//! [`SearchWord::tokenize`] splits a stored value into words, and each word becomes a row of `customer_word`.
//! [`SearchQuery::parse`] splits the text of a search. A customer matches if each word of the search is a prefix of one
//! of the customer's words: `ada lovel` finds `Ada Lovelace`; `415 555` finds `+14155552671`.
//!
//! Stored values and searches are folded in the same way: differences of case, accents, ligatures and character width
//! are removed, and digits become ASCII (`Łukasz` becomes `lukasz`, `٣` becomes `3`). Marks that are parts of letters
//! stay, such as the vowel signs of Indic scripts. After a change of the folding or of the word rules, the stored words
//! no longer match: a migration must delete all rows of `customer_word`, and `vivamo migrate` writes them again.
//!
//! The word column is compared byte by byte on both databases, so a prefix is a range of the index: `word >= 'ada' AND
//! word < 'ada\u{10ffff}'`.

mod fold;

use std::ops::Range;

use icu_properties::props::Script;
use sea_orm::DeriveValueType;
use unicode_normalization::char::is_combining_mark;

use super::{EmailAddress, PersonName, PhoneNumber, Reason, masked_debug};
use fold::{APOSTROPHE, fold, script};

/// A folded word: letters, their marks, and digits; at most 50 characters. Two kinds of words start with a sign, so
/// that a search for the start of an ordinary word does not find them: the last four digits of a phone, for example
/// `#2671`, and a pair of words of the first and the last name, for example `&ada lovelace`, which has at most 102
/// characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
pub struct SearchWord(String);

impl SearchWord {
    /// The maximum length of an ordinary word, and of each word of a pair. A longer word is cut off, because an index
    /// entry has a maximum size.
    pub const MAX_CHARACTERS: usize = 50;

    /// The maximum number of stored words of a value. Further words are ignored, because each word is a row for each
    /// operator of the customer.
    const MAX_PER_VALUE: usize = 12;

    /// Splits a stored value into its words: sequences of letters and digits. `Ada Lovelace` has `ada` and `lovelace`.
    ///
    /// Some neighbouring parts of a value can be written together or apart, and people search for any of these parts.
    /// Such parts form a run. Each part of a run, joined with all later parts of the run, becomes one word:
    ///
    /// - numbers: `2026-0017` has `20260017` and `0017`; the last part may be a word that starts with a digit, such as
    ///   `17b`;
    /// - parts around an apostrophe or after a single letter: `O'Brien` and `O Brien` have `obrien` and `brien`;
    /// - each character of a script without spaces: `王小明` has `王小明`, `小明` and `明`.
    ///
    /// A word with `ä`, `ö`, `ü`, `ø` or `å` becomes two words: `Müller` has `muller` and `mueller`.
    pub fn tokenize(text: &str) -> Vec<Self> {
        let folded = fold(text);
        let parts = parts(&folded);
        let joined = (0..parts.len()).map(|first| {
            let rest = parts[first + 1..].iter().take_while(|part| part.is_joined_when_stored);
            std::iter::once(&parts[first]).chain(rest).map(|part| part.text).collect::<String>()
        });
        joined.flat_map(|word| spellings(&word)).take(Self::MAX_PER_VALUE).map(Self).collect()
    }

    /// Returns the words of the whole name:
    ///
    /// - If both names are in a script without spaces, they are joined in both orders: `小明` and `王` have `王小明` and
    ///   `小明王`.
    /// - Each word of the first name forms a [pair](Self::pair) with each word of the last name, except numbers. Only
    ///   the first 12 pairs are stored.
    pub fn of_full_name(first: &PersonName, last: &PersonName) -> Vec<Self> {
        let folded = [first, last].map(|name| fold(name.as_str()));
        let is_joined = folded.iter().all(|name| !name.is_empty() && name.chars().all(is_unspaced));
        let [first_name, last_name] = &folded;
        let orders = [format!("{last_name}{first_name}"), format!("{first_name}{last_name}")];
        let joined = orders.iter().filter(|_| is_joined).flat_map(|name| spellings(name)).map(Self);
        let last_words = Self::tokenize(last.as_str());
        let pairs = Self::tokenize(first.as_str()).into_iter().flat_map(|first| {
            let pairs = last_words.iter().filter_map(|last| Self::pair(first.as_str(), last.as_str()));
            pairs.collect::<Vec<_>>()
        });
        joined.chain(pairs.take(Self::MAX_PER_VALUE)).collect()
    }

    /// The word for two different words of a name, in any order. `None` if they are equal, or if one of them is a
    /// number: people search for a name and a number to find a phone or an external id.
    fn pair(one: &str, other: &str) -> Option<Self> {
        let (first, second) = if one < other { (one, other) } else { (other, one) };
        let is_pair = first != second && !is_number(first) && !is_number(second);
        is_pair.then(|| Self(format!("{PAIR}{first} {second}")))
    }

    /// Returns the words of a phone number: its digits with and without the country code, and its last four digits.
    pub fn of_phone(phone: &PhoneNumber) -> Vec<Self> {
        let [international, national] = phone.international_and_national_digits();
        let last_four = national.get(national.len().saturating_sub(LAST_DIGITS)..).unwrap_or_default();
        [international.to_owned(), national.to_owned(), format!("{ENDS_IN}{last_four}")].map(Self).to_vec()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

masked_debug!(SearchWord);

/// The number of digits in a search for the end of a phone.
const LAST_DIGITS: usize = 4;
/// The sign before the last digits of a phone in its search word, for example `#2671`. A search adds the sign only to
/// words of four digits, so a prefix such as `26` does not match.
const ENDS_IN: char = '#';
/// The sign before a pair of words of a name, for example `&ada lovelace`.
const PAIR: char = '&';

/// A word of a search. The word keeps its umlauts, because an umlaut matches two spellings.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryWord(String);

impl QueryWord {
    /// Returns one half-open range of stored words for each spelling of this word. The words in the range start with
    /// the spelling.
    ///
    /// A number with leading zeros is also searched without the zeros, because phones are stored without a trunk prefix
    /// and without `00`: `020` matches `020…` and `20…`. A number of four digits also matches the end of a phone.
    pub fn prefix_ranges(&self) -> Vec<Range<String>> {
        let mut prefixes = spellings(&self.0);
        let without_zeros = self.0.trim_start_matches('0');
        if is_number(&self.0) && !without_zeros.is_empty() && without_zeros != self.0 {
            prefixes.push(without_zeros.to_owned());
        }
        if is_number(&self.0) && self.0.len() == LAST_DIGITS {
            prefixes.push(format!("{ENDS_IN}{}", self.0));
        }
        // No stored word contains `char::MAX`, because it is not a letter or digit. All words that start with the
        // prefix are therefore below the end of the range.
        prefixes.into_iter().map(|prefix| prefix.clone()..format!("{prefix}{}", char::MAX)).collect()
    }

    /// The first of the spellings in which this word may be stored.
    pub fn first_spelling(&self) -> SearchWord {
        SearchWord(spellings(&self.0).swap_remove(0))
    }

    /// Returns the same ranges as [`prefix_ranges`](Self::prefix_ranges), but leaves out the first spelling itself.
    pub fn ranges_without_first_spelling(&self) -> Vec<Range<String>> {
        let mut ranges = self.prefix_ranges();
        // The first range starts with the first spelling. Only pairs contain a space, and they start with a sign, so
        // all longer words are above the spelling with a space.
        ranges[0].start.push(' ');
        ranges
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

masked_debug!(QueryWord);

/// A search: word prefixes that must all match. An empty query matches nobody.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SearchQuery {
    words: Vec<QueryWord>,
    name_pair: Option<SearchWord>,
    email: Option<EmailAddress>,
}

impl SearchQuery {
    /// The maximum length of a search. It is the maximum length of an external id, the longest searchable value.
    pub const MAX_CHARACTERS: usize = 255;
    pub const MAX_WORDS: usize = 8;

    /// Parses the string that a user typed. Rejects a string of more than 255 characters. Rejects a string of more than
    /// 8 words, unless it is an email.
    ///
    /// Adjacent numbers are joined and a trunk prefix in brackets is dropped, so that a phone is found in any spelling:
    /// `+44 (0)20 7183` becomes `44207183`. Words at an apostrophe are joined as well. A word that is a prefix of
    /// another word is dropped, unless the other word is a number, or the two words may be a first and a last name:
    /// `John Johnson`.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        if text.len() > 4 * Self::MAX_CHARACTERS || text.chars().count() > Self::MAX_CHARACTERS {
            return Err(Reason::TooLong(Self::MAX_CHARACTERS));
        }
        let folded = fold(text);
        let start = folded.trim_start_matches(|character: char| character.is_whitespace() || character == '(');
        let is_phone = ["+", "00"].iter().any(|prefix| start.starts_with(prefix));
        let folded = if is_phone { folded.replace("(0)", " ") } else { folded };
        let mut words: Vec<String> = Vec::new();
        // The two parts of an email are stored as different values, so their numbers are not joined.
        for part in folded.split('@').flat_map(parts) {
            match words.last_mut() {
                Some(word) if part.is_joined_when_searched => word.push_str(part.text),
                _ => words.push(part.text.to_owned()),
            }
        }
        let cut = |word: &String| word.chars().take(SearchWord::MAX_CHARACTERS).collect();
        let mut words: Vec<_> = words.iter().map(cut).map(QueryWord).collect();
        let email = EmailAddress::parse(text).ok();
        words.sort_unstable_by(|a, b| b.cmp(a));
        words.dedup();
        let name_pair = match words.as_slice() {
            [one, other] if email.is_none() => {
                SearchWord::pair(one.first_spelling().as_str(), other.first_spelling().as_str())
            }
            _ => None,
        };
        // Both words of a pair stay, because a search of one word does not leave out the customers who come first.
        if name_pair.is_none() {
            // In descending order, a prefix comes directly after the words that start with it. A number also matches
            // words that do not start with it.
            words.dedup_by(|prefix, word| !is_number(word.as_str()) && word.as_str().starts_with(prefix.as_str()));
        }
        if words.len() > Self::MAX_WORDS && email.is_none() {
            return Err(Reason::TooManyWords(Self::MAX_WORDS));
        }
        // If an email has more words, the customer is still found by the whole email.
        words.truncate(Self::MAX_WORDS);
        Ok(Self { words, name_pair, email })
    }

    /// Returns the words, all different.
    pub fn words(&self) -> &[QueryWord] {
        &self.words
    }

    /// Returns the pair of the words, if the search could be a first and a last name: it has two words, and neither is
    /// a number. The customers whose first and last name have these two words come first in the results of the search.
    pub fn name_pair(&self) -> Option<&SearchWord> {
        self.name_pair.as_ref()
    }

    /// Returns the email address, if the whole text is an email address. The customer with this email comes first in
    /// the results of the search.
    pub fn email(&self) -> Option<&EmailAddress> {
        self.email.as_ref()
    }
}

masked_debug!(SearchQuery);

/// A part of a folded text that is not split further. Each character of a script without spaces starts a new part.
/// Letters of other scripts, marks and digits that follow this character belong to its part.
struct Part<'t> {
    text: &'t str,
    /// True if `SearchWord::tokenize` joins this part to the previous part. A search that writes the two parts as one
    /// word then finds the stored value.
    is_joined_when_stored: bool,
    /// True if this part of a search and the previous part are one word.
    is_joined_when_searched: bool,
}

/// Splits a folded text into its parts.
fn parts(folded: &str) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    let mut rest = folded;
    while let Some(start) = rest.find(is_word_character) {
        let (separator, word) = rest.split_at(start);
        let is_end = |(index, char): &(usize, char)| !is_word_character(*char) || (*index > 0 && starts_part(*char));
        let end = word.char_indices().find(is_end).map_or(word.len(), |(index, _)| index);
        let (text, after) = word.split_at(end);
        // A mark at the start of a part has no letter. Joined to a letter, it could become part of that letter.
        let previous = parts.last().filter(|_| !text.starts_with(is_combining_mark));
        let is_joined_when_searched = previous.is_some_and(|previous| {
            separator.chars().all(|char| char == APOSTROPHE) || is_number(previous.text) && is_number(text)
        });
        let is_joined_when_stored = previous.is_some_and(|previous| {
            let starts_with_digit = text.starts_with(|char: char| char.is_ascii_digit());
            is_number(previous.text) && starts_with_digit || is_single_letter(previous.text)
        });
        parts.push(Part {
            text,
            is_joined_when_stored: is_joined_when_stored || is_joined_when_searched,
            is_joined_when_searched,
        });
        rest = after;
    }
    parts
}

fn is_word_character(char: char) -> bool {
    char.is_alphanumeric() || is_combining_mark(char)
}

fn is_number(word: &str) -> bool {
    word.chars().all(|char| char.is_ascii_digit())
}

fn is_single_letter(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(|char| char.is_alphabetic() && !is_unspaced(char)) && chars.next().is_none()
}

/// Returns true for characters of scripts in which names are written without spaces. The long vowel mark belongs to the
/// character before it.
fn is_unspaced(char: char) -> bool {
    starts_part(char) || char == 'ー'
}

fn starts_part(char: char) -> bool {
    // Looking up the script costs more than this comparison, and most texts are in other scripts.
    char >= '\u{1100}' && matches!(script(char), Script::Han | Script::Hiragana | Script::Katakana | Script::Hangul)
}

/// Returns the stored spellings of a folded word. An umlaut such as `ü` is spelled `u` in one spelling, and `ue` in the
/// other.
fn spellings(word: &str) -> Vec<String> {
    if word.is_ascii() {
        return vec![word.chars().take(SearchWord::MAX_CHARACTERS).collect()];
    }
    let spell = |replace: fn(char) -> &'static str| {
        let mut spelled = String::new();
        for char in word.chars() {
            match replace(char) {
                "" => spelled.push(char),
                replacement => spelled.push_str(replacement),
            }
        }
        spelled.chars().take(SearchWord::MAX_CHARACTERS).collect::<String>()
    };
    let plain = spell(|char| match char {
        'ä' | 'å' => "a",
        'ö' | 'ø' => "o",
        'ü' => "u",
        _ => "",
    });
    let replaced = spell(|char| match char {
        'ä' => "ae",
        'å' => "aa",
        'ö' | 'ø' => "oe",
        'ü' => "ue",
        _ => "",
    });
    if plain == replaced { vec![plain] } else { vec![plain, replaced] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_normalization::UnicodeNormalization;

    use super::*;

    fn texts(words: &[SearchWord]) -> Vec<&str> {
        words.iter().map(SearchWord::as_str).collect()
    }

    /// Returns true if the search finds the stored value.
    fn finds(search: &str, stored: &[SearchWord]) -> bool {
        let query = SearchQuery::parse(search).unwrap();
        let is_found = |word: &QueryWord| {
            let ranges = word.prefix_ranges();
            stored.iter().any(|stored| ranges.iter().any(|range| range.contains(&stored.0)))
        };
        !query.words().is_empty() && query.words().iter().all(is_found)
    }

    #[test]
    fn tokenize_folds_words_and_joins_their_parts() {
        for (text, words) in [
            ("Ada Lovelace", &["ada", "lovelace"][..]),
            ("JOSÉ Jose\u{301}", &["jose", "jose"]),
            ("Łukasz Groß Đặng ﬁn", &["lukasz", "gross", "dang", "fin"]),
            ("İstanbul ılık", &["istanbul", "ilik"]),
            ("Ὀδυσσεύς ΟΔΥΣΣΕΥΣ", &["οδυσσευσ", "οδυσσευσ"]),
            ("Ёлка ЖУК", &["елка", "жук"]),
            ("王小明", &["王小明", "小明", "明"]),
            ("김철수", &["김철수", "철수", "수"]),
            ("カ\u{3099}ー", &["ガー"]),
            ("Müller", &["muller", "mueller"]),
            ("Søren Ågård", &["soren", "soeren", "agard", "aagaard"]),
            ("राम रोम", &["राम", "रोम"]),
            ("ada.lovelace+shop@example.com", &["ada", "lovelace", "shop", "example", "com"]),
            ("O'Brien-Smith", &["obrien", "brien", "smith"]),
            ("O Brien", &["obrien", "brien"]),
            ("A-17", &["a17", "17"]),
            ("user_1%", &["user", "1"]),
            ("ＡＢＣ １２ ٣٤", &["abc", "1234", "34"]),
            ("2026-0017", &["20260017", "0017"]),
            ("ORD-1-22-3b cd 4", &["ord", "1223b", "223b", "3b", "cd", "4"]),
            ("Schiff\u{ad}fahrt", &["schifffahrt"]),
            ("4711", &["4711"]),
            // Marks without a letter are not joined.
            ("\u{1e000}:\u{11f41}", &["\u{1e000}", "\u{11f41}"]),
            ("x\u{1e000}'\u{11f41}", &["x\u{1e000}", "\u{11f41}"]),
            (
                "a1 b2 c3 d4 e5 f6 g7 h8 i9 j10 k11 l12 m13",
                &["a1", "b2", "c3", "d4", "e5", "f6", "g7", "h8", "i9", "j10", "k11", "l12"],
            ),
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
            ("0044(0)20 7183", &["0044207183"]),
            ("(+44) (0)20 7183", &["44207183"]),
            ("＋44（0）20 7183", &["44207183"]),
            ("\u{202d}+44 (0)20 7183\u{202c}", &["44207183"]),
            ("2024(0)17", &["2024017"]),
            ("ada 415 555", &["ada", "415555"]),
            ("o'brien", &["obrien"]),
            ("o brien", &["o", "brien"]),
            ("mül müller", &["mül", "müller"]),
            ("mül müller ada", &["müller", "ada"]),
            ("ada ADA", &["ada"]),
            ("26 ada 2671", &["26", "ada", "2671"]),
            ("12345@163.com", &["com", "163", "12345"]),
            ("%", &[]),
        ] {
            let query = SearchQuery::parse(text).unwrap();
            let mut words = words.to_vec();
            words.sort_unstable();
            words.reverse();
            assert_eq!(query.words().iter().map(QueryWord::as_str).collect::<Vec<_>>(), words, "{text}");
        }
        assert_eq!(SearchQuery::parse(&"x".repeat(256)), Err(Reason::TooLong(255)));
        assert_eq!(SearchQuery::parse("a b c d e f g h i"), Err(Reason::TooManyWords(8)));
        assert_eq!(SearchQuery::parse("a.b.c.d.e.f.g.h@i.com").unwrap().words().len(), 8);
        let email = |text: &str| SearchQuery::parse(text).unwrap().email().map(|email| email.as_str().to_owned());
        assert_eq!(email(" Ada@Example.com").as_deref(), Some("ada@example.com"));
        assert_eq!(["ada@example", "ada example.com", "Ada ada@example.com"].map(email), [None, None, None]);
    }

    #[test]
    fn searches_find_the_spellings_of_a_name() {
        for (stored, found_by, not_found_by) in [
            // Umlauts and similar letters: as they are, as the letter without its mark, and as two letters, for example
            // `ue`.
            ("Müller", &["müller", "muller", "mueller", "MUELL", "mu\u{308}"][..], &["miller", "möller"][..]),
            ("Mueller", &["mueller", "müller"], &["muller"]),
            ("Muller", &["müller", "muller"], &["mueller"]),
            ("Jørgensen Åse", &["jorgensen", "joergensen", "jørg", "aase", "ase"], &["oese"]),
            ("Größe", &["groesse", "grosse", "größe", "GRÖSSE"], &[]),
            ("Michael Joel", &["michael", "joel"], &["michal", "jol"]),
            // Apostrophes of any kind, or none.
            ("O'Brien", &["obrien", "o'brien", "o’brien", "O´Brien", "brien", "o brien"], &["rien"]),
            ("O’Brien", &["obrien", "o'brien", "brien o"], &[]),
            ("OBrien", &["o'brien", "obrien"], &["brien"]),
            ("O Brien", &["o'brien", "obrien", "brien"], &[]),
            ("D'Angelo-Sant'Anna", &["dangelo", "angelo santanna", "anna"], &["elo"]),
            ("Дем'ян", &["демян", "дем’ян", "Демʼян"], &["ємян"]),
            ("Kaʻahumanu", &["kaahumanu", "ka'ahu", "ahumanu"], &["humanu"]),
            // Scripts without spaces.
            ("王小明", &["王小明", "王", "小明", "王 小明", "明"], &["小王", "大"]),
            ("山田太郎", &["山田", "太郎", "太郎 山田"], &["川田"]),
            ("さとうがく", &["さとう", "がく"], &["かく", "さとか"]),
            ("김철수", &["김철수", "철수", "김 철수"], &["기", "철순"]),
            // Marks that are parts of letters stay.
            ("राम", &["राम", "रा", "र"], &["रोम", "रम", "रमा"]),
            ("रोम", &["रोम"], &["राम"]),
            ("கமல்", &["கமல்", "கமல"], &["காமல்", "கமலி"]),
            ("রহিম", &["রহিম"], &["রহম", "রাহিম"]),
            ("สมชาย ใจดี", &["สมชาย", "ใจดี"], &["สมชัย", "ใจดั"]),
            ("น้ำ", &["น้ำ"], &["นำ", "นี้"]),
            ("ဇော်", &["ဇော်"], &["ဇော့"]),
            ("がく", &["がく", "か\u{3099}く"], &["かく"]),
            ("ﾄﾞﾗ", &["ドラ"], &["トラ"]),
            // Accents and vowel points, which people leave out.
            ("Nguyễn Đặng", &["nguyen", "dang", "nguyễn"], &["nguyan"]),
            ("Ξανθή Άννα", &["ξανθη", "αννα", "ΑΝΝΑ"], &[]),
            ("Ёлкин Андрей", &["елкин", "ёлкин", "андреи"], &[]),
            ("مُحَمَّد", &["محمد", "مُحمد", "محمـد"], &["محمود"]),
            ("שָׁלוֹם", &["שלום", "שלו"], &["שולם"]),
            ("ज़ाकिर", &["जाकिर", "ज़ाकिर"], &["जकिर"]),
            // Letters of Persian, Urdu and Kurdish keyboards.
            ("علي", &["علی", "على", "علي"], &["عالي"]),
            ("کریمی", &["كريمي", "کریمی", "كريمى"], &[]),
            ("فاطمة", &["فاطمه", "فاطمہ", "فاطمة"], &[]),
            ("أحمد", &["احمد", "ٱحمد", "آحمد"], &[]),
            ("شهاب", &["شہاب", "شھاب"], &[]),
        ] {
            let words = SearchWord::tokenize(stored);
            for search in found_by {
                assert!(finds(search, &words), "{stored} by {search}: {:?}", texts(&words));
            }
            for search in not_found_by {
                assert!(!finds(search, &words), "{stored} by {search}: {:?}", texts(&words));
            }
        }
    }

    fn full_name(first: &str, last: &str) -> Vec<SearchWord> {
        let [first, last] = [first, last].map(|name| PersonName::parse(name).unwrap());
        SearchWord::of_full_name(&first, &last)
    }

    #[test]
    fn names_in_scripts_without_spaces_are_found_written_together() {
        for (first, last, joined) in [
            ("小明", "王", &["王小明", "小明王"][..]),
            ("太郎", "山田", &["山田太郎", "太郎山田"]),
            ("철수", "김", &["김철수", "철수김"]),
            ("ルーシー", "サトウ", &["サトウルーシー", "ルーシーサトウ"]),
            ("Ada", "王", &[]),
            ("小明", "Wang", &[]),
            ("小 明", "王", &[]),
            ("राम", "सिंह", &[]),
        ] {
            let words = full_name(first, last);
            let words: Vec<_> = texts(&words).into_iter().filter(|word| !word.starts_with(PAIR)).collect();
            assert_eq!(words, joined, "{first} {last}");
        }
    }

    #[test]
    fn each_first_name_forms_a_pair_with_each_last_name() {
        for (first, last, pairs) in [
            ("Ada", "Lovelace", &["&ada lovelace"][..]),
            ("Zoë", "Ahlgren", &["&ahlgren zoe"]),
            ("María José", "Núñez", &["&maria nunez", "&jose nunez"]),
            ("Jürgen", "Müller", &["&jurgen muller", "&jurgen mueller", "&juergen muller", "&juergen mueller"]),
            ("Conor", "O'Brien", &["&conor obrien", "&brien conor"]),
            ("小明", "王", &["王小明", "小明王", "&小明 王", "&明 王"]),
            ("John 3", "Smith", &["&john smith"]),
            ("3", "4", &[]),
            ("Ali", "Ali", &[]),
        ] {
            assert_eq!(texts(&full_name(first, last)), pairs, "{first} {last}");
        }
        assert_eq!(full_name("a1 a2 a3 a4 a5", "b1 b2 b3").len(), SearchWord::MAX_PER_VALUE);
    }

    #[test]
    fn a_search_of_two_words_may_be_a_first_and_a_last_name() {
        for (search, pair) in [
            ("Ada LOVELACE", Some("&ada lovelace")),
            ("lovelace ada", Some("&ada lovelace")),
            ("Jürgen Mueller", Some("&jurgen mueller")),
            ("o'brien conor", Some("&conor obrien")),
            ("ada", None),
            ("ada adams", Some("&ada adams")),
            ("ada ADA", None),
            ("Ada Ada Lovelace", Some("&ada lovelace")),
            ("John Johnson Lee", None),
            ("ada king lovelace", None),
            ("ada 2671", None),
            ("ada@example.com", None),
        ] {
            let query = SearchQuery::parse(search).unwrap();
            assert_eq!(query.name_pair().map(SearchWord::as_str), pair, "{search}");
        }
        // A search for one of the words does not find the pair too, which would count the customer twice.
        assert!(!finds("ada", &full_name("Ada", "Lovelace")));
    }

    #[test]
    fn phones_are_found_by_their_beginning_and_their_last_four_digits() {
        let words = SearchWord::of_phone(&PhoneNumber::parse("+14155552671").unwrap());
        for search in ["2671", "…2671", "**** 2671", "٢٦٧١", "+1415", "415 555", "4155552671"] {
            assert!(finds(search, &words), "{search}");
        }
        for search in ["671", "267", "26", "5552671", "12671"] {
            assert!(!finds(search, &words), "{search}");
        }
        let words = SearchWord::of_phone(&PhoneNumber::parse("+442079460018").unwrap());
        assert!(finds("0018", &words) && finds("020 7946", &words) && !finds("18", &words));
    }

    #[test]
    fn a_number_with_leading_zeros_has_a_second_range_without_them() {
        let ranges = |text: &str| SearchQuery::parse(text).unwrap().words()[0].prefix_ranges();
        let range = |prefix: &str| prefix.to_owned()..format!("{prefix}\u{10ffff}");
        assert_eq!(ranges("00042"), [range("00042"), range("42")]);
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
                // In scripts without spaces, tokenizing a word also returns each ending of the word. The whole word
                // comes first.
                prop_assert_eq!(&SearchWord::tokenize(word.as_str())[0], word);
            }
        }

        #[test]
        fn a_text_and_each_of_its_prefixes_find_the_text(text in "\\PC{0,40}", length in 0..40_usize) {
            let words = SearchWord::tokenize(&text);
            // Words beyond the maximum of a value are not stored, so a search does not find them.
            prop_assume!(words.len() < SearchWord::MAX_PER_VALUE);
            let prefix: String = text.chars().take(length).collect();
            for search in [&text, &prefix] {
                // `parse` would drop `(0)` as the trunk prefix of a phone.
                if search.contains("(0)") { continue }
                // A letter without its mark is not a prefix of the letter with the mark, nor is the first letter of a
                // Korean syllable a prefix of the syllable.
                if !text.nfkc().collect::<String>().starts_with(&search.nfkc().collect::<String>()) { continue }
                let Ok(query) = SearchQuery::parse(search) else { continue };
                for searched in query.words() {
                    let range = searched.prefix_ranges().swap_remove(0);
                    prop_assert!(words.iter().any(|word| range.contains(&word.0)));
                }
            }
        }
    }
}
