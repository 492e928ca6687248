//! Secrets at rest: AES-256-GCM under a key that is derived from the platform's and never stored.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ids::Source;
use zeroize::Zeroizing;

/// Seals and opens secrets. What is sealed for one `purpose` opens for no other.
pub struct Seal(LessSafeKey);

/// A sealed secret that does not open: it is damaged, was sealed for something else, or by another key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a sealed secret does not open: is this the key that it was sealed with?")]
pub struct Error;

impl Seal {
    /// Seals with `key`.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes every key of 32 bytes")))
    }

    /// The nonce, then the ciphertext with its tag. The nonce is random: 96 bits collide long after the few secrets sealed here.
    pub fn seal(&self, purpose: &[u8], secret: &[u8], source: &Source) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = source.bytes();
        let mut sealed = secret.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose), &mut sealed)
            .expect("sealing fails only above 64 GiB");
        [&nonce[..], &sealed].concat()
    }

    /// The secret that was sealed for `purpose`.
    pub fn open(&self, purpose: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Error)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let length = self
            .0
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(purpose), &mut buffer)
            .map_err(|_| Error)?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_sealed_opens_for_its_purpose_alone(secret in any::<Vec<u8>>(), purpose in any::<[u8; 16]>(), other in any::<[u8; 16]>()) {
            let seal = Seal::new(&[7; 32]);
            let sealed = seal.seal(&purpose, &secret, &Source::system());
            prop_assert_eq!(&**seal.open(&purpose, &sealed).unwrap(), &secret[..]);
            prop_assert_eq!(seal.open(&other, &sealed).is_ok(), other == purpose);
            prop_assert!(Seal::new(&[8; 32]).open(&purpose, &sealed).is_err());
        }

        #[test]
        fn a_sealed_secret_with_one_bit_changed_does_not_open(secret in any::<[u8; 32]>(), bit in 0_usize..(12 + 32 + 16) * 8) {
            let seal = Seal::new(&[7; 32]);
            let mut sealed = seal.seal(b"key", &secret, &Source::system());
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(seal.open(b"key", &sealed), Err(Error));
        }

        #[test]
        fn arbitrary_bytes_do_not_open(sealed in any::<Vec<u8>>()) {
            prop_assert_eq!(Seal::new(&[7; 32]).open(b"key", &sealed), Err(Error));
        }
    }
}
