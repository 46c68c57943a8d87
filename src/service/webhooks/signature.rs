//! Signatures by the [Standard Webhooks](https://www.standardwebhooks.com) scheme.
//!
//! A delivery has the headers `webhook-id`, `webhook-timestamp` (seconds since 1970) and `webhook-signature`. A
//! signature is the HMAC-SHA256 of `id.timestamp.body`, for example `v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=`.
//! `webhook-signature` has one signature per valid secret, separated by spaces. During a rotation, a receiver can
//! therefore verify a delivery with the old or the new secret.

use std::fmt::{Debug, Formatter, Result as FormatResult};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use ring::hmac;
use secrecy::SecretString;
use uuid::Uuid;

use crate::keyed_hash::{KeyedHasher, PerSecret};

/// The header with the id of the message.
pub const ID_HEADER: &str = "webhook-id";
/// The header with the time of the attempt, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The header with the signatures.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// The secret of an endpoint. Its text is `whsec_` and base64. Secrets are not stored: [`derive`](Self::derive)
/// computes them.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

/// The reason why a delivery cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("`webhook-timestamp` is not a number of seconds")]
    InvalidTimestamp,
    #[error("`webhook-timestamp` is more than five minutes in the past")]
    TooOld,
    #[error("`webhook-timestamp` is more than five minutes in the future")]
    TooNew,
    #[error("no signature in `webhook-signature` was made with this secret")]
    WrongSignature,
}

impl SigningSecret {
    const PREFIX: &str = "whsec_";
    /// The scheme allows 24 to 64 bytes.
    const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
    /// The allowed difference between the time of a delivery and the clock of the receiver.
    const TOLERANCE: TimeDelta = TimeDelta::minutes(5);

    /// Returns the secrets of an endpoint, one for each accepted key secret. `secret_version` is 1 at first, and
    /// increases with each rotation. Only the current secret is shown to the operator. While `VIVAMO_KEY_SECRET` is
    /// being changed, there is a second one, so that receivers can verify deliveries with the secret that they know.
    pub fn derive(hasher: &KeyedHasher, webhook: Uuid, secret_version: i32) -> PerSecret<Self> {
        let parts: [&[u8]; 2] = [webhook.as_bytes(), &secret_version.to_be_bytes()];
        hasher.accepted_digests(PURPOSE, &parts).map(Self)
    }

    /// Parses `whsec_…`. `None` if the text is malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text.strip_prefix(Self::PREFIX)?).ok()?;
        Self::BYTES.contains(&bytes.len()).then_some(Self(bytes))
    }

    /// Returns the text for the receiver, for example `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`.
    pub fn to_text(&self) -> SecretString {
        format!("{}{}", Self::PREFIX, BASE64_STANDARD.encode(&self.0)).into()
    }

    /// Verifies the headers of a delivery: a signature was made with this secret, and the timestamp is at most five
    /// minutes away from `now`.
    pub fn verify(
        &self,
        id: &str,
        timestamp: &str,
        signatures: &str,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), VerifyError> {
        let sent_at = timestamp.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        let age = now - sent_at.ok_or(VerifyError::InvalidTimestamp)?;
        let signed = signed_content(id, timestamp, body);
        let is_own = |signature: &str| {
            let bytes = signature.strip_prefix(VERSION).and_then(|text| BASE64_STANDARD.decode(text).ok());
            bytes.is_some_and(|bytes| hmac::verify(&self.key(), &signed, &bytes).is_ok())
        };
        if !signatures.split(' ').any(is_own) {
            return Err(VerifyError::WrongSignature);
        }
        match age {
            age if age > Self::TOLERANCE => Err(VerifyError::TooOld),
            age if age < -Self::TOLERANCE => Err(VerifyError::TooNew),
            _ => Ok(()),
        }
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl Debug for SigningSecret {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> FormatResult {
        formatter.write_str("***")
    }
}

/// Returns the `webhook-signature` header: one signature per secret.
pub fn sign(secrets: &[SigningSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signed = signed_content(id, &timestamp.to_string(), body);
    let signature = |secret: &SigningSecret| {
        let tag = hmac::sign(&secret.key(), &signed);
        format!("{VERSION}{}", BASE64_STANDARD.encode(tag))
    };
    secrets.iter().map(signature).collect::<Vec<_>>().join(" ")
}

/// The purpose of the keyed hash. A change of this text would change the secrets of all endpoints.
const PURPOSE: &str = "webhook";

/// The version of the scheme that signs with a shared secret.
const VERSION: &str = "v1,";

fn signed_content(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use secrecy::ExposeSecret;
    use standardwebhooks::Webhook;

    use super::*;
    use crate::service::now;

    const ID: &str = "msg_01";
    const BODY: &[u8] = br#"{"type":"customer.changes"}"#;

    fn secret(secret_version: i32) -> SigningSecret {
        SigningSecret::derive(&KeyedHasher::new("secret"), Uuid::nil(), secret_version).current
    }

    fn headers(timestamp: i64, signature: &str) -> HeaderMap {
        let value = |text: &str| text.parse().unwrap();
        let timestamp = timestamp.to_string();
        let headers = [(ID_HEADER, ID), (TIMESTAMP_HEADER, &timestamp), (SIGNATURE_HEADER, signature)];
        headers.into_iter().map(|(name, text)| (name.parse().unwrap(), value(text))).collect()
    }

    #[test]
    fn the_library_of_the_scheme_accepts_the_signature() {
        let (old, new) = (secret(1), secret(2));
        let timestamp = now().timestamp();
        let both = sign(&[new.clone(), old.clone()], ID, timestamp, BODY);
        for secret in [&old, &new] {
            let library = Webhook::new(secret.to_text().expose_secret()).unwrap();
            assert_eq!(
                library.sign(ID, timestamp, BODY).unwrap(),
                sign(std::slice::from_ref(secret), ID, timestamp, BODY)
            );
            library.verify(BODY, &headers(timestamp, &both)).unwrap();
        }
        let other = Webhook::new(self::secret(3).to_text().expose_secret()).unwrap();
        assert!(other.verify(BODY, &headers(timestamp, &both)).is_err());
    }

    #[test]
    fn verification_agrees_with_the_library_of_the_scheme() {
        let (own, other) = (secret(1), secret(2));
        let library = Webhook::new(own.to_text().expose_secret()).unwrap();
        let at = |seconds: i64| now().timestamp() + seconds;
        let signed_by = |secrets: &[&SigningSecret], timestamp: i64| {
            sign(&secrets.iter().map(|secret| (*secret).clone()).collect::<Vec<_>>(), ID, timestamp, BODY)
        };
        let cases = [
            (at(0), signed_by(&[&own], at(0)), Ok(())),
            (at(0), signed_by(&[&other, &own], at(0)), Ok(())),
            (at(-290), signed_by(&[&own], at(-290)), Ok(())),
            (at(290), signed_by(&[&own], at(290)), Ok(())),
            (at(-310), signed_by(&[&own], at(-310)), Err(VerifyError::TooOld)),
            (at(310), signed_by(&[&own], at(310)), Err(VerifyError::TooNew)),
            (at(0), signed_by(&[&other], at(0)), Err(VerifyError::WrongSignature)),
            (at(1), signed_by(&[&own], at(0)), Err(VerifyError::WrongSignature)),
            (at(0), signed_by(&[&own], at(0)).replace("v1,", "v2,"), Err(VerifyError::WrongSignature)),
            (at(0), "v1,".to_owned(), Err(VerifyError::WrongSignature)),
            (at(0), "v1".to_owned(), Err(VerifyError::WrongSignature)),
        ];
        for (timestamp, signatures, expected) in cases {
            let verified = own.verify(ID, &timestamp.to_string(), &signatures, BODY, now());
            assert_eq!(verified, expected, "{timestamp} {signatures}");
            let by_library = library.verify(BODY, &headers(timestamp, &signatures));
            assert_eq!(by_library.is_ok(), expected.is_ok(), "{timestamp} {signatures}: {by_library:?}");
        }
        let signature = signed_by(&[&own], at(0));
        assert_eq!(own.verify(ID, "soon", &signature, BODY, now()), Err(VerifyError::InvalidTimestamp));
        let timestamp = at(0).to_string();
        assert_eq!(own.verify("msg_02", &timestamp, &signature, BODY, now()), Err(VerifyError::WrongSignature));
        assert_eq!(own.verify(ID, &timestamp, &signature, b"{}", now()), Err(VerifyError::WrongSignature));
    }

    #[test]
    fn a_secret_depends_on_the_endpoint_the_version_and_the_key_secret() {
        let hasher = KeyedHasher::new("secret");
        let derive = SigningSecret::derive;
        let first = derive(&hasher, Uuid::nil(), 1);
        assert_eq!(first, derive(&hasher, Uuid::nil(), 1));
        assert_ne!(first, derive(&hasher, Uuid::nil(), 2));
        assert_ne!(first, derive(&hasher, Uuid::max(), 1));
        let changing = KeyedHasher::new("new").with_old("secret");
        let new = derive(&KeyedHasher::new("new"), Uuid::nil(), 1).current;
        assert_eq!(derive(&changing, Uuid::nil(), 1), PerSecret { current: new, other: Some(first.current) });
    }

    #[test]
    fn a_secret_is_parsed_from_its_text_and_not_shown() {
        let secret = secret(1);
        assert_eq!(SigningSecret::parse(secret.to_text().expose_secret()), Some(secret.clone()));
        assert_eq!(format!("{secret:?}"), "***");
        let of_23_bytes = format!("whsec_{}", BASE64_STANDARD.encode([0; 23]));
        let of_65_bytes = format!("whsec_{}", BASE64_STANDARD.encode([0; 65]));
        for malformed in ["", "whsec_", "whsec_MfKQ", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &of_23_bytes, &of_65_bytes] {
            assert_eq!(SigningSecret::parse(malformed), None, "{malformed}");
        }
    }
}
