//! The tables: SQL beside the row that it fills, rows turned into values of the domain.

pub mod account;
pub mod code;
pub mod mail;
pub mod session;
pub mod settings;
pub mod signing_key;

/// This service's own tables.
pub static MIGRATIONS: ::store::Migrations = ::store::migrations!("migrations");

/// Every table that the service needs, in the order in which they are made.
pub static ALL_MIGRATIONS: [&::store::Migrations; 3] = [&::store::MIGRATIONS, &events::MIGRATIONS, &MIGRATIONS];
