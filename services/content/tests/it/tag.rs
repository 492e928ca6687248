//! Tags are counted, renamed and merged.

use contracts::auth::v1::UserSuspended;
use contracts::content::v1::tag_service_client::TagServiceClient;
use contracts::content::v1::{
    CreatePostRequest, GetPostRequest, ListPostsRequest, ListTagsRequest, MergeTagsRequest, Post, RenameTagRequest,
    SearchPostsRequest, Tag, UpdatePostRequest,
};
use mesh::Channel;
use prost_types::FieldMask;
use status::Reason;
use tonic::{Request, Response, Status};

use crate::on_both;
use crate::world::{Person, World, assert_refused, eventually, refusal};

fn client(world: &World) -> TagServiceClient<Channel> {
    TagServiceClient::new(world.channel.clone())
}

async fn draft(world: &World, author: &Person, title: &str, tags: &[&str]) -> Post {
    let tags = tags.iter().map(ToString::to_string).collect();
    let request = CreatePostRequest { title: title.to_owned(), tags, ..CreatePostRequest::default() };
    world.posts.clone().create_post(world.ask(author, request)).await.expect("a post").into_inner()
}

async fn published(world: &World, author: &Person, title: &str, tags: &[&str]) -> Post {
    let post = draft(world, author, title, tags).await;
    world.publish(author, &post).await
}

async fn get(world: &World, post: &Post) -> Post {
    let request = GetPostRequest { post_id: post.id.clone() };
    world.posts.clone().get_post(Request::new(request)).await.unwrap().into_inner()
}

/// All tags, in pages of two.
async fn tags(world: &World) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListTagsRequest { page_size: 2, page_token };
        let page = client(world).list_tags(Request::new(request)).await.unwrap().into_inner();
        assert!(page.tags.len() <= 2);
        tags.extend(page.tags);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return tags;
        }
    }
}

async fn counts(world: &World) -> Vec<(String, i32)> {
    tags(world).await.into_iter().map(|tag| (tag.name, tag.post_count)).collect()
}

async fn tag(world: &World, name: &str) -> Tag {
    tags(world).await.into_iter().find(|tag| tag.name == name).expect("the tag")
}

async fn rename(world: &World, moderator: &Person, tag: &Tag, name: &str) -> Result<Response<Tag>, Status> {
    let change = Tag { name: name.to_owned(), etag: tag.etag.clone(), ..Tag::default() };
    let request = RenameTagRequest { tag_id: tag.id.clone(), tag: Some(change), update_mask: None };
    client(world).rename_tag(world.ask(moderator, request)).await
}

async fn merge(world: &World, moderator: &Person, from: &str, into: &str) -> Result<Response<Tag>, Status> {
    let request = MergeTagsRequest { tag_id: from.to_owned(), target_id: into.to_owned() };
    client(world).merge_tags(world.ask(moderator, request)).await
}

fn of(counts: &[(&str, i32)]) -> Vec<(String, i32)> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

on_both! {
    async fn tags_are_listed_by_use_among_the_posts_that_everybody_may_read(world: World) {
        let author = world.member("A");
        let other = world.member("B");
        published(&world, &author, "1", &["Rust", "가"]).await;
        published(&world, &author, "2", &["rust", "beta", "Alpha"]).await;
        published(&world, &other, "3", &["Alpha", "hidden"]).await;
        draft(&world, &author, "4", &["draft", "rust"]).await;
        assert_eq!(counts(&world).await, of(&[("Alpha", 2), ("Rust", 2), ("beta", 1), ("hidden", 1), ("가", 1)]));
        world.auth.publish(1, &UserSuspended { user_id: other.id.to_string() }).await;
        eventually("a suspended author's posts do not count", async || {
            counts(&world).await == of(&[("Rust", 2), ("Alpha", 1), ("beta", 1), ("가", 1)])
        })
        .await;
        let forged = ListTagsRequest { page_size: 1, page_token: "eyJwb3N0cyI6MX0".to_owned() };
        assert_refused(client(&world).list_tags(Request::new(forged)).await, Reason::PageTokenInvalid);
    }

    async fn a_new_name_shows_on_every_post(world: World) {
        let author = world.member("A");
        let moderator = world.moderator();
        let post = published(&world, &author, "러스트", &["first", "rust", "last"]).await;
        let old = tag(&world, "rust").await;
        let new = rename(&world, &moderator, &old, " 러스트  언어").await.unwrap().into_inner();
        assert_eq!((new.name.as_str(), new.post_count, &new.id), ("러스트 언어", 1, &old.id));
        let renamed = get(&world, &post).await;
        assert_eq!(renamed.tags, ["first", "러스트 언어", "last"]);
        // It reads differently, so whoever saw the old one has to look again; nobody has edited it.
        assert_ne!(renamed.etag, post.etag);
        assert_eq!(renamed.version, post.version);
        let listed = ListPostsRequest { tag: "러스트 언어".to_owned(), ..ListPostsRequest::default() };
        assert_eq!(world.posts.clone().list_posts(Request::new(listed)).await.unwrap().into_inner().posts.len(), 1);
        let search = SearchPostsRequest { q: "러스트".to_owned(), ..SearchPostsRequest::default() };
        assert_eq!(world.posts.clone().search_posts(Request::new(search)).await.unwrap().into_inner().results.len(), 1);
        eventually("the others are told", async || world.told(&old.id) == [("content.tag.renamed".to_owned(), 2)]).await;

        assert_refused(rename(&world, &moderator, &old, "stale").await, Reason::EtagMismatch);
        assert_refused(rename(&world, &moderator, &new, "LAST").await, Reason::NameTaken);
        assert_eq!(refusal(rename(&world, &moderator, &new, "\u{7}").await), (Reason::InvalidFields, vec!["tag.name".to_owned()]));
        // The same name again is no change; another case of it is one.
        assert_eq!(rename(&world, &moderator, &new, "러스트 언어").await.unwrap().into_inner(), new);
        let last = tag(&world, "last").await;
        assert_eq!(rename(&world, &moderator, &last, "Last").await.unwrap().into_inner().name, "Last");
        assert_eq!(get(&world, &post).await.tags, ["first", "러스트 언어", "Last"]);
    }

    async fn a_tag_that_nothing_carries_is_in_nobodys_way(world: World) {
        let author = world.member("A");
        let moderator = world.moderator();
        let post = published(&world, &author, "1", &["old"]).await;
        let request = UpdatePostRequest {
            post_id: post.id.clone(),
            post: Some(Post { tags: vec!["new".to_owned()], ..Post::default() }),
            update_mask: Some(FieldMask { paths: vec!["tags".to_owned()] }),
        };
        world.posts.clone().update_post(world.ask(&author, request)).await.unwrap();
        let new = tag(&world, "new").await;
        assert_eq!(rename(&world, &moderator, &new, "Old").await.unwrap().into_inner().name, "Old");
    }

    async fn merged_posts_carry_the_target_once(world: World) {
        let author = world.member("A");
        let moderator = world.moderator();
        let one = published(&world, &author, "one", &["a", "rustlang", "z"]).await;
        let both = published(&world, &author, "both", &["rustlang", "rust"]).await;
        let unrelated = published(&world, &author, "unrelated", &["rust"]).await;
        let (from, into) = (tag(&world, "rustlang").await, tag(&world, "rust").await);
        let merged = merge(&world, &moderator, &from.id, &into.id).await.unwrap().into_inner();
        assert_eq!((merged.name.as_str(), merged.post_count, &merged.id), ("rust", 3, &into.id));
        assert_ne!(merged.etag, into.etag);
        assert_eq!(get(&world, &one).await.tags, ["a", "rust", "z"]);
        assert_eq!(get(&world, &both).await.tags, ["rust"]);
        assert_ne!(get(&world, &both).await.etag, both.etag);
        assert_eq!(get(&world, &unrelated).await.etag, unrelated.etag);
        assert_eq!(counts(&world).await, of(&[("rust", 3), ("a", 1), ("z", 1)]));
        eventually("the others are told", async || world.told(&from.id) == [("content.tag.merged".to_owned(), 2)]).await;

        assert_refused(merge(&world, &moderator, &from.id, &into.id).await, Reason::NotFound);
        for target in [&into.id, &from.id] {
            let refused = merge(&world, &moderator, &into.id, target).await;
            assert_eq!(refusal(refused), (Reason::InvalidFields, vec!["targetId".to_owned()]));
        }
    }

    async fn posts_that_are_written_while_their_tag_is_merged_keep_their_tags(world: World) {
        let author = world.member("A");
        let moderator = world.moderator();
        published(&world, &author, "target", &["into"]).await;
        let first = published(&world, &author, "first", &["from"]).await;
        let (from, into) = (tag(&world, "from").await, tag(&world, "into").await);
        let create = async |number: usize| {
            let tags = vec!["from".to_owned(), format!("own {number}")];
            let request = CreatePostRequest { title: format!("{number}"), tags, ..CreatePostRequest::default() };
            world.posts.clone().create_post(world.ask(&author, request)).await
        };
        let edit = async || {
            let request = UpdatePostRequest {
                post_id: first.id.clone(),
                post: Some(Post { tags: vec!["from".to_owned(), "into".to_owned()], ..Post::default() }),
                update_mask: Some(FieldMask { paths: vec!["tags".to_owned()] }),
            };
            world.posts.clone().update_post(world.ask(&author, request)).await
        };
        let (created, edited, merged) = tokio::join!(
            futures_util::future::join_all((0..6).map(create)),
            edit(),
            merge(&world, &moderator, &from.id, &into.id),
        );
        merged.unwrap();
        edited.unwrap();
        for (number, post) in created.into_iter().enumerate() {
            let request = world.ask(&author, GetPostRequest { post_id: post.unwrap().into_inner().id });
            let tags = world.posts.clone().get_post(request).await.unwrap().into_inner().tags;
            // Before the merge it got the target, after it the tag came into being anew.
            assert!(tags[0] == "into" || tags[0] == "from", "{tags:?}");
            assert_eq!(tags[1], format!("own {number}"));
        }
    }

    async fn only_moderators_change_tags(world: World) {
        let author = world.member("A");
        published(&world, &author, "1", &["a", "b"]).await;
        let (a, b) = (tag(&world, "a").await, tag(&world, "b").await);
        assert_refused(rename(&world, &author, &a, "c").await, Reason::RoleMissing);
        assert_refused(merge(&world, &author, &a.id, &b.id).await, Reason::RoleMissing);
        assert_eq!(counts(&world).await, of(&[("a", 1), ("b", 1)]));
    }
}
