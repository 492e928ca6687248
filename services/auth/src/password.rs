//! Passwords: argon2id, at a bounded rate.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use argon2::{Algorithm, Argon2, Block, Params, Version, password_hash::phc::PasswordHash};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use ids::Source;
use serde::Deserialize;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use crate::account;

/// How many times longer NFKC can make a text in UTF-8 (Unicode Standard Annex #15, section 9).
const NFKC_GROWTH: usize = 11;

/// What one evaluation of argon2id costs, and how many run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Memory of one evaluation in KiB.
    pub memory_kib: u32,
    pub iterations: u32,
    pub parallelism: u32,
    /// Evaluations at a time; 0 takes one for each processor.
    pub concurrency: usize,
    /// Evaluations that wait for their turn; more are refused.
    pub queue: usize,
}

/// A password in clear. It has no `Debug` and is wiped when dropped. It is in NFKC, so that it is the same
/// from every keyboard (NIST SP 800-63B, 3.1.1.2).
pub struct Password(Zeroizing<String>);

/// An argon2id hash as a PHC string.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash(String);

/// What a password turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wrong,
    Right {
        /// The hash was made with other parameters than today's: hash the password again.
        outdated: bool,
    },
}

/// Why nothing was evaluated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too many evaluations wait already.
    #[error("too many passwords are being checked")]
    Overloaded,
    /// Parameters that argon2 does not take.
    #[error("argon2: {0}")]
    Parameters(argon2::Error),
    #[error("argon2: {0}")]
    Argon2(argon2::password_hash::Error),
    #[error("the evaluation was aborted")]
    Aborted(#[source] tokio::task::JoinError),
}

impl Password {
    /// A password that somebody chooses. Control characters are refused: they get lost between keyboards and forms.
    pub fn chosen(text: String) -> Result<Self, account::Error> {
        let password = Self::presented(text);
        if password.0.chars().any(char::is_control) {
            return Err(account::Error::Invalid {
                field: "password",
                description: "must not contain control characters",
            });
        }
        Ok(password)
    }

    /// A password that somebody logs in with. It may be anything.
    pub fn presented(text: String) -> Self {
        let text = Zeroizing::new(text);
        // Room for any normal form: a string that grew would leave a part of the password behind in memory.
        let mut normal = Zeroizing::new(String::with_capacity(text.len() * NFKC_GROWTH));
        normal.extend(text.nfkc());
        Self(normal)
    }

    /// A password that nobody guesses, for an account that is made without a person.
    pub fn generate(source: &Source) -> Self {
        Self::presented(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(source.bytes::<18>()))
    }

    /// The password itself, to be shown once to its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Hash {
    /// A hash that was stored.
    pub fn stored(phc: String) -> Self {
        Self(phc)
    }

    /// The PHC string to store.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(redacted)")
    }
}

/// Evaluates argon2id on blocking threads, a bounded number at a time, behind a bounded queue.
#[derive(Clone)]
pub struct Hasher {
    parameters: Params,
    /// One permit for each evaluation that runs or waits.
    admitted: Arc<Semaphore>,
    /// One permit for each evaluation that runs.
    running: Arc<Semaphore>,
    /// The memory of evaluations that are over, for those to come: allocated anew each time, on whatever thread there is, each thread's
    /// would stay with the process. At most as many as evaluations run.
    memory: Arc<Mutex<Vec<Vec<Block>>>>,
    /// A hash of today's cost that no password has: what a log-in to an unknown address is checked against.
    nobody: Hash,
    source: Source,
}

impl Hasher {
    /// How long a refused caller should wait.
    pub const RETRY_AFTER: Duration = Duration::from_secs(1);

    pub fn new(settings: &Settings, source: Source) -> Result<Self, Error> {
        let parameters = Params::new(settings.memory_kib, settings.iterations, settings.parallelism, None)
            .map_err(Error::Parameters)?;
        let concurrency = match settings.concurrency {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let nobody = phc(&parameters, &source.bytes(), &source.bytes());
        Ok(Self {
            parameters,
            admitted: Arc::new(Semaphore::new(concurrency + settings.queue)),
            running: Arc::new(Semaphore::new(concurrency)),
            memory: Arc::default(),
            nobody,
            source,
        })
    }

    /// Hashes a password with today's parameters and a fresh salt.
    pub async fn hash(&self, password: Arc<Password>) -> Result<Hash, Error> {
        let (parameters, salt) = (self.parameters.clone(), self.source.bytes());
        self.evaluate(move |memory| {
            let output = argon2id(&password, &salt, &parameters, memory)?;
            Ok(phc(&parameters, &salt, &output))
        })
        .await
    }

    /// Checks a password: against `hash`, or, where there is no account, against nobody's, at the same cost.
    pub async fn verify(&self, password: Arc<Password>, hash: Option<&Hash>) -> Result<Verdict, Error> {
        let known = hash.is_some();
        let Hash(phc) = hash.unwrap_or(&self.nobody).clone();
        let parameters = self.parameters.clone();
        self.evaluate(move |memory| {
            let invalid = argon2::password_hash::Error::EncodingInvalid;
            let hash = PasswordHash::new(&phc).map_err(|_| invalid)?;
            let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return Err(invalid) };
            let output = argon2id(&password, salt, &Params::try_from(&hash)?, memory)?;
            let right = verify_slices_are_equal(&output, expected.as_bytes()).is_ok();
            Ok(if right && known {
                Verdict::Right { outdated: !is_current(&hash, &parameters) }
            } else {
                Verdict::Wrong
            })
        })
        .await
    }

    async fn evaluate<T: Send + 'static>(
        &self,
        evaluation: impl FnOnce(&mut Vec<Block>) -> Result<T, argon2::password_hash::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| Error::Overloaded)?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| Error::Overloaded)?;
        let idle = self.memory.clone();
        // The permits go with the evaluation: it runs on when its caller has gone away.
        tokio::task::spawn_blocking(move || {
            let _permits = (admitted, running);
            let mut memory = idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            let outcome = evaluation(&mut memory);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
            outcome
        })
        .await
        .map_err(Error::Aborted)?
        .map_err(Error::Argon2)
    }
}

/// One evaluation of argon2id, version 1.3 (RFC 9106), in memory that is made as large as it needs.
fn argon2id(
    password: &Password,
    salt: &[u8],
    parameters: &Params,
    memory: &mut Vec<Block>,
) -> Result<[u8; 32], argon2::Error> {
    memory.resize(parameters.block_count(), Block::default());
    let mut output = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters.clone()).hash_password_into_with_memory(
        password.0.as_bytes(),
        salt,
        &mut output,
        memory,
    )?;
    Ok(output)
}

/// The hash as a PHC string.
fn phc(parameters: &Params, salt: &[u8; 16], output: &[u8; 32]) -> Hash {
    let (m, t, p) = (parameters.m_cost(), parameters.t_cost(), parameters.p_cost());
    let [salt, output] = [salt.as_slice(), output].map(|bytes| STANDARD_NO_PAD.encode(bytes));
    Hash(format!("$argon2id$v=19$m={m},t={t},p={p}${salt}${output}"))
}

fn is_current(hash: &PasswordHash, parameters: &Params) -> bool {
    Params::try_from(hash).is_ok_and(|of| {
        (of.m_cost(), of.t_cost(), of.p_cost()) == (parameters.m_cost(), parameters.t_cost(), parameters.p_cost())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Settings = Settings { memory_kib: 64, iterations: 1, parallelism: 1, concurrency: 1, queue: 0 };

    fn password(text: &str) -> Arc<Password> {
        Arc::new(Password::presented(text.to_owned()))
    }

    #[tokio::test]
    async fn a_hash_knows_its_password_alone() {
        let hasher = Hasher::new(&CHEAP, Source::system()).unwrap();
        let hash = hasher.hash(password("correct horse")).await.unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{}", hash.as_str());
        assert_eq!(
            hasher.verify(password("correct horse"), Some(&hash)).await.unwrap(),
            Verdict::Right { outdated: false }
        );
        assert_eq!(hasher.verify(password("correct horsf"), Some(&hash)).await.unwrap(), Verdict::Wrong);
        assert_eq!(hasher.verify(password("correct horse"), None).await.unwrap(), Verdict::Wrong);
    }

    #[tokio::test]
    async fn evaluations_share_the_memory_that_they_run_in() {
        let hasher = Hasher::new(&Settings { queue: 16, ..CHEAP }, Source::system()).unwrap();
        let made = futures_util::future::join_all((0..16).map(|_| hasher.hash(password("correct horse")))).await;
        for hash in made {
            let verdict = hasher.verify(password("correct horse"), Some(&hash.unwrap())).await.unwrap();
            assert_eq!(verdict, Verdict::Right { outdated: false });
        }
        assert_eq!(hasher.memory.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [64]);
    }

    #[tokio::test]
    async fn a_hash_of_another_implementation_of_the_standard_is_known() {
        // `echo -n password | argon2 somesalt -id -t 2 -k 256 -p 1`, of the reference implementation's tests.
        let hash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let hasher = Hasher::new(&CHEAP, Source::system()).unwrap();
        let verdict = hasher.verify(password("password"), Some(&Hash::stored(hash.to_owned()))).await.unwrap();
        assert_eq!(verdict, Verdict::Right { outdated: true });
    }

    #[test]
    fn a_log_in_to_nobody_costs_what_one_to_somebody_does() {
        let hasher = Hasher::new(&CHEAP, Source::system()).unwrap();
        assert!(is_current(&PasswordHash::new(hasher.nobody.as_str()).unwrap(), &hasher.parameters));
    }

    #[tokio::test]
    async fn a_hash_with_other_parameters_is_outdated() {
        let hash = Hasher::new(&CHEAP, Source::system()).unwrap().hash(password("correct horse")).await.unwrap();
        let dearer = Hasher::new(&Settings { iterations: 2, ..CHEAP }, Source::system()).unwrap();
        assert_eq!(
            dearer.verify(password("correct horse"), Some(&hash)).await.unwrap(),
            Verdict::Right { outdated: true }
        );
    }

    #[tokio::test]
    async fn more_evaluations_than_fit_are_refused_at_once() {
        let hasher = Hasher::new(&Settings { memory_kib: 8192, ..CHEAP }, Source::system()).unwrap();
        let results = futures_util::future::join_all((0..8).map(|_| hasher.hash(password("correct horse")))).await;
        let refused = results.iter().filter(|result| matches!(result, Err(Error::Overloaded))).count();
        assert_eq!((results.len() - refused, refused), (1, 7));
    }

    #[tokio::test]
    async fn a_password_is_the_same_from_every_keyboard() {
        let hasher = Hasher::new(&CHEAP, Source::system()).unwrap();
        let hash = hasher.hash(password("caf\u{e9} 한글 １２３")).await.unwrap();
        let decomposed: String = "cafe\u{301} 한글 123".nfd().collect();
        assert_eq!(
            hasher.verify(password(&decomposed), Some(&hash)).await.unwrap(),
            Verdict::Right { outdated: false }
        );
        assert_eq!(hasher.verify(password("cafe 한글 123"), Some(&hash)).await.unwrap(), Verdict::Wrong);
    }

    #[test]
    fn a_normal_form_fits_into_the_room_that_is_made_for_it() {
        for text in ["\u{fdfa}".repeat(256), "\u{390}".repeat(256), "x".repeat(256)] {
            let password = Password::presented(text.clone());
            assert_eq!(password.0.capacity(), text.len() * NFKC_GROWTH, "it did not grow");
        }
    }

    #[test]
    fn a_chosen_password_has_no_control_characters() {
        assert!(Password::chosen("correct\u{7}horse".into()).is_err());
        assert!(Password::chosen("올바른 말 배터리".into()).is_ok());
    }
}
