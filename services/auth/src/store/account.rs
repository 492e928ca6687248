//! `users`: accounts.

use ids::{Timestamp, UserId};
use mesh::Tier;
use store::{Conn, Error, Result, Tx};

use crate::{
    account::{Account, Email, OtherAdmins, State},
    password,
    role::Roles,
};

const COLUMNS: &str = "id, email, email_key, email_verify_time, password_hash, password_time, display_name, biography, \
                       roles, tier, suspend_time, suspend_reason, version, create_time, update_time";

#[derive(sqlx::FromRow)]
struct Row {
    id: UserId,
    email: String,
    email_key: String,
    email_verify_time: Option<Timestamp>,
    password_hash: String,
    password_time: Timestamp,
    display_name: String,
    biography: String,
    roles: i64,
    tier: String,
    suspend_time: Option<Timestamp>,
    suspend_reason: Option<String>,
    version: i64,
    create_time: Timestamp,
    update_time: Timestamp,
}

impl TryFrom<Row> for Account {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id,
            email: Email::stored(row.email, row.email_key),
            email_verified: row.email_verify_time,
            password: password::Hash::stored(row.password_hash),
            password_set: row.password_time,
            display_name: row.display_name,
            biography: row.biography,
            roles: Roles::from_bits(row.roles).map_err(Error::corrupt)?,
            tier: row.tier.parse::<Tier>().map_err(Error::corrupt)?,
            state: match (row.suspend_time, row.suspend_reason) {
                (Some(since), Some(reason)) => State::Suspended { since, reason },
                _ => State::Active,
            },
            version: row.version,
            created: row.create_time,
            updated: row.update_time,
        })
    }
}

/// The account of that id.
pub async fn find(conn: &mut Conn, id: UserId) -> Result<Option<Account>> {
    let sql = format!("SELECT {COLUMNS} FROM users WHERE id = $1");
    store::fetch_optional!(conn, Row, sql, id).await?.map(Account::try_from).transpose()
}

/// The account of an address in normal form.
pub async fn find_by_email(conn: &mut Conn, email_key: &str) -> Result<Option<Account>> {
    let sql = format!("SELECT {COLUMNS} FROM users WHERE email_key = $1");
    store::fetch_optional!(conn, Row, sql, email_key).await?.map(Account::try_from).transpose()
}

/// The account of that id, held until the end of the transaction. Whatever is written about a person is written under this lock.
pub async fn lock(tx: &mut Tx, id: UserId) -> Result<Option<Account>> {
    let sql = format!("SELECT {COLUMNS} FROM users WHERE id = $1{}", tx.dialect().for_update());
    store::fetch_optional!(tx, Row, sql, id).await?.map(Account::try_from).transpose()
}

/// Whether an active admin other than `id` exists, held until the end of the transaction: two admins cannot demote each other at
/// once. To be called before [`lock`], so that transactions lock admins in one order.
pub async fn lock_other_admins(tx: &mut Tx, id: UserId) -> Result<OtherAdmins> {
    let lock = format!("SELECT id FROM users WHERE roles >= {ADMIN} ORDER BY id{}", tx.dialect().for_update());
    store::execute!(tx, lock).await?;
    let count = format!("SELECT COUNT(*) FROM users WHERE roles >= {ADMIN} AND suspend_time IS NULL AND id <> $1");
    let others = store::fetch_scalar!(tx, i64, count, id).await?;
    Ok(if others > 0 { OtherAdmins::Some } else { OtherAdmins::None })
}

/// The bit of the role admin. It is the highest, so whoever has it has a set of at least this.
const ADMIN: i64 = 8;

/// Whether anybody has the role admin.
pub async fn has_admin(conn: &mut Conn) -> Result<bool> {
    let count = format!("SELECT COUNT(*) FROM users WHERE roles >= {ADMIN}");
    Ok(store::fetch_scalar!(conn, i64, count).await? > 0)
}

/// Adds an account. Answers whether its address was free.
pub async fn insert(tx: &mut Tx, account: &Account) -> Result<bool> {
    let sql = format!(
        "INSERT INTO users ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULL, NULL, $11, $12, $13)
         ON CONFLICT (email_key) DO NOTHING"
    );
    let rows = store::execute!(
        tx,
        sql,
        account.id,
        account.email.written(),
        account.email.key(),
        account.email_verified,
        account.password.as_str(),
        account.password_set,
        account.display_name.as_str(),
        account.biography.as_str(),
        account.roles.bits(),
        account.tier.as_str(),
        account.version,
        account.created,
        account.updated
    )
    .await?;
    Ok(rows == 1)
}

/// Writes a locked account back.
pub async fn save(tx: &mut Tx, account: &Account) -> Result<()> {
    let (suspend_time, suspend_reason) = match &account.state {
        State::Active => (None, None),
        State::Suspended { since, reason } => (Some(*since), Some(reason.as_str())),
    };
    store::execute!(
        tx,
        "UPDATE users SET email_verify_time = $2, password_hash = $3, password_time = $4, display_name = $5, biography = $6,
             roles = $7, tier = $8, suspend_time = $9, suspend_reason = $10, version = $11, update_time = $12
         WHERE id = $1",
        account.id,
        account.email_verified,
        account.password.as_str(),
        account.password_set,
        account.display_name.as_str(),
        account.biography.as_str(),
        account.roles.bits(),
        account.tier.as_str(),
        suspend_time,
        suspend_reason,
        account.version,
        account.updated
    )
    .await?;
    Ok(())
}

/// Replaces a hash by one of the same password, unless the password has changed meanwhile. That is no change of the account.
pub async fn rehash(tx: &mut Tx, id: UserId, old: &password::Hash, new: &password::Hash) -> Result<()> {
    let sql = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
    store::execute!(tx, sql, id, old.as_str(), new.as_str()).await?;
    Ok(())
}

/// The accounts of these ids; unknown ids are left out.
pub async fn find_all(conn: &mut Conn, ids: Vec<UserId>) -> Result<Vec<Account>> {
    let sql = format!("SELECT {COLUMNS} FROM users WHERE id IN {}", conn.dialect().id_list(1));
    let rows = store::fetch_all!(conn, Row, sql, store::dialect::id_list(ids)).await?;
    rows.into_iter().map(Account::try_from).collect()
}

/// Which accounts to list; `None` does not filter.
#[derive(Debug, Default)]
pub struct Filter {
    pub email_key: Option<String>,
    /// Only people with this very role.
    pub role: Option<Roles>,
    pub suspended: Option<bool>,
}

/// The next `limit` accounts in order, newest first, after the one made at this time with this id.
pub async fn list(
    conn: &mut Conn,
    filter: Filter,
    after: Option<(Timestamp, UserId)>,
    limit: i64,
) -> Result<Vec<Account>> {
    let (time, id) = after.unzip();
    let sql = format!(
        "SELECT {COLUMNS} FROM users
         WHERE ($1 IS NULL OR email_key = $1)
           AND ($2 IS NULL OR (roles & $2) <> 0)
           AND ($3 IS NULL OR (suspend_time IS NOT NULL) = $3)
           AND ($4 IS NULL OR (create_time, id) < ($4, $5))
         ORDER BY create_time DESC, id DESC LIMIT $6"
    );
    let role = filter.role.map(Roles::bits);
    let rows = store::fetch_all!(conn, Row, sql, filter.email_key, role, filter.suspended, time, id, limit).await?;
    rows.into_iter().map(Account::try_from).collect()
}
