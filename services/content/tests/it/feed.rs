//! Feeds and the sitemap.

use std::time::Duration;

use contracts::auth::v1::UserSuspended;
use contracts::content::v1::feed_service_client::FeedServiceClient;
use contracts::content::v1::{
    CreatePostRequest, GetAtomFeedRequest, GetRssFeedRequest, GetSitemapRequest, ImportPostsRequest,
    UnpublishPostRequest,
};
use contracts::google::api::HttpBody;
use mesh::Channel;
use tonic::Request;

use crate::on_both;
use crate::world::{World, eventually};

fn client(world: &World) -> FeedServiceClient<Channel> {
    FeedServiceClient::new(world.channel.clone())
}

fn text(body: HttpBody, content_type: &str) -> String {
    assert_eq!(body.content_type, format!("{content_type}; charset=utf-8"));
    String::from_utf8(body.data.into()).unwrap()
}

async fn atom(world: &World) -> atom_syndication::Feed {
    let body = client(world).get_atom_feed(Request::new(GetAtomFeedRequest {})).await.unwrap().into_inner();
    text(body, "application/atom+xml").parse().unwrap()
}

async fn rss(world: &World) -> rss::Channel {
    let body = client(world).get_rss_feed(Request::new(GetRssFeedRequest {})).await.unwrap().into_inner();
    text(body, "application/rss+xml").parse().unwrap()
}

async fn sitemap(world: &World) -> String {
    let body = client(world).get_sitemap(Request::new(GetSitemapRequest {})).await.unwrap().into_inner();
    text(body, "application/xml")
}

fn titles(feed: &atom_syndication::Feed) -> Vec<&str> {
    feed.entries.iter().map(|entry| entry.title.value.as_str()).collect()
}

on_both! {
    async fn feeds_tell_of_what_everybody_may_read_the_newest_first(world: World) {
        let author = world.member("민지");
        let request = CreatePostRequest {
            title: "첫 글 <&\u{ffff}>".to_owned(),
            markdown: "**안녕**\u{b} <script>alert(1)</script>".to_owned(),
            tags: vec!["Rust".to_owned(), "게임 & 커뮤니티".to_owned()],
            language: "ko".to_owned(),
            ..CreatePostRequest::default()
        };
        let first = world.posts.clone().create_post(world.ask(&author, request)).await.unwrap().into_inner();
        world.publish(&author, &first).await;
        world.clock.advance(Duration::from_mins(1));
        let second = world.published(&author, "Second", "").await;
        world.draft(&author, "Draft", "").await;

        let feed = atom(&world).await;
        assert_eq!(titles(&feed), ["Second", "첫 글 <&>"]);
        assert_eq!(feed.links[0].href, "http://localhost:8080/feeds/posts.atom");
        let entry = &feed.entries[1];
        assert_eq!(entry.id, format!("urn:uuid:{}", first.id));
        assert_eq!(entry.links[0].href, format!("http://localhost:8080/api/v1/posts/{}", first.id));
        assert_eq!(entry.authors[0].name, "민지");
        let terms: Vec<_> = entry.categories.iter().map(|category| category.term.as_str()).collect();
        assert_eq!(terms, ["Rust", "게임 & 커뮤니티"]);
        let content = entry.content.as_ref().unwrap();
        assert_eq!((content.content_type.as_deref(), content.lang.as_deref()), (Some("html"), Some("ko")));
        let html = content.value.as_deref().unwrap();
        assert!(html.contains("<strong>안녕</strong>") && !html.contains("script"), "{html}");
        let newest = second.update_time.unwrap();
        assert_eq!(feed.updated.timestamp(), newest.seconds);

        let channel = rss(&world).await;
        assert_eq!(channel.items.iter().map(|item| item.title().unwrap()).collect::<Vec<_>>(), ["Second", "첫 글 <&>"]);
        assert_eq!(channel.items[0].guid().unwrap().value(), format!("urn:uuid:{}", second.id));
        assert!(channel.items[1].content().unwrap().contains("<strong>안녕</strong>"));

        let sitemap = sitemap(&world).await;
        for post in [&first, &second] {
            assert!(sitemap.contains(&format!("<loc>http://localhost:8080/api/v1/posts/{}</loc>", post.id)), "{sitemap}");
        }
        assert_eq!(sitemap.matches("<url>").count(), 2);
    }

    async fn what_is_hidden_leaves_the_feeds_within_seconds(world: World) {
        let author = world.member("A");
        let other = world.member("B");
        let post = world.published(&author, "A's", "").await;
        world.published(&other, "B's", "").await;
        assert_eq!(atom(&world).await.entries.len(), 2);
        world.auth.publish(1, &UserSuspended { user_id: other.id.to_string() }).await;
        eventually("the suspended author's post is gone", async || titles(&atom(&world).await) == ["A's"]).await;
        let request = UnpublishPostRequest { post_id: post.id, ..UnpublishPostRequest::default() };
        world.posts.clone().unpublish_post(world.ask(&author, request)).await.unwrap();
        eventually("the draft is gone", async || atom(&world).await.entries.is_empty()).await;
        assert_eq!(sitemap(&world).await.matches("<url>").count(), 0);
    }

    async fn a_feed_has_fifty_entries_under_their_bylines(world: World) {
        let admin = world.admin();
        let posts = (0..55).map(|number: i64| ImportPostsRequest {
            source_id: number.to_string(),
            title: format!("Post {number}"),
            markdown: "text ".repeat(4_000),
            byline: "The Team".to_owned(),
            publish_time: Some(prost_types::Timestamp { seconds: 1_600_000_000 + number, nanos: 0 }),
            ..ImportPostsRequest::default()
        });
        let posts: Vec<_> = posts.collect();
        let answer = world.posts.clone().import_posts(world.ask(&admin, tokio_stream::iter(posts))).await.unwrap().into_inner();
        assert_eq!(answer.imported, 55);
        let feed = atom(&world).await;
        let expected: Vec<_> = (5..55).rev().map(|number| format!("Post {number}")).collect();
        assert_eq!(titles(&feed), expected);
        assert!(feed.entries.iter().all(|entry| entry.authors[0].name == "The Team" && entry.content.is_some()));
        assert_eq!(feed.entries[0].published.unwrap().timestamp(), 1_600_000_054);
        assert_eq!(rss(&world).await.items.len(), 50);
        assert_eq!(sitemap(&world).await.matches("<url>").count(), 55);
    }
}
