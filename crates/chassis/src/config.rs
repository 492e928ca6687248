//! Settings: defaults, then the section of `guildhall.toml`, then the environment, then flags; the last one wins.
//!
//! ```toml
//! # guildhall.toml: one section per service
//! [content]
//! database = "postgres://…"
//! server.drain.grace = "20s"
//! ```
//! The same from the environment is `GUILDHALL__CONTENT__SERVER__DRAIN__GRACE=20s`; the section `edge-gateway` is
//! `EDGE_GATEWAY` there.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Durations as text, for `#[serde(with = "…")]`: `250ms`, `20s`, `30d`.
pub use humantime_serde as duration;

/// What every environment variable of Guildhall's settings starts with.
const PREFIX: &str = "GUILDHALL__";

/// Why the settings cannot be used. The text names the key and where it came from.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key that does not exist, a value of the wrong kind, or no TOML.
    #[error("the settings of `{section}` are not valid: {reason}")]
    Invalid { section: String, reason: Box<figment::Error> },
    /// The file that was named is not there.
    #[error("there is no settings file {}", .0.display())]
    NoFile(PathBuf),
    /// The file has a section, or the environment a variable, for no service.
    #[error("{origin} has settings for `{section}`, which is none of: {known}")]
    UnknownSection { section: String, origin: String, known: String },
    /// A section is a single value.
    #[error("`{section}` in {} is not a table", file.display())]
    NotATable { section: String, file: PathBuf },
}

/// Settings from flags: they win over everything else.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Dict);

impl Overrides {
    /// No flags.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one key, by its path within the section: `server.listen`.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Serialize) -> Self {
        let value = Value::serialize(value).expect("a flag is a string, a number, a truth value or a list of them");
        insert(&mut self.0, path, value);
        self
    }
}

/// Loads the settings of one section.
///
/// `defaults` is the service's `config.default.toml`, with the section's keys at its top level.
pub fn load<C: DeserializeOwned>(
    defaults: &str,
    section: &str,
    file: Option<&Path>,
    overrides: &Overrides,
) -> Result<C, Error> {
    load_with(defaults, section, file, std::env::vars(), overrides)
}

/// Like [`load`], with the environment given by the caller.
pub fn load_with<C: DeserializeOwned>(
    defaults: &str,
    section: &str,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<C, Error> {
    let mut settings = Figment::from(Toml::string(defaults));
    if let Some(path) = file {
        settings = settings.merge(Given::from_file(path, section)?);
    }
    settings
        .merge(Given::from_environment(environment, section))
        .merge(Given {
            origin: Metadata::named("the flags").interpolater(|_, key| key.join(".")),
            values: overrides.0.clone(),
        })
        .extract()
        .map_err(|reason| Error::Invalid { section: section.to_owned(), reason: Box::new(reason) })
}

/// Refuses sections of the file and variables of the environment that belong to none of the `known` sections.
pub fn check_sections(
    known: &[&str],
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(), Error> {
    let check = |section: &str, origin: String| {
        if known.contains(&section) {
            return Ok(());
        }
        Err(Error::UnknownSection { section: section.to_owned(), origin, known: known.join(", ") })
    };
    if let Some(path) = file {
        read(path)?.keys().try_for_each(|section| check(section, path.display().to_string()))?;
    }
    for (name, _) in environment {
        if let Some(key) = name.strip_prefix(PREFIX) {
            let section = key.split("__").next().unwrap_or_default();
            check(&section.to_lowercase().replace('_', "-"), format!("the environment variable {name}"))?;
        }
    }
    Ok(())
}

/// The sections of the file.
fn read(path: &Path) -> Result<Dict, Error> {
    if !path.is_file() {
        return Err(Error::NoFile(path.to_owned()));
    }
    let profiles = Toml::file_exact(path).data();
    let profiles =
        profiles.map_err(|reason| Error::Invalid { section: path.display().to_string(), reason: Box::new(reason) })?;
    Ok(profiles.into_values().next().unwrap_or_default())
}

/// Enters a value under its dotted path, beside what is already there.
fn insert(values: &mut Dict, path: &str, value: Value) {
    let Some((table, rest)) = path.split_once('.') else {
        values.insert(path.to_owned(), value);
        return;
    };
    let mut inner = values.remove(table).and_then(Value::into_dict).unwrap_or_default();
    insert(&mut inner, rest, value);
    values.insert(table.to_owned(), Value::from(inner));
}

/// Settings that are given, and where: an error names the key as it was written there.
struct Given {
    origin: Metadata,
    values: Dict,
}

impl Given {
    fn from_file(path: &Path, section: &str) -> Result<Self, Error> {
        let values = match read(path)?.remove(section) {
            None => Dict::new(),
            Some(Value::Dict(_, values)) => values,
            Some(_) => return Err(Error::NotATable { section: section.to_owned(), file: path.to_owned() }),
        };
        let section = section.to_owned();
        let origin = Metadata::named(format!("the file {}", path.display()));
        Ok(Self { origin: origin.interpolater(move |_, key| format!("{section}.{}", key.join("."))), values })
    }

    fn from_environment(variables: impl IntoIterator<Item = (String, String)>, section: &str) -> Self {
        let prefix = format!("{PREFIX}{}__", section.to_uppercase().replace('-', "_"));
        let mut values = Dict::new();
        for (name, text) in variables {
            if let Some(key) = name.strip_prefix(&prefix) {
                let value = text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {});
                insert(&mut values, &key.to_lowercase().replace("__", "."), value);
            }
        }
        let origin = Metadata::named("the environment");
        Self { origin: origin.interpolater(move |_, key| format!("{prefix}{}", key.join("__").to_uppercase())), values }
    }
}

impl Provider for Given {
    fn metadata(&self) -> Metadata {
        self.origin.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}
