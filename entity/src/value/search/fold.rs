//! Folding: the removal of the differences between texts that a search ignores.

use any_ascii::any_ascii_char;
use icu_properties::CodePointMapData;
use icu_properties::props::Script;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::value::is_invisible;
use crate::value::phone::ascii_digit;

/// The apostrophe of folded texts.
pub(super) const APOSTROPHE: char = '\'';

/// Removes case, ligatures, width, invisible characters, and accents other than umlauts. Folding twice is the same as
/// folding once.
pub(super) fn fold(text: &str) -> String {
    // Most values are ASCII, and folding them as Unicode takes several times as long.
    if text.is_ascii() {
        return text.chars().map(|char| char.to_ascii_lowercase()).filter_map(usual_letter).collect();
    }
    fold_unicode(text)
}

fn fold_unicode(text: &str) -> String {
    let mut folded = String::new();
    let mut base = ' ';
    // Some people type the acute accent `´` as an apostrophe. NFKD would split this character into a space and an
    // accent.
    for char in text.replace('´', "'").nfkd().filter(|char| !is_invisible(*char)) {
        if is_combining_mark(char) {
            if !is_accent(char) || is_umlaut(base, char) {
                folded.push(char);
            }
            continue;
        }
        base = char;
        if let Some(digit) = ascii_digit(char) {
            folded.push(digit);
            continue;
        }
        // The change to upper case comes first, because it maps variants such as the Greek final sigma to one letter.
        for char in char.to_uppercase().flat_map(char::to_lowercase) {
            if is_extended_latin(char) && char != 'ø' {
                // NFKD does not decompose letters such as ł and đ.
                folded.extend(any_ascii_char(char).chars().flat_map(char::to_lowercase));
            } else {
                folded.extend(usual_letter(char));
            }
        }
    }
    // NFC joins a letter and a remaining mark if Unicode has one character for both, for example `が`. A search for the
    // letter without the mark (`か`) then does not find the letter with the mark.
    folded.nfc().collect()
}

/// Returns true if a combining mark is an accent, which people often do not type. Returns false if the mark is a part
/// of its letter.
///
/// Accents are the marks of Latin, Greek and Cyrillic, the optional vowel signs of Arabic, Hebrew and Syriac, hamza and
/// madda on Arabic letters, and the dot of Devanagari. Other marks are parts of letters: vowel signs of Indic scripts,
/// vowels and tones of Thai, Lao, Khmer and Burmese, voicing marks of kana.
fn is_accent(mark: char) -> bool {
    const NUKTA: char = '\u{93c}';
    const VOICED: char = '\u{3099}';
    const SEMI_VOICED: char = '\u{309a}';
    match mark {
        NUKTA => true,
        VOICED | SEMI_VOICED => false,
        _ => matches!(
            script(mark),
            Script::Inherited
                | Script::Common
                | Script::Latin
                | Script::Greek
                | Script::Cyrillic
                | Script::Arabic
                | Script::Hebrew
                | Script::Syriac
        ),
    }
}

/// Returns true for the marks of `ä`, `ö`, `ü` and `å`. These letters also have a spelling without a mark.
fn is_umlaut(base: char, mark: char) -> bool {
    match mark {
        '\u{308}' => matches!(base, 'a' | 'o' | 'u' | 'A' | 'O' | 'U'),
        '\u{30a}' => matches!(base, 'a' | 'A'),
        _ => false,
    }
}

/// Returns the same letter for Arabic letters that people and keyboards use interchangeably, and the same character for
/// all apostrophes. Returns `None` for the Arabic stretching character (tatweel).
fn usual_letter(char: char) -> Option<char> {
    Some(match char {
        // Persian, Urdu and Kurdish keyboards have their own letters, which look like Arabic letters.
        'ی' | 'ى' => 'ي',
        'ک' => 'ك',
        'ہ' | 'ھ' | 'ە' | 'ة' | 'ۃ' => 'ه',
        'ٱ' => 'ا',
        'ـ' => return None,
        '`' | '‘' | '’' | '‛' | '′' | 'ʹ' | 'ʻ' | 'ʼ' | 'ʽ' | 'ʾ' | 'ʿ' | '׳' => APOSTROPHE,
        _ => char,
    })
}

/// Returns true for the characters of the Unicode blocks that have most of the Latin letters outside ASCII. Most of
/// these characters are letters with a diacritic.
fn is_extended_latin(char: char) -> bool {
    matches!(char, '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}')
}

/// Returns the script of a character.
pub(super) fn script(char: char) -> Script {
    CodePointMapData::<Script>::new().get(char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_characters_are_folded_as_unicode_is() {
        for char in '\0'..='\x7f' {
            let text = format!("a{char}B");
            assert_eq!(fold(&text), fold_unicode(&text), "{char:?}");
        }
    }
}
