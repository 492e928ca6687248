//! The content service through its public surface: booted for each test with a database of its own, called over mTLS.

mod category;
mod event;
mod feed;
mod input;
mod portfolio;
mod publication;
mod reading;
mod replicas;
mod search;
mod statistics;
mod tag;
mod transfer;
mod version;
mod world;
mod writing;

/// Writes each test for both databases.
macro_rules! on_both {
    ($($(#[$attribute:meta])* async fn $name:ident($world:ident: World) $body:block)+) => {
        $(
            mod $name {
                use super::*;

                $(#[$attribute])*
                async fn test(backend: testkit::Backend) {
                    #[allow(unused_mut, reason = "few tests restart the service")]
                    let mut $world = crate::world::World::start(backend).await;
                    $body
                    $world.settle().await;
                }

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
