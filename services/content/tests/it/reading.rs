//! Posts are read, looked up and listed.

use std::time::Duration;

use contracts::content::v1::look_up_post_request::By;
use contracts::content::v1::post::State;
use contracts::content::v1::{
    CreatePostRequest, GetPostRequest, ListPostsRequest, LookUpPostRequest, Post, SearchPostsRequest, UpdatePostRequest,
};
use status::Reason;
use tonic::{Request, Response, Status};

use crate::on_both;
use crate::world::{Person, World, assert_refused, refusal};

async fn look_up(world: &World, by: By) -> Result<Response<Post>, Status> {
    world.posts.clone().look_up_post(Request::new(LookUpPostRequest { by: Some(by) })).await
}

fn moved<T>(response: &Response<T>) -> Option<(&str, &str)> {
    let header = |name| response.metadata().get(name).map(|value| value.to_str().unwrap());
    Some((header("x-http-code")?, header("x-http-location")?))
}

async fn titles(world: &World, person: Option<&Person>, request: ListPostsRequest) -> Vec<String> {
    let mut titles = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListPostsRequest { page_token, ..request.clone() };
        let request = match person {
            Some(person) => world.ask(person, request),
            None => Request::new(request),
        };
        let page = world.posts.clone().list_posts(request).await.unwrap().into_inner();
        titles.extend(page.posts.into_iter().map(|post| post.title));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return titles;
        }
    }
}

on_both! {
    async fn drafts_are_for_their_author_and_moderators(world: World) {
        let author = world.member("A");
        let mut posts = world.posts.clone();
        let draft = world.draft(&author, "Draft", "").await;
        let get = || GetPostRequest { post_id: draft.id.clone() };
        assert_refused(posts.get_post(Request::new(get())).await, Reason::NotFound);
        assert_refused(posts.get_post(world.ask(&world.member("B"), get())).await, Reason::NotFound);
        assert!(posts.get_post(world.ask(&author, get())).await.is_ok());
        assert!(posts.get_post(world.ask(&world.moderator(), get())).await.is_ok());
        assert_refused(look_up(&world, By::Slug(draft.slug.clone())).await, Reason::NotFound);
        let missing = GetPostRequest { post_id: author.id.to_string() };
        assert_refused(posts.get_post(Request::new(missing)).await, Reason::NotFound);
    }

    async fn a_former_slug_leads_to_the_post(world: World) {
        let author = world.member("A");
        let post = world.published(&author, "옛 제목", "").await;
        let found = look_up(&world, By::Slug("옛-제목".to_owned())).await.unwrap();
        assert_eq!(moved(&found), None);
        assert_eq!(found.into_inner().id, post.id);

        let change = |slug: &str| UpdatePostRequest {
            post_id: post.id.clone(),
            post: Some(Post { slug: slug.to_owned(), ..Post::default() }),
            update_mask: None,
        };
        let renamed = world.posts.clone().update_post(world.ask(&author, change("새 제목"))).await.unwrap().into_inner();
        assert_eq!(renamed.slug, "새-제목");
        let found = look_up(&world, By::Slug("옛-제목".to_owned())).await.unwrap();
        assert_eq!(moved(&found), Some(("301", format!("/api/v1/posts/{}", post.id).as_str())));
        assert_eq!(found.into_inner().id, post.id);
        assert_eq!(moved(&look_up(&world, By::Slug("새-제목".to_owned())).await.unwrap()), None);

        // It stays the post's: no other gets it, and the post itself can have it back.
        assert_eq!(world.draft(&author, "옛 제목", "").await.slug, "옛-제목-2");
        let back = world.posts.clone().update_post(world.ask(&author, change("옛 제목"))).await.unwrap().into_inner();
        assert_eq!(back.slug, "옛-제목");
        assert_refused(look_up(&world, By::Slug("nobody's".to_owned())).await, Reason::NotFound);
        assert_refused(look_up(&world, By::Path("//".to_owned())).await, Reason::NotFound);
    }

    async fn pages_survive_what_is_written_meanwhile(world: World) {
        let author = world.member("A");
        for number in 0..5 {
            world.published(&author, &number.to_string(), "").await;
            world.clock.advance(Duration::from_secs(1));
        }
        let request = ListPostsRequest { page_size: 2, ..ListPostsRequest::default() };
        let first = world.posts.clone().list_posts(Request::new(request.clone())).await.unwrap().into_inner();
        world.published(&author, "new", "").await;
        let next = ListPostsRequest { page_token: first.next_page_token.clone(), ..request.clone() };
        let second = world.posts.clone().list_posts(Request::new(next.clone())).await.unwrap().into_inner();
        let titles: Vec<_> = first.posts.iter().chain(&second.posts).map(|post| post.title.as_str()).collect();
        assert_eq!(titles, ["4", "3", "2", "1"]);

        let mut tampered = first.next_page_token.clone().into_bytes();
        tampered[3] ^= 1;
        let tampered = ListPostsRequest { page_token: String::from_utf8(tampered).unwrap(), ..request };
        assert_refused(world.posts.clone().list_posts(Request::new(tampered)).await, Reason::PageTokenInvalid);
        let foreign = ListPostsRequest { author: author.id.to_string(), ..next };
        assert_refused(world.posts.clone().list_posts(Request::new(foreign)).await, Reason::PageTokenInvalid);
    }

    async fn lists_are_filtered_and_ordered(world: World) {
        let [a, b] = [world.member("A"), world.member("B")];
        for (person, title, tag) in [(&a, "1", "Rust"), (&b, "2", "러스트"), (&a, "3", "rust")] {
            let request = CreatePostRequest { title: title.to_owned(), tags: vec![tag.to_owned()], ..CreatePostRequest::default() };
            let post = world.posts.clone().create_post(world.ask(person, request)).await.unwrap().into_inner();
            world.clock.advance(Duration::from_secs(1));
            world.publish(person, &post).await;
        }
        let change = Post { byline: "changed".to_owned(), ..Post::default() };
        let first = world.posts.clone().list_posts(Request::new(ListPostsRequest { order_by: "publish_time".to_owned(), page_size: 1, ..ListPostsRequest::default() })).await.unwrap().into_inner().posts.remove(0);
        world.clock.advance(Duration::from_secs(1));
        let update = UpdatePostRequest { post_id: first.id, post: Some(change), update_mask: None };
        world.posts.clone().update_post(world.ask(&a, update)).await.unwrap();

        let list = ListPostsRequest { page_size: 1, ..ListPostsRequest::default() };
        assert_eq!(titles(&world, None, list.clone()).await, ["3", "2", "1"]);
        let by = |order_by: &str| ListPostsRequest { order_by: order_by.to_owned(), ..list.clone() };
        assert_eq!(titles(&world, None, by("publish_time")).await, ["1", "2", "3"]);
        assert_eq!(titles(&world, None, by("create_time desc")).await, ["3", "2", "1"]);
        assert_eq!(titles(&world, None, by("update_time desc")).await, ["1", "3", "2"]);
        for (json, field) in [("publishTime", "publish_time"), ("createTime asc", "create_time"), ("updateTime  desc", "update_time desc")] {
            assert_eq!(titles(&world, None, by(json)).await, titles(&world, None, by(field)).await, "{json}");
        }
        assert_eq!(titles(&world, None, ListPostsRequest { tag: "RUST".to_owned(), ..list.clone() }).await, ["3", "1"]);
        assert_eq!(titles(&world, None, ListPostsRequest { author: b.id.to_string(), ..list.clone() }).await, ["2"]);
        assert!(titles(&world, None, ListPostsRequest { category: "none".to_owned(), ..list.clone() }).await.is_empty());
        for wrong in ["title", "PublishTime", "publish_time sideways", "publish_time desc, id"] {
            let (reason, fields) = refusal(world.posts.clone().list_posts(Request::new(by(wrong))).await);
            assert_eq!((reason, fields), (Reason::InvalidFields, vec!["orderBy".to_owned()]), "{wrong}");
        }
    }

    async fn drafts_are_listed_for_their_author_alone(world: World) {
        let [a, b] = [world.member("A"), world.member("B")];
        world.draft(&a, "mine", "").await;
        world.draft(&b, "theirs", "").await;
        let drafts = ListPostsRequest { state: State::Draft.into(), ..ListPostsRequest::default() };
        assert_eq!(titles(&world, Some(&a), drafts.clone()).await, ["mine"]);
        let of_b = ListPostsRequest { author: b.id.to_string(), ..drafts.clone() };
        assert!(titles(&world, Some(&a), of_b.clone()).await.is_empty());
        assert_eq!(titles(&world, Some(&world.moderator()), of_b).await, ["theirs"]);
        assert_eq!(titles(&world, Some(&world.moderator()), drafts.clone()).await.len(), 2);
        assert_refused(world.posts.clone().list_posts(Request::new(drafts.clone())).await, Reason::TokenMissing);
        for order_by in ["publish_time", "publishTime desc"].map(str::to_owned) {
            let by_publish_time = ListPostsRequest { order_by, ..drafts.clone() };
            assert_refused(world.posts.clone().list_posts(world.ask(&a, by_publish_time)).await, Reason::InvalidFields);
        }
    }

    async fn a_page_of_long_posts_is_cut_so_that_it_fits_into_a_message(world: World) {
        let author = world.member("A");
        for number in 0..6 {
            world.published(&author, &number.to_string(), &"긴 글 ".repeat(60_000)).await;
            world.clock.advance(Duration::from_secs(1));
        }
        let list = ListPostsRequest { page_size: 100, ..ListPostsRequest::default() };
        let first = world.posts.clone().list_posts(Request::new(list.clone())).await.unwrap().into_inner();
        assert!((1..6).contains(&first.posts.len()), "{}", first.posts.len());
        assert_eq!(titles(&world, None, list).await, ["5", "4", "3", "2", "1", "0"]);
    }

    async fn a_post_that_does_not_fit_behind_another_starts_the_next_page(world: World) {
        let author = world.member("A");
        // 2.4 million bytes of Markdown and HTML, and in front of them 1.9 million.
        let long = format!("walrus {} {}", "<".repeat(150_000), "x".repeat(840_000));
        world.published(&author, "walrus 0", &long).await;
        world.clock.advance(Duration::from_secs(1));
        world.published(&author, "walrus walrus", &format!("walrus {}", "x".repeat(950_000))).await;
        let list = ListPostsRequest { page_size: 100, ..ListPostsRequest::default() };
        assert_eq!(titles(&world, None, list).await, ["walrus walrus", "walrus 0"]);
        let request = SearchPostsRequest { q: "walrus".to_owned(), ..SearchPostsRequest::default() };
        let first = world.posts.clone().search_posts(Request::new(request.clone())).await.unwrap().into_inner();
        let rest = SearchPostsRequest { page_token: first.next_page_token, ..request };
        let rest = world.posts.clone().search_posts(Request::new(rest)).await.unwrap().into_inner();
        assert_eq!((first.results.len(), rest.results.len(), rest.next_page_token.as_str()), (1, 1, ""));
    }

    async fn posts_of_one_long_title_are_found_by_their_own_slugs(world: World) {
        let author = world.member("A");
        let title = "긴 제목 ".repeat(60);
        let [first, second] = [world.published(&author, &title, "").await, world.published(&author, &title, "").await];
        for post in [&first, &second] {
            let found = look_up(&world, By::Slug(post.slug.clone())).await.unwrap();
            assert_eq!(moved(&found), None);
            assert_eq!(found.into_inner().id, post.id);
            // What was read can be sent back.
            let update = UpdatePostRequest { post_id: post.id.clone(), post: Some(post.clone()), update_mask: None };
            assert_eq!(world.posts.clone().update_post(world.ask(&author, update)).await.unwrap().into_inner(), *post);
        }
    }
}
