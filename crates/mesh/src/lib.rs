//! The mesh: who is at the other end of a call, in whose name they call, and whether they may.
//!
//! A process takes its [`Identity`] from a SPIFFE Workload API socket. A [`Server`] speaks mutual TLS with it, admits the
//! trust domain, and lets its [`Authorizer`] compare each call with the access rule that the contract gives the RPC;
//! handlers read the outcome by [`Caller::of`]. A [`Channel`] made by [`connect`] is the transport of the generated
//! clients: it pins the server's exact SPIFFE ID, passes on what is left of the caller's time, spreads calls over the
//! service's [`Endpoints`], leaves those alone that do not serve, and sends a call again where that can do no harm.
//!
//! A new RPC needs nothing here: its rule stands in its `.proto`, and so does whether it may be sent again
//! (`idempotency_level`). What concerns every call (deadlines, retries, breakers, balancing) is a file in `layer/`; the
//! order, and why, stands at [`connect_with`]. Paths that no contract can annotate are the short table in `authorize.rs`.
//!
//! A call fails with UNAVAILABLE and a time to come back when no endpoint can take it; it never waits in a queue for one.
//! What an operator sees of all this are the metrics `guildhall_mesh_*`, listed in `docs/operations.md`.
//!
//! Absent on purpose: nothing is trusted because of its address, and there is no way to serve or call without mutual TLS.

mod authorize;
mod caller;
mod client;
mod connection;
mod endpoints;
pub mod identity;
mod layer;
mod parting;
pub mod server;
mod tls;
pub mod token;
mod workload;

pub use authorize::Authorizer;
pub use caller::{Caller, Tier, UnknownTier, User, on_behalf};
pub use client::{Channel, Settings, connect, connect_with};
pub use endpoints::{Endpoints, NotEndpoints, Resolver, SystemResolver};
pub use identity::{Identity, Settings as IdentitySettings};
pub use layer::deadline;
pub use server::Server;
pub use spiffe::{SpiffeId, TrustDomain};
pub use tls::Peer;
pub use workload::{NotAWorkload, Workload, user_spiffe_id};
