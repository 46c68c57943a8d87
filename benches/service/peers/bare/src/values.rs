//! The email and the phone of a customer in the form in which the service stores and compares them.

use async_graphql::Result;
use email_address::EmailAddress;
use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat, PhoneNumberType};

pub fn email(text: &str) -> Result<String> {
    let email = text.trim().to_lowercase();
    if EmailAddress::is_valid(&email) { Ok(email) } else { Err("INVALID_EMAIL".into()) }
}

/// Returns the E.164 form of a number with a country code.
pub fn phone(text: &str) -> Result<String> {
    let number = PHONE_NUMBER_UTIL.parse(text, None)?;
    match number.get_type() {
        PhoneNumberType::Unknown => Err("INVALID_PHONE".into()),
        _ => Ok(number.format_as(PhoneNumberFormat::E164).into_owned()),
    }
}
