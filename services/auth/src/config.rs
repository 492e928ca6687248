//! The settings of the service.

use std::{collections::BTreeMap, time::Duration};

use ::http::uri::Authority;
use chassis::{DatabaseSettings, ServerSettings, config::duration};
use serde::Deserialize;

use crate::{
    Error,
    attempt::Settings as AttemptSettings,
    http,
    mail::Settings as MailSettings,
    password::Settings as PasswordSettings,
    token::{self, Scopes},
};

/// The defaults of [`Config`], with what each setting means.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// The settings of the service; [`DEFAULTS`] explains each.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The `iss` of every token: scheme and host.
    pub issuer: String,
    /// Whether an unverified address keeps a person from writing.
    pub require_verified_email: bool,
    /// The address of the admin that is made where there is none; empty for none.
    pub first_admin: String,
    /// That admin's password; empty to generate one.
    pub first_admin_password: String,
    pub server: ServerSettings,
    pub database: DatabaseSettings,
    pub password: PasswordSettings,
    pub attempts: AttemptSettings,
    pub sessions: SessionSettings,
    pub signing_keys: SigningKeySettings,
    pub mail: MailSettings,
    /// By workload, the scopes of the token that it gets for its JWT-SVID, separated by spaces.
    pub workload_scopes: BTreeMap<String, String>,
}

impl Config {
    /// Refuses settings that contradict each other or the standards.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_issuer(&self.issuer)?;
        self.signing_keys.check()
    }

    /// The scopes of each workload's token.
    pub(crate) fn scopes_of_workloads(&self) -> Result<BTreeMap<String, Scopes>, Error> {
        let parse = |(workload, scopes): (&String, &String)| {
            let invalid = |error| Error::Setting("workload_scopes", format!("{workload}: {error}"));
            Ok((workload.clone(), Scopes::parse(scopes).map_err(invalid)?))
        };
        self.workload_scopes.iter().map(parse).collect()
    }
}

/// How long sessions live.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionSettings {
    /// Life without use.
    #[serde(with = "duration")]
    pub idle: Duration,
    /// Life however much it is used.
    #[serde(with = "duration")]
    pub absolute: Duration,
    /// For how long a used refresh token gives its successor again.
    #[serde(with = "duration")]
    pub refresh_grace: Duration,
}

/// When signing keys come and go.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningKeySettings {
    /// For how long a key signs.
    #[serde(with = "duration")]
    pub rotate_every: Duration,
    /// For how long a key is published before it signs.
    #[serde(with = "duration")]
    pub publish_before: Duration,
    /// How often a replica looks at the keys.
    #[serde(with = "duration")]
    pub check_every: Duration,
}

impl SigningKeySettings {
    /// Everybody has to know a key before it signs, and it has to outlive a token.
    fn check(&self) -> Result<(), Error> {
        let fails = |setting, why: &str| Err(Error::Setting(setting, why.to_owned()));
        if self.check_every.is_zero() {
            return fails("signing_keys.check_every", "keys cannot be looked at without a pause");
        }
        if self.publish_before <= Duration::from_secs(http::MAX_AGE.into()) + self.check_every {
            return fails("signing_keys.publish_before", "copies of the JWKS live longer, with `check_every` on top");
        }
        if self.rotate_every <= self.publish_before + token::LIFE {
            return fails("signing_keys.rotate_every", "a key would go before its tokens");
        }
        Ok(())
    }
}

/// An issuer is compared as text everywhere, so it has one spelling: scheme and host. With a path, the metadata would have to be
/// elsewhere (RFC 8414, 3).
fn check_issuer(issuer: &str) -> Result<(), Error> {
    let authority = issuer.strip_prefix("https://").or_else(|| issuer.strip_prefix("http://"));
    match authority.map(str::parse::<Authority>) {
        Some(Ok(authority)) if !authority.as_str().contains('@') => Ok(()),
        _ => Err(Error::Setting("issuer", format!("`{issuer}` is not http(s)://host without a slash at the end"))),
    }
}
