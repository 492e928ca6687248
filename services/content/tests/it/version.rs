//! Versions are kept, compared and restored.

use contracts::content::v1::diff_post_versions_response::line::Change;
use contracts::content::v1::{
    DiffPostVersionsRequest, GetPostVersionRequest, ListPostVersionsRequest, Post, RestorePostVersionRequest,
    UpdatePostRequest,
};
use status::Reason;

use crate::on_both;
use crate::world::{Person, World, assert_refused};

async fn edit(world: &World, person: &Person, post: &Post, title: &str, markdown: &str) -> Post {
    let change = Post {
        title: title.to_owned(),
        markdown: markdown.to_owned(),
        tags: vec![title.to_owned()],
        ..Post::default()
    };
    let request = UpdatePostRequest { post_id: post.id.clone(), post: Some(change), update_mask: None };
    world.posts.clone().update_post(world.ask(person, request)).await.unwrap().into_inner()
}

on_both! {
    async fn every_edit_is_kept_as_it_was(world: World) {
        let author = world.member("A");
        let moderator = world.moderator();
        let mut posts = world.posts.clone();
        let post = world.draft(&author, "하나", "one").await;
        edit(&world, &author, &post, "둘", "two").await;
        edit(&world, &moderator, &post, "셋", "three").await;
        let list = ListPostVersionsRequest { post_id: post.id.clone(), page_size: 2, ..ListPostVersionsRequest::default() };
        let first = posts.list_post_versions(world.ask(&author, list.clone())).await.unwrap().into_inner();
        let rest = ListPostVersionsRequest { page_token: first.next_page_token.clone(), ..list.clone() };
        let rest = posts.list_post_versions(world.ask(&author, rest)).await.unwrap().into_inner();
        let versions: Vec<_> = first.versions.iter().chain(&rest.versions).map(|version| (version.version, version.markdown.as_str(), version.editor_id.clone())).collect();
        let (author_id, moderator_id) = (author.id.to_string(), moderator.id.to_string());
        assert_eq!(versions, [(3, "three", moderator_id), (2, "two", author_id.clone()), (1, "one", author_id)]);
        assert!(rest.next_page_token.is_empty());
        assert_eq!(first.versions[0].tags, ["셋"]);

        let get = |version| GetPostVersionRequest { post_id: post.id.clone(), version };
        assert_eq!(posts.get_post_version(world.ask(&author, get(1))).await.unwrap().into_inner().title, "하나");
        assert_refused(posts.get_post_version(world.ask(&author, get(4))).await, Reason::NotFound);
        let tampered = ListPostVersionsRequest { page_token: format!("{}A", first.next_page_token), ..list };
        assert_refused(posts.list_post_versions(world.ask(&author, tampered)).await, Reason::PageTokenInvalid);
    }

    async fn versions_are_for_the_author_and_moderators(world: World) {
        let author = world.member("A");
        let stranger = world.member("B");
        let mut posts = world.posts.clone();
        let published = world.published(&author, "하나", "one").await;
        let list = ListPostVersionsRequest { post_id: published.id.clone(), ..ListPostVersionsRequest::default() };
        assert_refused(posts.list_post_versions(world.ask(&stranger, list)).await, Reason::ResourceForbidden);
        let get = GetPostVersionRequest { post_id: published.id.clone(), version: 1 };
        assert_refused(posts.get_post_version(world.ask(&stranger, get)).await, Reason::ResourceForbidden);
        let diff = DiffPostVersionsRequest { post_id: published.id.clone(), base_version: 1, target_version: 1 };
        assert_refused(posts.diff_post_versions(world.ask(&stranger, diff)).await, Reason::ResourceForbidden);
        let restore = RestorePostVersionRequest { post_id: published.id.clone(), version: 1, ..RestorePostVersionRequest::default() };
        assert_refused(posts.restore_post_version(world.ask(&stranger, restore.clone())).await, Reason::ResourceForbidden);
        assert!(posts.restore_post_version(world.ask(&world.moderator(), restore)).await.is_ok());
    }

    async fn a_diff_shows_lines_with_their_numbers(world: World) {
        let author = world.member("A");
        let post = world.draft(&author, "제목", "a\nb\nc\n").await;
        edit(&world, &author, &post, "제목", "a\nB\nc\nd\n").await;
        let request = DiffPostVersionsRequest { post_id: post.id.clone(), base_version: 1, target_version: 2 };
        let diff = world.posts.clone().diff_post_versions(world.ask(&author, request)).await.unwrap().into_inner();
        assert_eq!(diff.unified, "--- version 1\n+++ version 2\n@@ -1,4 +1,5 @@\n 제목\n a\n-b\n+B\n c\n+d\n");
        let [hunk] = diff.hunks.as_slice() else { panic!("one hunk: {diff:?}") };
        assert_eq!((hunk.base_start, hunk.base_lines, hunk.target_start, hunk.target_lines), (1, 4, 1, 5));
        let lines: Vec<_> = hunk.lines.iter().map(|line| (line.change(), line.text.as_str())).collect();
        let (kept, removed, added) = (Change::Kept, Change::Removed, Change::Added);
        assert_eq!(lines, [(kept, "제목"), (kept, "a"), (removed, "b"), (added, "B"), (kept, "c"), (added, "d")]);
    }

    async fn restoring_makes_an_old_version_the_newest(world: World) {
        let author = world.member("A");
        let mut posts = world.posts.clone();
        let post = world.draft(&author, "하나", "one").await;
        let second = edit(&world, &author, &post, "둘", "two").await;
        let restore = RestorePostVersionRequest { post_id: post.id.clone(), version: 1, etag: post.etag.clone() };
        assert_refused(posts.restore_post_version(world.ask(&author, restore.clone())).await, Reason::EtagMismatch);
        let restore = RestorePostVersionRequest { etag: second.etag, ..restore };
        let restored = posts.restore_post_version(world.ask(&author, restore)).await.unwrap().into_inner();
        assert_eq!((restored.version, restored.title.as_str(), restored.markdown.as_str(), restored.html.trim()), (3, "하나", "one", "<p>one</p>"));
        assert!(restored.tags.is_empty());
        for version in [1, 3] {
            let restore = RestorePostVersionRequest { post_id: post.id.clone(), version, ..RestorePostVersionRequest::default() };
            assert_eq!(posts.restore_post_version(world.ask(&author, restore)).await.unwrap().into_inner(), restored);
        }
    }

    async fn a_diff_that_no_message_holds_is_refused(world: World) {
        let author = world.member("A");
        let post = world.draft(&author, "제목", &"a\n".repeat(100_000)).await;
        edit(&world, &author, &post, "제목", &"b\n".repeat(100_000)).await;
        let request = DiffPostVersionsRequest { post_id: post.id.clone(), base_version: 1, target_version: 2 };
        assert_refused(world.posts.clone().diff_post_versions(world.ask(&author, request)).await, Reason::LimitReached);
    }
}
