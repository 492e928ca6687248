//! A person's own account and settings, and the public profile.

use contracts::auth::v1::{
    self, GetMeRequest, GetSettingsRequest, GetUserRequest, UpdateMeRequest, UpdateSettingsRequest,
};
use status::{Problem, Reason};
use tonic::Request;

use super::{Mask, id, not_found, user};
use crate::{
    Auth,
    account::{Account, State},
    profile::{self, Profile},
    settings::{self, Settings},
    store as tables,
};

pub(super) async fn get_me(auth: &Auth, request: &Request<GetMeRequest>) -> Result<v1::User, Problem> {
    let me = user(request)?;
    let mut conn = auth.db.read().await?;
    let account = tables::account::find(&mut conn, me.id).await?.ok_or_else(not_found)?;
    Ok(user_message(auth, account))
}

pub(super) async fn update_me(auth: &Auth, request: Request<UpdateMeRequest>) -> Result<v1::User, Problem> {
    let me = user(&request)?;
    let UpdateMeRequest { user, update_mask } = request.into_inner();
    let v1::User { etag, display_name, biography, .. } = user.unwrap_or_default();
    let mask = Mask::read(update_mask, &["display_name", "biography"])?;
    let edit = profile::Edit {
        display_name: mask.pick("display_name", display_name),
        biography: mask.pick("biography", biography),
    };
    if edit.display_name.as_deref() == Some("") {
        return Err(Problem::new(Reason::InvalidFields).violation("user.displayName", "must not be empty"));
    }

    let mut tx = auth.db.begin().await?;
    let mut account = tables::account::lock(&mut tx, me.id).await?.ok_or_else(not_found)?;
    account.check_etag(&etag)?;
    if edit.apply(&mut account, auth.source.now()) {
        tables::account::save(&mut tx, &account).await?;
        auth.announcer.updated(&mut tx, &account).await?;
        tx.commit().await?;
    }
    Ok(user_message(auth, account))
}

pub(super) async fn get_user(auth: &Auth, request: Request<GetUserRequest>) -> Result<v1::Profile, Problem> {
    let user = id(&request.into_inner().user_id, "userId")?;
    let mut conn = auth.db.read().await?;
    let account = tables::account::find(&mut conn, user).await?.ok_or_else(not_found)?;
    Ok(profile_message(auth, account.into()))
}

pub(super) async fn get_settings(auth: &Auth, request: &Request<GetSettingsRequest>) -> Result<v1::Settings, Problem> {
    let me = user(request)?;
    let mut conn = auth.db.read().await?;
    Ok(tables::settings::find(&mut conn, me.id).await?.ok_or_else(not_found)?.into())
}

pub(super) async fn update_settings(
    auth: &Auth,
    request: Request<UpdateSettingsRequest>,
) -> Result<v1::Settings, Problem> {
    let me = user(&request)?;
    let UpdateSettingsRequest { settings, update_mask } = request.into_inner();
    let v1::Settings { etag, locale, time_zone, email_notifications, .. } = settings.unwrap_or_default();
    let mask = Mask::read(update_mask, &["locale", "time_zone", "email_notifications"])?;
    let edit = settings::Edit {
        locale: mask.pick("locale", locale),
        time_zone: mask.pick("time_zone", time_zone),
        email_notifications: mask.pick("email_notifications", email_notifications),
    };

    let mut tx = auth.db.begin().await?;
    let mut settings = tables::settings::lock(&mut tx, me.id).await?.ok_or_else(not_found)?;
    settings.check_etag(&etag)?;
    if settings.edit(edit, auth.source.now()) {
        tables::settings::save(&mut tx, &settings).await?;
        tx.commit().await?;
    }
    Ok(settings.into())
}

/// An account as its owner and admins see it.
pub(super) fn user_message(auth: &Auth, account: Account) -> v1::User {
    v1::User {
        id: account.id.to_string(),
        create_time: Some(account.created.into()),
        update_time: Some(account.updated.into()),
        etag: account.etag(),
        email: account.email.written().to_owned(),
        email_verified: account.email_verified.is_some(),
        display_name: account.display_name,
        biography: account.biography,
        roles: account.roles.names(),
        tier: account.tier.as_str().to_owned(),
        state: match account.state {
            State::Active => v1::user::State::Active,
            State::Suspended { .. } => v1::user::State::Suspended,
        }
        .into(),
        spiffe_id: auth.issuer.spiffe_id(account.id),
    }
}

pub(super) fn profile_message(auth: &Auth, profile: Profile) -> v1::Profile {
    v1::Profile {
        id: profile.id.to_string(),
        create_time: Some(profile.created.into()),
        update_time: Some(profile.updated.into()),
        etag: profile.version.to_string(),
        display_name: profile.display_name,
        biography: profile.biography,
        spiffe_id: auth.issuer.spiffe_id(profile.id),
        suspended: profile.suspended,
    }
}

impl From<Settings> for v1::Settings {
    fn from(settings: Settings) -> Self {
        Self {
            id: settings.user.to_string(),
            create_time: Some(settings.created.into()),
            update_time: Some(settings.updated.into()),
            etag: settings.etag(),
            locale: settings.locale,
            time_zone: settings.time_zone,
            email_notifications: settings.email_notifications,
        }
    }
}
