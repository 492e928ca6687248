//! Passwords: argon2id, at a bounded rate.

use std::{fmt, sync::Arc, time::Duration};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use ids::Source;
use serde::Deserialize;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::account;

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

/// A password in clear. It has no `Debug` and is wiped when dropped. Its bytes count as they are: no normal form is made.
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
        Self(Zeroizing::new(text))
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
    argon2: Argon2<'static>,
    parameters: Params,
    /// One permit for each evaluation that runs or waits.
    admitted: Arc<Semaphore>,
    /// One permit for each evaluation that runs.
    running: Arc<Semaphore>,
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
        let [salt, output] =
            [source.bytes::<16>().to_vec(), source.bytes::<32>().to_vec()].map(|bytes| STANDARD_NO_PAD.encode(bytes));
        let nobody = format!(
            "$argon2id$v=19$m={},t={},p={}${salt}${output}",
            settings.memory_kib, settings.iterations, settings.parallelism
        );
        Ok(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters.clone()),
            parameters,
            admitted: Arc::new(Semaphore::new(concurrency + settings.queue)),
            running: Arc::new(Semaphore::new(concurrency)),
            nobody: Hash(nobody),
            source,
        })
    }

    /// Hashes a password with today's parameters and a fresh salt.
    pub async fn hash(&self, password: Arc<Password>) -> Result<Hash, Error> {
        let (argon2, salt) = (self.argon2.clone(), self.source.bytes::<16>());
        self.evaluate(move || {
            let hash: PasswordHash = argon2.hash_password_with_salt(password.0.as_bytes(), &salt)?;
            Ok(Hash(hash.to_string()))
        })
        .await
    }

    /// Checks a password: against `hash`, or, where there is no account, against nobody's, at the same cost.
    pub async fn verify(&self, password: Arc<Password>, hash: Option<&Hash>) -> Result<Verdict, Error> {
        let known = hash.is_some();
        let Hash(phc) = hash.unwrap_or(&self.nobody).clone();
        let (argon2, parameters) = (self.argon2.clone(), self.parameters.clone());
        self.evaluate(move || {
            let hash = PasswordHash::new(&phc).map_err(|_| argon2::password_hash::Error::EncodingInvalid)?;
            match argon2.verify_password(password.0.as_bytes(), &hash) {
                Ok(()) if known => Ok(Verdict::Right { outdated: !is_current(&hash, &parameters) }),
                Ok(()) | Err(argon2::password_hash::Error::PasswordInvalid) => Ok(Verdict::Wrong),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn evaluate<T: Send + 'static>(
        &self,
        evaluation: impl FnOnce() -> Result<T, argon2::password_hash::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| Error::Overloaded)?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| Error::Overloaded)?;
        // The permits go with the evaluation: it runs on when its caller has gone away.
        tokio::task::spawn_blocking(move || {
            let _permits = (admitted, running);
            evaluation()
        })
        .await
        .map_err(Error::Aborted)?
        .map_err(Error::Argon2)
    }
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

    #[test]
    fn a_chosen_password_has_no_control_characters() {
        assert!(Password::chosen("correct\u{7}horse".into()).is_err());
        assert!(Password::chosen("올바른 말 배터리".into()).is_ok());
    }
}
