//! What admins do to accounts.

use contracts::{
    Role,
    auth::v1::{
        ListUsersRequest, ListUsersResponse, ReinstateRequest, SetRolesRequest, SetTierRequest, SuspendRequest, User,
        user::State,
    },
};
use ids::{Timestamp, UserId};
use mesh::Tier;
use status::{Problem, Reason};
use store::page;
use tonic::Request;

use super::{id, limit, not_found, person::user_message};
use crate::{
    Auth,
    account::{self, Account, Email, OtherAdmins},
    role::Roles,
    store as tables,
};

pub(super) async fn list_users(auth: &Auth, request: Request<ListUsersRequest>) -> Result<ListUsersResponse, Problem> {
    let ListUsersRequest { page_size, page_token, email, role, state } = request.into_inner();
    let state = State::try_from(state).unwrap_or_default();
    let filter = tables::account::Filter {
        email_key: Some(Email::key_of(&email)).filter(|key| !key.is_empty()),
        role: if role.is_empty() { None } else { Some(roles(&[role], "role")?) },
        suspended: match state {
            State::Unspecified => None,
            State::Active => Some(false),
            State::Suspended => Some(true),
        },
    };
    let scope = format!("ListUsers {filter:?}");
    let after: Option<(Timestamp, UserId)> = auth.page_tokens.read(&scope, &page_token)?;
    let mut conn = auth.db.read().await?;
    let size = page::size(page_size);
    let accounts = tables::account::list(&mut conn, filter, after, limit(size)).await?;
    let (accounts, next_page_token) = auth.cut(&scope, size, accounts, |account| (account.created, account.id));
    let users = accounts.into_iter().map(|account| user_message(auth, account)).collect();
    Ok(ListUsersResponse { users, next_page_token })
}

pub(super) async fn set_roles(auth: &Auth, request: Request<SetRolesRequest>) -> Result<User, Problem> {
    let SetRolesRequest { user_id, roles: names, etag } = request.into_inner();
    let roles = roles(&names, "roles")?;
    change(auth, &user_id, &etag, Effect::NewRoles, |account, others, now| account.set_roles(roles, others, now)).await
}

pub(super) async fn set_tier(auth: &Auth, request: Request<SetTierRequest>) -> Result<User, Problem> {
    let SetTierRequest { user_id, tier, etag } = request.into_inner();
    let tier: Tier =
        tier.parse().map_err(|_| Problem::new(Reason::InvalidFields).violation("tier", "is not a tier"))?;
    change(auth, &user_id, &etag, Effect::NewTier, |account, _, now| Ok(account.set_tier(tier, now))).await
}

pub(super) async fn suspend(auth: &Auth, request: Request<SuspendRequest>) -> Result<User, Problem> {
    let SuspendRequest { user_id, reason, etag } = request.into_inner();
    change(auth, &user_id, &etag, Effect::Suspension, |account, others, now| account.suspend(reason, others, now)).await
}

pub(super) async fn reinstate(auth: &Auth, request: Request<ReinstateRequest>) -> Result<User, Problem> {
    let ReinstateRequest { user_id, etag } = request.into_inner();
    change(auth, &user_id, &etag, Effect::Reinstatement, |account, _, now| Ok(account.reinstate(now))).await
}

/// What a change means for others.
#[derive(Clone, Copy)]
enum Effect {
    /// Sessions stay; their next access tokens have the new roles.
    NewRoles,
    /// The next access tokens have the new tier.
    NewTier,
    /// Every session ends.
    Suspension,
    Reinstatement,
}

async fn change(
    auth: &Auth,
    user_id: &str,
    etag: &str,
    effect: Effect,
    apply: impl FnOnce(&mut Account, OtherAdmins, Timestamp) -> Result<bool, account::Error>,
) -> Result<User, Problem> {
    let user: UserId = id(user_id, "userId")?;
    let mut tx = auth.db.begin().await?;
    let others = tables::account::lock_other_admins(&mut tx, user).await?;
    let mut account = tables::account::lock(&mut tx, user).await?.ok_or_else(not_found)?;
    account.check_etag(etag)?;
    let now = auth.source.now();
    if apply(&mut account, others, now)? {
        tables::account::save(&mut tx, &account).await?;
        match effect {
            Effect::NewRoles => auth.announcer.revoked(&mut tx, &account, None, now).await?,
            Effect::NewTier => {}
            Effect::Suspension => {
                tables::session::end_all(&mut tx, user, now).await?;
                auth.announcer.suspended(&mut tx, &account).await?;
                auth.announcer.revoked(&mut tx, &account, None, now).await?;
            }
            Effect::Reinstatement => auth.announcer.reinstated(&mut tx, &account).await?,
        }
        tx.commit().await?;
    }
    Ok(user_message(auth, account))
}

fn roles(names: &[String], field: &str) -> Result<Roles, Problem> {
    let invalid = |description: &str| Problem::new(Reason::InvalidFields).violation(field, description);
    let roles = names.iter().map(|name| name.parse::<Role>()).collect::<Result<Vec<_>, _>>();
    Roles::new(roles.map_err(|_| invalid("is not a role"))?).map_err(|error| invalid(&error.to_string()))
}
