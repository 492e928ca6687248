//! The first admin, and settings that cannot be.

use crate::{on_both, world::World};

on_both! {
    async fn the_first_start_makes_an_admin_and_later_ones_do_not(backend: Backend) {
        let world = World::start(backend).await;
        let (email, password) = world.first_admin.clone().unwrap();
        assert_eq!(email, "root@example.org");
        let me = world.me(&world.admin().await).await.unwrap();
        world.heard("auth.user.registered", &me.id, 1).await;
        assert_eq!((me.roles, me.email_verified), (vec!["member".to_owned(), "admin".to_owned()], true));
        let world = world.restart(|settings| settings).await;
        assert!(world.first_admin.is_none());
        world.login(&email, &password).await.unwrap();
    }

    async fn a_password_can_be_chosen_for_the_first_admin(backend: Backend) {
        let world = World::with(backend, |settings| settings.set("first_admin_password", "chosen beforehand")).await;
        world.person("root@example.org", "chosen beforehand").await;
    }

    async fn a_member_who_has_the_address_is_not_made_admin(backend: Backend) {
        let world = World::with(backend, |settings| settings.set("first_admin", "")).await;
        let member = world.member("root@example.org").await;
        let world = world.restart(|settings| settings).await;
        assert!(world.first_admin.is_none());
        assert_eq!(world.me(&member).await.unwrap().roles, ["member"]);
    }

    async fn no_admin_is_made_unless_asked_for(backend: Backend) {
        let world = World::with(backend, |settings| settings.set("first_admin", "")).await;
        assert!(world.first_admin.is_none());
    }
}

#[tokio::test]
async fn keys_that_nobody_could_know_in_time_are_refused() {
    let mesh = testkit::Mesh::start().await;
    for (setting, value) in [("publish_before", "5m"), ("rotate_every", "20m"), ("check_every", "0s")] {
        let settings = testkit::overrides().set(&format!("signing_keys.{setting}"), value);
        let config = chassis::config::load(auth::DEFAULTS, "auth", None, &settings).unwrap();
        let outcome = auth::build(config, mesh.platform("auth").await).await;
        assert!(matches!(outcome, Err(auth::Error::Setting(of, _)) if of.ends_with(setting)), "{setting}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_no_address_is_refused() {
    let mesh = testkit::Mesh::start().await;
    for issuer in [
        "",
        "guildhall",
        "https://",
        "https://a/",
        "https://a/b",
        "https://a?b",
        "https://a b",
        "https://u@a",
        "ftp://a",
    ] {
        let settings = testkit::overrides().set("issuer", issuer).set("database.url", "sqlite:never-opened.db");
        let config = chassis::config::load(auth::DEFAULTS, "auth", None, &settings).unwrap();
        let outcome = auth::build(config, mesh.platform("auth").await).await;
        assert!(matches!(outcome, Err(auth::Error::Setting("issuer", _))), "{issuer}");
    }
}
