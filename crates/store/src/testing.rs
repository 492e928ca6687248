//! Databases for tests: each test has its own, and leaves nothing behind.

use std::ops::Deref;
use std::time::Duration;

use ids::Source;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{Db, Migrations, Settings};

/// Names an administrator's URL of a PostgreSQL server: the tests make their databases there.
pub const POSTGRES: &str = "GUILDHALL_TEST_POSTGRES";

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A file in a directory of its own.
    Sqlite,
    /// A database of its own on the server that [`POSTGRES`] names. The test fails if it names none.
    Postgres,
}

/// A database that ends with its test.
pub struct TestDb {
    db: Db,
    home: Home,
}

enum Home {
    Directory(TempDir),
    Server { admin: String, name: String },
}

/// A new, migrated database.
pub async fn database(backend: Backend, migrations: &[&'static Migrations]) -> TestDb {
    let home = match backend {
        Backend::Sqlite => Home::Directory(TempDir::new().expect("a directory for the test")),
        Backend::Postgres => {
            let admin = std::env::var(POSTGRES).unwrap_or_else(|_| {
                panic!("{POSTGRES} is not set: it names the PostgreSQL server to test on, as `cargo xtask test` does")
            });
            let name = format!("test_{}", Uuid::from_bytes(Source::system().bytes()).simple());
            administer(&admin, format!("CREATE DATABASE {name}")).await.expect("a database for the test");
            Home::Server { admin, name }
        }
    };
    let db = Db::open(home.settings()).await.expect("the test's database opens");
    db.migrate(migrations).await.expect("the test's database is migrated");
    TestDb { db, home }
}

impl TestDb {
    /// The database's URL, to open it once more (on SQLite after [`Db::close`]).
    pub fn url(&self) -> String {
        self.home.settings().url
    }
}

impl Home {
    fn settings(&self) -> Settings {
        let url = match self {
            Self::Directory(directory) => format!("sqlite:{}", directory.path().join("test.db").display()),
            Self::Server { admin, name } => {
                let (base, query) =
                    admin.split_once('?').map_or((admin.as_str(), None), |(base, query)| (base, Some(query)));
                let server = base.rsplit_once('/').map_or(base, |(server, _)| server);
                query.map_or_else(|| format!("{server}/{name}"), |query| format!("{server}/{name}?{query}"))
            }
        };
        Settings { acquire_timeout: Duration::from_secs(20), ..Settings::new(url) }
    }
}

impl Deref for TestDb {
    type Target = Db;

    fn deref(&self) -> &Db {
        &self.db
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let Home::Server { admin, name } = &self.home else { return };
        let (admin, drop) = (admin.clone(), format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        // A test that panics drops its database too, and its runtime may be gone by then.
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(administer(&admin, drop))
        });
        if !matches!(dropped.join(), Ok(Ok(()))) {
            tracing::warn!(db.name = %name, "Could not drop the test's database");
        }
    }
}

async fn administer(admin: &str, statement: String) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(admin).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}

/// Writes each test for both databases: `mod <name> { sqlite, postgres }`.
///
/// ```text
/// store::on_both! {
///     migrations: &[&store::MIGRATIONS, &crate::MIGRATIONS];
///
///     async fn a_slug_belongs_to_one_post(db: Db) { … }
/// }
/// ```
#[macro_export]
macro_rules! on_both {
    (migrations: $migrations:expr; $($(#[$attribute:meta])* async fn $name:ident($db:ident: Db) $body:block)+) => {
        $(
            mod $name {
                #[allow(unused_imports, reason = "a test may need nothing from around it")]
                use super::*;

                $(#[$attribute])*
                async fn test(backend: $crate::testing::Backend) {
                    let database = $crate::testing::database(backend, $migrations).await;
                    #[allow(unused_variables, reason = "a test may want only the schema")]
                    let $db = $crate::Db::clone(&database);
                    $body
                    drop(database);
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn sqlite() {
                    test($crate::testing::Backend::Sqlite).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn postgres() {
                    test($crate::testing::Backend::Postgres).await;
                }
            }
        )+
    };
}
