//! The format of API keys: `vivamo_<environment>_`, 30 random characters, and a checksum of 6 characters, for example
//! `vivamo_sandbox_Ab3x…`.

use entity::deployment::Environment;
use rand::distr::{Alphanumeric, SampleString};
use sea_orm::ActiveEnum;

/// The number of random characters in a key. 30 characters from an alphabet of 62 have 178 bits of entropy.
const RANDOM_CHARACTERS: usize = 30;
const CHECKSUM_CHARACTERS: usize = 6;
/// The number of random characters in the stored prefix.
const SHOWN_CHARACTERS: usize = 4;

/// The first characters of all keys of an environment, by which people and secret scanners recognise a key.
fn key_prefix(environment: Environment) -> String {
    format!("vivamo_{}_", environment.to_value())
}

/// The part of a key that is stored, by which people recognise the key.
pub(super) fn shown_prefix(key: &str, environment: Environment) -> &str {
    &key[..key_prefix(environment).len() + SHOWN_CHARACTERS]
}

/// Generates a new key.
pub(super) fn generate(environment: Environment) -> String {
    let random = Alphanumeric.sample_string(&mut rand::rng(), RANDOM_CHARACTERS);
    let key = key_prefix(environment) + &random;
    let checksum = checksum(&key);
    key + &checksum
}

/// The CRC-32 of the text in base 62, padded with zeros. Detects mistyped keys without a query.
fn checksum(key: &str) -> String {
    let digits = base62::encode(crc32fast::hash(key.as_bytes()));
    format!("{digits:0>CHECKSUM_CHARACTERS$}")
}

/// Returns true if the key has the format of this environment, and its checksum is correct.
pub(super) fn is_well_formed(key: &str, environment: Environment) -> bool {
    key.is_ascii()
        && key.len() == key_prefix(environment).len() + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS
        && key.starts_with(&key_prefix(environment))
        && checksum(&key[..key.len() - CHECKSUM_CHARACTERS]) == key[key.len() - CHECKSUM_CHARACTERS..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_well_formed_only_in_its_own_environment() {
        for (own, other) in
            [(Environment::Sandbox, Environment::Production), (Environment::Production, Environment::Sandbox)]
        {
            let key = generate(own);
            assert!(is_well_formed(&key, own));
            assert!(!is_well_formed(&key, other));
            assert_ne!(key, generate(own));
        }
    }

    #[test]
    fn a_mistyped_key_is_not_well_formed() {
        let key = generate(Environment::Sandbox);
        for position in "vivamo_sandbox_".len()..key.len() {
            let mut mistyped = key.clone().into_bytes();
            mistyped[position] = if mistyped[position] == b'x' { b'y' } else { b'x' };
            let mistyped = String::from_utf8(mistyped).expect("ASCII");
            assert!(!is_well_formed(&mistyped, Environment::Sandbox), "{mistyped}");
        }
        for other in
            ["", "vivamo_sandbox_", &key[1..], &key[..key.len() - 1], &format!("{key}0"), "é".repeat(26).as_str()]
        {
            assert!(!is_well_formed(other, Environment::Sandbox), "{other}");
        }
    }
}
