//! Calls to the services: one channel to each, and messages as bytes.

use std::{collections::HashMap, time::Duration};

use axum::body::Bytes;
use chassis::Platform;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, uri::PathAndQuery};
use mesh::{Channel, Workload};
use status::{Problem, Reason};
use tokio::sync::OnceCell;
use tonic::{
    Extensions, Request, Response, Status,
    client::Grpc,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
};

use crate::transcode::Rpc;

/// How long a call waits for the address of a service that has not said yet where it listens.
const ADDRESS_WAIT: Duration = Duration::from_secs(2);

/// A channel to each service that owns an RPC or a path, by its workload's name. Made at the first call.
pub(crate) struct Upstreams {
    platform: Platform,
    channels: HashMap<&'static str, OnceCell<Channel>>,
}

impl Upstreams {
    pub(crate) fn new(platform: Platform) -> Self {
        let owners = contracts::METHODS
            .iter()
            .map(|method| method.owner)
            .chain(contracts::PASSTHROUGHS.iter().map(|path| path.owner));
        let channels = owners.filter(|owner| !owner.is_empty()).map(|owner| (owner, OnceCell::new())).collect();
        Self { platform, channels }
    }

    pub(crate) async fn channel(&self, owner: &str) -> Result<Channel, Problem> {
        let unknown = || Problem::new(Reason::Unavailable).because(format!("no address of `{owner}` is known"));
        let (name, channel) = self.channels.get_key_value(owner).ok_or_else(unknown)?;
        let connect = channel.get_or_try_init(|| async {
            let workload: Workload = name.parse().map_err(|_| unknown())?;
            tokio::time::timeout(ADDRESS_WAIT, self.platform.connect(&workload)).await.map_err(|_| unknown())
        });
        connect.await.cloned()
    }

    /// The client of the service that owns `rpc`.
    pub(crate) async fn client(&self, rpc: &Rpc, most_bytes: usize) -> Result<Client, Problem> {
        let grpc = Grpc::new(self.channel(owner(rpc)).await?).max_decoding_message_size(most_bytes);
        Ok(Client { grpc, path: rpc.path.clone() })
    }
}

/// The service that answers an RPC.
pub(crate) fn owner(rpc: &Rpc) -> &'static str {
    contracts::method(rpc.path.path()).map_or("", |method| method.owner)
}

/// A client of one RPC.
pub(crate) struct Client {
    grpc: Grpc<Channel>,
    path: PathAndQuery,
}

impl Client {
    /// Calls with messages that are at hand or still to come, and waits for the one answer.
    pub(crate) async fn one(
        mut self,
        metadata: HeaderMap,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Response<Bytes>, Problem> {
        self.ready().await?;
        let answer = self.grpc.client_streaming(request(metadata, messages), self.path, Untouched).await;
        answer.map_err(|status| Problem::from(&status))
    }

    /// Calls, and waits for the head of a stream of answers.
    pub(crate) async fn many(
        mut self,
        metadata: HeaderMap,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Response<impl Stream<Item = Result<Bytes, Problem>> + Send + 'static>, Problem> {
        self.ready().await?;
        let answer = self.grpc.streaming(request(metadata, messages), self.path, Untouched).await;
        answer
            .map(|answer| answer.map(|items| items.map(|item| item.map_err(|status| Problem::from(&status)))))
            .map_err(|status| Problem::from(&status))
    }

    async fn ready(&mut self) -> Result<(), Problem> {
        self.grpc.ready().await.map_err(|status| Problem::from(&status))
    }
}

fn request<T>(metadata: HeaderMap, message: T) -> Request<T> {
    Request::from_parts(MetadataMap::from_headers(metadata), Extensions::default(), message)
}

/// Messages that are encoded already, and answers that somebody else will decode.
#[derive(Clone, Copy, Default)]
struct Untouched;

impl Codec for Untouched {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Untouched {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(buffer, message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Untouched {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, bytes::Buf::remaining(buffer))))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
