//! GetMe, UpdateMe, GetUser, GetSettings, UpdateSettings, BatchGetProfiles.

use contracts::auth::v1::{
    BatchGetProfilesRequest, GetSettingsRequest, GetUserRequest, Settings, UpdateMeRequest, UpdateSettingsRequest,
    User, profile_service_client::ProfileServiceClient,
};
use prost_types::FieldMask;
use status::Reason;

use crate::{
    on_both,
    world::{World, assert_refused, refusal},
};

fn mask(paths: &[&str]) -> FieldMask {
    FieldMask { paths: paths.iter().map(ToString::to_string).collect() }
}

fn named(name: &str) -> User {
    User { display_name: name.into(), ..User::default() }
}

on_both! {
    async fn an_update_changes_the_masked_fields_and_tells_others(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let user = User { display_name: " Ada Lovelace ".into(), biography: "not this".into(), ..User::default() };
        let update = UpdateMeRequest { user: Some(user), update_mask: Some(mask(&["display_name"])) };
        let updated = world.accounts().update_me(world.by(&ada, update)).await.unwrap().into_inner();
        assert_eq!((updated.display_name.as_str(), updated.biography.as_str()), ("Ada Lovelace", ""));
        world.heard("auth.user.updated", &ada.id, 1).await;

        let same = UpdateMeRequest { user: Some(named("Ada Lovelace")), update_mask: None };
        assert_eq!(world.accounts().update_me(world.by(&ada, same)).await.unwrap().into_inner().etag, updated.etag);

        let profile = world.accounts().get_user(GetUserRequest { user_id: ada.id.clone() }).await.unwrap().into_inner();
        assert_eq!((profile.display_name.as_str(), profile.etag, profile.suspended), ("Ada Lovelace", updated.etag, false));
        assert_eq!(profile.spiffe_id, format!("spiffe://guildhall.internal/user/{}", ada.id));
        assert_eq!(world.events("auth.user.updated").len(), 1);
    }

    async fn an_update_with_a_stale_etag_or_a_wrong_field_changes_nothing(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let update = |user: User, update_mask| {
            let (mut accounts, request) = (world.accounts(), world.by(&ada, UpdateMeRequest { user: Some(user), update_mask }));
            async move { accounts.update_me(request).await }
        };
        assert_refused(update(User { etag: "1".into(), ..named("Eve") }, None).await, Reason::EtagMismatch);
        for path in ["roles", "email", "etag", "displayName", ""] {
            let problem = refusal(update(named("Eve"), Some(mask(&["display_name", path]))).await);
            assert_eq!((problem.reason(), problem.violation_list()[0].field.as_str()), (Reason::InvalidFields, "updateMask"));
        }
        for name in ["", "   ", "E\nve", "\u{200b}", "\u{202e}evE", "E\u{2067}ve"] {
            let problem = refusal(update(named(name), Some(mask(&["display_name"]))).await);
            assert_eq!((problem.reason(), problem.violation_list()[0].field.as_str()), (Reason::InvalidFields, "user.displayName"));
        }
        let none = UpdateMeRequest { user: None, update_mask: None };
        assert_refused(world.accounts().update_me(world.by(&ada, none)).await, Reason::InvalidFields);
        assert_eq!(world.me(&ada).await.unwrap().display_name, "Ada");
    }

    async fn a_profile_of_nobody_is_not_there(backend: Backend) {
        let world = World::start(backend).await;
        let get = |user_id: &str| GetUserRequest { user_id: user_id.to_owned() };
        let nobody = "00000000-0000-7000-8000-000000000000";
        assert_refused(world.accounts().get_user(get(nobody)).await, Reason::NotFound);
        assert_refused(world.accounts().get_user(get("1 OR 1=1")).await, Reason::InvalidFields);
    }

    async fn settings_are_kept_and_guarded_by_their_etag(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let before = world.accounts().get_settings(world.by(&ada, GetSettingsRequest {})).await.unwrap().into_inner();
        assert_eq!((before.locale.as_str(), before.email_notifications, before.etag.as_str()), ("", true, "1"));
        let settings = Settings { locale: "ko-KR".into(), time_zone: "Asia/Seoul".into(), etag: before.etag, ..Settings::default() };
        let update = UpdateSettingsRequest {
            settings: Some(settings),
            update_mask: Some(mask(&["locale", "time_zone", "email_notifications"])),
        };
        let after = world.accounts().update_settings(world.by(&ada, update.clone())).await.unwrap().into_inner();
        assert_eq!((after.locale.as_str(), after.time_zone.as_str(), after.email_notifications), ("ko-KR", "Asia/Seoul", false));
        assert_refused(world.accounts().update_settings(world.by(&ada, update)).await, Reason::EtagMismatch);
        let wrong = Settings { locale: "korean!".into(), ..Settings::default() };
        let update = UpdateSettingsRequest { settings: Some(wrong), update_mask: None };
        assert_refused(world.accounts().update_settings(world.by(&ada, update)).await, Reason::InvalidFields);
        let kept = world.accounts().get_settings(world.by(&ada, GetSettingsRequest {})).await.unwrap().into_inner();
        assert_eq!(kept, after);
    }

    async fn content_gets_the_profiles_that_exist(backend: Backend) {
        let world = World::start(backend).await;
        let (ada, bob) = (world.member("ada@example.org").await, world.member("bob@example.org").await);
        let mut profiles = ProfileServiceClient::new(world.mesh.channel("content", "auth").await);
        let nobody = "00000000-0000-7000-8000-000000000000".to_owned();
        let request = BatchGetProfilesRequest { user_ids: vec![ada.id.clone(), nobody, bob.id.clone()] };
        let mut ids: Vec<_> =
            profiles.batch_get_profiles(request).await.unwrap().into_inner().profiles.into_iter().map(|profile| profile.id).collect();
        ids.sort();
        let mut expected = [ada.id, bob.id];
        expected.sort();
        assert_eq!(ids, expected);
        let many = BatchGetProfilesRequest { user_ids: vec![ids[0].clone(); 101] };
        assert_refused(profiles.batch_get_profiles(many).await, Reason::InvalidFields);
    }
}
