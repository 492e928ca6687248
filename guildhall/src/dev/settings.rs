//! What `guildhall dev` changes in the services' defaults. A settings file and the environment still win, but for the edge's
//! address, which `--http` and `GUILDHALL_HTTP` set.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};
use chassis::config::{self, Overrides};
use serde::de::DeserializeOwned;
use toml::{Table, Value, toml};

use super::ADMIN;

/// The settings of everything that runs.
pub struct Settings {
    pub auth: auth::Config,
    pub content: content::Config,
    pub edge_gateway: edge_gateway::Config,
}

impl Settings {
    pub fn load(http: SocketAddr, file: Option<&Path>, data: &Path, admin_password: String) -> Result<Self> {
        config::check_sections(&["auth", "content", edge_gateway::NAME], file, std::env::vars())?;
        let http = reserved(http).with_context(|| format!("{http} is taken: choose another with --http ADDRESS"))?;
        let issuer = format!("http://localhost:{}", http.port());
        let server = |port: u16| {
            let preferred = SocketAddr::from(([127, 0, 0, 1], port));
            let listen = reserved(preferred).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))).to_string();
            // Nobody balances load over this process: there is nobody to tell before the drain.
            toml! { listen = listen admin_listen = "127.0.0.1:0" drain = { unready = "0s", grace = "5s" } }
        };
        let database = |name: &str| format!("sqlite:{}", data.join(name).display());

        let auth = toml! {
            issuer = (issuer.clone())
            require_verified_email = false
            first_admin = ADMIN
            first_admin_password = admin_password
            server = (server(8081))
            database = { url = (database("auth.db")) }
            attempts = { factor = 1000 }
            mail = { transport = "directory", directory = (data.join("mail").display().to_string()) }
        };
        let content = toml! {
            issuer = (issuer.clone())
            site_url = (issuer.clone())
            server = (server(8082))
            database = { url = (database("content.db")) }
        };
        let edge = toml! {
            issuer = issuer
            server = (server(0))
            cors = { loopback = true }
            limit = { factor = 1000.0 }
        };
        let edge_address = Overrides::new().set("server.listen", http);
        Ok(Self {
            auth: load("auth", auth::DEFAULTS, auth, file, &Overrides::new())?,
            content: load("content", content::DEFAULTS, content, file, &Overrides::new())?,
            edge_gateway: load(edge_gateway::NAME, edge_gateway::DEFAULTS, edge, file, &edge_address)?,
        })
    }
}

fn load<C: DeserializeOwned>(
    section: &str,
    defaults: &str,
    changes: Table,
    file: Option<&Path>,
    flags: &Overrides,
) -> Result<C> {
    let mut settings: Table = defaults.parse().with_context(|| format!("the defaults of {section}"))?;
    merge(&mut settings, changes);
    Ok(config::load(&settings.to_string(), section, file, flags)?)
}

fn merge(into: &mut Table, changes: Table) {
    for (key, change) in changes {
        match (into.get_mut(&key), change) {
            (Some(Value::Table(inner)), Value::Table(changes)) => merge(inner, changes),
            (_, change) => {
                into.insert(key, change);
            }
        }
    }
}

/// An address that is free now, with a port picked if it names none.
fn reserved(address: SocketAddr) -> std::io::Result<SocketAddr> {
    TcpListener::bind(address)?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::{merge, toml};

    #[test]
    fn a_change_reaches_one_key_and_leaves_its_neighbours() {
        let mut settings = toml! { a = 1 b = { c = 2, d = 3 } };
        merge(&mut settings, toml! { b = { c = 4 } e = 5 });
        assert_eq!(settings, toml! { a = 1 b = { c = 4, d = 3 } e = 5 });
    }
}
