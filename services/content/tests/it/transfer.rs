//! Posts are imported and exported.

use std::time::Duration;

use contracts::content::v1::look_up_post_request::By;
use contracts::content::v1::post::State;
use contracts::content::v1::{
    DeletePostRequest, ExportPostsRequest, ExportPostsResponse, ImportPostsRequest, ImportPostsResponse,
    ListPostVersionsRequest, ListPostsRequest, LookUpPostRequest, Post,
};
use ids::{Clock, Timestamp};
use status::Reason;
use tonic::Request;

use crate::on_both;
use crate::world::{Person, World, assert_refused, eventually};

fn article(number: i64) -> ImportPostsRequest {
    ImportPostsRequest {
        source_id: format!("posts/{number}.md"),
        title: format!("Announcing {number}"),
        byline: "The Team".to_owned(),
        publish_time: Some(Timestamp::from_seconds(1_500_000_000 + number).into()),
        aliases: vec![format!("2020/06/10/{number}.html")],
        category: "Release Notes".to_owned(),
        tags: vec!["release".to_owned()],
        markdown: format!("# What is in {number}"),
        ..ImportPostsRequest::default()
    }
}

async fn import(world: &World, admin: &Person, posts: Vec<ImportPostsRequest>) -> ImportPostsResponse {
    world.posts.clone().import_posts(world.ask(admin, tokio_stream::iter(posts))).await.unwrap().into_inner()
}

async fn export(world: &World, admin: &Person) -> Vec<ExportPostsResponse> {
    let mut stream =
        world.posts.clone().export_posts(world.ask(admin, ExportPostsRequest {})).await.unwrap().into_inner();
    let mut exported = Vec::new();
    while let Some(post) = stream.message().await.unwrap() {
        exported.push(post);
    }
    exported
}

async fn look_up(world: &World, path: &str) -> Result<tonic::Response<Post>, tonic::Status> {
    world.posts.clone().look_up_post(Request::new(LookUpPostRequest { by: Some(By::Path(path.to_owned())) })).await
}

on_both! {
    async fn imported_posts_keep_their_dates_bylines_and_addresses(world: World) {
        let admin = world.admin();
        let answer = import(&world, &admin, (0..3).map(article).collect()).await;
        assert_eq!((answer.imported, answer.unchanged, answer.refused), (3, 0, vec![]));
        let found = look_up(&world, "/2020/06/10/1.html").await.unwrap();
        assert_eq!(found.metadata().get("x-http-code").unwrap(), "301");
        let post = found.into_inner();
        assert_eq!((post.title.as_str(), post.byline.as_str(), post.author.as_str()), ("Announcing 1", "The Team", "Admin"));
        assert_eq!(post.publish_time, article(1).publish_time);
        assert_eq!((post.aliases, post.tags), (vec!["2020/06/10/1.html".to_owned()], vec!["release".to_owned()]));
        let in_category = ListPostsRequest { category: "release-notes".to_owned(), ..ListPostsRequest::default() };
        let listed = world.posts.clone().list_posts(Request::new(in_category)).await.unwrap().into_inner().posts;
        assert_eq!(listed.iter().map(|post| post.title.as_str()).collect::<Vec<_>>(), ["Announcing 2", "Announcing 1", "Announcing 0"]);
        assert!(listed.iter().all(|other| other.category_id == post.category_id));
        eventually("its events were published", async || {
            world.told(&post.id) == [("content.post.created".to_owned(), 1), ("content.post.published".to_owned(), 2)]
        }).await;
    }

    async fn importing_again_changes_only_what_has_changed(world: World) {
        let admin = world.admin();
        import(&world, &admin, (0..3).map(article).collect()).await;
        let changed = ImportPostsRequest {
            markdown: "# Better".to_owned(),
            aliases: vec!["new/address".to_owned()],
            publish_time: Some(Timestamp::from_seconds(1).into()),
            slug: "better".to_owned(),
            ..article(1)
        };
        let answer = import(&world, &admin, vec![article(0), changed.clone(), article(2), changed.clone()]).await;
        assert_eq!((answer.imported, answer.unchanged, answer.refused), (1, 3, vec![]));
        let post = look_up(&world, "new/address").await.unwrap().into_inner();
        assert_eq!((post.version, post.markdown.as_str(), post.publish_time), (2, "# Better", changed.publish_time));
        assert_eq!(post.slug, "better");
        assert_eq!(post.id, look_up(&world, "2020/06/10/1.html").await.unwrap().into_inner().id, "the old address still leads there");
        let versions = ListPostVersionsRequest { post_id: post.id, ..ListPostVersionsRequest::default() };
        assert_eq!(world.posts.clone().list_post_versions(world.ask(&admin, versions)).await.unwrap().into_inner().versions.len(), 2);
    }

    async fn an_import_with_a_time_to_come_is_scheduled_for_it(world: World) {
        let admin = world.admin();
        let at = world.clock.now() + Duration::from_hours(1);
        let answer = import(&world, &admin, vec![ImportPostsRequest { publish_time: Some(at.into()), ..article(0) }]).await;
        assert_eq!((answer.imported, answer.refused), (1, vec![]));
        let path = "2020/06/10/0.html";
        assert_refused(look_up(&world, path).await, Reason::NotFound);
        let post = export(&world, &admin).await.remove(0).post.unwrap();
        assert_eq!((post.state(), post.publish_time), (State::Scheduled, Some(at.into())));
        world.clock.advance(Duration::from_hours(1));
        eventually("it was published", async || look_up(&world, path).await.is_ok()).await;
        let published = look_up(&world, path).await.unwrap().into_inner();
        assert_eq!((published.state(), published.publish_time), (State::Published, post.publish_time));
        eventually("its events were published", async || {
            world.told(&post.id) == [("content.post.created".to_owned(), 1), ("content.post.published".to_owned(), 3)]
        }).await;
    }

    async fn a_post_that_is_refused_stops_no_other(world: World) {
        let admin = world.admin();
        let bad = [
            ImportPostsRequest { title: String::new(), ..article(1) },
            ImportPostsRequest { source_id: String::new(), ..article(2) },
            ImportPostsRequest { publish_time: None, ..article(3) },
            ImportPostsRequest { aliases: article(0).aliases, ..article(4) },
            ImportPostsRequest { slug: "!!".to_owned(), ..article(5) },
            ImportPostsRequest { markdown: "> ".repeat(500), ..article(6) },
            ImportPostsRequest { tags: vec![" ".to_owned()], ..article(7) },
            ImportPostsRequest { title: "a\0b".to_owned(), ..article(8) },
            ImportPostsRequest { title: "a\nb".to_owned(), ..article(10) },
            ImportPostsRequest { byline: "\u{202e}maeT ehT".to_owned(), ..article(11) },
            ImportPostsRequest { category: "\u{200b}".to_owned(), ..article(12) },
        ];
        let posts = [vec![article(0)], bad.to_vec(), vec![article(9)]].concat();
        let answer = import(&world, &admin, posts).await;
        assert_eq!((answer.imported, answer.unchanged), (2, 0));
        let refused: Vec<_> = answer.refused.iter().map(|refused| (refused.source_id.as_str(), refused.reason.as_str())).collect();
        let expected = [
            ("posts/1.md", "INVALID_FIELDS: title"),
            ("", "INVALID_FIELDS: sourceId"),
            ("posts/3.md", "INVALID_FIELDS: publishTime"),
            ("posts/4.md", "ALIAS_TAKEN"),
            ("posts/5.md", "INVALID_FIELDS: slug"),
            ("posts/6.md", "INVALID_FIELDS: markdown"),
            ("posts/7.md", "INVALID_FIELDS: tags[0]"),
            ("posts/8.md", "INVALID_FIELDS: title"),
            ("posts/10.md", "INVALID_FIELDS: title"),
            ("posts/11.md", "INVALID_FIELDS: byline"),
            ("posts/12.md", "INVALID_FIELDS: category"),
        ];
        assert_eq!(refused.len(), expected.len(), "{refused:?}");
        for (refused, expected) in refused.iter().zip(expected) {
            assert!(refused.0 == expected.0 && refused.1.starts_with(expected.1), "{refused:?} for {expected:?}");
        }
        // Nothing of a refused post was written: its title is free.
        let listed = world.posts.clone().list_posts(Request::new(ListPostsRequest::default())).await.unwrap().into_inner();
        assert_eq!(listed.posts.len(), 2);
    }

    async fn a_post_that_was_deleted_here_is_not_brought_back(world: World) {
        let admin = world.admin();
        import(&world, &admin, vec![article(0)]).await;
        let post = look_up(&world, "2020/06/10/0.html").await.unwrap().into_inner();
        let delete = DeletePostRequest { post_id: post.id, ..DeletePostRequest::default() };
        world.posts.clone().delete_post(world.ask(&admin, delete)).await.unwrap();
        assert_eq!(import(&world, &admin, vec![article(0)]).await.unchanged, 1);
        let answer = import(&world, &admin, vec![ImportPostsRequest { title: "New".to_owned(), ..article(0) }]).await;
        assert!(answer.refused[0].reason.starts_with("STATE_CONFLICT"), "{answer:?}");
    }

    async fn imports_and_exports_are_for_admins(world: World) {
        let moderator = world.moderator();
        let mut posts = world.posts.clone();
        assert_refused(posts.import_posts(world.ask(&moderator, tokio_stream::iter([article(0)]))).await, Reason::RoleMissing);
        assert_refused(posts.export_posts(world.ask(&moderator, ExportPostsRequest {})).await, Reason::RoleMissing);
    }

    async fn what_was_exported_can_be_imported_elsewhere(world: World) {
        let admin = world.admin();
        let author = world.member("A");
        for number in 0..60 {
            // The order of an export is that of time.
            world.clock.advance(Duration::from_millis(1));
            import(&world, &admin, vec![article(number)]).await;
        }
        world.clock.advance(Duration::from_millis(1));
        let own = world.published(&author, "직접 쓴 글", "본문").await;
        let deleted = world.published(&author, "Deleted", "").await;
        let delete = DeletePostRequest { post_id: deleted.id, ..DeletePostRequest::default() };
        world.posts.clone().delete_post(world.ask(&author, delete)).await.unwrap();
        let exported = export(&world, &admin).await;
        assert_eq!(exported.len(), 61);
        let sources: Vec<_> = exported.iter().map(|exported| exported.source_id.clone()).collect();
        assert_eq!(sources[..60], (0..60).map(|number| article(number).source_id).collect::<Vec<_>>());
        assert_eq!((&sources[60], exported[60].category.as_str(), exported[0].category.as_str()), (&own.id, "", "Release Notes"));

        let elsewhere = World::start(testkit::Backend::Sqlite).await;
        let requests = exported.into_iter().map(|exported| {
            let post = exported.post.unwrap();
            ImportPostsRequest {
                source_id: exported.source_id,
                title: post.title,
                byline: post.byline,
                publish_time: post.publish_time,
                aliases: post.aliases,
                category: exported.category,
                tags: post.tags,
                markdown: post.markdown,
                slug: post.slug,
                language: post.language,
            }
        });
        let answer = import(&elsewhere, &elsewhere.admin(), requests.collect()).await;
        assert_eq!((answer.imported, answer.refused), (61, vec![]));
        elsewhere.settle().await;
    }

    async fn a_client_that_leaves_an_export_ends_it(world: World) {
        let admin = world.admin();
        import(&world, &admin, (0..30).map(article).collect()).await;
        for _ in 0..20 {
            let mut stream = world.posts.clone().export_posts(world.ask(&admin, ExportPostsRequest {})).await.unwrap().into_inner();
            stream.message().await.unwrap().expect("a post");
        }
        // No connection is held by those who left.
        assert_eq!(export(&world, &admin).await.len(), 30);
    }
}
