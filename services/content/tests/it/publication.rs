//! Posts are published, at once or at a time to come, and withdrawn.

use std::time::Duration;

use contracts::content::v1::post::State;
use contracts::content::v1::{GetPostRequest, Post, PublishPostRequest, UnpublishPostRequest};
use ids::Clock;
use status::Reason;
use tonic::Request;

use crate::on_both;
use crate::world::{Person, World, assert_refused, eventually};

async fn schedule(world: &World, person: &Person, post: &Post, after: Duration) -> Post {
    let publish_at = Some((world.clock.now() + after).into());
    let request = PublishPostRequest { post_id: post.id.clone(), publish_at, ..PublishPostRequest::default() };
    world.posts.clone().publish_post(world.ask(person, request)).await.unwrap().into_inner()
}

async fn is_public(world: &World, post: &Post) -> bool {
    world.posts.clone().get_post(Request::new(GetPostRequest { post_id: post.id.clone() })).await.is_ok()
}

on_both! {
    async fn a_published_post_is_there_for_everybody_until_it_is_withdrawn(world: World) {
        let author = world.member("A");
        let mut posts = world.posts.clone();
        let draft = world.draft(&author, "Title", "text").await;
        assert!(!is_public(&world, &draft).await);
        let published = world.publish(&author, &draft).await;
        assert_eq!((published.state(), published.version), (State::Published, 1));
        assert_eq!(published.publish_time, Some(world.clock.now().into()));
        assert!(is_public(&world, &draft).await);
        let again = PublishPostRequest { post_id: draft.id.clone(), ..PublishPostRequest::default() };
        assert_refused(posts.publish_post(world.ask(&author, again)).await, Reason::StateConflict);

        let unpublish = UnpublishPostRequest { post_id: draft.id.clone(), etag: published.etag.clone() };
        let withdrawn = posts.unpublish_post(world.ask(&author, unpublish.clone())).await.unwrap().into_inner();
        assert_eq!((withdrawn.state(), withdrawn.publish_time), (State::Draft, None));
        assert!(!is_public(&world, &draft).await);
        assert_refused(posts.unpublish_post(world.ask(&author, unpublish)).await, Reason::EtagMismatch);
        let told = ["content.post.created", "content.post.published", "content.post.unpublished"];
        eventually("its events were published", async || {
            world.told(&draft.id) == told.iter().zip(1..).map(|(topic, version)| (topic.to_string(), version)).collect::<Vec<_>>()
        }).await;
    }

    async fn only_the_author_publishes(world: World) {
        let author = world.member("A");
        let draft = world.draft(&author, "Title", "text").await;
        let published = world.published(&author, "Title", "text").await;
        let mut posts = world.posts.clone();
        let publish = PublishPostRequest { post_id: draft.id.clone(), ..PublishPostRequest::default() };
        assert_refused(posts.publish_post(world.ask(&world.member("B"), publish.clone())).await, Reason::NotFound);
        assert_refused(posts.publish_post(world.ask(&world.moderator(), publish)).await, Reason::ResourceForbidden);
        let unpublish = UnpublishPostRequest { post_id: published.id.clone(), ..UnpublishPostRequest::default() };
        assert_refused(posts.unpublish_post(world.ask(&world.member("B"), unpublish)).await, Reason::ResourceForbidden);
    }

    async fn a_scheduled_post_is_published_at_its_time_and_once(world: World) {
        let author = world.member("A");
        let draft = world.draft(&author, "Title", "text").await;
        let scheduled = schedule(&world, &author, &draft, Duration::from_mins(1)).await;
        assert_eq!(scheduled.state(), State::Scheduled);
        assert!(!is_public(&world, &draft).await);
        // A turn of the task that finds another one due.
        let earlier = world.draft(&author, "Earlier", "").await;
        schedule(&world, &author, &earlier, Duration::from_secs(59)).await;
        world.clock.advance(Duration::from_secs(59));
        eventually("the earlier one was published", async || is_public(&world, &earlier).await).await;
        assert!(!is_public(&world, &draft).await);

        let due = std::time::Instant::now();
        world.clock.advance(Duration::from_secs(1));
        eventually("it was published", async || is_public(&world, &draft).await).await;
        assert!(due.elapsed() < Duration::from_secs(5), "{:?}", due.elapsed());
        let get = GetPostRequest { post_id: draft.id.clone() };
        let post = world.posts.clone().get_post(Request::new(get)).await.unwrap().into_inner();
        assert_eq!(post.publish_time, scheduled.publish_time);
        let later = world.draft(&author, "Later", "").await;
        schedule(&world, &author, &later, Duration::from_secs(1)).await;
        world.clock.advance(Duration::from_secs(1));
        eventually("others were told of a later one", async || world.told(&later.id).len() == 2).await;
        let told = [("content.post.created".to_owned(), 1), ("content.post.published".to_owned(), 3)];
        assert_eq!(world.told(&draft.id), told);
    }

    async fn a_schedule_survives_a_restart_and_can_be_changed_and_called_off(world: World) {
        let author = world.member("A");
        let [kept, moved, dropped] = [world.draft(&author, "1", "").await, world.draft(&author, "2", "").await, world.draft(&author, "3", "").await];
        for post in [&kept, &moved, &dropped] {
            schedule(&world, &author, post, Duration::from_mins(1)).await;
        }
        schedule(&world, &author, &moved, Duration::from_hours(2)).await;
        let unpublish = UnpublishPostRequest { post_id: dropped.id.clone(), ..UnpublishPostRequest::default() };
        world.posts.clone().unpublish_post(world.ask(&author, unpublish)).await.unwrap();
        let clock = world.clock.clone();
        clock.advance(Duration::from_hours(1));
        world.restart().await;
        eventually("it was published", async || is_public(&world, &kept).await).await;
        assert!(!is_public(&world, &moved).await && !is_public(&world, &dropped).await);
    }

    async fn a_time_that_has_been_means_now(world: World) {
        let author = world.member("A");
        let draft = world.draft(&author, "Title", "text").await;
        let request = PublishPostRequest {
            post_id: draft.id.clone(),
            publish_at: Some((world.clock.now() - Duration::from_hours(24)).into()),
            ..PublishPostRequest::default()
        };
        let post = world.posts.clone().publish_post(world.ask(&author, request)).await.unwrap().into_inner();
        assert_eq!((post.state(), post.publish_time), (State::Published, Some(world.clock.now().into())));
    }
}
