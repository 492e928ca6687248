//! The auth service through its public surface: booted for each test with a database of its own, called over mTLS.

mod access;
mod administration;
mod architecture;
mod bootstrap;
mod credential;
mod mail;
mod oauth;
mod person;
mod replicas;
mod session;
mod signing_key;
mod svid;
mod world;

/// Writes each test for both databases.
macro_rules! on_both {
    ($($(#[$attribute:meta])* async fn $name:ident($backend:ident: Backend) $body:block)+) => {
        $(
            mod $name {
                use super::*;

                $(#[$attribute])*
                async fn test($backend: testkit::Backend) $body

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn sqlite() {
                    test(testkit::Backend::Sqlite).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn postgres() {
                    test(testkit::Backend::Postgres).await;
                }
            }
        )+
    };
}
pub(crate) use on_both;
