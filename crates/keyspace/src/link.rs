//! The one place that knows whether there is one server or a cluster.

use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisFuture, RedisResult, Value};

use crate::{Error, Settings};

/// Pauses between attempts to reconnect.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
const ATTEMPTS: usize = 6;
/// Longer than anybody waits in Redis: whoever does bounds the wait.
const NEVER: Duration = Duration::from_hours(1);

/// Where connections are made to.
pub(crate) enum Nodes {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
}

/// A connection.
#[derive(Clone)]
pub(crate) enum Link {
    /// It is made at the first command, and again when it is lost.
    Managed(ConnectionManager),
    Plain(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Nodes {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let none = || (redis::ErrorKind::InvalidClientConfig, "no URL of Redis is given");
        let nodes = if settings.cluster {
            ClusterClient::new(settings.urls.iter().map(String::as_str)).map(Box::new).map(Self::Cluster)
        } else {
            let first = settings.urls.first().ok_or_else(|| Error::Settings(none().into()))?;
            Client::open(first.as_str()).map(Box::new).map(Self::One)
        };
        nodes.map_err(Error::Settings)
    }

    /// A connection that many share.
    pub(crate) fn shared(&self, timeout: Duration) -> Result<Link, Error> {
        match self {
            Self::One(client) => {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(timeout))
                    .set_response_timeout(Some(timeout))
                    .set_number_of_retries(ATTEMPTS)
                    .set_min_delay(FIRST_PAUSE)
                    .set_max_delay(LONGEST_PAUSE);
                let manager = ConnectionManager::new_lazy_with_config((**client).clone(), config);
                manager.map(Link::Managed).map_err(Error::Settings)
            }
            Self::Cluster(client) => {
                let config = ClusterConfig::new().set_connection_timeout(timeout).set_response_timeout(timeout);
                Ok(Link::Cluster(client.get_pending_async_connection_with_config(config)))
            }
        }
    }

    /// A connection for one user, on which a command may take as long as that bounds it.
    pub(crate) async fn own(&self, timeout: Duration) -> RedisResult<Link> {
        match self {
            Self::One(client) => {
                let config =
                    AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(None);
                client.get_multiplexed_async_connection_with_config(&config).await.map(Link::Plain)
            }
            Self::Cluster(client) => {
                let config = ClusterConfig::new().set_connection_timeout(timeout).set_response_timeout(NEVER);
                client.get_async_connection_with_config(config).await.map(Link::Cluster)
            }
        }
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Managed(link) => link.req_packed_command(command),
            Self::Plain(link) => link.req_packed_command(command),
            Self::Cluster(link) => link.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Managed(link) => link.req_packed_commands(commands, offset, count),
            Self::Plain(link) => link.req_packed_commands(commands, offset, count),
            Self::Cluster(link) => link.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Managed(link) => link.get_db(),
            Self::Plain(link) => link.get_db(),
            Self::Cluster(link) => link.get_db(),
        }
    }
}
