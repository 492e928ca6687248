//! REST and JSON in front of gRPC, from descriptors alone.
//!
//! A [`Table`] is compiled once from a descriptor pool. [`Table::route`] finds the [`Match`] of a request; the match turns path,
//! query, headers and body into protobuf messages, and the answer's messages into JSON, a stream format or raw bytes. It does no
//! I/O and knows no service: the annotations `google.api.http`, `guildhall.mesh.v1.*` and `google.api.field_behavior` are read
//! by the definitions in the pool itself, so that any server's descriptors will do.
//!
//! To add an annotation, read it in `rpc.rs` into [`Rpc`]. To add another conversion engine, implement
//! `engine::Engine` and compile it in `table.rs`.

pub(crate) mod annotation;
pub(crate) mod binding;
mod engine;
pub(crate) mod json;
mod mask;
pub(crate) mod media;
mod percent;
pub(crate) mod query;
pub(crate) mod reflect;
mod router;
mod rpc;
pub(crate) mod scalar;
mod stream;
pub mod table;
pub(crate) mod template;
mod wire;

pub use self::{
    binding::Match,
    media::Format,
    rpc::{Access, Cache, Http, Idempotency, Limit, Rpc, User},
    stream::{Aborted, Converted, Streamed},
    table::{Routed, Table},
};
