use std::marker::PhantomData;

use prost::Message;
use status::{Problem, Reason};
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf};
use tonic_prost::{ProstDecoder, ProstEncoder};

use crate::{Validate, violations};

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To a service: checked by its rules before a handler sees it.
    Request,
    /// To a service, one of a stream: its handler checks it by [`violations`], since it may refuse one and go on.
    RequestPart,
    /// From a service: taken as it is, so that a newer server may answer what an older client's rules do not allow.
    Answer,
}

/// A message that an RPC carries.
pub trait Payload: Message + Validate + Default + 'static {
    /// Which way it goes; no message goes both.
    const DIRECTION: Direction;
}

/// `google.protobuf.Empty`.
impl Payload for () {
    const DIRECTION: Direction = Direction::Answer;
}

/// Protobuf as [`tonic_prost::ProstCodec`] has it, but for requests: bytes that are no message of that type are
/// `INVALID_ARGUMENT` with the reason `MALFORMED_REQUEST` (tonic says `INTERNAL`), and a message that breaks a rule of
/// its contract is refused with `INVALID_FIELDS` and the fields. Fields that are unknown are ignored.
#[derive(Debug, Clone)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + 'static, U: Payload> tonic::codec::Codec for Codec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Decoder<U> {
        Decoder(ProstDecoder::default())
    }
}

/// The decoding half of [`Codec`].
#[derive(Debug, Clone)]
pub struct Decoder<U>(ProstDecoder<U>);

impl<U: Payload> tonic::codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let decoded = self.0.decode(buffer);
        if U::DIRECTION == Direction::Answer {
            return decoded;
        }
        let decoded = decoded.map_err(|status| Problem::new(Reason::MalformedRequest).because(status))?;
        if let (Direction::Request, Some(message)) = (U::DIRECTION, &decoded) {
            let violations = violations(message);
            if !violations.is_empty() {
                return Err(Problem::new(Reason::InvalidFields).violations(violations).into());
            }
        }
        Ok(decoded)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
