//! Secrets that are handed out once and kept as a hash: mailed codes and refresh tokens.

use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ids::Source;
use zeroize::Zeroizing;

/// What a mailed code is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It proves that an address belongs to the account.
    VerifyEmail,
    /// It sets a new password.
    ResetPassword,
}

impl Purpose {
    /// How long a code is good.
    pub fn life(self) -> Duration {
        match self {
            Self::VerifyEmail => Duration::from_hours(24),
            Self::ResetPassword => Duration::from_mins(30),
        }
    }

    /// Its name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::ResetPassword => "reset_password",
        }
    }
}

/// 256 random bits in base64url. It has no `Debug` and is wiped when dropped.
pub struct Secret(Zeroizing<String>);

/// The SHA-256 by which a [`Secret`] is stored and found. A hash without salt suffices: nobody guesses 256 bits; and as the
/// database looks it up by the hash, no comparison runs whose time would tell anything of a secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hash([u8; 32]);

impl Secret {
    /// A new secret.
    pub fn random(source: &Source) -> Self {
        Self::encode(&Zeroizing::new(source.bytes()))
    }

    /// The one secret that follows this one, for whoever knows `key`: a keyed PRF, so that it can be given again without
    /// having been stored.
    pub fn successor(&self, key: &hmac::Key) -> Self {
        let tag = hmac::sign(key, self.0.as_bytes());
        Self::encode(&Zeroizing::new(tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")))
    }

    /// What a client presented. It may be anything.
    pub fn presented(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// How it is stored.
    pub fn hash(&self) -> Hash {
        let digest = digest::digest(&digest::SHA256, self.0.as_bytes());
        Hash(digest.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
    }

    /// The secret itself, for its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn encode(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes)))
    }
}

impl Hash {
    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_differ_and_so_do_their_hashes() {
        let (one, other) = (Secret::random(&Source::system()), Secret::random(&Source::system()));
        assert_eq!(one.expose().len(), 43);
        assert_eq!(one.hash(), Secret::presented(one.expose()).hash());
        assert_ne!(one.hash(), other.hash());
    }

    proptest! {
        #[test]
        fn a_successor_depends_on_the_secret_and_on_the_key(text in ".{1,60}", other in ".{1,60}") {
            let (key, foreign) = (hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]), hmac::Key::new(hmac::HMAC_SHA256, &[2; 32]));
            let secret = Secret::presented(text.clone());
            let next = secret.successor(&key).hash();
            prop_assert_eq!(&next, &secret.successor(&key).hash());
            prop_assert_ne!(&next, &secret.successor(&foreign).hash());
            prop_assert_ne!(&next, &secret.hash());
            prop_assert_eq!(next == Secret::presented(other.clone()).successor(&key).hash(), text == other);
        }
    }
}
