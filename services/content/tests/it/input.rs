//! Bad input: each is refused with its reason and field, and changes nothing.

use contracts::content::v1::{
    CreatePostRequest, DiffPostVersionsRequest, GetPostRequest, GetPostVersionRequest, ListPostVersionsRequest,
    ListPostsRequest, LookUpPostRequest, Post, PublishPostRequest, SearchPostsRequest, UpdatePostRequest,
};
use status::Reason::{self, InvalidFields, PageTokenInvalid};
use tonic::Request;

use crate::on_both;
use crate::world::refusal;

on_both! {
    async fn creates_and_updates_with_bad_fields_are_refused(world: World) {
        let author = world.member("A");
        let good = CreatePostRequest { title: "Title".to_owned(), ..CreatePostRequest::default() };
        let nobody = author.id.to_string();
        let creates = [
            (CreatePostRequest { title: String::new(), ..good.clone() }, "title"),
            (CreatePostRequest { title: "x".repeat(301), ..good.clone() }, "title"),
            (CreatePostRequest { title: "a\0b".to_owned(), ..good.clone() }, "title"),
            (CreatePostRequest { markdown: "x".repeat(1_000_001), ..good.clone() }, "markdown"),
            (CreatePostRequest { markdown: "> ".repeat(1_000), ..good.clone() }, "markdown"),
            (CreatePostRequest { markdown: "<div>".repeat(10_000), ..good.clone() }, "markdown"),
            (CreatePostRequest { markdown: "\"".repeat(420_000), ..good.clone() }, "markdown"),
            (CreatePostRequest { category_id: "x".to_owned(), ..good.clone() }, "categoryId"),
            (CreatePostRequest { category_id: nobody.clone(), ..good.clone() }, "categoryId"),
            (CreatePostRequest { tags: vec!["x".to_owned(); 21], ..good.clone() }, "tags"),
            (CreatePostRequest { tags: vec!["a".to_owned(), " \t".to_owned()], ..good.clone() }, "tags[1]"),
            (CreatePostRequest { tags: vec!["x".repeat(51)], ..good.clone() }, "tags[0]"),
            (CreatePostRequest { slug: "?!".to_owned(), ..good.clone() }, "slug"),
            (CreatePostRequest { slug: "x".repeat(121), ..good.clone() }, "slug"),
            (CreatePostRequest { language: "english!".to_owned(), ..good.clone() }, "language"),
            (CreatePostRequest { request_id: "x".repeat(101), ..good.clone() }, "requestId"),
        ];
        let mut posts = world.posts.clone();
        for (request, field) in creates {
            let outcome = posts.create_post(world.ask(&author, request)).await;
            assert_eq!(refusal(outcome), (InvalidFields, vec![field.to_owned()]), "{field}");
        }
        let post = world.draft(&author, "Title", "text").await;
        assert_eq!(post.slug, "title", "nothing was half written");
        // Nothing to see, more than one line, or text that hides or turns the text around it.
        let unfit = ["   ", "\u{200b}", "\u{200d}", "\u{ad}", "\u{3164}", "a\nb", "a\u{1}", "a\u{7f}", "a\u{2028}b", "\u{202e}a", "a\u{2066}b", "a\u{feff}"];
        for name in unfit.map(str::to_owned) {
            let creates = [
                (CreatePostRequest { title: name.clone(), ..good.clone() }, "title"),
                (CreatePostRequest { tags: vec![name.clone()], ..good.clone() }, "tags[0]"),
            ];
            for (request, field) in creates {
                let outcome = posts.create_post(world.ask(&author, request)).await;
                assert_eq!(refusal(outcome), (InvalidFields, vec![field.to_owned()]), "{name:?}");
            }
            let updates = [
                (Post { title: name.clone(), ..Post::default() }, "post.title"),
                (Post { byline: name.clone(), ..Post::default() }, "post.byline"),
                (Post { tags: vec![name.clone()], ..Post::default() }, "post.tags[0]"),
            ];
            for (change, field) in updates {
                let request = UpdatePostRequest { post_id: post.id.clone(), post: Some(change), update_mask: None };
                let outcome = posts.update_post(world.ask(&author, request)).await;
                assert_eq!(refusal(outcome), (InvalidFields, vec![field.to_owned()]), "{name:?}");
            }
        }
        let updates = [
            (Post { title: "x".repeat(301), ..Post::default() }, "post.title"),
            (Post { markdown: "x".repeat(1_000_001), ..Post::default() }, "post.markdown"),
            (Post { markdown: "> ".repeat(1_000), ..Post::default() }, "post.markdown"),
            (Post { slug: "?!".to_owned(), ..Post::default() }, "post.slug"),
            (Post { byline: "x".repeat(201), ..Post::default() }, "post.byline"),
            (Post { category_id: nobody, ..Post::default() }, "post.categoryId"),
            (Post { tags: vec![" ".to_owned()], ..Post::default() }, "post.tags[0]"),
            (Post { language: "!".to_owned(), ..Post::default() }, "post.language"),
        ];
        for (change, field) in updates {
            let request = UpdatePostRequest { post_id: post.id.clone(), post: Some(change), update_mask: None };
            let outcome = posts.update_post(world.ask(&author, request)).await;
            assert_eq!(refusal(outcome), (InvalidFields, vec![field.to_owned()]), "{field}");
        }
        let without = UpdatePostRequest { post_id: post.id.clone(), post: None, update_mask: None };
        assert_eq!(refusal(posts.update_post(world.ask(&author, without)).await), (InvalidFields, vec!["post".to_owned()]));
        let get = GetPostRequest { post_id: post.id.clone() };
        assert_eq!(posts.get_post(world.ask(&author, get)).await.unwrap().into_inner(), post);

        let bad_time = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
        let publish = PublishPostRequest { post_id: post.id.clone(), publish_at: Some(bad_time), etag: String::new() };
        let (reason, fields) = refusal(posts.publish_post(world.ask(&author, publish)).await);
        assert_eq!((reason, fields), (InvalidFields, vec!["publishAt".to_owned()]));
    }

    async fn names_may_hold_what_scripts_and_emoji_need(world: World) {
        let author = world.member("A");
        // Korean, Persian with a zero-width non-joiner, Hindi, emoji joined by zero-width joiners, a flag of tag characters.
        for name in ["첫 글", "می\u{200c}خواهم", "नमस्ते", "👩\u{200d}💻", "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}", "?"] {
            let post = world.draft(&author, name, "").await;
            let change = Post { byline: name.to_owned(), tags: vec![name.to_owned()], ..Post::default() };
            let request = UpdatePostRequest { post_id: post.id, post: Some(change), update_mask: None };
            let post = world.posts.clone().update_post(world.ask(&author, request)).await.unwrap().into_inner();
            assert_eq!([&post.title, &post.byline, &post.tags[0]], [name; 3]);
        }
    }

    async fn reads_with_bad_fields_are_refused(world: World) {
        let author = world.member("A");
        let post = world.draft(&author, "Title", "text").await;
        let mut posts = world.posts.clone();
        let expect = |outcome: (Reason, Vec<String>), reason: Reason, field: &str| {
            assert_eq!(outcome, (reason, if field.is_empty() { vec![] } else { vec![field.to_owned()] }), "{field}");
        };
        let get = GetPostRequest { post_id: "1".to_owned() };
        expect(refusal(posts.get_post(Request::new(get)).await), InvalidFields, "postId");
        assert_eq!(refusal(posts.look_up_post(Request::new(LookUpPostRequest { by: None })).await).0, InvalidFields);
        let list = ListPostsRequest { page_size: -1, ..ListPostsRequest::default() };
        expect(refusal(posts.list_posts(Request::new(list)).await), InvalidFields, "pageSize");
        let list = ListPostsRequest { author: "me".to_owned(), ..ListPostsRequest::default() };
        expect(refusal(posts.list_posts(Request::new(list)).await), InvalidFields, "author");
        let list = ListPostsRequest { state: 9, ..ListPostsRequest::default() };
        expect(refusal(posts.list_posts(Request::new(list)).await), InvalidFields, "state");
        let list = ListPostsRequest { tag: " ".to_owned(), ..ListPostsRequest::default() };
        expect(refusal(posts.list_posts(Request::new(list)).await), InvalidFields, "tag");
        let list = ListPostsRequest { page_token: "!".to_owned(), ..ListPostsRequest::default() };
        expect(refusal(posts.list_posts(Request::new(list)).await), PageTokenInvalid, "");
        let search = SearchPostsRequest::default();
        expect(refusal(posts.search_posts(Request::new(search)).await), InvalidFields, "q");
        let search = SearchPostsRequest { q: "a\0b".to_owned(), ..SearchPostsRequest::default() };
        expect(refusal(posts.search_posts(Request::new(search)).await), InvalidFields, "q");
        let version = GetPostVersionRequest { post_id: post.id.clone(), version: 0 };
        expect(refusal(posts.get_post_version(world.ask(&author, version)).await), InvalidFields, "version");
        let diff = DiffPostVersionsRequest { post_id: post.id.clone(), base_version: 1, target_version: 9 };
        expect(refusal(posts.diff_post_versions(world.ask(&author, diff)).await), Reason::NotFound, "");
        let versions = ListPostVersionsRequest { post_id: post.id.clone(), page_token: "AAAA".to_owned(), ..ListPostVersionsRequest::default() };
        expect(refusal(posts.list_post_versions(world.ask(&author, versions)).await), PageTokenInvalid, "");
    }
}
