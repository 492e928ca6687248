//! Posts are liked and seen.

use contracts::content::v1::{
    GetPostStatisticsRequest, LikePostRequest, Post, PostStatistics, RecordViewRequest, UnlikePostRequest,
};
use status::Reason;
use store::{Db, Dialect};
use tonic::Request;

use crate::on_both;
use crate::world::{World, assert_refused, eventually};

async fn statistics(world: &World, post: &Post) -> PostStatistics {
    let request = GetPostStatisticsRequest { post_id: post.id.clone() };
    world.posts.clone().get_post_statistics(Request::new(request)).await.unwrap().into_inner()
}

/// From now on keeps a row for each writing of a post's views, of which a transaction has one for each post.
async fn count_writes(db: &Db) {
    let mut tx = db.begin().await.unwrap();
    store::execute!(tx, "CREATE TABLE view_writes (views BIGINT NOT NULL)").await.unwrap();
    let body = "INSERT INTO view_writes VALUES (NEW.views);";
    let trigger = match db.dialect() {
        Dialect::Sqlite => {
            format!("CREATE TRIGGER view_writes AFTER UPDATE OF views ON post_statistics BEGIN {body} END")
        }
        Dialect::Postgres => {
            let function = format!(
                "CREATE FUNCTION note_views() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body} RETURN NEW; END'"
            );
            store::execute!(tx, function).await.unwrap();
            "CREATE TRIGGER view_writes AFTER UPDATE OF views ON post_statistics FOR EACH ROW EXECUTE FUNCTION note_views()".to_owned()
        }
    };
    store::execute!(tx, trigger).await.unwrap();
    tx.commit().await.unwrap();
}

async fn writes(db: &Db) -> i64 {
    let mut conn = db.read().await.unwrap();
    store::fetch_scalar!(conn, i64, "SELECT count(*) FROM view_writes").await.unwrap()
}

on_both! {
    async fn a_person_likes_a_post_once(world: World) {
        let [a, b] = [world.member("A"), world.member("B")];
        let mut posts = world.posts.clone();
        let post = world.published(&a, "Title", "").await;
        let like = || LikePostRequest { post_id: post.id.clone() };
        let unlike = || UnlikePostRequest { post_id: post.id.clone() };
        for _ in 0..2 {
            assert_eq!(posts.like_post(world.ask(&a, like())).await.unwrap().into_inner().likes, 1);
        }
        assert_eq!(posts.like_post(world.ask(&b, like())).await.unwrap().into_inner().likes, 2);
        for _ in 0..2 {
            assert_eq!(posts.unlike_post(world.ask(&a, unlike())).await.unwrap().into_inner().likes, 1);
        }
        assert_eq!(statistics(&world, &post).await, PostStatistics { views: 0, likes: 1 });
        let draft = world.draft(&a, "Draft", "").await;
        assert_refused(posts.like_post(world.ask(&b, LikePostRequest { post_id: draft.id })).await, Reason::NotFound);
    }

    async fn every_view_counts_one_and_shows_soon(world: World) {
        let author = world.member("A");
        let post = world.published(&author, "Title", "").await;
        let callers = (0..8).map(|_| {
            let (mut posts, id) = (world.posts.clone(), post.id.clone());
            tokio::spawn(async move {
                for _ in 0..50 {
                    posts.record_view(RecordViewRequest { post_id: id.clone() }).await.unwrap();
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        eventually("the views show", async || statistics(&world, &post).await.views == 400).await;
        let draft = world.draft(&author, "Draft", "").await;
        assert_refused(world.posts.clone().record_view(RecordViewRequest { post_id: draft.id }).await, Reason::NotFound);
    }

    async fn ten_thousand_views_cost_less_than_fifty_transactions(world: World) {
        let author = world.member("A");
        let post = world.published(&author, "Title", "").await;
        world.meanwhile(count_writes).await;
        let callers = (0..16).map(|_| {
            let (mut posts, id) = (world.posts.clone(), post.id.clone());
            tokio::spawn(async move {
                for _ in 0..625 {
                    posts.record_view(RecordViewRequest { post_id: id.clone() }).await.unwrap();
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        eventually("the views show", async || statistics(&world, &post).await.views == 10_000).await;
        let writes = world.meanwhile(writes).await;
        assert!((1..50).contains(&writes), "{writes}");
    }

    async fn views_that_wait_are_written_when_the_service_ends(world: World) {
        let author = world.member("A");
        let post = world.published(&author, "Title", "").await;
        for _ in 0..3 {
            world.posts.clone().record_view(RecordViewRequest { post_id: post.id.clone() }).await.unwrap();
        }
        world.restart().await;
        assert_eq!(statistics(&world, &post).await.views, 3);
    }
}
