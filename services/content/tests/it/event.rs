//! What is heard of people: their names stay fresh, and the posts of those who are shut out are hidden.

use contracts::auth::v1::{UserReinstated, UserSuspended, UserUpdated};
use contracts::content::v1::{GetPostRequest, ListPostsRequest, Post, SearchPostsRequest, UpdatePostRequest};
use status::Reason;
use tonic::Request;

use crate::on_both;
use crate::world::{World, assert_refused, eventually};

async fn get(world: &World, post: &Post) -> Option<Post> {
    let request = GetPostRequest { post_id: post.id.clone() };
    world.posts.clone().get_post(Request::new(request)).await.ok().map(tonic::Response::into_inner)
}

on_both! {
    async fn a_new_name_shows_under_old_posts(world: World) {
        let author = world.member("민지");
        let post = world.published(&author, "Title", "").await;
        let stranger = world.member("아무개");
        world.name(author.id, "김민지");
        world.auth.publish(5, &UserUpdated { user_id: author.id.to_string() }).await;
        world.auth.publish(1, &UserUpdated { user_id: stranger.id.to_string() }).await;
        eventually("the name is new", async || get(&world, &post).await.unwrap().author == "김민지").await;
        // A copy with the old name is not fresh, but whoever edits has seen all that they edit.
        assert_ne!(get(&world, &post).await.unwrap().etag, post.etag);
        let change = Post { byline: "팀".to_owned(), etag: post.etag.clone(), ..Post::default() };
        let update = UpdatePostRequest { post_id: post.id.clone(), post: Some(change), update_mask: None };
        world.posts.clone().update_post(world.ask(&author, update)).await.unwrap();
        // An older event that arrives late changes nothing.
        world.name(author.id, "옛이름");
        world.auth.publish(4, &UserUpdated { user_id: author.id.to_string() }).await;
        world.name(author.id, "김민지");
        world.auth.publish(6, &UserSuspended { user_id: stranger.id.to_string() }).await;
        world.auth.publish(6, &UserSuspended { user_id: author.id.to_string() }).await;
        eventually("later events were handled", async || get(&world, &post).await.is_none()).await;
        world.auth.publish(7, &UserReinstated { user_id: author.id.to_string() }).await;
        eventually("the post is back", async || get(&world, &post).await.is_some_and(|post| post.author == "김민지")).await;
    }

    async fn posts_of_a_suspended_author_are_hidden_until_reinstatement(world: World) {
        let author = world.member("A");
        let moderator = world.moderator();
        let post = world.published(&author, "숨은 글", "찾을 말").await;
        let list = async || world.posts.clone().list_posts(Request::new(ListPostsRequest::default())).await.unwrap().into_inner().posts.len();
        let search = async || {
            let request = SearchPostsRequest { q: "찾을".to_owned(), ..SearchPostsRequest::default() };
            world.posts.clone().search_posts(Request::new(request)).await.unwrap().into_inner().results.len()
        };
        assert_eq!((list().await, search().await), (1, 1));
        world.auth.publish(2, &UserSuspended { user_id: author.id.to_string() }).await;
        eventually("the post is hidden", async || get(&world, &post).await.is_none()).await;
        assert_eq!((list().await, search().await), (0, 0));
        let request = || GetPostRequest { post_id: post.id.clone() };
        assert_refused(world.posts.clone().get_post(world.ask(&author, request())).await, Reason::NotFound);
        assert!(world.posts.clone().get_post(world.ask(&moderator, request())).await.is_ok());
        let for_moderators = world.posts.clone().list_posts(world.ask(&moderator, ListPostsRequest::default())).await.unwrap();
        assert_eq!(for_moderators.into_inner().posts.len(), 1);

        world.auth.publish(3, &UserReinstated { user_id: author.id.to_string() }).await;
        eventually("the post is back", async || get(&world, &post).await.is_some()).await;
        assert_eq!((list().await, search().await), (1, 1));
    }

    async fn somebody_who_was_suspended_before_they_wrote_is_hidden_too(world: World) {
        let author = world.member("A");
        world.auth.publish(2, &UserSuspended { user_id: author.id.to_string() }).await;
        let watched = world.member("B");
        let marker = world.published(&watched, "marker", "").await;
        world.auth.publish(2, &UserSuspended { user_id: watched.id.to_string() }).await;
        eventually("both events were handled", async || get(&world, &marker).await.is_none()).await;
        let post = world.draft(&author, "Title", "").await;
        assert_eq!(post.author, "A");
        let request = GetPostRequest { post_id: post.id };
        assert_refused(world.posts.clone().get_post(world.ask(&author, request)).await, Reason::NotFound);
    }
}
