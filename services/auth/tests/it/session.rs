//! ListSessions, RevokeSession.

use contracts::auth::v1::{ListSessionsRequest, LoginRequest, RevokeSessionRequest};
use status::Reason;
use tonic::Request;

use crate::{
    on_both,
    world::{PASSWORD, World, assert_refused},
};

on_both! {
    async fn sessions_are_listed_by_use_page_by_page(backend: Backend) {
        let world = World::start(backend).await;
        let first = world.member("ada@example.org").await;
        for n in 0..4 {
            world.clock.advance(std::time::Duration::from_secs(1));
            let mut request = Request::new(LoginRequest { email: "ada@example.org".into(), password: PASSWORD.into() });
            request.metadata_mut().insert("x-http-user-agent", format!("browser/{n}").parse().unwrap());
            world.accounts().login(request).await.unwrap();
        }
        world.clock.advance(std::time::Duration::from_secs(1));
        world.refresh(&first.refresh).await;

        let (mut agents, mut page_token, mut current) = (Vec::new(), String::new(), 0);
        loop {
            let request = ListSessionsRequest { page_size: 2, page_token };
            let page = world.accounts().list_sessions(world.by(&first, request)).await.unwrap().into_inner();
            current += page.sessions.iter().filter(|session| session.current).count();
            agents.extend(page.sessions.into_iter().map(|session| session.user_agent));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(agents, ["", "browser/3", "browser/2", "browser/1", "browser/0"]);
        assert_eq!(current, 1);
    }

    async fn a_page_token_serves_the_person_that_it_was_made_for(backend: Backend) {
        let world = World::start(backend).await;
        let (ada, bob) = (world.member("ada@example.org").await, world.member("bob@example.org").await);
        world.person("ada@example.org", PASSWORD).await;
        let list = |page_token: String| ListSessionsRequest { page_size: 1, page_token };
        let token = world.accounts().list_sessions(world.by(&ada, list(String::new()))).await.unwrap().into_inner().next_page_token;
        assert_refused(world.accounts().list_sessions(world.by(&bob, list(token.clone()))).await, Reason::PageTokenInvalid);
        assert_refused(world.accounts().list_sessions(world.by(&ada, list(format!("{token}x")))).await, Reason::PageTokenInvalid);
    }

    async fn a_revoked_session_is_over_at_once_and_the_others_go_on(backend: Backend) {
        let world = World::start(backend).await;
        let (ada, elsewhere) = (world.member("ada@example.org").await, world.person("ada@example.org", PASSWORD).await);
        let sid = crate::world::claims(&elsewhere.access)["sid"].as_str().unwrap().to_owned();
        for _ in 0..2 {
            let revoke = RevokeSessionRequest { session_id: sid.clone() };
            world.accounts().revoke_session(world.by(&ada, revoke)).await.unwrap();
        }
        assert_refused(world.me(&elsewhere).await, Reason::TokenRevoked);
        assert_eq!(world.refresh(&elsewhere.refresh).await.body["error"], "invalid_grant");
        world.me(&ada).await.unwrap();
        world.heard("auth.token.revoked", &ada.id, 1).await;
    }

    async fn sessions_that_are_long_over_are_deleted(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let sid = crate::world::claims(&ada.access)["sid"].as_str().unwrap().to_owned();
        world.clock.advance(std::time::Duration::from_hours(32 * 24));
        let world = world.restart(|settings| settings).await;
        let ada = world.person("ada@example.org", PASSWORD).await;
        let gone = async || {
            let revoke = RevokeSessionRequest { session_id: sid.clone() };
            world.accounts().revoke_session(world.by(&ada, revoke)).await.err()
        };
        let status = crate::world::eventually("the deletion", gone).await;
        assert_refused(Err::<(), _>(status), Reason::NotFound);
        assert_eq!(world.refresh(&ada.refresh).await.status, 200);
    }

    async fn another_persons_session_is_forbidden_and_an_unknown_one_not_there(backend: Backend) {
        let world = World::start(backend).await;
        let (ada, bob) = (world.member("ada@example.org").await, world.member("bob@example.org").await);
        let sid = crate::world::claims(&bob.access)["sid"].as_str().unwrap().to_owned();
        let revoke = |session_id: &str| world.by(&ada, RevokeSessionRequest { session_id: session_id.to_owned() });
        assert_refused(world.accounts().revoke_session(revoke(&sid)).await, Reason::ResourceForbidden);
        assert_refused(world.accounts().revoke_session(revoke(&ada.id)).await, Reason::NotFound);
        assert_refused(world.accounts().revoke_session(revoke("not an id")).await, Reason::InvalidFields);
        world.me(&bob).await.unwrap();
    }
}
