//! Posts are created, changed and deleted.

use std::time::Duration;

use contracts::content::v1::{
    CreatePostRequest, DeletePostRequest, GetPostRequest, Post, UndeletePostRequest, UpdatePostRequest,
};
use prost_types::FieldMask;
use status::Reason;

use crate::on_both;
use crate::world::{Person, World, assert_refused, eventually, refusal};

fn mask(paths: &[&str]) -> FieldMask {
    FieldMask { paths: paths.iter().map(ToString::to_string).collect() }
}

fn update(post: &Post, change: Post, paths: impl Into<Option<FieldMask>>) -> UpdatePostRequest {
    UpdatePostRequest { post_id: post.id.clone(), post: Some(change), update_mask: paths.into() }
}

async fn get(world: &World, person: &Person, id: &str) -> Result<tonic::Response<Post>, tonic::Status> {
    world.posts.clone().get_post(world.ask(person, GetPostRequest { post_id: id.to_owned() })).await
}

on_both! {
    async fn a_new_post_is_a_draft_with_what_was_given(world: World) {
        let author = world.member("민지");
        let request = CreatePostRequest {
            title: "첫 글: Hello, Guildhall!".to_owned(),
            markdown: "**안녕**하세요 <script>alert(1)</script>".to_owned(),
            tags: vec!["Rust".to_owned(), " 러스트  언어 ".to_owned(), "rust".to_owned()],
            language: "KO-kr".to_owned(),
            ..CreatePostRequest::default()
        };
        let post = world.posts.clone().create_post(world.ask(&author, request)).await.unwrap().into_inner();
        assert_eq!(post.author, "민지");
        assert_eq!(post.author_id, author.id.to_string());
        assert_eq!(post.slug, "첫-글-hello-guildhall");
        assert_eq!(post.state(), contracts::content::v1::post::State::Draft);
        assert_eq!(post.tags, ["Rust", "러스트 언어"]);
        assert_eq!(post.language, "ko-KR");
        assert_eq!((post.version, post.publish_time), (1, None));
        assert!(post.html.contains("<strong>안녕</strong>") && !post.html.contains("script"), "{}", post.html);
        assert_eq!(get(&world, &author, &post.id).await.unwrap().into_inner(), post);
    }

    async fn the_same_request_again_gets_the_same_answer(world: World) {
        let author = world.member("A");
        let request = CreatePostRequest { title: "Once".to_owned(), request_id: "r-1".to_owned(), ..CreatePostRequest::default() };
        let mut posts = world.posts.clone();
        let first = posts.create_post(world.ask(&author, request.clone())).await.unwrap().into_inner();
        let again = posts.create_post(world.ask(&author, request.clone())).await.unwrap().into_inner();
        assert_eq!(first, again);
        let other = CreatePostRequest { title: "Twice".to_owned(), ..request.clone() };
        assert_refused(posts.create_post(world.ask(&author, other)).await, Reason::RequestIdReused);
        // Another person's request ids are their own.
        let stranger = world.member("B");
        let theirs = posts.create_post(world.ask(&stranger, request)).await.unwrap().into_inner();
        assert_ne!(theirs.id, first.id);
    }

    async fn the_same_request_at_the_same_time_makes_one_post(world: World) {
        let author = world.member("A");
        let request = CreatePostRequest { title: "Once".to_owned(), request_id: "r".to_owned(), ..CreatePostRequest::default() };
        let calls = (0..8).map(|_| {
            let (mut posts, request) = (world.posts.clone(), world.ask(&author, request.clone()));
            tokio::spawn(async move { posts.create_post(request).await })
        });
        let mut ids = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            ids.push(call.await.unwrap().unwrap().into_inner().id);
        }
        ids.dedup();
        assert_eq!(ids.len(), 1);
    }

    async fn slugs_are_unique_and_an_asked_for_one_is_not_changed(world: World) {
        let author = world.member("A");
        let mut slugs = Vec::new();
        for _ in 0..14 {
            slugs.push(world.draft(&author, "같은 제목", "").await.slug);
        }
        assert_eq!(slugs[..4], ["같은-제목", "같은-제목-2", "같은-제목-3", "같은-제목-4"]);
        slugs.sort();
        slugs.dedup();
        assert_eq!(slugs.len(), 14);
        let request = CreatePostRequest { title: "X".to_owned(), slug: "같은 제목".to_owned(), ..CreatePostRequest::default() };
        assert_refused(world.posts.clone().create_post(world.ask(&author, request)).await, Reason::SlugTaken);
        assert_eq!(world.draft(&author, "?!", "").await.slug, "post");
    }

    async fn an_update_changes_what_the_mask_names(world: World) {
        let author = world.member("A");
        let mut posts = world.posts.clone();
        let post = world.draft(&author, "Title", "old *text*").await;
        let change = Post { title: "New title".to_owned(), markdown: "new".to_owned(), ..Post::default() };
        let changed = posts.update_post(world.ask(&author, update(&post, change.clone(), mask(&["markdown"])))).await.unwrap().into_inner();
        assert_eq!((changed.title.as_str(), changed.markdown.as_str(), changed.version), ("Title", "new", 2));
        assert_eq!(changed.html.trim(), "<p>new</p>");
        assert_ne!(changed.etag, post.etag);
        assert_eq!(changed.slug, post.slug, "a slug changes only when it is asked for");

        let all = posts.update_post(world.ask(&author, update(&post, change, None))).await.unwrap().into_inner();
        assert_eq!((all.title.as_str(), all.markdown.as_str(), all.version), ("New title", "new", 3));

        let cleared = posts.update_post(world.ask(&author, update(&post, Post::default(), mask(&["markdown", "tags"])))).await.unwrap().into_inner();
        assert_eq!((cleared.title.as_str(), cleared.markdown.as_str()), ("New title", ""));

        let (reason, fields) = refusal(posts.update_post(world.ask(&author, update(&post, Post::default(), mask(&["author_id"])))).await);
        assert_eq!((reason, fields), (Reason::InvalidFields, vec!["updateMask".to_owned()]));
        let (reason, fields) = refusal(posts.update_post(world.ask(&author, update(&post, Post::default(), mask(&["title"])))).await);
        assert_eq!((reason, fields), (Reason::InvalidFields, vec!["post.title".to_owned()]));
    }

    async fn an_update_that_changes_nothing_writes_nothing(world: World) {
        let author = world.member("A");
        let mut posts = world.posts.clone();
        let post = world.draft(&author, "Title", "text").await;
        let same = Post { title: post.title.clone(), markdown: post.markdown.clone(), slug: post.slug.clone(), ..Post::default() };
        let output_only = Post { state: contracts::content::v1::post::State::Published.into(), author: "B".to_owned(), ..Post::default() };
        let changes = [
            (Post::default(), None),
            (same.clone(), None),
            (output_only, None),
            (Post { etag: post.etag.clone(), ..same.clone() }, None),
            (same, Some(mask(&["title", "markdown", "byline", "category_id", "tags", "language"]))),
            // An empty slug is made from the title, which is where the present one came from.
            (Post::default(), Some(mask(&["slug"]))),
        ];
        for (change, paths) in changes {
            let answer = posts.update_post(world.ask(&author, update(&post, change, paths))).await.unwrap().into_inner();
            assert_eq!(answer, post);
        }
        assert_eq!(get(&world, &author, &post.id).await.unwrap().into_inner(), post);
        let stale = Post { etag: "r99".to_owned(), ..Post::default() };
        assert_refused(posts.update_post(world.ask(&author, update(&post, stale, None))).await, Reason::EtagMismatch);
        // The next edit is told right after the creation.
        let edit = Post { byline: "B".to_owned(), ..Post::default() };
        assert_eq!(posts.update_post(world.ask(&author, update(&post, edit, None))).await.unwrap().into_inner().version, 2);
        eventually("the edit was told", async || world.told(&post.id).len() > 1).await;
        assert_eq!(world.told(&post.id), [("content.post.created".to_owned(), 1), ("content.post.updated".to_owned(), 2)]);
    }

    async fn a_tag_is_shown_as_it_was_first_written(world: World) {
        let [first, second] = [world.member("A"), world.member("B")];
        let create = async |person: &Person, tag: &str| {
            let request = CreatePostRequest { title: "T".to_owned(), tags: vec![tag.to_owned(), "own".to_owned()], ..CreatePostRequest::default() };
            world.posts.clone().create_post(world.ask(person, request)).await.unwrap().into_inner()
        };
        create(&first, "Rust").await;
        let post = create(&second, "ＲＵＳＴ").await;
        assert_eq!(post.tags, ["Rust", "own"]);
        assert_eq!(get(&world, &second, &post.id).await.unwrap().into_inner(), post);
        let rewritten = Post { tags: vec!["rust".to_owned(), "OWN".to_owned()], ..Post::default() };
        let answer = world.posts.clone().update_post(world.ask(&second, update(&post, rewritten, None))).await.unwrap().into_inner();
        assert_eq!(answer, post, "nothing has changed");
        let turned = Post { tags: vec!["OWN".to_owned(), "rust".to_owned()], ..Post::default() };
        let answer = world.posts.clone().update_post(world.ask(&second, update(&post, turned, None))).await.unwrap().into_inner();
        assert_eq!((answer.tags.clone(), answer.version), (vec!["own".to_owned(), "Rust".to_owned()], 2));
        assert_eq!(get(&world, &second, &post.id).await.unwrap().into_inner(), answer);
    }

    async fn a_stale_etag_changes_nothing(world: World) {
        let author = world.member("A");
        let mut posts = world.posts.clone();
        let post = world.draft(&author, "Title", "one").await;
        let change = Post { markdown: "two".to_owned(), etag: post.etag.clone(), ..Post::default() };
        posts.update_post(world.ask(&author, update(&post, change.clone(), None))).await.unwrap();
        assert_refused(posts.update_post(world.ask(&author, update(&post, change, None))).await, Reason::EtagMismatch);
        let delete = DeletePostRequest { post_id: post.id.clone(), etag: post.etag.clone() };
        assert_refused(posts.delete_post(world.ask(&author, delete)).await, Reason::EtagMismatch);
        let now = get(&world, &author, &post.id).await.unwrap().into_inner();
        assert_eq!((now.markdown.as_str(), now.version), ("two", 2));
    }

    async fn of_many_edits_at_once_with_one_etag_one_succeeds(world: World) {
        let author = world.member("A");
        let post = world.draft(&author, "Title", "0").await;
        let calls = (1..=6).map(|number| {
            let change = Post { markdown: number.to_string(), etag: post.etag.clone(), ..Post::default() };
            let (mut posts, request) = (world.posts.clone(), world.ask(&author, update(&post, change, None)));
            tokio::spawn(async move { posts.update_post(request).await })
        });
        let mut succeeded = 0;
        for call in calls.collect::<Vec<_>>() {
            match call.await.unwrap() {
                Ok(_) => succeeded += 1,
                refused => assert_refused(refused, Reason::EtagMismatch),
            }
        }
        assert_eq!(succeeded, 1);
    }

    async fn edits_at_once_without_an_etag_all_become_versions(world: World) {
        let author = world.member("A");
        let post = world.draft(&author, "Title", "0").await;
        let calls = (1..=6).map(|number| {
            let change = Post { markdown: number.to_string(), ..Post::default() };
            let (mut posts, request) = (world.posts.clone(), world.ask(&author, update(&post, change, None)));
            tokio::spawn(async move { posts.update_post(request).await.unwrap().into_inner().version })
        });
        let mut versions = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            versions.push(call.await.unwrap());
        }
        versions.sort_unstable();
        assert_eq!(versions, [2, 3, 4, 5, 6, 7]);
    }

    async fn only_the_author_and_moderators_change_a_post(world: World) {
        let author = world.member("A");
        let (stranger, moderator) = (world.member("B"), world.moderator());
        let mut posts = world.posts.clone();
        let draft = world.draft(&author, "Draft", "").await;
        let published = world.published(&author, "Published", "").await;
        let change = || Post { byline: "C".to_owned(), ..Post::default() };
        assert_refused(posts.update_post(world.ask(&stranger, update(&draft, change(), None))).await, Reason::NotFound);
        assert_refused(posts.update_post(world.ask(&stranger, update(&published, change(), None))).await, Reason::ResourceForbidden);
        let changed = posts.update_post(world.ask(&moderator, update(&published, change(), None))).await.unwrap().into_inner();
        assert_eq!((changed.byline.as_str(), changed.author_id.as_str()), ("C", published.author_id.as_str()));
        let delete = |post: &Post| DeletePostRequest { post_id: post.id.clone(), etag: String::new() };
        assert_refused(posts.delete_post(world.ask(&stranger, delete(&published))).await, Reason::ResourceForbidden);
        assert_refused(posts.delete_post(world.ask(&stranger, delete(&draft))).await, Reason::NotFound);
    }

    async fn a_deleted_post_is_gone_for_all_and_can_come_back(world: World) {
        let author = world.member("A");
        let stranger = world.member("B");
        let mut posts = world.posts.clone();
        let post = world.published(&author, "Title", "text").await;
        let delete = DeletePostRequest { post_id: post.id.clone(), etag: post.etag.clone() };
        posts.delete_post(world.ask(&author, delete.clone())).await.unwrap();
        posts.delete_post(world.ask(&author, delete)).await.expect("deleting twice is deleting once");
        assert_refused(get(&world, &author, &post.id).await, Reason::NotFound);
        let undelete = || UndeletePostRequest { post_id: post.id.clone() };
        assert_refused(posts.undelete_post(world.ask(&stranger, undelete())).await, Reason::NotFound);
        let back = posts.undelete_post(world.ask(&author, undelete())).await.unwrap().into_inner();
        assert_eq!((back.state(), back.publish_time), (post.state(), post.publish_time));
        assert_eq!(get(&world, &stranger, &post.id).await.unwrap().into_inner(), back);
        eventually("its events were published", async || {
            let told = world.told(&post.id);
            told.len() == 4 && told.is_sorted_by_key(|(_, version)| *version)
        }).await;
    }

    async fn a_post_is_purged_30_days_after_it_was_deleted(world: World) {
        let author = world.member("A");
        let post = world.draft(&author, "Title", "text").await;
        let delete = DeletePostRequest { post_id: post.id.clone(), ..DeletePostRequest::default() };
        world.posts.clone().delete_post(world.ask(&author, delete)).await.unwrap();
        world.clock.advance(Duration::from_hours(29 * 24));
        world.restart().await;
        let author = world.again(&author);
        let undelete = UndeletePostRequest { post_id: post.id.clone() };
        world.posts.clone().undelete_post(world.ask(&author, undelete.clone())).await.expect("it can still come back");
        let delete = DeletePostRequest { post_id: post.id.clone(), ..DeletePostRequest::default() };
        world.posts.clone().delete_post(world.ask(&author, delete)).await.unwrap();
        world.clock.advance(Duration::from_hours(31 * 24));
        // A purge runs at the start.
        world.restart().await;
        let author = world.again(&author);
        eventually("it is gone", async || {
            world.posts.clone().undelete_post(world.ask(&author, undelete.clone())).await.is_err()
        }).await;
        let again = world.draft(&author, "Title", "").await;
        assert_eq!(again.slug, "title", "its slug is free again");
    }
}
