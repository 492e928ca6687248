//! A small mesh for tests: real identities, real mTLS, real services on free ports, and a bus in process.
//!
//! ```text
//! let mesh = Mesh::start().await;
//! let auth = mesh.serve_auth().await;                              // keys, profiles and events of auth, without auth
//! let platform = mesh.platform("content").await;
//! let bound = content::build(config, platform).await?;
//! let service = mesh.serve(bound).await;                           // returns when it is ready
//! let mut posts = PostServiceClient::new(mesh.channel("edge-gateway", "content").await);
//! let token = mesh.token(TokenSpec::member(user));
//! posts.get_post(mesh.as_user(&token, request)).await?;
//! ```
//!
//! Nothing outlives its test: directories and databases go, and tasks end with the runtime. With `GUILDHALL_TEST_LOG=info`
//! the services' logs are printed. To stand in for one more service, write it beside [`StandIn`]: only what the real one
//! cannot give in that test.

mod auth;
mod mesh;
mod service;
mod token;

pub use auth::StandIn;
pub use mesh::Mesh;
pub use service::{Service, overrides, server_settings};
pub use token::{AUDIENCE, ISSUER, Signer, TokenSpec};

pub use ids::ManualClock;
pub use store::testing::{Backend, TestDb};
