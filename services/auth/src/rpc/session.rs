//! A person's own sessions.

use contracts::auth::v1::{self, ListSessionsRequest, ListSessionsResponse, RevokeSessionRequest};
use ids::{SessionId, Timestamp};
use status::Problem;
use store::page;
use tonic::Request;

use super::{id, limit, not_found, user};
use crate::{Auth, permit, session::Session, store as tables};

pub(super) async fn list_sessions(
    auth: &Auth,
    request: Request<ListSessionsRequest>,
) -> Result<ListSessionsResponse, Problem> {
    let me = user(&request)?;
    let ListSessionsRequest { page_size, page_token } = request.into_inner();
    let scope = format!("ListSessions {}", me.id);
    let after: Option<(Timestamp, SessionId)> = auth.page_tokens.read(&scope, &page_token)?;
    let mut conn = auth.db.read().await?;
    let now = auth.source.now();
    let size = page::size(page_size);
    let sessions = tables::session::list(&mut conn, me.id, now, after, limit(size)).await?;
    let (sessions, next_page_token) = auth.cut(&scope, size, sessions, |session| (session.used, session.id));
    let sessions = sessions.into_iter().map(|session| message(session, me.session)).collect();
    Ok(ListSessionsResponse { sessions, next_page_token })
}

/// Ends a session. One that is over already stays so.
pub(super) async fn revoke_session(auth: &Auth, request: Request<RevokeSessionRequest>) -> Result<(), Problem> {
    let me = user(&request)?;
    let session: SessionId = id(&request.into_inner().session_id, "sessionId")?;
    let mut tx = auth.db.begin().await?;
    let account = tables::account::lock(&mut tx, me.id).await?.ok_or_else(not_found)?;
    let mut session = tables::session::find(&mut tx, session).await?.ok_or_else(not_found)?;
    permit::SESSION_OWNER.check(me.id, &session)?;
    let now = auth.source.now();
    if session.end(now) {
        tables::session::save(&mut tx, &session).await?;
        auth.announcer.revoked(&mut tx, &account, Some(session.id), now).await?;
        tx.commit().await?;
    }
    Ok(())
}

fn message(session: Session, current: Option<SessionId>) -> v1::Session {
    v1::Session {
        id: session.id.to_string(),
        create_time: Some(session.created.into()),
        update_time: Some(session.used.into()),
        etag: session.etag(),
        expire_time: Some(session.expires.into()),
        current: current == Some(session.id),
        user_agent: session.user_agent,
    }
}
