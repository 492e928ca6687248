//! Schemas that a rolling update survives.

use std::fmt;

use sqlx::Connection;
use sqlx::migrate::{Migrate, Migrator};

use crate::{Db, Error, Result};

/// One set of migrations, in both languages. Each set is counted in a table of its own, so that several sets live in one database
/// without knowing of each other.
#[derive(Debug)]
pub struct Migrations {
    /// The set's name: the name of the crate that it belongs to.
    pub name: &'static str,
    /// For PostgreSQL.
    pub postgres: Migrator,
    /// For SQLite.
    pub sqlite: Migrator,
}

/// `static MIGRATIONS: Migrations = store::migrations!("migrations");`: the files under `migrations/postgres` and
/// `migrations/sqlite` of the crate that it stands in, as the set with this crate's name. Other sets are given with name and folders.
///
/// Add a `build.rs` that prints `cargo:rerun-if-changed=migrations`: a new file is otherwise not seen.
#[macro_export]
macro_rules! migrations {
    ("migrations") => {
        $crate::migrations!(env!("CARGO_PKG_NAME"), postgres = "migrations/postgres", sqlite = "migrations/sqlite")
    };
    ($name:expr, postgres = $postgres:literal, sqlite = $sqlite:literal $(,)?) => {
        $crate::Migrations {
            name: $name,
            postgres: $crate::sqlx::migrate!($postgres),
            sqlite: $crate::sqlx::migrate!($sqlite),
        }
    };
}

impl Db {
    /// Brings the schema up to date, set after set in the given order. Replicas that start together wait for each other; one that
    /// is killed in the middle leaves nothing half done. Migrations that are newer than this binary are left alone.
    pub async fn migrate(&self, sets: &[&'static Migrations]) -> Result<()> {
        if let Some(mut connection) = self.lone_postgres().await? {
            // A connection of its own: a failed run keeps its advisory lock until it is closed.
            for set in sets {
                run(&mut connection, set, &set.postgres).await?;
            }
            connection.close().await?;
        }
        if let Some(mut connection) = self.lone_sqlite().await? {
            for set in sets {
                run(&mut *connection, set, &set.sqlite).await?;
            }
        }
        Ok(())
    }
}

async fn run<C: Migrate>(connection: &mut C, set: &'static Migrations, migrator: &Migrator) -> Result<()> {
    let mut migrator = Migrator::with_migrations(migrator.iter().cloned().collect());
    migrator.set_ignore_missing(true);
    migrator.dangerous_set_table_name(format!("_migrations_{}", set.name));
    migrator.run_direct(None, connection, false).await.map_err(|source| Error::Migration { set: set.name, source })
}

impl fmt::Display for Migrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
