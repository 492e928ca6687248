//! A gRPC call of bytes, for what generated stubs cannot say: any method by its path, any body.

use std::sync::Arc;

use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream;
use tonic::codegen::{Body, Bytes, StdError};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

/// Calls a method, of any kind, with one message, and answers with the code and the first message.
pub async fn call<T>(transport: T, path: &'static str, token: Option<&str>, message: &[u8]) -> Result<Vec<u8>, Status>
where
    T: GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    let mut grpc = Grpc::new(transport);
    grpc.ready().await.map_err(|error| Status::unavailable(error.into().to_string()))?;
    let mut request = Request::new(tokio_stream::iter([Arc::from(message)]));
    if let Some(token) = token {
        let value = MetadataValue::try_from(format!("Bearer {token}")).expect("a token is ASCII");
        request.metadata_mut().insert("authorization", value);
    }
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
    let first = answers.message().await?;
    Ok(first.unwrap_or_default())
}

/// The code of a call's outcome.
pub fn code(outcome: &Result<Vec<u8>, Status>) -> Code {
    outcome.as_ref().map_or_else(Status::code, |_| Code::Ok)
}

struct Raw;

impl Codec for Raw {
    type Encode = Arc<[u8]>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Arc<[u8]>;
    type Error = Status;

    fn encode(&mut self, item: Arc<[u8]>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        use bytes::BufMut as _;
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        use bytes::Buf as _;
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
