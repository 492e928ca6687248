//! The admin that a new installation starts with.

use std::sync::Arc;

use chassis::BoxError;
use ids::Source;
use store::Db;

use crate::{
    account::{Account, Email},
    events::Announcer,
    password::{Hasher, Password},
    role::Roles,
    settings::Settings,
    store as tables,
};

/// The credentials of an admin that was just made. A generated password is nowhere else: show it.
pub struct FirstAdmin {
    pub email: String,
    password: Password,
}

impl FirstAdmin {
    /// The password, valid until its owner changes it.
    pub fn password(&self) -> &str {
        self.password.expose()
    }
}

/// Makes an admin if nobody is one. Without a chosen password one is generated. Of several replicas that start at once, one does it.
pub(crate) async fn create(
    db: &Db,
    hasher: &Hasher,
    announcer: &Announcer,
    source: &Source,
    email: &str,
    chosen: String,
) -> Result<Option<FirstAdmin>, BoxError> {
    if tables::account::has_admin(&mut db.read().await?).await? {
        return Ok(None);
    }
    let password = Arc::new(if chosen.is_empty() { Password::generate(source) } else { Password::presented(chosen) });
    let hash = hasher.hash(Arc::clone(&password)).await?;
    let now = source.now();
    let mut account = Account::register(source.id(), Email::parse(email)?, hash, "Admin", now);
    account.roles = Roles::ADMIN;
    account.email_verified = Some(now);
    let mut tx = db.begin().await?;
    if !tables::account::insert(&mut tx, &account).await? {
        drop(tx);
        if !tables::account::has_admin(&mut db.read().await?).await? {
            tracing::warn!("Nobody is admin: the address of `first_admin` has an account already. Set another one");
        }
        return Ok(None);
    }
    tables::settings::save(&mut tx, &Settings::new(account.id, now)).await?;
    announcer.registered(&mut tx, &account).await?;
    tx.commit().await?;
    let password = Arc::into_inner(password).ok_or("the password is still being hashed")?;
    Ok(Some(FirstAdmin { email: email.to_owned(), password }))
}
