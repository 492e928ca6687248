//! The edge's settings. `config.default.toml` holds every default and says why it is what it is.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::Deserialize;

use crate::limit;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The public and the admin address, and the drain. The public port speaks HTTP to everybody, not the mesh's mTLS.
    pub server: chassis::ServerSettings,
    /// The `iss` of the access tokens that count.
    pub issuer: String,
    /// With it the public port speaks TLS; without it, plain HTTP/1.1 and h2c.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Networks of the proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    pub cors: Cors,
    pub limit: limit::Settings,
    pub request: RequestLimits,
    pub connection: ConnectionLimits,
    pub deadline: Deadlines,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain, PEM, leaf first.
    pub certificates: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// How often the files are looked at for a new certificate.
    #[serde(with = "chassis::config::duration")]
    pub reload: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// The origins whose pages may call the API, such as `https://play.example.org`.
    pub origins: Vec<String>,
    /// Whether pages served from this machine (`http://localhost:<any port>`, 127.0.0.1, [::1]) may.
    pub loopback: bool,
    /// How long a browser may keep the answer to a preflight.
    #[serde(with = "chassis::config::duration")]
    pub max_age: Duration,
}

/// The most that one request may be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestLimits {
    /// Path and query, in bytes.
    pub uri_bytes: usize,
    pub header_count: usize,
    /// Names and values, in bytes.
    pub header_bytes: u32,
    /// A body that is read as a whole, in bytes.
    pub body_bytes: usize,
    /// One message of a stream, either way, in bytes; and one answer.
    pub message_bytes: usize,
    /// The whole body of a client stream, in bytes.
    pub stream_bytes: u64,
    /// How long the body may stand still between two of its parts.
    #[serde(with = "chassis::config::duration")]
    pub body_idle: Duration,
}

/// The most that one connection, and all of them, may take.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionLimits {
    /// Open connections. A further one waits in the kernel's backlog.
    pub most: usize,
    /// Open connections from one address (one /64 of IPv6), trusted proxies excepted.
    pub most_per_address: usize,
    /// Concurrent requests on one HTTP/2 connection.
    pub streams: u32,
    /// How long a client may take over a request's head, and over a TLS handshake.
    #[serde(with = "chassis::config::duration")]
    pub header_read: Duration,
    /// How long a client may take nothing of what it is being sent, on a connection or on one stream of HTTP/2.
    #[serde(with = "chassis::config::duration")]
    pub write_stall: Duration,
    /// How long a connection without a request stays open.
    #[serde(with = "chassis::config::duration")]
    pub idle: Duration,
}

/// How long calls may take.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadlines {
    /// For a request that names none.
    #[serde(with = "chassis::config::duration")]
    pub default: Duration,
    /// The most that a request may ask for.
    #[serde(with = "chassis::config::duration")]
    pub most: Duration,
    /// The default of, and the most for, streams and bulk operations.
    #[serde(with = "chassis::config::duration")]
    pub stream: Duration,
}

impl Config {
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }
}
