//! The section `[platform]`: what a process of a deployment stands on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh::Endpoints;
use serde::Deserialize;
use telemetry::Format;

use super::Error;
use crate::config::{self, Overrides};
use crate::{DatabaseSettings, MasterKey};

/// The settings of the platform with their defaults.
pub const DEFAULTS: &str = include_str!("../../platform.default.toml");
/// Their section.
pub const SECTION: &str = "platform";

/// What a process of a deployment stands on; [`DEFAULTS`] explains each. Not to be printed: addresses hold passwords.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub identity: Identity,
    pub redis: Redis,
    /// By workload.
    pub services: BTreeMap<String, Addresses>,
    pub mesh: Mesh,
    pub master_key_file: PathBuf,
    pub log: String,
    #[serde(with = "LogFormat")]
    pub log_format: Format,
    /// Empty for none.
    pub otlp_endpoint: String,
}

/// Where this process's identity comes from.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Empty for `SPIFFE_ENDPOINT_SOCKET`.
    pub endpoint: String,
    pub trust_domain: String,
    pub namespace: String,
}

/// What processes share besides their databases.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub urls: Addresses,
    pub cluster: bool,
    pub prefix: String,
    #[serde(with = "config::duration")]
    pub timeout: Duration,
}

/// How others are called.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    pub retry: bool,
}

/// One address or several.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum Addresses {
    One(String),
    Several(Vec<String>),
}

impl Addresses {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(address) => vec![address],
            Self::Several(addresses) => addresses,
        }
    }
}

#[derive(Deserialize)]
#[serde(remote = "Format", rename_all = "lowercase")]
enum LogFormat {
    Auto,
    Json,
    Pretty,
}

/// The database of the service whose process it is, if it has one.
#[derive(Deserialize)]
struct Kept {
    database: Option<DatabaseSettings>,
}

impl Settings {
    /// The section of the file and the environment, over the defaults.
    pub fn load(file: Option<&Path>) -> Result<Self, config::Error> {
        config::load(DEFAULTS, SECTION, file, &Overrides::new())
    }

    /// How the process tells about itself, as `name`.
    pub(super) fn telemetry(&self, name: &str) -> telemetry::Settings {
        telemetry::Settings {
            format: self.log_format,
            filter: self.log.clone(),
            otlp_endpoint: given(&self.otlp_endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT"),
            service_name: name.to_owned(),
        }
    }

    /// Where the Workload API is and who may be met there.
    pub fn identity(&self) -> Result<mesh::IdentitySettings, Error> {
        let Identity { endpoint, trust_domain, namespace } = self.identity.clone();
        let endpoint = given(&endpoint, "SPIFFE_ENDPOINT_SOCKET").ok_or(Error::NoWorkloadApi)?;
        Ok(mesh::IdentitySettings { endpoint, trust_domain, namespace })
    }

    pub(super) fn redis(&self) -> Result<keyspace::Settings, Error> {
        let Redis { urls, cluster, prefix, timeout } = self.redis.clone();
        let urls: Vec<_> = urls.list().into_iter().filter(|url| !url.is_empty()).collect();
        if urls.is_empty() {
            return Err(Error::NoRedis);
        }
        Ok(keyspace::Settings { urls, cluster, prefix, timeout })
    }

    pub(super) fn master_key(&self) -> Result<MasterKey, Error> {
        if self.master_key_file.as_os_str().is_empty() {
            return Err(Error::NoMasterKey);
        }
        Ok(MasterKey::from_file(&self.master_key_file)?)
    }

    /// Where the services listen, by workload.
    pub fn endpoints(&self) -> Result<BTreeMap<String, Endpoints>, Error> {
        let parse = |(workload, addresses): (String, Addresses)| match Endpoints::try_from(addresses.list()) {
            Ok(endpoints) => Ok((workload, endpoints)),
            Err(source) => Err(Error::Endpoints { workload, source }),
        };
        self.services.clone().into_iter().map(parse).collect()
    }
}

/// The setting, or else the variable by which a standard has the same.
fn given(setting: &str, variable: &str) -> Option<String> {
    let standard = || std::env::var(variable).ok();
    Some(setting.to_owned()).filter(|text| !text.is_empty()).or_else(standard).filter(|text| !text.is_empty())
}

/// Where the service keeps its data, without the password: for people who look why it does not start. A process of its own has no
/// SQLite.
pub(super) fn database(defaults: &str, section: &str, file: Option<&Path>) -> Result<Option<String>, Error> {
    let kept: Kept = config::load(defaults, section, file, &Overrides::new())?;
    let Some(DatabaseSettings { url, .. }) = kept.database else { return Ok(None) };
    if url.starts_with("sqlite:") {
        return Err(Error::Sqlite { section: section.to_owned() });
    }
    Ok(Some(without_password(&url)))
}

/// `postgres://user:password@host/name?…` as `host/name`.
fn without_password(url: &str) -> String {
    let place = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    place.split('?').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn a_place_is_shown_without_who_is_known_there() {
        for (url, place) in [
            ("postgres://auth:s3cret@db.example.org:5432/auth?sslmode=verify-full", "db.example.org:5432/auth"),
            ("postgres://auth:p@ss@db/auth", "db/auth"),
            ("postgresql:///auth", "/auth"),
            ("postgres://db?password=s3cret", "db"),
        ] {
            assert_eq!(without_password(url), place);
        }
    }
}
