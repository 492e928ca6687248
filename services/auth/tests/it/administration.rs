//! ListUsers, SetRoles, SetTier, Suspend, Reinstate.

use contracts::auth::v1::{
    GetUserRequest, ListUsersRequest, ReinstateRequest, SetRolesRequest, SetTierRequest, SuspendRequest, User,
    user::State,
};
use status::Reason;

use crate::{
    on_both,
    world::{PASSWORD, Person, World, assert_refused, claims},
};

fn roles(person: &str, roles: &[&str]) -> SetRolesRequest {
    SetRolesRequest {
        user_id: person.to_owned(),
        roles: roles.iter().map(ToString::to_string).collect(),
        etag: String::new(),
    }
}

fn suspend(person: &str) -> SuspendRequest {
    SuspendRequest { user_id: person.to_owned(), reason: "spam".into(), etag: String::new() }
}

async fn list(world: &World, admin: &Person, request: ListUsersRequest) -> Vec<User> {
    world.accounts().list_users(world.by(admin, request)).await.unwrap().into_inner().users
}

on_both! {
    async fn new_roles_end_the_tokens_at_hand_and_show_in_the_next(backend: Backend) {
        let world = World::start(backend).await;
        let (admin, ada) = (world.admin().await, world.member("ada@example.org").await);
        world.clock.advance(std::time::Duration::from_millis(5));
        let user = world.accounts().set_roles(world.by(&admin, roles(&ada.id, &["member", "moderator"]))).await.unwrap().into_inner();
        assert_eq!(user.roles, ["member", "moderator"]);
        assert_refused(world.me(&ada).await, Reason::TokenRevoked);

        world.clock.advance(std::time::Duration::from_millis(5));
        let answer = world.refresh(&ada.refresh).await;
        let access = answer.body["access_token"].as_str().unwrap().to_owned();
        assert_eq!(claims(&access)["roles"], serde_json::json!(["member", "moderator"]));
        assert!(claims(&access)["scope"].as_str().unwrap().contains("moderation"));
        world.me(&Person { access, ..ada }).await.unwrap();
    }

    async fn a_suspension_ends_every_session_and_only_a_right_password_learns_of_it(backend: Backend) {
        let world = World::start(backend).await;
        let (admin, ada) = (world.admin().await, world.member("ada@example.org").await);
        for _ in 0..2 {
            let user = world.accounts().suspend(world.by(&admin, suspend(&ada.id))).await.unwrap().into_inner();
            assert!(user.state() == State::Suspended && user.etag == "3", "{user:?}");
        }
        assert_refused(world.me(&ada).await, Reason::TokenRevoked);
        assert_eq!(world.refresh(&ada.refresh).await.body["error"], "invalid_grant");
        assert_refused(world.login("ada@example.org", "wrong password").await, Reason::CredentialsInvalid);
        assert_refused(world.login("ada@example.org", PASSWORD).await, Reason::AccountSuspended);
        let profile = world.accounts().get_user(GetUserRequest { user_id: ada.id.clone() }).await.unwrap().into_inner();
        assert!(profile.suspended);

        let reinstate = ReinstateRequest { user_id: ada.id.clone(), etag: String::new() };
        world.accounts().reinstate(world.by(&admin, reinstate)).await.unwrap();
        world.clock.advance(std::time::Duration::from_millis(5));
        world.person("ada@example.org", PASSWORD).await;
        assert_refused(world.me(&ada).await, Reason::TokenRevoked);
        for topic in ["auth.user.suspended", "auth.user.reinstated", "auth.token.revoked"] {
            world.heard(topic, &ada.id, 1).await;
        }
    }

    async fn a_tier_shows_in_the_next_token(backend: Backend) {
        let world = World::start(backend).await;
        let (admin, ada) = (world.admin().await, world.member("ada@example.org").await);
        let tier = SetTierRequest { user_id: ada.id.clone(), tier: "premium".into(), etag: String::new() };
        world.accounts().set_tier(world.by(&admin, tier)).await.unwrap();
        let answer = world.refresh(&ada.refresh).await;
        assert_eq!(claims(answer.body["access_token"].as_str().unwrap())["tier"], "premium");
    }

    async fn the_last_admin_can_be_neither_demoted_nor_suspended(backend: Backend) {
        let world = World::start(backend).await;
        let (admin, ada) = (world.admin().await, world.member("ada@example.org").await);
        assert_refused(world.accounts().set_roles(world.by(&admin, roles(&admin.id, &["member"]))).await, Reason::LastAdmin);
        assert_refused(world.accounts().suspend(world.by(&admin, suspend(&admin.id))).await, Reason::LastAdmin);
        world.accounts().set_roles(world.by(&admin, roles(&ada.id, &["admin"]))).await.unwrap();
        world.accounts().suspend(world.by(&admin, suspend(&ada.id))).await.unwrap();
        let alone = world.accounts().set_roles(world.by(&admin, roles(&admin.id, &["member"]))).await;
        assert_refused(alone, Reason::LastAdmin);
    }

    async fn two_admins_cannot_demote_each_other_at_once(backend: Backend) {
        let world = World::start(backend).await;
        let (admin, ada) = (world.admin().await, world.member("ada@example.org").await);
        world.accounts().set_roles(world.by(&admin, roles(&ada.id, &["admin"]))).await.unwrap();
        world.clock.advance(std::time::Duration::from_millis(5));
        let ada = world.person("ada@example.org", PASSWORD).await;
        let demote = |by: &Person, whom: &Person| {
            let (mut accounts, request) = (world.accounts(), world.by(by, roles(&whom.id, &["member"])));
            async move { accounts.set_roles(request).await.is_ok() }
        };
        let (one, other) = tokio::join!(demote(&admin, &ada), demote(&ada, &admin));
        assert_eq!(usize::from(one) + usize::from(other), 1);
    }

    async fn a_stale_etag_changes_nothing(backend: Backend) {
        let world = World::start(backend).await;
        let (admin, ada) = (world.admin().await, world.member("ada@example.org").await);
        let stale = SetRolesRequest { etag: "1".into(), ..roles(&ada.id, &["moderator"]) };
        assert_refused(world.accounts().set_roles(world.by(&admin, stale)).await, Reason::EtagMismatch);
        let fresh = SetRolesRequest { etag: world.me(&ada).await.unwrap().etag, ..roles(&ada.id, &["moderator"]) };
        world.accounts().set_roles(world.by(&admin, fresh)).await.unwrap();
    }

    async fn what_is_no_role_tier_or_person_is_refused(backend: Backend) {
        let world = World::start(backend).await;
        let admin = world.admin().await;
        for names in [&[][..], &["king"], &["member", "member"]] {
            let outcome = world.accounts().set_roles(world.by(&admin, roles(&admin.id, names))).await;
            assert_refused(outcome, Reason::InvalidFields);
        }
        let tier = SetTierRequest { user_id: admin.id.clone(), tier: "gold".into(), etag: String::new() };
        assert_refused(world.accounts().set_tier(world.by(&admin, tier)).await, Reason::InvalidFields);
        assert_refused(world.accounts().suspend(world.by(&admin, suspend("nobody"))).await, Reason::InvalidFields);
        let nobody = "00000000-0000-7000-8000-000000000000";
        assert_refused(world.accounts().suspend(world.by(&admin, suspend(nobody))).await, Reason::NotFound);
    }

    async fn accounts_are_listed_newest_first_and_by_filter(backend: Backend) {
        let world = World::start(backend).await;
        let admin = world.admin().await;
        let mut expected = vec!["root@example.org".to_owned()];
        for n in 0..5 {
            world.clock.advance(std::time::Duration::from_millis(5));
            let email = format!("{n}@example.org");
            world.register(&email).await;
            expected.insert(0, email);
        }
        let (mut emails, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListUsersRequest { page_size: 2, page_token, ..Default::default() };
            let page = world.accounts().list_users(world.by(&admin, request)).await.unwrap().into_inner();
            assert!(page.users.len() <= 2);
            emails.extend(page.users.into_iter().map(|user| user.email));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(emails, expected);

        let found = list(&world, &admin, ListUsersRequest { email: "3@EXAMPLE.org".into(), ..Default::default() }).await;
        assert_eq!(found.len(), 1);
        let admins = list(&world, &admin, ListUsersRequest { role: "admin".into(), ..Default::default() }).await;
        assert_eq!(admins.iter().map(|user| user.id.as_str()).collect::<Vec<_>>(), [admin.id.as_str()]);
        world.accounts().suspend(world.by(&admin, suspend(&found[0].id))).await.unwrap();
        let suspended = ListUsersRequest { state: State::Suspended.into(), ..Default::default() };
        assert_eq!(list(&world, &admin, suspended).await.len(), 1);
        let active = ListUsersRequest { state: State::Active.into(), ..Default::default() };
        assert_eq!(list(&world, &admin, active).await.len(), 5);
    }

    async fn a_page_token_serves_the_filter_that_it_was_made_for(backend: Backend) {
        let world = World::start(backend).await;
        let admin = world.admin().await;
        world.register("ada@example.org").await;
        let first = ListUsersRequest { page_size: 1, ..Default::default() };
        let page = world.accounts().list_users(world.by(&admin, first)).await.unwrap().into_inner();
        assert!(!page.next_page_token.is_empty());
        let other = ListUsersRequest { page_size: 1, page_token: page.next_page_token, role: "admin".into(), ..Default::default() };
        assert_refused(world.accounts().list_users(world.by(&admin, other)).await, Reason::PageTokenInvalid);
    }
}
