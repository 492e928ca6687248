//! `user_settings`.

use ids::{Timestamp, UserId};
use store::{Conn, Result, Tx};

use crate::settings::Settings;

const COLUMNS: &str = "user_id, locale, time_zone, email_notifications, version, create_time, update_time";

#[derive(sqlx::FromRow)]
struct Row {
    user_id: UserId,
    locale: String,
    time_zone: String,
    email_notifications: bool,
    version: i64,
    create_time: Timestamp,
    update_time: Timestamp,
}

impl From<Row> for Settings {
    fn from(row: Row) -> Self {
        Self {
            user: row.user_id,
            locale: row.locale,
            time_zone: row.time_zone,
            email_notifications: row.email_notifications,
            version: row.version,
            created: row.create_time,
            updated: row.update_time,
        }
    }
}

/// A person's settings.
pub async fn find(conn: &mut Conn, user: UserId) -> Result<Option<Settings>> {
    let sql = format!("SELECT {COLUMNS} FROM user_settings WHERE user_id = $1");
    Ok(store::fetch_optional!(conn, Row, sql, user).await?.map(Settings::from))
}

/// A person's settings, held until the end of the transaction.
pub async fn lock(tx: &mut Tx, user: UserId) -> Result<Option<Settings>> {
    let sql = format!("SELECT {COLUMNS} FROM user_settings WHERE user_id = $1{}", tx.dialect().for_update());
    Ok(store::fetch_optional!(tx, Row, sql, user).await?.map(Settings::from))
}

/// Writes settings, new or changed.
pub async fn save(tx: &mut Tx, settings: &Settings) -> Result<()> {
    let sql = format!(
        "INSERT INTO user_settings ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (user_id) DO UPDATE SET locale = $2, time_zone = $3, email_notifications = $4, version = $5, update_time = $7"
    );
    store::execute!(
        tx,
        sql,
        settings.user,
        settings.locale.as_str(),
        settings.time_zone.as_str(),
        settings.email_notifications,
        settings.version,
        settings.created,
        settings.updated
    )
    .await?;
    Ok(())
}
