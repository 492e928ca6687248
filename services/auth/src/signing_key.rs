//! The keys that sign access tokens, and their rotation.
//!
//! A key is published in the JWKS before it signs, so that everybody knows it by then; it signs until the next key starts; it
//! stays published until the last token that it signed has expired. The newest key that may sign does.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::KeySize,
    signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use ids::{SigningKeyId, Timestamp};
use jsonwebtoken::DecodingKey;
use mesh::token::Claims;
use serde_json::json;
use zeroize::Zeroizing;

/// Why a token is not signed, or a key does not load.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no key may sign yet")]
    NoKey,
    #[error("a key cannot be used: {0}")]
    Key(&'static str),
    #[error("claims cannot be written")]
    Claims(#[from] serde_json::Error),
}

/// When keys come and go.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// For how long a key signs.
    pub rotate_every: Duration,
    /// For how long a key is published before it signs: longer than anybody caches the JWKS.
    pub publish_before: Duration,
    /// How long a token is good for.
    pub token_life: Duration,
}

impl Schedule {
    /// When a key that is made now starts to sign, or `None` while none is due. `newest` is when the newest key starts. The
    /// very first key signs at once: nobody knows another.
    pub fn due(&self, newest: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let Some(newest) = newest else { return Some(now) };
        let next = newest + self.rotate_every;
        (now + self.publish_before >= next).then(|| next.max(now + self.publish_before))
    }

    /// Whether a key is spent whose successor starts to sign at `successor`: the last token that it signed has expired, and one
    /// more publishing time has passed for clocks and processes that lag behind.
    pub fn is_spent(&self, successor: Timestamp, now: Timestamp) -> bool {
        now > successor + self.token_life + self.publish_before
    }
}

/// An RSA key of 2048 bits.
pub struct SigningKey {
    pub id: SigningKeyId,
    /// From when on it signs.
    pub signs_from: Timestamp,
    pair: RsaKeyPair,
}

/// A private key in PKCS#8, not yet in use.
pub struct Private(Zeroizing<Vec<u8>>);

impl Private {
    /// Makes a key. This computes for a tenth of a second or so: run it where it may block.
    pub fn generate() -> Result<Self, Error> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| Error::Key("it could not be made"))?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| Error::Key("it could not be written"))?;
        Ok(Self(Zeroizing::new(der.as_ref().to_vec())))
    }

    /// The key that was stored.
    pub fn stored(pkcs8: Zeroizing<Vec<u8>>) -> Self {
        Self(pkcs8)
    }

    /// PKCS#8, to be sealed.
    pub fn pkcs8(&self) -> &[u8] {
        &self.0
    }
}

impl SigningKey {
    pub fn load(id: SigningKeyId, private: &Private, signs_from: Timestamp) -> Result<Self, Error> {
        let pair = RsaKeyPair::from_pkcs8(private.pkcs8()).map_err(|_| Error::Key("it is no RSA key in PKCS#8"))?;
        Ok(Self { id, signs_from, pair })
    }

    /// The modulus and the exponent in base64url (RFC 7518, 6.3.1).
    fn components(&self) -> [String; 2] {
        let public = self.pair.public_key();
        [public.modulus(), public.exponent()].map(|n| URL_SAFE_NO_PAD.encode(n.big_endian_without_leading_zero()))
    }

    /// Signs with the parsed key: `jsonwebtoken` would parse it again for each token.
    fn sign(&self, claims: &Claims) -> Result<String, Error> {
        let header = json!({"typ": "at+jwt", "alg": "RS256", "kid": self.id.to_string()}).to_string();
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &aws_lc_rs::rand::SystemRandom::new(), message.as_bytes(), &mut signature)
            .map_err(|_| Error::Key("it does not sign"))?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The keys of this process: signs, publishes, and finds by key id. Replaced as a whole when keys change.
#[derive(Default)]
pub struct KeyRing(ArcSwap<Held>);

#[derive(Default)]
struct Held {
    /// By the time from which they sign.
    signing: Vec<SigningKey>,
    verifying: Vec<(String, Arc<DecodingKey>)>,
    jwks: Option<Arc<str>>,
}

impl KeyRing {
    /// Takes these keys instead of those before.
    pub fn replace(&self, mut keys: Vec<SigningKey>) -> Result<(), Error> {
        keys.sort_by_key(|key| key.signs_from);
        let (mut verifying, mut jwks) = (Vec::new(), Vec::new());
        for key in &keys {
            let ([n, e], kid) = (key.components(), key.id.to_string());
            let public =
                DecodingKey::from_rsa_components(&n, &e).map_err(|_| Error::Key("its public part cannot be read"))?;
            jwks.push(json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e}));
            verifying.push((kid, Arc::new(public)));
        }
        let jwks = Some(json!({ "keys": jwks }).to_string().into());
        self.0.store(Arc::new(Held { signing: keys, verifying, jwks }));
        Ok(())
    }

    /// The ids of the keys held, oldest first.
    pub fn ids(&self) -> Vec<SigningKeyId> {
        self.0.load().signing.iter().map(|key| key.id).collect()
    }

    /// The JWKS document (RFC 7517) of every key held; none before there are keys.
    pub fn jwks(&self) -> Option<Arc<str>> {
        self.0.load().jwks.clone()
    }

    /// A signed token of type `at+jwt`.
    pub fn sign(&self, claims: &Claims, now: Timestamp) -> Result<String, Error> {
        let held = self.0.load();
        held.signing.iter().rev().find(|key| key.signs_from <= now).ok_or(Error::NoKey)?.sign(claims)
    }
}

impl mesh::token::Keys for KeyRing {
    fn find(&self, kid: &str) -> Option<Arc<DecodingKey>> {
        self.0.load().verifying.iter().find(|(id, _)| id == kid).map(|(_, key)| key.clone())
    }

    /// Nothing to do: `rotation` loads a key long before it signs.
    fn refresh(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn is_current(&self) -> bool {
        self.jwks().is_some()
    }
}

#[cfg(test)]
mod tests {
    use mesh::token::Keys;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Lets days pass in uneven steps, as a replica that is up and down would see them.
        #[test]
        fn every_key_is_published_before_it_signs_and_until_its_last_token_expires(steps in prop::collection::vec(1_u64..200_000, 1..200)) {
            let schedule = Schedule {
                rotate_every: Duration::from_hours(24),
                publish_before: Duration::from_mins(10),
                token_life: Duration::from_mins(10),
            };
            let mut now = Timestamp::from_micros(0);
            let mut keys: Vec<(Timestamp, Timestamp)> = Vec::new(); // created, signs from
            for step in steps {
                if let Some(signs_from) = schedule.due(keys.last().map(|key| key.1), now) {
                    prop_assert!(keys.is_empty() || signs_from.since(now) >= schedule.publish_before);
                    prop_assert!(keys.last().is_none_or(|key| signs_from.since(key.1) >= schedule.rotate_every));
                    keys.push((now, signs_from));
                    prop_assert_eq!(schedule.due(Some(signs_from), now), None);
                }
                prop_assert!(keys.iter().any(|key| key.1 <= now), "some key always signs");
                while keys.len() > 1 && schedule.is_spent(keys[1].1, now) {
                    prop_assert!(now.since(keys[1].1) > schedule.token_life);
                    keys.remove(0);
                }
                now = now + Duration::from_secs(step);
            }
        }
    }

    #[test]
    fn the_newest_key_that_may_sign_does_and_all_are_published() {
        let source = ids::Source::system();
        let now = source.now();
        let key = |signs_from| SigningKey::load(source.id(), &Private::generate().unwrap(), signs_from).unwrap();
        let (current, next) = (key(now), key(now + Duration::from_mins(1)));
        let [current_id, next_id] = [current.id.to_string(), next.id.to_string()];
        let ring = KeyRing::default();
        assert!(matches!(ring.sign(&claims(), now), Err(Error::NoKey)));
        assert!(!ring.is_current(), "before there are keys, nobody can say that a token is bad");
        ring.replace(vec![next, current]).unwrap();

        let kid_of = |at| jsonwebtoken::decode_header(ring.sign(&claims(), at).unwrap()).unwrap().kid.unwrap();
        assert_eq!(kid_of(now), current_id);
        assert_eq!(kid_of(now + Duration::from_mins(1)), next_id);
        for kid in [&current_id, &next_id] {
            assert!(ring.jwks().unwrap().contains(kid.as_str()));
            assert!(ring.find(kid).is_some());
        }
        assert!(ring.find("../etc/passwd").is_none() && ring.is_current());
    }

    fn claims() -> Claims {
        serde_json::from_value(json!({
            "iss": "i", "sub": "s", "aud": "guildhall", "exp": 1, "iat": 0, "jti": "01890000-0000-7000-8000-000000000000", "client_id": "guildhall"
        }))
        .unwrap()
    }
}
