//! Categories: their tree, its bounds, and the posts in them.

use contracts::content::v1::category_service_client::CategoryServiceClient;
use contracts::content::v1::{
    Category, CreateCategoryRequest, CreatePostRequest, DeleteCategoryRequest, GetCategoryRequest, GetPostRequest,
    ImportPostsRequest, ListCategoriesRequest, ListPostsRequest, MoveCategoryRequest, UpdateCategoryRequest,
};
use ids::CategoryId;
use mesh::Channel;
use prost_types::FieldMask;
use status::Reason;
use tonic::{Request, Response, Status};

use crate::on_both;
use crate::world::{Person, World, assert_refused, refusal};

fn client(world: &World) -> CategoryServiceClient<Channel> {
    CategoryServiceClient::new(world.channel.clone())
}

fn named(name: &str, parent_id: &str) -> CreateCategoryRequest {
    CreateCategoryRequest { name: name.to_owned(), parent_id: parent_id.to_owned(), ..CreateCategoryRequest::default() }
}

async fn create(world: &World, moderator: &Person, name: &str, parent_id: &str) -> Category {
    client(world).create_category(world.ask(moderator, named(name, parent_id))).await.expect("a category").into_inner()
}

async fn get(world: &World, id: &str) -> Result<Category, Status> {
    let request = Request::new(GetCategoryRequest { category_id: id.to_owned() });
    Ok(client(world).get_category(request).await?.into_inner())
}

async fn change(
    world: &World,
    moderator: &Person,
    id: &str,
    category: Category,
    paths: &[&str],
) -> Result<Response<Category>, Status> {
    let paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
    let update_mask = (!paths.is_empty()).then_some(FieldMask { paths });
    let request = UpdateCategoryRequest { category_id: id.to_owned(), category: Some(category), update_mask };
    client(world).update_category(world.ask(moderator, request)).await
}

async fn move_to(world: &World, moderator: &Person, id: &str, parent_id: &str) -> Result<Response<Category>, Status> {
    let request = MoveCategoryRequest {
        category_id: id.to_owned(),
        parent_id: parent_id.to_owned(),
        ..MoveCategoryRequest::default()
    };
    client(world).move_category(world.ask(moderator, request)).await
}

async fn delete(world: &World, moderator: &Person, id: &str, etag: &str) -> Result<Response<()>, Status> {
    let request = DeleteCategoryRequest { category_id: id.to_owned(), etag: etag.to_owned() };
    client(world).delete_category(world.ask(moderator, request)).await
}

/// The tree as text: `a(b(c)d)`.
async fn tree(world: &World) -> String {
    fn text(categories: &[Category]) -> String {
        let one = |category: &Category| {
            let children = text(&category.children);
            if children.is_empty() { category.name.clone() } else { format!("{}({children})", category.name) }
        };
        categories.iter().map(one).collect::<Vec<_>>().join(" ")
    }
    text(&client(world).list_categories(Request::new(ListCategoriesRequest {})).await.unwrap().into_inner().categories)
}

on_both! {
    async fn categories_are_a_tree_ordered_by_name(world: World) {
        let moderator = world.moderator();
        let games = create(&world, &moderator, "게임", "").await;
        let news = create(&world, &moderator, " News   of\u{3000}the day", "").await;
        let inner = create(&world, &moderator, "beta", &news.id).await;
        create(&world, &moderator, "Alpha", &news.id).await;
        create(&world, &moderator, "leaf", &inner.id).await;
        assert_eq!((news.name.as_str(), news.slug.as_str(), news.parent_id.as_str()), ("News of the day", "news-of-the-day", ""));
        assert_eq!((inner.slug.as_str(), &inner.parent_id), ("beta", &news.id));
        assert_eq!(games.slug, "게임");
        assert_eq!(tree(&world).await, "News of the day(Alpha beta(leaf)) 게임");
        let found = get(&world, &news.id).await.unwrap();
        assert_eq!(found.children.len(), 2);
        assert_eq!(found.children[1].children[0].name, "leaf");
        // What is below it is shown with it, and so counts as a change of it.
        assert_ne!(found.etag, news.etag);
        assert_eq!(found.update_time, news.update_time);
        let unknown = world.mesh.source().id::<CategoryId>().to_string();
        assert_refused(get(&world, &unknown).await.map(Response::new), Reason::NotFound);
    }

    async fn names_are_unique_among_siblings_and_slugs_everywhere(world: World) {
        let moderator = world.moderator();
        let rust = create(&world, &moderator, "Rust", "").await;
        let mut categories = client(&world);
        assert_refused(categories.create_category(world.ask(&moderator, named("ＲＵＳＴ", ""))).await, Reason::NameTaken);
        let below = create(&world, &moderator, "rust", &rust.id).await;
        assert_eq!(below.slug, "rust-2");
        let wished = CreateCategoryRequest { slug: "Rust!".to_owned(), ..named("Other", "") };
        assert_refused(categories.create_category(world.ask(&moderator, wished)).await, Reason::SlugTaken);
        assert_refused(move_to(&world, &moderator, &below.id, "").await, Reason::NameTaken);
        let (reason, fields) = refusal(categories.create_category(world.ask(&moderator, named(" \u{7}", ""))).await);
        assert_eq!((reason, fields), (Reason::InvalidFields, vec!["name".to_owned()]));
        let unknown = world.mesh.source().id::<CategoryId>().to_string();
        let (reason, fields) = refusal(categories.create_category(world.ask(&moderator, named("Lost", &unknown))).await);
        assert_eq!((reason, fields), (Reason::InvalidFields, vec!["parentId".to_owned()]));
        assert_eq!(tree(&world).await, "Rust(rust)");
    }

    async fn the_same_request_again_makes_no_second_category(world: World) {
        let moderator = world.moderator();
        let mut categories = client(&world);
        let request = CreateCategoryRequest { request_id: "r".to_owned(), ..named("Once", "") };
        let first = categories.create_category(world.ask(&moderator, request.clone())).await.unwrap().into_inner();
        let again = categories.create_category(world.ask(&moderator, request.clone())).await.unwrap().into_inner();
        assert_eq!(first, again);
        let other = CreateCategoryRequest { name: "Twice".to_owned(), ..request };
        assert_refused(categories.create_category(world.ask(&moderator, other)).await, Reason::RequestIdReused);
        assert_eq!(tree(&world).await, "Once");
    }

    async fn a_change_touches_what_its_mask_names(world: World) {
        let moderator = world.moderator();
        let before = create(&world, &moderator, "Name", "").await;
        let (etag, name, description) = (before.etag.clone(), "새 이름".to_owned(), "why".to_owned());
        let given = Category { etag, name, description, ..Category::default() };
        let after = change(&world, &moderator, &before.id, given.clone(), &["name"]).await.unwrap().into_inner();
        assert_eq!((after.name.as_str(), after.slug.as_str(), after.description.as_str()), ("새 이름", "name", ""));
        assert_refused(change(&world, &moderator, &before.id, given.clone(), &["name"]).await, Reason::EtagMismatch);
        let given = Category { etag: after.etag, ..given };
        // An empty slug is made from the name, and no mask means what is populated.
        let after = change(&world, &moderator, &before.id, given, &["slug"]).await.unwrap().into_inner();
        assert_eq!(after.slug, "새-이름");
        let described = Category { description: "더".to_owned(), ..Category::default() };
        let after = change(&world, &moderator, &before.id, described, &[]).await.unwrap().into_inner();
        assert_eq!((after.name.as_str(), after.description.as_str()), ("새 이름", "더"));
        assert_eq!(get(&world, &before.id).await.unwrap(), after);
        for (paths, field) in [(["name"], "category.name"), (["parent_id"], "updateMask")] {
            let outcome = change(&world, &moderator, &before.id, Category::default(), &paths).await;
            assert_eq!(refusal(outcome), (Reason::InvalidFields, vec![field.to_owned()]));
        }
    }

    async fn a_change_that_changes_nothing_writes_nothing(world: World) {
        let moderator = world.moderator();
        let outer = create(&world, &moderator, "outer", "").await;
        let inner = create(&world, &moderator, "inner", &outer.id).await;
        let [outer, before] = [get(&world, &outer.id).await.unwrap(), get(&world, &inner.id).await.unwrap()];
        world.clock.advance(std::time::Duration::from_secs(1));
        let same = Category { name: " inner ".to_owned(), slug: "Inner!".to_owned(), etag: before.etag.clone(), ..Category::default() };
        for (given, paths) in [(same, &[][..]), (Category::default(), &["description", "slug"]), (Category::default(), &[])] {
            assert_eq!(change(&world, &moderator, &inner.id, given, paths).await.unwrap().into_inner(), before);
        }
        assert_eq!(get(&world, &outer.id).await.unwrap(), outer);
    }

    async fn a_category_moves_with_all_below_it_but_not_below_itself(world: World) {
        let moderator = world.moderator();
        let a = create(&world, &moderator, "a", "").await;
        let b = create(&world, &moderator, "b", &a.id).await;
        let c = create(&world, &moderator, "c", &b.id).await;
        assert_refused(move_to(&world, &moderator, &a.id, &c.id).await, Reason::TreeCycle);
        assert_refused(move_to(&world, &moderator, &a.id, &a.id).await, Reason::TreeCycle);
        let moved = move_to(&world, &moderator, &b.id, "").await.unwrap().into_inner();
        assert_eq!((moved.parent_id.as_str(), moved.children.len()), ("", 1));
        assert_eq!(tree(&world).await, "a b(c)");
        // Moving it where it is changes nothing.
        assert_eq!(move_to(&world, &moderator, &b.id, "").await.unwrap().into_inner(), moved);
        assert_eq!(move_to(&world, &moderator, &a.id, &c.id).await.unwrap().into_inner().parent_id, c.id);
        assert_eq!(tree(&world).await, "b(c(a))");
        let stale = MoveCategoryRequest { category_id: b.id.clone(), parent_id: String::new(), etag: b.etag };
        assert_refused(client(&world).move_category(world.ask(&moderator, stale)).await, Reason::EtagMismatch);
    }

    async fn two_moves_at_once_never_make_a_circle(world: World) {
        let moderator = world.moderator();
        let a = create(&world, &moderator, "a", "").await;
        let b = create(&world, &moderator, "b", "").await;
        for _ in 0..8 {
            let (first, second) = tokio::join!(move_to(&world, &moderator, &a.id, &b.id), move_to(&world, &moderator, &b.id, &a.id));
            let (won, lost) = if first.is_ok() { (&a.id, second) } else { (&b.id, first) };
            assert_refused(lost, Reason::TreeCycle);
            move_to(&world, &moderator, won, "").await.unwrap();
        }
        assert_eq!(tree(&world).await, "a b");
    }

    async fn the_tree_is_eight_deep(world: World) {
        let moderator = world.moderator();
        let mut parent = String::new();
        for depth in 1..=8 {
            parent = create(&world, &moderator, &format!("level {depth}"), &parent).await.id;
        }
        let deeper = client(&world).create_category(world.ask(&moderator, named("level 9", &parent))).await;
        assert_refused(deeper, Reason::LimitReached);
    }

    async fn a_deleted_category_leaves_its_posts(world: World) {
        let moderator = world.moderator();
        let author = world.member("A");
        let outer = create(&world, &moderator, "outer", "").await;
        let inner = create(&world, &moderator, "inner", &outer.id).await;
        let request = CreatePostRequest { title: "Post".to_owned(), category_id: inner.id.clone(), ..CreatePostRequest::default() };
        let post = world.posts.clone().create_post(world.ask(&author, request)).await.unwrap().into_inner();
        let post = world.publish(&author, &post).await;
        let listed = ListPostsRequest { category: outer.slug.clone(), ..ListPostsRequest::default() };
        assert_eq!(world.posts.clone().list_posts(Request::new(listed)).await.unwrap().into_inner().posts.len(), 1);

        assert_refused(delete(&world, &moderator, &outer.id, "").await, Reason::NotEmpty);
        assert_refused(delete(&world, &moderator, &inner.id, "r99").await, Reason::EtagMismatch);
        delete(&world, &moderator, &inner.id, &inner.etag).await.unwrap();
        assert_refused(delete(&world, &moderator, &inner.id, "").await, Reason::NotFound);
        let left = world.posts.clone().get_post(Request::new(GetPostRequest { post_id: post.id.clone() })).await.unwrap().into_inner();
        assert_eq!((left.category_id.as_str(), left.version), ("", post.version));
        assert_ne!(left.etag, post.etag);
        assert_eq!(tree(&world).await, "outer");
        delete(&world, &moderator, &outer.id, "").await.unwrap();
    }

    async fn posts_that_are_written_while_their_category_goes_are_whole(world: World) {
        let moderator = world.moderator();
        let author = world.member("A");
        let category = create(&world, &moderator, "short-lived", "").await;
        let write = async |number: usize| {
            let (title, category_id) = (number.to_string(), category.id.clone());
            let request = CreatePostRequest { title, category_id, ..CreatePostRequest::default() };
            world.posts.clone().create_post(world.ask(&author, request)).await
        };
        let (written, deleted) = tokio::join!(
            futures_util::future::join_all((0..8).map(write)),
            delete(&world, &moderator, &category.id, ""),
        );
        deleted.unwrap();
        for outcome in written {
            match outcome {
                Ok(post) => {
                    let request = world.ask(&author, GetPostRequest { post_id: post.into_inner().id });
                    assert_eq!(world.posts.clone().get_post(request).await.unwrap().into_inner().category_id, "");
                }
                refused => assert_eq!(refusal(refused), (Reason::InvalidFields, vec!["categoryId".to_owned()])),
            }
        }
    }

    async fn an_import_finds_its_category_by_name_or_makes_it(world: World) {
        let admin = world.admin();
        let known = create(&world, &admin, "Core Team", "").await;
        let post = |number: i32, category: &str| ImportPostsRequest {
            source_id: format!("post-{number}"),
            title: format!("Post {number}"),
            publish_time: Some(prost_types::Timestamp { seconds: 1_600_000_000, nanos: 0 }),
            category: category.to_owned(),
            ..ImportPostsRequest::default()
        };
        let posts = vec![post(1, "Core Team"), post(2, "core  team"), post(3, "새 팀"), post(4, "새 팀"), post(5, "\u{7}")];
        let answer = world.posts.clone().import_posts(world.ask(&admin, tokio_stream::iter(posts))).await.unwrap().into_inner();
        assert_eq!(answer.imported, 4, "{:?}", answer.refused);
        assert_eq!(answer.refused[0].source_id, "post-5");
        assert_eq!(tree(&world).await, "Core Team 새 팀");
        let listed = ListPostsRequest { category: known.slug, ..ListPostsRequest::default() };
        assert_eq!(world.posts.clone().list_posts(Request::new(listed)).await.unwrap().into_inner().posts.len(), 2);
    }

    async fn only_moderators_change_categories(world: World) {
        let member = world.member("A");
        let refused = client(&world).create_category(world.ask(&member, named("Mine", ""))).await;
        assert_refused(refused, Reason::RoleMissing);
        assert_refused(client(&world).create_category(Request::new(named("Mine", ""))).await, Reason::TokenMissing);
        assert_eq!(tree(&world).await, "");
    }
}
