//! Why a call was refused: one enum of reasons, and one way to tell a client.
//!
//! A service answers a [`Problem`]; it becomes a [`tonic::Status`] with `google.rpc` details once, here, and is read
//! back from one where a call was made to another service. What the client may know (reason, text, violations,
//! metadata) and what it may not (the cause) are separate from the start: the cause is logged and never sent.
//!
//! To add a reason, add a value with its meaning to `proto/guildhall/common/v1/reason.proto`, and a page for it in
//! `docs/errors/`.

mod problem;
mod reason;
mod wire;

pub use problem::{Problem, Violation};
pub use reason::Reason;
pub use wire::DOMAIN;
