//! Rotation of signing keys.

use std::time::Duration;

use crate::{
    on_both,
    world::{World, eventually, kid_of, kids_of},
};

async fn kids(world: &World) -> Vec<String> {
    kids_of(&world.get("/oauth2/jwks").await.body)
}

on_both! {
    async fn a_key_is_published_signs_and_is_dropped_in_time(backend: Backend) {
        let world = World::start(backend).await;
        let mut ada = world.member("ada@example.org").await;
        let first = kids(&world).await;
        assert_eq!(first, [kid_of(&ada.access)]);

        world.clock.advance(Duration::from_hours(30 * 24) - Duration::from_mins(15));
        let both = eventually("the next key", async || Some(kids(&world).await).filter(|kids| kids.len() == 2)).await;
        ada.access = world.person("ada@example.org", crate::world::PASSWORD).await.access;
        assert_eq!((&both[0], kid_of(&ada.access)), (&first[0], first[0].clone()), "a new key does not sign yet");

        world.clock.advance(Duration::from_mins(15));
        let fresh = world.person("ada@example.org", crate::world::PASSWORD).await;
        assert_eq!(kid_of(&fresh.access), both[1]);

        world.clock.advance(Duration::from_mins(9));
        world.me(&fresh).await.unwrap();
        assert_eq!(kids(&world).await.len(), 2, "tokens of the old key may still be good");
        world.clock.advance(Duration::from_mins(17));
        eventually("the end of the first key", async || (kids(&world).await == both[1..]).then_some(())).await;
    }

    async fn keys_survive_a_restart(backend: Backend) {
        let world = World::start(backend).await;
        let ada = world.member("ada@example.org").await;
        let before = kids(&world).await;
        let world = world.restart(|settings| settings).await;
        assert_eq!(kids(&world).await, before);
        world.me(&ada).await.unwrap();
    }
}
