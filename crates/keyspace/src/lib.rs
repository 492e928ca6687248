//! The door to Redis: what replicas of a deployment share besides their databases.
//!
//! A [`Keyspace`] is one reconnecting connection, to a single server or to a cluster, under a prefix of its own. Every command
//! is bounded in time and measured; whoever needs to wait in Redis takes a connection of its own ([`Keyspace::blocking`]), since
//! commands on one connection queue behind each other.
//!
//! Nothing that was acknowledged may depend on Redis alone: its writes can vanish in a failover, and it may be away or full. So
//! every user of this crate says what happens then.
//!
//! # To add a use
//! Name its keys by [`Keyspace::key`]: the keys that one script or one transaction touches have one `tag`, and so one slot of a
//! cluster. Put what must happen at once into a [`redis::Script`]. A script that has to work while the memory is full starts
//! with `#!lua flags=allow-oom`.

mod error;
mod link;
#[cfg(feature = "testing")]
pub mod testing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Pipeline, ScriptInvocation};
use tokio::time::{Instant, timeout};

pub use error::{Error, Result};
use link::{Link, Nodes};
pub use redis;

/// Where Redis is and how it is used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `redis://user:password@host:port`, or `rediss://` for TLS: one server, or any of a cluster's nodes.
    pub urls: Vec<String>,
    /// Whether they are a cluster's.
    pub cluster: bool,
    /// What every key starts with: deployments that share a server differ in it.
    pub prefix: String,
    /// How long one command may take, connecting included.
    pub timeout: Duration,
}

impl Settings {
    /// One server, the prefix `guildhall`, two seconds for a command.
    pub fn new(url: impl Into<String>) -> Self {
        Self { urls: vec![url.into()], cluster: false, prefix: "guildhall".to_owned(), timeout: Duration::from_secs(2) }
    }
}

/// The keys of one deployment. Clones share the connection.
#[derive(Clone)]
pub struct Keyspace {
    nodes: Arc<Nodes>,
    prefix: Arc<str>,
    timeout: Duration,
    link: Link,
}

impl Keyspace {
    /// Checks the settings. It connects at the first command, and again whenever the connection is lost.
    ///
    /// Must be called within a tokio runtime.
    pub fn open(settings: &Settings) -> Result<Self> {
        // TLS takes the process's crypto provider. An earlier one would have to be the same: only aws-lc-rs is compiled in.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        for kind in Error::KINDS {
            metrics::counter!("guildhall_redis_errors_total", "kind" => kind).increment(0);
        }
        let nodes = Nodes::new(settings)?;
        let link = nodes.shared(settings.timeout)?;
        Ok(Self { nodes: Arc::new(nodes), prefix: settings.prefix.as_str().into(), timeout: settings.timeout, link })
    }

    /// The name of a key. Keys of one `tag` lie in one slot of a cluster; neither part may hold braces.
    pub fn key(&self, tag: &str, rest: &str) -> String {
        debug_assert!(!tag.contains(['{', '}']), "a tag decides about the slot by itself");
        format!("{}:{{{tag}}}:{rest}", self.prefix)
    }

    /// Runs one command.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let mut link = self.link.clone();
        bounded(name(command), self.timeout, command.query_async(&mut link)).await
    }

    /// Runs commands one after the other, in one round trip. They share a tag where they are atomic.
    pub async fn pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T> {
        let mut link = self.link.clone();
        bounded("pipeline", self.timeout, pipeline.query_async(&mut link)).await
    }

    /// Runs a script; the server is given its text when it does not know it yet.
    pub async fn script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T> {
        let mut link = self.link.clone();
        bounded("script", self.timeout, script.invoke_async(&mut link)).await
    }

    /// A connection of its own, for commands that wait in Redis.
    pub async fn blocking(&self) -> Result<Blocking> {
        let link = bounded("connect", self.timeout, self.nodes.own(self.timeout)).await?;
        Ok(Blocking { link, timeout: self.timeout })
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<()> {
        self.run::<String>(&redis::cmd("PING")).await.map(drop)
    }

    /// How long one command may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyspace").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A connection for one user, on which a command may wait in Redis. It does not reconnect: after an error that
/// [is one of the connection](Error::is_unavailable), take another.
pub struct Blocking {
    link: Link,
    timeout: Duration,
}

impl Blocking {
    /// Runs a command that waits in Redis for at most `wait`, as its `BLOCK` says.
    pub async fn run<T: FromRedisValue>(&mut self, command: &Cmd, wait: Duration) -> Result<T> {
        let answer = timeout(wait + self.timeout, command.query_async(&mut self.link)).await;
        counted(answer.map_or(Err(Error::Timeout), |answer| answer.map_err(Error::from)))
    }
}

/// Bounds a command and measures it.
async fn bounded<T>(command: &str, limit: Duration, work: impl Future<Output = redis::RedisResult<T>>) -> Result<T> {
    let began = Instant::now();
    let outcome = timeout(limit, work).await.map_or(Err(Error::Timeout), |outcome| outcome.map_err(Error::from));
    metrics::histogram!("guildhall_redis_seconds", "command" => command.to_owned()).record(began.elapsed());
    counted(outcome)
}

fn counted<T>(outcome: Result<T>) -> Result<T> {
    outcome.inspect_err(|error| {
        metrics::counter!("guildhall_redis_errors_total", "kind" => error.kind()).increment(1);
    })
}

/// The command's own word: there are as many as this project's sources name.
fn name(command: &Cmd) -> &str {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(word)) => std::str::from_utf8(word).unwrap_or("unknown"),
        _ => "unknown",
    }
}
